//! How many attempts an endpoint gets in a span of time.
//!
//! Knows no clock and no endpoint: whoever asks says how long it has been running.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// At most so many attempts in any span of that length, written `"30/m"`, `"10/s"` or `"1000/h"`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    attempts: u32,
    per: Duration,
}

/// The largest number before the stroke. Each attempt in the span is remembered.
pub const MAX_ATTEMPTS: u32 = 10_000;

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// The text is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a rate such as \"30/m\": a number from 1 to {MAX_ATTEMPTS}, a stroke, and s, m or h")]
pub struct NotARate;

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let (number, unit) = text.trim().split_once('/').ok_or(NotARate)?;
        let (number, unit) = (number.trim(), unit.trim());
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotARate);
        }
        let attempts = number.parse().map_err(|_| NotARate)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotARate)?;
        match attempts {
            1..=MAX_ATTEMPTS => Ok(Rate { attempts, per: Duration::from_secs(*seconds) }),
            _ => Err(NotARate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == self.per);
        write!(f, "{}/{}", self.attempts, unit.map_or("?", |(name, _)| name))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The attempts that count against a [`Rate`]. Instants are times since any fixed moment, on a clock that never
/// goes back.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: Rate,
    /// When the attempts of the last span began, oldest first.
    begun: VecDeque<Duration>,
}

impl Pace {
    /// Nothing was attempted yet.
    pub fn new(rate: Rate) -> Self {
        Pace { rate, begun: VecDeque::new() }
    }

    /// Goes by another rate from now on. Attempts that the old one did not have to remember any more are forgotten.
    pub fn set(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// How many attempts may begin at `now`.
    pub fn room(&mut self, now: Duration) -> usize {
        while self.begun.front().is_some_and(|at| now.saturating_sub(*at) >= self.rate.per) {
            self.begun.pop_front();
        }
        (self.rate.attempts as usize).saturating_sub(self.begun.len())
    }

    /// How long after `now` the next attempt may begin; zero = it may now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        if self.room(now) > 0 {
            return Duration::ZERO;
        }
        // Under an earlier rate more may have begun than this one allows.
        let over = self.begun.len().saturating_sub(self.rate.attempts as usize);
        self.begun.get(over).map_or(Duration::ZERO, |at| (*at + self.rate.per).saturating_sub(now))
    }

    /// Counts an attempt that begins at `now`.
    pub fn begin(&mut self, now: Duration) {
        self.begun.push_back(now);
    }

    /// Takes back an attempt that was counted at `at` and did not begin after all.
    pub fn take_back(&mut self, at: Duration) {
        if let Some(n) = self.begun.iter().rposition(|begun| *begun == at) {
            self.begun.remove(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, attempts, secs) in
            [("30/m", 30, 60), ("10/s", 10, 1), ("1000/h", 1000, 3600), (" 5 / m ", 5, 60)]
        {
            let rate = Rate { attempts, per: Duration::from_secs(secs) };
            assert_eq!(text.parse(), Ok(rate), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for text in
            ["", "30", "30/", "/m", "0/m", "-1/m", "+1/m", "1.5/s", "30/d", "30/2m", "10001/h", "3/m/s"]
        {
            assert_eq!(text.parse::<Rate>(), Err(NotARate), "{text:?}");
        }
    }

    #[test]
    fn the_first_attempts_begin_at_once_and_the_excess_waits_until_the_oldest_is_a_span_old() {
        let mut pace = Pace::new("2/m".parse().unwrap());
        let at = Duration::from_secs;
        for begin in [at(100), at(110)] {
            assert_eq!(pace.wait(begin), Duration::ZERO);
            pace.begin(begin);
        }
        assert_eq!((pace.room(at(130)), pace.wait(at(130))), (0, at(30)));
        assert_eq!((pace.room(at(160)), pace.wait(at(160))), (1, Duration::ZERO));
        pace.begin(at(160));
        assert_eq!(pace.wait(at(160)), at(10));
        assert_eq!(pace.room(at(1000)), 2);
    }

    proptest! {
        #[test]
        fn no_span_ever_has_more_attempts_than_the_rate_and_nothing_waits_longer_than_it_must(
            attempts in 1u32..6,
            gaps in prop::collection::vec(0u64..1500, 1..60),
        ) {
            let rate = Rate { attempts, per: Duration::from_secs(1) };
            let mut pace = Pace::new(rate);
            let mut now = Duration::ZERO;
            let mut begun: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                let wait = pace.wait(now);
                if wait > Duration::ZERO {
                    let in_span = begun.iter().filter(|at| now - **at < rate.per).count();
                    prop_assert_eq!(in_span, attempts as usize, "it waits though there is room");
                }
                now += wait;
                pace.begin(now);
                begun.push(now);
            }
            for (n, at) in begun.iter().enumerate() {
                let in_span = begun[n..].iter().filter(|later| **later - *at < rate.per).count();
                prop_assert!(in_span <= attempts as usize);
            }
        }
    }
}
