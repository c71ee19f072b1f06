//! The time, for records that are written as an agent writes them.

use ringback_model::Timestamp;

/// The present.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loads are written by this program, not by ringback")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
