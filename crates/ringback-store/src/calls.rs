//! What is remembered of the calls of hooks, for whoever looks why one did what it did.
//!
//! Owns: the [`Calls`] trait. Which calls are remembered, and what of them, is decided elsewhere. Nothing follows from
//! this memory: runs and the keys of calls are the [`Ledger`](crate::Ledger)'s.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use ringback_model::Timestamp;
use ringback_model::hook_call::HookCall;

use crate::{Cursor, Error, Page};

/// Calls that are remembered of one hook; the oldest goes first.
pub const MAX_CALLS: usize = 200;

/// The memory of calls, in the same engines and with the same promises as [`Store`](crate::Store).
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Remembers a call. Of its hook's calls only the newest [`MAX_CALLS`] stay.
    async fn keep_call(&self, call: HookCall) -> Result<CallId, Error>;

    /// Lists calls without their bodies, the newest first.
    async fn calls(&self, query: CallQuery) -> Result<Page<(CallId, HookCall)>, Error>;

    /// Returns one call with its body; `None` = there is none (or no longer).
    async fn call(&self, id: CallId) -> Result<Option<HookCall>, Error>;

    /// Forgets the calls that came before `before`, and returns how many.
    async fn prune_calls(&self, before: Timestamp) -> Result<u64, Error>;
}

/// Names a remembered call. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub(crate) i64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no id of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a call is a whole number")]
pub struct NotACallId;

impl FromStr for CallId {
    type Err = NotACallId;

    fn from_str(s: &str) -> Result<Self, NotACallId> {
        s.parse().map(CallId).map_err(|_| NotACallId)
    }
}

/// Which calls to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallQuery {
    /// Only of this hook.
    pub hook: Option<String>,
    /// Rows of one page, moved into `1..=1000`.
    pub limit: usize,
    /// Where the page before ended; `None` = from the newest.
    pub cursor: Option<Cursor>,
}

impl CallQuery {
    pub(crate) fn page_size(&self) -> usize {
        self.limit.clamp(1, 1000)
    }
}

impl Default for CallQuery {
    /// The newest hundred of all hooks.
    fn default() -> Self {
        CallQuery { hook: None, limit: 100, cursor: None }
    }
}
