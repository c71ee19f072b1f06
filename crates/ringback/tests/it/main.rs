//! The program from outside: real processes, real sockets, a home of its own.
#![expect(clippy::expect_used, reason = "a panic is how a test says that it failed")]

mod acp_runs;
mod api;
mod background;
#[cfg(target_os = "linux")]
mod benches;
mod cli;
mod codex_runs;
mod crash;
mod deliver;
mod doctor;
mod end_to_end;
mod entries;
mod events;
#[cfg(target_os = "linux")]
mod faults;
mod formats;
mod guard;
mod hook_commands;
mod hook_flow;
mod hooks;
mod hostile;
mod inbound;
mod limits;
mod operator;
mod promises;
mod reload;
mod transcript;
mod worktree;

use std::path::Path;
use std::time::Duration;

/// The program under test.
fn ringback() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringback"))
}

/// How long anything may take before the test gives up. No test waits this long when all is well.
const DEADLINE: Duration = Duration::from_secs(60);
