//! The two signature schemes (outbound.md, "Request"): lazyagent's hex over the body, and Standard Webhooks v1.
//!
//! Source: <https://www.standardwebhooks.com>, specification 1.0.0.

use std::fmt;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use ringback_model::Secret;
use sha2::Sha256;

/// The bytes of one secret, ready to sign. `Debug` shows three asterisks.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

/// Length of an HMAC-SHA256 in bytes.
pub(crate) const MAC_BYTES: usize = 32;

/// Prefix of a secret that is base64.
const ENCODED_PREFIX: &str = "whsec_";

/// Base64 with or without padding.
pub(crate) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Key {
    /// Reads a secret: after `whsec_` comes base64 (padding optional) for both schemes, anything else is taken as
    /// its raw bytes. A `whsec_` secret that is no base64, or of nothing, is raw bytes too, prefix included: an
    /// unusual secret must still sign, and an empty key would sign for everybody.
    pub fn new(secret: &Secret) -> Self {
        let text = secret.reveal();
        let decoded = text
            .strip_prefix(ENCODED_PREFIX)
            .and_then(|encoded| LENIENT.decode(encoded).ok())
            .filter(|bytes| !bytes.is_empty());
        Key(decoded.unwrap_or_else(|| text.as_bytes().to_vec()).into())
    }

    /// Reads a list of secrets, in order.
    pub fn all(secrets: &[Secret]) -> Vec<Self> {
        secrets.iter().map(Key::new).collect()
    }

    /// HMAC-SHA256 over the parts in a row.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        #[expect(clippy::expect_used, reason = "HMAC is defined for a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The MAC of the lazyagent scheme.
    pub(crate) fn lazyagent_mac(&self, body: &[u8]) -> [u8; MAC_BYTES] {
        self.mac(&[body])
    }

    /// The MAC of Standard Webhooks v1; `timestamp` as it stands in the header.
    pub(crate) fn standard_mac(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; MAC_BYTES] {
        self.mac(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The value of `X-Lazyagent-Signature`: `sha256=` and the lower-case hex of the body's MAC under the first key.
/// `None` without a key.
pub fn lazyagent(keys: &[Key], body: &[u8]) -> Option<String> {
    let mac = keys.first()?.lazyagent_mac(body);
    Some(format!("sha256={}", hex::encode(mac)))
}

/// The value of `webhook-signature`: one `v1,BASE64` per key, in order, separated by spaces. `None` without a key.
///
/// `id` is the event's id, `timestamp` the attempt's time in whole Unix seconds.
pub fn standard(keys: &[Key], id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    if keys.is_empty() {
        return None;
    }
    let timestamp = timestamp.to_string();
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| format!("v1,{}", STANDARD.encode(key.standard_mac(id, &timestamp, body))))
        .collect();
    Some(signatures.join(" "))
}
