//! Discord's interactions: Ed25519 over the timestamp and the body.
//!
//! Source: <https://discord.com/developers/docs/interactions/overview>, "Setting up an endpoint".

use ed25519_dalek::{Signature, VerifyingKey};
use http::HeaderName;
use ringback_model::{Secret, Timestamp};

use super::signed::{Unit, within};
use super::{Incoming, Refused, Unusable, headers};
use crate::verify::TOLERANCE;

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature-ed25519");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-signature-timestamp");

/// The public keys of the application.
#[derive(Debug)]
pub(super) struct Discord(Vec<VerifyingKey>);

impl Discord {
    /// Keys are hex, as the developer portal shows them.
    pub(super) fn new(keys: &[Secret]) -> Result<Self, Unusable> {
        keys.iter().map(public_key).collect::<Result<_, _>>().map(Discord)
    }

    pub(super) fn has_secret(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn check(&self, request: &Incoming<'_>, now: Timestamp) -> Result<(), Refused> {
        if self.0.is_empty() {
            return Err(Refused::NoSecret);
        }
        let signature = headers::one(request.headers, &SIGNATURE)?;
        let timestamp = headers::one(request.headers, &TIMESTAMP)?;
        let signature = hex::decode(signature).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
        let signature = signature.ok_or(Refused::NoMatch)?;
        let message = [timestamp.as_bytes(), request.body].concat();
        if !self.0.iter().any(|key| key.verify_strict(&message, &signature).is_ok()) {
            return Err(Refused::NoMatch);
        }
        within(timestamp, Unit::Seconds, TOLERANCE, now)
    }
}

fn public_key(text: &Secret) -> Result<VerifyingKey, Unusable> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.reveal(), &mut bytes)
        .ok()
        .and_then(|()| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or(Unusable::NotAPublicKey("the application's public key in hex"))
}
