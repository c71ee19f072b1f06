//! The headers of a delivery (outbound.md, "Request").

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use ringback_model::event::EventKind;
use ringback_model::{EventId, Timestamp};

use crate::sign::{self, Key};

/// Name of the header with the kind of event.
pub const EVENT: &str = "x-lazyagent-event";
/// Name of the header with the event's id.
pub const DELIVERY: &str = "x-lazyagent-delivery";
/// Name of the header with the lazyagent signature.
pub const LAZYAGENT_SIGNATURE: &str = "x-lazyagent-signature";
/// Name of the Standard Webhooks header with the event's id.
pub const ID: &str = "webhook-id";
/// Name of the Standard Webhooks header with the attempt's time in Unix seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Name of the Standard Webhooks header with the signatures.
pub const SIGNATURE: &str = "webhook-signature";
/// Name of the header with the attempt's number, from 1.
pub const ATTEMPT: &str = "x-ringback-attempt";

/// The `User-Agent` of every request.
pub const AGENT: &str = concat!("ringback/", env!("CARGO_PKG_VERSION"));

/// The names as a map of headers has them: made here, they are not read again for each attempt.
mod name {
    use http::HeaderName;

    pub(super) const EVENT: HeaderName = HeaderName::from_static(super::EVENT);
    pub(super) const DELIVERY: HeaderName = HeaderName::from_static(super::DELIVERY);
    pub(super) const LAZYAGENT_SIGNATURE: HeaderName = HeaderName::from_static(super::LAZYAGENT_SIGNATURE);
    pub(super) const ID: HeaderName = HeaderName::from_static(super::ID);
    pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static(super::TIMESTAMP);
    pub(super) const SIGNATURE: HeaderName = HeaderName::from_static(super::SIGNATURE);
    pub(super) const ATTEMPT: HeaderName = HeaderName::from_static(super::ATTEMPT);
}

/// One attempt to deliver one event.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// The endpoint's secrets, newest first; empty = unsigned.
    pub keys: &'a [Key],
    /// The event.
    pub event_id: EventId,
    /// What kind of event.
    pub kind: EventKind,
    /// The exact bytes that go on the wire.
    pub body: &'a [u8],
    /// 1-based.
    pub attempt: u32,
    /// When this attempt is made.
    pub at: Timestamp,
}

impl Post<'_> {
    /// The full header set. Without a secret there is no signature and no `webhook-*` header.
    pub fn headers(&self) -> HeaderMap {
        // Room for the few that an endpoint adds.
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(name::EVENT, HeaderValue::from_static(kind_name(self.kind)));
        let id = self.event_id.to_string();
        headers.insert(name::DELIVERY, text(id.clone()));
        headers.insert(name::ATTEMPT, HeaderValue::from(self.attempt));
        if let Some(signature) = sign::lazyagent(self.keys, self.body) {
            headers.insert(name::LAZYAGENT_SIGNATURE, text(signature));
        }
        if let Some(signatures) = sign::standard(self.keys, &id, self.at.as_seconds(), self.body) {
            headers.insert(name::ID, text(id));
            headers.insert(name::TIMESTAMP, HeaderValue::from(self.at.as_seconds()));
            headers.insert(name::SIGNATURE, text(signatures));
        }
        headers
    }
}

/// The same word as the body's `event`.
fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::StateTransition => "state_transition",
        EventKind::Ping => "ping",
        EventKind::Message => "message",
    }
}

#[expect(clippy::expect_used, reason = "ids, hex and base64 are ASCII without control characters")]
fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("a UUID, hex or base64 is a legal header value")
}
