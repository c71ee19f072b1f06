//! From the files that coding agents keep of their sessions to what the sessions do.
//!
//! Owns: finding the files, reading what was added, one adapter per agent, and telling each change of activity once,
//! in order. The rules that decide the activity are `ringback_model::activity`.
//!
//! Deliberately absent: tokio, network, storage, and a clock: every call names its instant. Agents' files are never
//! written to. In reading order: [`observer`] is the whole of it as function calls, [`watch`] the thread around it.

pub mod observer;
pub mod watch;

mod adapter;
mod discover;
mod ledger;
mod lenient;
mod memory;
mod registry;
mod session;
mod transcript;
mod worktree;

pub mod elide;
pub mod price;
pub mod process;
pub mod replay;
pub mod tail;

pub use memory::Memory;
pub use observer::{Config, Observer};
pub use process::{ProcFs, ProcessTable};
pub use session::{Seen, Sighted, Snapshot};
pub use transcript::Backfill;
