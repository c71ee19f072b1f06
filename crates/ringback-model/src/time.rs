//! An instant as the store and the wire know it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC. Shown and parsed as RFC 3339; stored as the integer, also in binary
/// formats.
///
/// Arithmetic saturates: an instant read from a foreign file can be any number and must not end the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant there is; older than anything a file can say.
    pub const MIN: Timestamp = Timestamp(i64::MIN);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Timestamp(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down (the unit of `webhook-timestamp`).
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant moved later by `by`.
    pub fn plus(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_add(millis(by)))
    }

    /// This instant moved earlier by `by`.
    pub fn minus(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_sub(millis(by)))
    }

    /// The time from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant moved into `from..=to`; `to` wins when the two are the wrong way round.
    pub fn clamp_to(self, from: Timestamp, to: Timestamp) -> Self {
        self.max(from).min(to)
    }
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no RFC 3339 instant.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(s: &str) -> Result<Self, NotATime> {
        let t: jiff::Timestamp = s.parse().map_err(|_| NotATime)?;
        Ok(Timestamp(t.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if !d.is_human_readable() {
            return i64::deserialize(d).map(Timestamp);
        }
        let s = std::borrow::Cow::<str>::deserialize(d)?;
        // What lies beyond the calendar is shown as a number, and read again here alone: nobody else writes that.
        let ms = s.strip_suffix("ms").and_then(|ms| ms.parse().ok()).map(Timestamp);
        ms.map_or_else(|| s.parse().map_err(serde::de::Error::custom), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_parses_rfc_3339_utc() {
        let t: Timestamp = "2026-05-19T14:30:00Z".parse().unwrap();
        assert_eq!(t.as_millis(), 1_779_201_000_000);
        assert_eq!(t.to_string(), "2026-05-19T14:30:00Z");
        assert_eq!(
            "2026-05-19T16:30:00.250+02:00".parse::<Timestamp>().unwrap().to_string(),
            "2026-05-19T14:30:00.25Z"
        );
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn every_instant_is_read_again_as_it_was_written() {
        for ms in [i64::MIN, -1, 0, 1_779_201_000_250, i64::MAX] {
            let json = serde_json::to_string(&Timestamp::from_millis(ms)).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().as_millis(), ms, "{json}");
        }
    }

    #[test]
    fn arithmetic_saturates_instead_of_ending_the_process() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp::MIN.minus(Duration::from_secs(1)), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.since(end), Duration::ZERO);
        assert!(!end.to_string().is_empty());
    }
}
