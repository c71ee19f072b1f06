//! Standard Webhooks and Svix, which differ in the names of the headers only.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use base64::Engine;
use ed25519_dalek::{Signature, VerifyingKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use ringback_model::{Secret, Timestamp};

use super::prove::{Parts, TRIAL_ID};
use super::{Incoming, Refused, Unusable, headers};
use crate::request;
use crate::sign::{self, Key, LENIENT};
use crate::verify::{Invalid, TOLERANCE, verify};

/// The three headers of a request.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) id: HeaderName,
    pub(super) timestamp: HeaderName,
    pub(super) signature: HeaderName,
}

/// As the specification has them.
pub(super) const WEBHOOK: Names = Names {
    id: HeaderName::from_static(request::ID),
    timestamp: HeaderName::from_static(request::TIMESTAMP),
    signature: HeaderName::from_static(request::SIGNATURE),
};

/// As Svix sends them.
pub(super) const SVIX: Names = Names {
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

/// Prefix of a public key, which is base64.
const PUBLIC_PREFIX: &str = "whpk_";

/// The secrets of a sender, and its public keys.
#[derive(Debug)]
pub(super) struct Standard {
    keys: Vec<Key>,
    public: Vec<VerifyingKey>,
}

impl Names {
    /// Whether any of the three is there: then all have to be.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        [&self.id, &self.timestamp, &self.signature].into_iter().any(|name| headers.contains_key(name))
    }

    /// Id, timestamp and signatures.
    fn read<'a>(&self, all: &'a HeaderMap) -> Result<(&'a str, &'a str, &'a str), Refused> {
        // An empty one is none: partial sets are refused.
        let one = |name: &HeaderName| {
            headers::one(all, name).and_then(|text| match text {
                "" => Err(Refused::Missing(name.clone())),
                text => Ok(text),
            })
        };
        Ok((one(&self.id)?, one(&self.timestamp)?, one(&self.signature)?))
    }
}

impl Standard {
    /// Secrets are `whsec_` and base64, or raw; `whpk_` and base64 is an Ed25519 public key.
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, Unusable> {
        let mut standard = Standard { keys: Vec::new(), public: Vec::new() };
        for secret in secrets {
            match secret.reveal().strip_prefix(PUBLIC_PREFIX) {
                Some(encoded) => standard.public.push(public_key(encoded)?),
                None => standard.keys.push(Key::new(secret)),
            }
        }
        Ok(standard)
    }

    pub(super) fn has_secret(&self) -> bool {
        !self.keys.is_empty() || !self.public.is_empty()
    }

    pub(super) fn check(&self, request: &Incoming<'_>, now: Timestamp) -> Result<(), Refused> {
        if !self.has_secret() {
            return Err(Refused::NoSecret);
        }
        let all = request.headers;
        let names = if !WEBHOOK.is_in(all) && SVIX.is_in(all) { SVIX } else { WEBHOOK };
        let given = names.read(all);
        let now_text = now.as_seconds().to_string();
        // What is missing is told after the hashing, so that it takes as long as what is wrong.
        let (id, timestamp, signatures) = given.as_ref().copied().unwrap_or(("", &now_text, ""));
        let renamed: HeaderMap =
            [(WEBHOOK.id, id), (WEBHOOK.timestamp, timestamp), (WEBHOOK.signature, signatures)]
                .into_iter()
                .filter_map(|(name, text)| Some((name, HeaderValue::from_str(text).ok()?)))
                .collect();
        let verdict = verify(&renamed, request.body, &self.keys, now, TOLERANCE).standard;
        given.as_ref().map_err(Refused::clone)?;
        match verdict {
            Ok(()) => Ok(()),
            // The time is in order when only the signature is not.
            Err(Invalid::NoMatch) if self.is_signed(id, timestamp, request.body, signatures) => Ok(()),
            Err(Invalid::NoMatch) => Err(Refused::NoMatch),
            Err(Invalid::BadTimestamp) => Err(Refused::BadTimestamp),
            Err(Invalid::OutsideTolerance) => Err(Refused::OutsideTolerance),
            Err(Invalid::Missing(_)) => Err(Refused::Missing(names.signature)),
        }
    }

    /// The three headers, by the first secret; `None`: there are public keys only.
    pub(super) fn prove(&self, request: &Incoming<'_>, now: Timestamp) -> Option<Parts> {
        let key = self.keys.first()?;
        let names = if SVIX.is_in(request.headers) { SVIX } else { WEBHOOK };
        let id = headers::one(request.headers, &names.id).unwrap_or(TRIAL_ID).to_owned();
        let seconds = now.as_seconds();
        let signature = sign::standard(std::slice::from_ref(key), &id, seconds, request.body)?;
        let proof =
            vec![(names.id, id), (names.timestamp, seconds.to_string()), (names.signature, signature)];
        Some((proof, None))
    }

    /// Whether one of the `v1a` signatures is by one of the public keys.
    fn is_signed(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        if self.public.is_empty() {
            return false;
        }
        let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        signatures
            .split(' ')
            .filter_map(|signature| LENIENT.decode(signature.strip_prefix("v1a,")?).ok())
            .filter_map(|bytes| Signature::from_slice(&bytes).ok())
            .any(|signature| self.public.iter().any(|key| key.verify_strict(&message, &signature).is_ok()))
    }
}

fn public_key(encoded: &str) -> Result<VerifyingKey, Unusable> {
    let bytes = LENIENT.decode(encoded).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or(Unusable::NotAPublicKey("whpk_ and 32 bytes in base64"))
}
