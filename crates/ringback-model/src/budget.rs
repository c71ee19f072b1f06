//! The ping budget: how many times background runs may interrupt the user.
//!
//! Owns: a bucket that refills with time, survives restarts and changes of its configuration, and the day's
//! counters. Does not know what a ping is or who asks for one: see [`ping`](crate::ping).

use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The bucket as configured (`[ping_budget]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Pings in a full bucket; 0 = only critical ones. Default 5.
    pub capacity: u32,
    /// Minutes until one ping is back; 0 = at once. Default 90.
    pub refill_minutes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { capacity: 5, refill_minutes: 90 }
    }
}

/// Now, for rules that also need to know which day it is where the user lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub at: Timestamp,
    /// The local date at that instant.
    pub date: Date,
}

/// The bucket as stored. Every operation first brings it up to the moment it is given; a clock that went back
/// refills nothing and takes nothing away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Pings left at `updated_at`, fractional.
    available: f64,
    updated_at: Timestamp,
    /// Pings taken on `day`.
    daily_used: u32,
    /// Critical ones on `day`; they take nothing from the bucket.
    critical_used: u32,
    day: Date,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ping budget exhausted")]
pub struct Exhausted;

/// Sums of fractions come out a hair below the whole they stand for.
const HAIR: f64 = 1e-9;

impl Budget {
    /// A full bucket with nothing used.
    pub fn full(limits: Limits, now: Moment) -> Self {
        Budget {
            available: f64::from(limits.capacity),
            updated_at: now.at,
            daily_used: 0,
            critical_used: 0,
            day: now.date,
        }
    }

    /// Takes one ping.
    pub fn take(&mut self, limits: Limits, now: Moment) -> Result<(), Exhausted> {
        self.bring_to(limits, now);
        if self.whole() < 1.0 {
            return Err(Exhausted);
        }
        self.available = (self.available - 1.0).max(0.0);
        self.daily_used = self.daily_used.saturating_add(1);
        Ok(())
    }

    /// Puts back a ping that was taken on the local date `taken_on` and never reached the user.
    pub fn refund(&mut self, taken_on: Date, limits: Limits, now: Moment) {
        self.bring_to(limits, now);
        self.available = (self.available + 1.0).min(f64::from(limits.capacity));
        if taken_on == self.day {
            self.daily_used = self.daily_used.saturating_sub(1);
        }
    }

    /// Sets how many pings are left, at most the capacity; the user's hand.
    pub fn set(&mut self, available: u32, limits: Limits, now: Moment) {
        self.bring_to(limits, now);
        self.available = f64::from(available.min(limits.capacity));
    }

    /// Counts a critical ping.
    pub fn count_critical(&mut self, limits: Limits, now: Moment) {
        self.bring_to(limits, now);
        self.critical_used = self.critical_used.saturating_add(1);
    }

    /// What is left at a moment.
    pub fn level(&self, limits: Limits, now: Moment) -> Level {
        let mut there = self.clone();
        there.bring_to(limits, now);
        let whole = there.whole();
        let next_refill_minutes = (whole < f64::from(limits.capacity)).then(|| {
            let missing = 1.0 - (there.available - whole).clamp(0.0, 1.0);
            whole_number((missing * f64::from(limits.refill_minutes) - HAIR).ceil().max(1.0))
        });
        Level {
            available: whole_number(whole),
            capacity: limits.capacity,
            next_refill_minutes,
            used_today: there.daily_used,
            critical_today: there.critical_used,
        }
    }

    fn whole(&self) -> f64 {
        (self.available + HAIR).floor()
    }

    fn bring_to(&mut self, limits: Limits, now: Moment) {
        let capacity = f64::from(limits.capacity);
        // What was stored may come from a damaged file or a larger bucket.
        let stored = if self.available.is_nan() { 0.0 } else { self.available.clamp(0.0, capacity) };
        let refilled = if limits.refill_minutes == 0 {
            capacity
        } else {
            stored + now.at.since(self.updated_at).as_secs_f64() / 60.0 / f64::from(limits.refill_minutes)
        };
        self.available = refilled.min(capacity);
        // Also when the clock went back: waiting for the old time to come again could take years.
        self.updated_at = now.at;
        if self.day != now.date {
            self.day = now.date;
            self.daily_used = 0;
            self.critical_used = 0;
        }
    }
}

/// What is left of the budget, in whole pings. Shown as `3/5 (next refill in 40 min)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Pings left.
    pub available: u32,
    /// Pings in a full bucket.
    pub capacity: u32,
    /// Minutes until one more is there, rounded up; `None` = the bucket is full.
    pub next_refill_minutes: Option<u32>,
    /// Pings taken today.
    pub used_today: u32,
    /// Critical pings sent today.
    pub critical_today: u32,
}

impl Level {
    /// `budget: 3/5 (next refill in 40 min)`.
    pub fn status(&self) -> String {
        format!("budget: {self}")
    }

    /// [`Level::status`] and a line for each of the day's counters.
    pub fn full_status(&self) -> String {
        format!(
            "{}\nused today: {}\ncritical today: {} (not taken from the budget)",
            self.status(),
            self.used_today,
            self.critical_today
        )
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.available, self.capacity)?;
        match self.next_refill_minutes {
            Some(minutes) => write!(f, " (next refill in {minutes} min)"),
            None => Ok(()),
        }
    }
}

/// `value` is whole and within `0..=u32::MAX`: both factors of every call come from `u32`s.
fn whole_number(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { capacity: 5, refill_minutes: 90 };

    /// `minutes` after some local midnight.
    fn moment(minutes: i64) -> Moment {
        let day = i8::try_from(10 + minutes.div_euclid(1440)).unwrap();
        Moment { at: Timestamp::from_millis(minutes * 60_000), date: date(2026, 5, day) }
    }

    fn emptied() -> Budget {
        let mut budget = Budget::full(LIMITS, moment(0));
        for _ in 0..5 {
            budget.take(LIMITS, moment(0)).unwrap();
        }
        budget
    }

    #[test]
    fn five_pings_and_then_one_back_every_ninety_minutes() {
        let mut budget = emptied();
        assert_eq!(budget.take(LIMITS, moment(0)), Err(Exhausted));
        assert_eq!(budget.take(LIMITS, moment(89)), Err(Exhausted));
        assert_eq!(budget.take(LIMITS, moment(90)), Ok(()));
        assert_eq!(budget.take(LIMITS, moment(90)), Err(Exhausted));
        assert_eq!(budget.level(LIMITS, moment(1200)).available, 5);
    }

    #[test]
    fn looking_every_minute_loses_no_fraction() {
        let mut budget = emptied();
        for minute in 1..90 {
            assert_eq!(budget.take(LIMITS, moment(minute)), Err(Exhausted), "{minute}");
        }
        assert_eq!(budget.take(LIMITS, moment(90)), Ok(()));
    }

    #[test]
    fn the_status_tells_what_is_left_and_when_the_next_comes() {
        let budget = Budget::full(LIMITS, moment(0));
        assert_eq!(budget.level(LIMITS, moment(0)).status(), "budget: 5/5");
        let mut budget = emptied();
        assert_eq!(budget.level(LIMITS, moment(0)).status(), "budget: 0/5 (next refill in 90 min)");
        assert_eq!(budget.level(LIMITS, moment(50)).status(), "budget: 0/5 (next refill in 40 min)");
        assert_eq!(budget.level(LIMITS, moment(280)).status(), "budget: 3/5 (next refill in 80 min)");
        budget.count_critical(LIMITS, moment(280));
        assert_eq!(
            budget.level(LIMITS, moment(280)).full_status(),
            "budget: 3/5 (next refill in 80 min)\nused today: 5\ncritical today: 1 (not taken from the budget)"
        );
    }

    #[test]
    fn critical_is_counted_apart_and_takes_nothing() {
        let mut budget = Budget::full(LIMITS, moment(0));
        budget.count_critical(LIMITS, moment(0));
        let level = budget.level(LIMITS, moment(0));
        assert_eq!((level.available, level.used_today, level.critical_today), (5, 0, 1));
    }

    #[test]
    fn daily_counters_reset_when_the_local_date_changes() {
        let mut budget = emptied();
        budget.count_critical(LIMITS, moment(1439));
        let level = budget.level(LIMITS, moment(1439));
        assert_eq!((level.used_today, level.critical_today), (5, 1));
        let level = budget.level(LIMITS, moment(1440));
        assert_eq!((level.used_today, level.critical_today), (0, 0));
    }

    #[test]
    fn a_message_that_dies_gives_its_ping_back() {
        let mut budget = emptied();
        budget.refund(moment(0).date, LIMITS, moment(0));
        let level = budget.level(LIMITS, moment(0));
        assert_eq!((level.available, level.used_today), (1, 4));
        // Yesterday's ping comes back, today's counter stays.
        let mut budget = emptied();
        budget.take(LIMITS, moment(1441)).unwrap();
        budget.refund(moment(0).date, LIMITS, moment(1441));
        let level = budget.level(LIMITS, moment(1441));
        assert_eq!((level.available, level.used_today), (5, 1));
    }

    #[test]
    fn a_smaller_bucket_spills_and_a_larger_one_does_not_fill_itself() {
        let budget = Budget::full(LIMITS, moment(0));
        let level = |capacity| budget.level(Limits { capacity, ..LIMITS }, moment(0));
        assert_eq!(level(2).to_string(), "2/2");
        assert_eq!(level(0).to_string(), "0/0");
        assert_eq!(level(8).to_string(), "5/8 (next refill in 90 min)");
        assert_eq!(
            Budget::full(Limits { capacity: 0, ..LIMITS }, moment(0))
                .take(Limits { capacity: 0, refill_minutes: 0 }, moment(99)),
            Err(Exhausted)
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_takes_nothing() {
        let mut budget = emptied();
        budget.count_critical(LIMITS, moment(1000));
        let before = budget.level(LIMITS, moment(1000));
        budget.count_critical(LIMITS, moment(10));
        let after = budget.level(LIMITS, moment(10));
        assert_eq!((before.available, after.available), (5, 5));
        let mut budget = emptied();
        assert_eq!(budget.take(LIMITS, moment(-1)), Err(Exhausted));
        // From the new time on it refills as ever.
        assert_eq!(budget.take(LIMITS, moment(89)), Ok(()));
    }

    #[test]
    fn the_state_is_stored_and_read_back() {
        let mut budget = Budget::full(LIMITS, moment(0));
        budget.take(LIMITS, moment(7)).unwrap();
        let text = serde_json::to_string(&budget).unwrap();
        assert_eq!(
            text,
            r#"{"available":4.0,"updated_at":"1970-01-01T00:07:00Z","daily_used":1,"critical_used":0,"day":"2026-05-10"}"#
        );
        assert_eq!(serde_json::from_str::<Budget>(&text).unwrap(), budget);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take,
        Refund,
        Critical,
        Jump(i64),
        Configure(Limits),
        Corrupt(f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Take),
            2 => Just(Step::Refund),
            1 => Just(Step::Critical),
            3 => (-100_000_000i64..100_000_000).prop_map(Step::Jump),
            1 => any::<i64>().prop_map(Step::Jump),
            1 => (0u32..20, 0u32..500)
                .prop_map(|(capacity, refill_minutes)| Step::Configure(Limits { capacity, refill_minutes })),
            1 => any::<[u32; 2]>()
                .prop_map(|[capacity, refill_minutes]| Step::Configure(Limits { capacity, refill_minutes })),
            1 => any::<f64>().prop_map(Step::Corrupt),
        ]
    }

    proptest! {
        #[test]
        fn never_below_zero_nor_above_capacity_whatever_happens(steps in prop::collection::vec(step(), 0..60)) {
            let mut limits = LIMITS;
            let mut at = 0i64;
            let here = |at: i64| Moment {
                at: Timestamp::from_millis(at),
                date: date(2026, 5, i8::try_from(1 + (at / 86_400_000).rem_euclid(28)).unwrap()),
            };
            let mut budget = Budget::full(limits, here(at));
            for step in steps {
                let before = budget.level(limits, here(at));
                match step {
                    Step::Take => {
                        let taken = budget.take(limits, here(at));
                        prop_assert_eq!(taken.is_ok(), before.available > 0);
                    }
                    Step::Refund => budget.refund(here(at).date, limits, here(at)),
                    Step::Critical => {
                        budget.count_critical(limits, here(at));
                        prop_assert_eq!(budget.level(limits, here(at)).available, before.available);
                    }
                    Step::Jump(by) => at = at.saturating_add(by),
                    Step::Configure(new) => limits = new,
                    Step::Corrupt(value) => budget.available = value,
                }
                budget.bring_to(limits, here(at));
                prop_assert!(budget.available >= 0.0 && budget.available <= f64::from(limits.capacity));
                let level = budget.level(limits, here(at));
                prop_assert!(level.available <= level.capacity);
                prop_assert_eq!(level.next_refill_minutes.is_none(), level.available == level.capacity);
                prop_assert!(level.next_refill_minutes.is_none_or(|m| m <= limits.refill_minutes));
            }
        }

        #[test]
        fn no_more_pings_than_the_bucket_and_the_time_allow(
            waits in prop::collection::vec(0i64..200, 1..100), capacity in 1u32..6, refill_minutes in 1u32..200,
        ) {
            let limits = Limits { capacity, refill_minutes };
            let moment = |minutes: i64| Moment { at: Timestamp::from_millis(minutes * 60_000), date: date(2026, 5, 1) };
            let mut budget = Budget::full(limits, moment(0));
            let (mut minutes, mut taken) = (0i64, 0i64);
            for wait in waits {
                minutes += wait;
                taken += i64::from(budget.take(limits, moment(minutes)).is_ok());
                prop_assert!(taken <= i64::from(capacity) + minutes / i64::from(refill_minutes));
            }
        }
    }
}
