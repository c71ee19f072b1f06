//! The kit against itself and against the real agents.
#![expect(clippy::unwrap_used, reason = "tests")]

mod agents;
mod home;
mod receiver;
