//! `cargo xtask docs`: the API documentation, with broken links denied.

use anyhow::Result;

use crate::run::{self, cargo};

/// Builds the documentation of the workspace's own crates.
pub(crate) fn run() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--profile", "ci", "--locked"]);
    run::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
