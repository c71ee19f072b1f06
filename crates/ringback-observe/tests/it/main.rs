//! The observer against recordings of real agents, and against files that nobody would write on purpose.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot set up its case fails")]

mod accuracy;
mod files;
mod history;
mod live;
#[cfg(target_os = "linux")]
mod memory;
mod registry;
mod restart;
mod watch;
mod world;
