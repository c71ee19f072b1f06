//! Background agent runs: one headless execution of a real agent, from its start to the last process of it.
//!
//! Owns: how an agent is started ([`Spec`], [`start`]), what it may see of our environment ([`Environment`]), what
//! its output says ([`Progress`], [`TurnResult`]), when and how it is made to stop ([`Order`], [`Limits`]), how it
//! ended ([`Outcome`]), and what to do with what a killed ringback left behind ([`recover`]).
//!
//! Deliberately absent: the store, HTTP, the configuration, the words of the prompt, and which run is next. The
//! caller journals a run before it starts it and its [`Outcome`] after it; a run that fails is a value, not an error.

mod spec;

mod environment;
mod program;

mod dialect;
mod process;
mod runner;

mod acp;
mod capture;
mod claude;
mod codex;
mod family;
mod outcome;
mod unenforced;

mod worktree;

pub use claude::claude_argv;
pub use codex::codex_may_write;
pub use environment::Environment;
pub use family::{Leader, recover};
pub use outcome::{End, Outcome, Progress, Tokens, TurnResult};
pub use program::{find_program, version};
pub use runner::{Host, Order, Running, start};
pub use spec::{Adapter, Limits, Mcp, Session, Spec, StartError, is_model_id, is_tool_name};
pub use worktree::{Settled, Worktree, WorktreeError};
