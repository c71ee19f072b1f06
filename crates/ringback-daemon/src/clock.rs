//! The one place that reads the system's clock; everything else takes the time as an argument.

use std::time::SystemTime;

use ringback_model::Timestamp;

/// The time now. A system clock before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the binary's clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
