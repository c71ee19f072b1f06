//! When an endpoint that only fails is given up (outbound.md, "Outcome of an attempt").

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::Outcome;

/// What an endpoint did since it last accepted something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Attempts that reached it, or should have, without success.
    pub attempts: u32,
    /// Awake time since the first of them, in milliseconds.
    pub awake_ms: u64,
}

/// With fewer attempts no endpoint is given up, however long it takes.
pub const MIN_ATTEMPTS: u32 = 20;

impl Failing {
    /// Counts the outcome of an attempt, `passed` of awake time after the outcome before it. Time before the first
    /// failure does not count: nobody knows what the endpoint would have said. Nor does time that ends with the
    /// machine being offline.
    #[must_use]
    pub fn after(self, outcome: &Outcome, passed: Duration) -> Self {
        match outcome {
            Outcome::Delivered | Outcome::Disable { accepted: true } => Failing::default(),
            Outcome::Offline => self,
            Outcome::Retry { .. } | Outcome::Rejected | Outcome::Disable { accepted: false } => Failing {
                attempts: self.attempts.saturating_add(1),
                awake_ms: match self.attempts {
                    0 => 0,
                    _ => self.awake_ms.saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)),
                },
            },
        }
    }

    /// Whether it failed for so long and so often that it is disabled.
    pub fn is_given_up(&self, disable_after: Duration) -> bool {
        self.attempts >= MIN_ATTEMPTS && u128::from(self.awake_ms) >= disable_after.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const RETRY: Outcome = Outcome::Retry { wait: None, pause: false };

    fn failing(attempts: u32, gap: Duration) -> Failing {
        (0..attempts).fold(Failing::default(), |failing, _| failing.after(&RETRY, gap))
    }

    #[test]
    fn five_days_without_a_success_and_twenty_attempts_are_enough_and_either_alone_is_not() {
        let limit = 5 * DAY;
        assert!(failing(21, DAY / 4).is_given_up(limit));
        assert!(!failing(20, DAY / 4).is_given_up(limit), "19 gaps of six hours are less than five days");
        assert!(!failing(19, DAY).is_given_up(limit), "19 attempts");
        assert!(failing(20, DAY).is_given_up(limit));
        assert!(!failing(5000, Duration::from_secs(1)).is_given_up(limit), "a bad hour");
    }

    #[test]
    fn a_success_begins_anew_and_the_time_before_the_first_failure_does_not_count() {
        let failing = failing(100, DAY).after(&Outcome::Delivered, DAY);
        assert_eq!(failing, Failing::default());
        assert_eq!(failing.after(&Outcome::Rejected, 30 * DAY), Failing { attempts: 1, awake_ms: 0 });
    }

    #[test]
    fn being_offline_is_not_held_against_the_endpoint() {
        let failing = failing(3, DAY);
        assert_eq!(failing.after(&Outcome::Offline, 30 * DAY), failing);
    }
}
