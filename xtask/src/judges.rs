//! Other people's webhook libraries, which judge our signatures: a Python environment and npm packages.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::{command, root, run};
use crate::setup::{installed, npm_ci};

/// The directory with `venv/` and `node_modules/`.
pub(crate) fn provide() -> Result<PathBuf> {
    let place = root().join("crates/ringback-webhook/tests/conformance");
    let lists = ["requirements.txt", "package.json", "package-lock.json"].map(|list| place.join(list));
    installed("judges", &lists, |dir| {
        run(command("python3", &["-m", "venv", "--clear", "venv"]).current_dir(dir))?;
        let args = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=5"];
        let mut pip = command(dir.join("venv/bin/python"), &args);
        run(pip.args(["--requirement", "requirements.txt"]).current_dir(dir))?;
        npm_ci(dir)
    })
}
