//! `POST /hook/agent`: from the bytes of a call to what was asked, or the refusal to answer with.
//!
//! Owns: the fields of a call, their defaults and checks, and the status and body of every refusal (inbound.md,
//! "POST /hook/agent"). Does not know HTTP libraries, authentication, rates or the journal: the listener asks those
//! first and passes the body here. An accepted [`Call`] becomes a [`Run`](crate::run::Run).

pub mod bounds;
pub mod json;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::escape;
use crate::updates::UpdatePolicy;

/// What a caller asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The task, as it was sent; has at least one character that is no white space.
    pub message: String,
    /// Who calls: 1 to 64 of `[A-Za-z0-9._-]`.
    pub source: String,
    /// Run without the main session's history.
    pub isolated: bool,
    /// Alias or id of a model; `None` = the agent's own.
    pub model: Option<String>,
    /// Let the model think.
    pub thinking: bool,
    /// Give the run the tools that reach the user.
    pub allow_ping: bool,
    /// What the run owes the main session.
    pub update_main_session: UpdatePolicy,
    /// A configured agent; `None` = the configured default.
    pub agent: Option<String>,
    /// A configured workspace; `None` = the configured default.
    pub workspace: Option<String>,
}

/// The names that a call may use.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Agents, built in or configured.
    pub agents: BTreeSet<String>,
    /// Configured workspaces.
    pub workspaces: BTreeSet<String>,
}

/// Why a call is not accepted. The text is the `error` of the answer's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No or wrong credentials.
    #[error("unauthorized")]
    Unauthorized,
    /// See [`json::InvalidJson`]; also JSON that is no object.
    #[error("invalid json")]
    InvalidJson,
    /// No message, an empty one, or no string.
    #[error("message required")]
    MessageRequired,
    /// A string that the field does not take.
    #[error("invalid {field}: {value}")]
    InvalidValue {
        /// The field's name.
        field: &'static str,
        /// What was sent, hidden characters escaped, at most 64 characters.
        value: String,
    },
    /// A value that is no string or no boolean; null is neither.
    #[error("invalid {field}: expected {expected}")]
    WrongType {
        /// The field's name.
        field: &'static str,
        /// `string` or `boolean`.
        expected: &'static str,
    },
    /// The body is over its limit.
    #[error("payload too large")]
    PayloadTooLarge,
    /// No such path.
    #[error("not found")]
    NotFound,
    /// No such method on this path.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Over a rate, over the queue's bound, or over the day's money.
    #[error("too many requests")]
    TooManyRequests {
        /// How long to wait before another try.
        wait: Duration,
    },
    /// The agent's program cannot be found.
    #[error("agent not available: {0}")]
    AgentNotAvailable(String),
    /// The journal cannot be written.
    #[error("storage unavailable")]
    StorageUnavailable,
}

impl Refusal {
    /// The answer's HTTP status.
    pub const fn status(&self) -> u16 {
        match self {
            Refusal::InvalidJson
            | Refusal::MessageRequired
            | Refusal::InvalidValue { .. }
            | Refusal::WrongType { .. } => 400,
            Refusal::Unauthorized => 401,
            Refusal::NotFound => 404,
            Refusal::MethodNotAllowed => 405,
            Refusal::PayloadTooLarge => 413,
            Refusal::TooManyRequests { .. } => 429,
            Refusal::AgentNotAvailable(_) | Refusal::StorageUnavailable => 503,
        }
    }

    /// Seconds of the answer's `Retry-After`, rounded up and at least one; `None` = it has none.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Refusal::TooManyRequests { wait } => {
                Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
            }
            Refusal::StorageUnavailable => Some(30),
            _ => None,
        }
    }

    /// The answer's body: `{"error":"…"}`.
    pub fn body(&self) -> String {
        format!("{{\"error\":{}}}", Value::String(self.to_string()))
    }
}

impl From<json::InvalidJson> for Refusal {
    fn from(_: json::InvalidJson) -> Self {
        Refusal::InvalidJson
    }
}

/// Source of a call that names none.
pub const DEFAULT_SOURCE: &str = "webhook";
/// Characters shown of a refused value.
pub const SHOWN_CHARS: usize = 64;

/// Reads the body of a call.
///
/// Of several mistakes the first is told: invalid JSON, then the message, then the other fields in the contract's
/// order. A field that is null is there and has the wrong type. Unknown fields are ignored; words and names are
/// compared exactly.
pub fn parse_call(body: &[u8], known: &Known) -> Result<Call, Refusal> {
    let Value::Object(fields) = json::read(body)? else { return Err(Refusal::InvalidJson) };
    let fields = Fields(&fields);
    Ok(Call {
        message: fields.message()?,
        source: fields.text("source", is_source)?.unwrap_or(DEFAULT_SOURCE).to_owned(),
        isolated: fields.flag("isolated", false)?,
        model: fields.text("model", is_model)?.map(str::to_owned),
        thinking: fields.flag("thinking", true)?,
        allow_ping: fields.flag("allow_ping", true)?,
        update_main_session: fields
            .text("update_main_session", |word| policy(word).is_some())?
            .and_then(policy)
            .unwrap_or_default(),
        agent: fields.text("agent", |name| known.agents.contains(name))?.map(str::to_owned),
        workspace: fields.text("workspace", |name| known.workspaces.contains(name))?.map(str::to_owned),
    })
}

/// A key by which a repeated call is recognised: 1 to 255 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the value of an `Idempotency-Key` header; `None` when it is empty, too long or not printable ASCII.
pub fn idempotency_key(value: &[u8]) -> Option<IdempotencyKey> {
    let printable = value.iter().all(|b| matches!(b, b' '..=b'~'));
    if !printable || !(1..=255).contains(&value.len()) {
        return None;
    }
    std::str::from_utf8(value).ok().map(|text| IdempotencyKey(text.to_owned()))
}

/// Whether a text can be the source of a run: 1 to 64 of `[A-Za-z0-9._-]`.
pub fn is_source(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a text can name a model: an alias, or an id of the form `[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}`. The first
/// character keeps it from being read as an option where it becomes an argument.
pub fn is_model(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().enumerate().all(|(i, b)| {
            b.is_ascii_alphanumeric() || (i > 0 && matches!(b, b'.' | b'_' | b':' | b'/' | b'-'))
        })
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn message(&self) -> Result<String, Refusal> {
        match self.0.get("message") {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            _ => Err(Refusal::MessageRequired),
        }
    }

    fn text(
        &self,
        field: &'static str,
        is_valid: impl FnOnce(&str) -> bool,
    ) -> Result<Option<&'a str>, Refusal> {
        match self.0.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if is_valid(text) => Ok(Some(text)),
            Some(Value::String(text)) => {
                Err(Refusal::InvalidValue { field, value: escape::escaped_and_cut(text, SHOWN_CHARS) })
            }
            Some(_) => Err(Refusal::WrongType { field, expected: "string" }),
        }
    }

    fn flag(&self, field: &'static str, default: bool) -> Result<bool, Refusal> {
        match self.0.get(field) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(Refusal::WrongType { field, expected: "boolean" }),
        }
    }
}

fn policy(word: &str) -> Option<UpdatePolicy> {
    UpdatePolicy::ALL.iter().copied().find(|policy| policy.as_str() == word)
}
