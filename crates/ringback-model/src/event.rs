//! What happened: the immutable record that endpoints are told.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::activity::{Activity, Reason};
use crate::ids::{Agent, EventId, SessionId};
use crate::time::Timestamp;

/// One change of a session's activity, in the shape of the `json` format (outbound.md, "The event"): serialising
/// it gives the body, field by field in the contract's order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same for every endpoint and every attempt.
    pub id: EventId,
    /// What kind of event.
    pub event: EventKind,
    /// The session.
    pub session_id: SessionId,
    /// Its agent.
    pub agent: Agent,
    /// Activity before.
    pub from: Activity,
    /// Activity after.
    pub to: Activity,
    /// Working directory of the session.
    pub project_path: String,
    /// When the change happened, RFC 3339 UTC.
    pub timestamp: Timestamp,
    /// Links; present whenever the API listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiLinks>,
    /// Rises by one per event of the session, from 1, without gaps.
    pub sequence: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Host name of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The session's name: the user's, else the agent's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    /// Model of the newest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Git branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_branch: Option<String>,
    /// Milliseconds spent in `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The run, when ringback started the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// Source of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A session's activity changed.
    StateTransition,
    /// A test sent by the operator.
    Ping,
    /// A message to the user, for the notifiers; its body has a shape of its own.
    Message,
}

/// Links into the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiLinks {
    /// The session's page.
    pub session_url: String,
}
