//! Runs from the outside: real processes, shell scripts as agents, and Claude Code itself.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the functions that the tests share fail a test by panicking"
)]

mod acp;
mod claude;
mod command;
mod kit;
mod recovery;
