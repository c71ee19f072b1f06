//! A call of a declared hook as it is remembered: what came, and what became of it.
//!
//! Owns: the record and its words. Only calls are remembered whose sender was believed, and nothing of their proof.

use serde::{Deserialize, Serialize};

use crate::ids::words;
use crate::run::RunId;
use crate::time::Timestamp;

/// The longest body that is remembered, in bytes.
pub const MAX_KEPT_BODY: usize = 256 << 10;

words! {
    /// What became of a call.
    CallOutcome, "outcome of a call" {
        /// It started a run.
        Accepted = "accepted",
        /// It became part of a run that was gathering calls about the same.
        Merged = "merged",
        /// The user was told what the hook has to say; there is no run.
        Told = "told",
        /// It was accepted before: nothing was started.
        Repeated = "repeated",
        /// The hook was not interested.
        Ignored = "ignored",
        /// It got an error.
        Refused = "refused",
        /// It was a question about the endpoint, and was answered.
        Challenge = "challenge",
    }
}

/// A believed call. As JSON all but its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// The hook's slug.
    pub hook: String,
    /// When it came.
    pub at: Timestamp,
    /// The sender's name for what happened.
    pub event: Option<String>,
    /// The sender's name for the delivery.
    pub delivery_id: Option<String>,
    /// What became of it.
    pub outcome: CallOutcome,
    /// The status of the answer.
    pub status: u16,
    /// What a refused call was told: the answer's body.
    pub error: Option<String>,
    /// The run that it started or became part of, or that an earlier one like it had started.
    pub run: Option<RunId>,
    /// The headers that carry no proof, in lower case.
    pub headers: Vec<(String, String)>,
    /// What followed the question mark.
    pub query: Option<String>,
    /// Length of the body as it came, in bytes.
    pub body_bytes: u64,
    /// The body; `None`: it was longer than [`MAX_KEPT_BODY`], was not read, or was not asked for.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
}
