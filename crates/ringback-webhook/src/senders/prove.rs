//! The other side: a request proven as its sender would, with the hook's own secret, so that a hook can be tried.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use ringback_model::Timestamp;

use super::{Incoming, Proof, Scheme, Unit};

/// A request with its proof.
#[derive(Debug)]
pub struct Proven {
    /// All headers, those of the proof among them.
    pub headers: HeaderMap,
    /// The body. Another one than before where the sender signs a time in it.
    pub body: Vec<u8>,
}

/// Why nothing can be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprovable {
    /// There is no secret to prove it with.
    #[error("the hook has no secret")]
    NoSecret,
    /// The hook has a public key: it can verify, and only the sender can sign.
    #[error("the hook has its sender's public key, with which nobody can sign")]
    OnlyTheSender,
}

/// The parts of a proof: headers, and the body where it had to be changed.
pub(super) type Parts = (Vec<(HeaderName, String)>, Option<Vec<u8>>);

/// The id of a request that has none, where the sender signs one.
pub(super) const TRIAL_ID: &str = "msg_trial";

impl Scheme {
    /// Proves a request as its sender would at `now`, with the first secret. Its own headers stay; those of a proof
    /// are replaced.
    ///
    /// # Errors
    /// There is nothing to prove it with.
    pub fn prove(&self, request: &Incoming<'_>, now: Timestamp) -> Result<Proven, Unprovable> {
        if !self.has_secret() {
            return Err(Unprovable::NoSecret);
        }
        let parts = match &self.proof {
            Proof::Nothing => Some((Vec::new(), None)),
            Proof::Token(token) => token.prove(),
            Proof::Hmac(signed) => signed.prove(request, now),
            Proof::Gitlab { token, signing } => token.prove().or_else(|| signing.prove(request, now)),
            Proof::Standard(standard) => standard.prove(request, now),
            Proof::Twilio(twilio) => twilio.prove(request),
            Proof::Discord(_) => None,
        };
        let (proof, body) = parts.ok_or(Unprovable::OnlyTheSender)?;
        let mut headers = request.headers.clone();
        for (name, value) in proof {
            // A secret that no header can hold proves nothing, here as at the sender.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        Ok(Proven { headers, body: body.unwrap_or_else(|| request.body.to_vec()) })
    }

    /// The header in which the sender names the event; `None`: it says so in the body, or nowhere.
    pub fn event_header(&self) -> Option<&HeaderName> {
        self.event.iter().find_map(|source| match source {
            super::Source::Header(name) => Some(name),
            _ => None,
        })
    }
}

impl Unit {
    /// An instant as senders write it.
    pub(super) fn written(self, at: Timestamp) -> String {
        match self {
            Unit::Seconds => at.as_seconds().to_string(),
            Unit::Milliseconds => at.as_millis().to_string(),
        }
    }
}

/// The JSON object with a number in one of its fields; what is no object stays as it is.
pub(super) fn with_number(body: &[u8], field: &str, number: &str) -> Vec<u8> {
    let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    let (Some(mut object), Ok(number)) = (parsed, number.parse::<i64>()) else { return body.to_vec() };
    object.insert(field.to_owned(), number.into());
    serde_json::Value::Object(object).to_string().into_bytes()
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
