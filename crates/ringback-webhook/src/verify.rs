//! The receiver's side: is this request what the holder of the secret sent?
//!
//! Comparison takes the same time whatever the signature, and every key is tried against every signature, so that
//! the answer's timing tells nothing about which one was close.

use std::time::Duration;

use base64::Engine;
use http::HeaderMap;
use ringback_model::Timestamp;
use subtle::{Choice, ConstantTimeEq};

use crate::request::{ID, LAZYAGENT_SIGNATURE, SIGNATURE, TIMESTAMP};
use crate::sign::{Key, LENIENT, MAC_BYTES};

/// How far a timestamp may lie from the receiver's clock, before or after: five minutes, as in the official
/// Standard Webhooks libraries.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What each scheme says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `X-Lazyagent-Signature`: authenticity of the body, no protection against a replay.
    pub lazyagent: Result<(), Invalid>,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`: authenticity of id, time and body.
    pub standard: Result<(), Invalid>,
}

/// Why a scheme does not vouch for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A header of the scheme is not there.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// `webhook-timestamp` is no whole number of seconds.
    #[error("webhook-timestamp is not a whole number of seconds")]
    BadTimestamp,
    /// `webhook-timestamp` is too far from now.
    #[error("webhook-timestamp is outside the tolerance")]
    OutsideTolerance,
    /// No signature fits any of the secrets.
    #[error("no signature matches")]
    NoMatch,
}

impl Verdict {
    /// Whether to believe the request: the Standard Webhooks scheme decides where it is present, because only it
    /// covers the time; else the lazyagent scheme does.
    pub fn is_authentic(&self) -> bool {
        match self.standard {
            Err(Invalid::Missing(_)) => self.lazyagent.is_ok(),
            decided => decided.is_ok(),
        }
    }
}

/// Checks a request as received: `body` is the raw bytes, `keys` every secret that is good now, `now` the
/// receiver's time, `tolerance` how far the timestamp may be off in either direction ([`TOLERANCE`]).
pub fn verify(
    headers: &HeaderMap,
    body: &[u8],
    keys: &[Key],
    now: Timestamp,
    tolerance: Duration,
) -> Verdict {
    Verdict {
        lazyagent: lazyagent(headers, body, keys),
        standard: standard(headers, body, keys, now, tolerance),
    }
}

fn standard(
    headers: &HeaderMap,
    body: &[u8],
    keys: &[Key],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), Invalid> {
    let id = header(headers, ID)?;
    let timestamp = header(headers, TIMESTAMP)?;
    let signatures = header(headers, SIGNATURE)?;
    if timestamp.is_empty() || !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Invalid::BadTimestamp);
    }
    let sent_at: u64 = timestamp.parse().map_err(|_| Invalid::BadTimestamp)?;
    let now = u64::try_from(now.as_seconds()).unwrap_or(0);
    if now.abs_diff(sent_at) > tolerance.as_secs() {
        return Err(Invalid::OutsideTolerance);
    }
    let given: Vec<[u8; MAC_BYTES]> = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|encoded| LENIENT.decode(encoded).ok()?.try_into().ok())
        .collect();
    any_matches(keys.iter().map(|key| key.standard_mac(id, timestamp, body)), &given)
}

fn lazyagent(headers: &HeaderMap, body: &[u8], keys: &[Key]) -> Result<(), Invalid> {
    let given = header(headers, LAZYAGENT_SIGNATURE)?;
    let given: Vec<[u8; MAC_BYTES]> = given.strip_prefix("sha256=").and_then(from_hex).into_iter().collect();
    any_matches(keys.iter().map(|key| key.lazyagent_mac(body)), &given)
}

/// A header that is not readable text cannot match anything; it counts as empty.
fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Invalid> {
    let value = headers.get(name).ok_or(Invalid::Missing(name))?;
    Ok(value.to_str().unwrap_or(""))
}

fn any_matches(
    right: impl Iterator<Item = [u8; MAC_BYTES]>,
    given: &[[u8; MAC_BYTES]],
) -> Result<(), Invalid> {
    let mut found = Choice::from(0);
    for right in right {
        for given in given {
            found |= right.ct_eq(given);
        }
    }
    if bool::from(found) { Ok(()) } else { Err(Invalid::NoMatch) }
}

fn from_hex(text: &str) -> Option<[u8; MAC_BYTES]> {
    let mut bytes = [0; MAC_BYTES];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
