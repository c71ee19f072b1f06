//! The day's money: what all runs together may cost until the next local midnight.
//!
//! Owns: when a local day begins and ends, and whether a run may start with what is left of its money. Does not know
//! who keeps the sums: the journal of runs does, so that a crash loses none of them.
//!
//! A run reserves the most that it may cost when it starts. At its end what it cost takes the reservation's place;
//! where that is not known, the whole reservation stays spent.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// A local day. Most have 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Its first instant: midnight, or the end of the gap where clocks are put forward over midnight.
    pub from: Timestamp,
    /// The first instant of the next day.
    pub until: Timestamp,
}

impl Day {
    /// The day that an instant is in.
    pub fn of(now: Timestamp, zone: &TimeZone) -> Day {
        Day::in_zone(now, zone).unwrap_or_else(|_| {
            // An instant outside of every calendar: any bounds around it do.
            Day { from: now.minus(HALF_A_DAY), until: now.plus(HALF_A_DAY) }
        })
    }

    fn in_zone(now: Timestamp, zone: &TimeZone) -> Result<Day, jiff::Error> {
        let now = jiff::Timestamp::from_millisecond(now.as_millis())?.to_zoned(zone.clone());
        let at = |zoned: jiff::Zoned| Timestamp::from_millis(zoned.timestamp().as_millisecond());
        Ok(Day { from: at(now.start_of_day()?), until: at(now.tomorrow()?.start_of_day()?) })
    }

    /// How long the day still lasts.
    pub fn left(self, now: Timestamp) -> Duration {
        self.until.since(now)
    }
}

const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);
/// Sums of fractions come out a hair beside the amount they stand for.
const HAIR: f64 = 1e-9;
/// A run without a bound of its own does not start with less.
const CENT: f64 = 0.01;

/// The most that a run wants to spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Want {
    /// Its `max_cost_usd`; 0 = it has no bound of its own.
    pub max_cost_usd: f64,
    /// Whether its agent tells what it cost. Of one that never does (any program as `command`) nothing is known to
    /// be spent.
    pub is_metered: bool,
}

/// The money of a day, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Purse {
    /// `daily_cost_usd`; 0 = no bound.
    pub daily: f64,
    /// What the runs that ended today cost.
    pub spent: f64,
    /// What is reserved by the runs that go on.
    pub reserved: f64,
}

/// Not enough is left of the day's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the day's money is spent or reserved")]
pub struct Spent;

impl Purse {
    /// What nobody has spent or reserved; infinite without a bound.
    pub fn left(&self) -> f64 {
        if self.daily > 0.0 { (self.daily - self.spent - self.reserved).max(0.0) } else { f64::INFINITY }
    }

    /// Takes the reservation of a run that starts now, and gives it: the most that the run may cost, 0 = no bound.
    ///
    /// A maximum above the day's counts as the day's. Without a maximum all that is left is reserved, so that the day
    /// keeps its bound; other runs wait meanwhile.
    ///
    /// # Errors
    /// It does not fit; nothing is taken.
    pub fn reserve(&mut self, want: Want) -> Result<f64, Spent> {
        let has_bound = want.max_cost_usd > 0.0;
        if self.daily <= 0.0 {
            return Ok(if has_bound { want.max_cost_usd } else { 0.0 });
        }
        let left = self.left();
        let amount = match (has_bound, want.is_metered) {
            (true, _) => want.max_cost_usd.min(self.daily),
            (false, true) => left.max(CENT),
            (false, false) => 0.0,
        };
        if amount > left + HAIR {
            return Err(Spent);
        }
        let amount = amount.min(left);
        self.reserved += amount;
        Ok(amount)
    }
}

/// What a run that ended counts for: what it cost, and where that is not known all that it had reserved.
pub fn charge(reserved: f64, cost: Option<f64>, is_metered: bool) -> f64 {
    match cost.filter(|cost| cost.is_finite() && *cost >= 0.0) {
        Some(cost) => cost,
        None if is_metered => reserved,
        None => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // As the zones of these names have it: no database of zones is needed.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
    const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
    /// No midnight on the day when clocks are put forward; the day before the other change has two last hours.
    const SANTIAGO: &str = "<-04>4<-03>,M9.1.6/24,M4.1.6/24";
    const BEIRUT: &str = "EET-2EEST,M3.5.0/0,M10.5.0/0";
    /// Two midnights on the day when clocks are put back.
    const HAVANA: &str = "CST5CDT,M3.2.0/0,M11.1.0/1";

    fn day(zone: &str, now: &str) -> (String, String, u64) {
        let now: Timestamp = now.parse().unwrap();
        let day = Day::of(now, &TimeZone::posix(zone).unwrap());
        assert!(day.from <= now && now < day.until, "{day:?}");
        (day.from.to_string(), day.until.to_string(), day.until.since(day.from).as_secs() / 3600)
    }

    #[test]
    fn a_local_day_begins_at_its_first_instant_and_ends_with_that_of_the_next_also_when_clocks_change() {
        for (zone, now, from, until, hours) in [
            (BERLIN, "2026-05-19T12:00:00Z", "2026-05-18T22:00:00Z", "2026-05-19T22:00:00Z", 24),
            (BERLIN, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            (BERLIN, "2026-03-29T00:30:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23),
            (BERLIN, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
            (BERLIN, "2026-10-25T01:30:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25),
            (NEW_YORK, "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z", 23),
            (NEW_YORK, "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
            (SANTIAGO, "2026-09-06T03:59:59Z", "2026-09-05T04:00:00Z", "2026-09-06T04:00:00Z", 24),
            (SANTIAGO, "2026-09-06T04:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z", 23),
            (SANTIAGO, "2026-04-05T03:30:00Z", "2026-04-04T03:00:00Z", "2026-04-05T04:00:00Z", 25),
            (BEIRUT, "2026-03-28T21:00:00Z", "2026-03-27T22:00:00Z", "2026-03-28T22:00:00Z", 24),
            (BEIRUT, "2026-03-29T10:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z", 23),
            (BEIRUT, "2026-10-24T21:30:00Z", "2026-10-23T21:00:00Z", "2026-10-24T22:00:00Z", 25),
            (HAVANA, "2026-11-01T04:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
            (HAVANA, "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", 25),
        ] {
            assert_eq!(day(zone, now), (from.to_owned(), until.to_owned(), hours), "{zone} {now}");
        }
    }

    #[test]
    fn an_instant_outside_of_every_calendar_has_a_day_too() {
        for now in [Timestamp::MIN, Timestamp::from_millis(i64::MAX)] {
            let day = Day::of(now, &TimeZone::UTC);
            assert!(day.from <= now && now <= day.until);
        }
    }

    fn want(max_cost_usd: f64) -> Want {
        Want { max_cost_usd, is_metered: true }
    }

    #[test]
    fn a_run_reserves_its_maximum_and_what_would_exceed_the_day_does_not_start() {
        let mut purse = Purse { daily: 5.0, spent: 0.5, reserved: 0.0 };
        assert_eq!(purse.reserve(want(2.0)), Ok(2.0));
        assert_eq!(purse.reserve(want(2.0)), Ok(2.0));
        assert_eq!(purse.reserve(want(2.0)), Err(Spent));
        assert_eq!(purse.reserve(want(0.5)), Ok(0.5));
        assert_eq!((purse.reserve(want(0.01)), purse.left()), (Err(Spent), 0.0));
        let mut tenths = Purse { daily: 1.0, spent: 0.0, reserved: 0.0 };
        assert!((0..10).all(|_| tenths.reserve(want(0.1)).is_ok()), "fractions do not add up to a refusal");
        assert_eq!(tenths.reserve(want(0.1)), Err(Spent));
    }

    #[test]
    fn zero_is_no_bound() {
        let mut purse = Purse { daily: 0.0, spent: 1e6, reserved: 1e6 };
        assert_eq!((purse.reserve(want(2.0)), purse.reserve(want(0.0))), (Ok(2.0), Ok(0.0)));
        // A run without a maximum takes all that is left of the day.
        let mut purse = Purse { daily: 5.0, spent: 1.0, reserved: 1.0 };
        assert_eq!((purse.reserve(want(0.0)), purse.reserve(want(0.0))), (Ok(3.0), Err(Spent)));
        // More than the day's is the day's.
        let mut purse = Purse { daily: 5.0, spent: 0.0, reserved: 0.0 };
        assert_eq!((purse.reserve(want(9.0)), purse.reserve(want(9.0))), (Ok(5.0), Err(Spent)));
        let unmetered = Want { max_cost_usd: 0.0, is_metered: false };
        assert_eq!(purse.reserve(unmetered), Ok(0.0), "nothing is known to be spent by a plain program");
    }

    #[test]
    fn what_a_run_cost_takes_the_place_of_its_reservation_and_unknown_is_the_maximum() {
        assert_eq!(charge(2.0, Some(0.25), true), 0.25);
        assert_eq!(charge(2.0, Some(0.0), true), 0.0);
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY), Some(-1.0)] {
            assert_eq!((charge(2.0, unknown, true), charge(2.0, unknown, false)), (2.0, 0.0));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Start,
        /// The run with this number, among those that go on, ends; with a part of its reservation, or unknown.
        End(usize, Option<f64>),
    }

    proptest! {
        #[test]
        fn a_hundred_calls_against_the_money_of_ten_runs_never_exceed_it(
            steps in prop::collection::vec(
                prop_oneof![
                    3 => Just(Step::Start),
                    2 => (any::<usize>(), prop::option::of(0.0..=1.0)).prop_map(|(n, part)| Step::End(n, part)),
                ],
                100..300,
            ),
            maxima in prop::collection::vec(prop_oneof![4 => Just(1.0), 1 => Just(0.0), 1 => 0.1..20.0], 100),
        ) {
            let mut purse = Purse { daily: 10.0, spent: 0.0, reserved: 0.0 };
            let mut going: Vec<f64> = Vec::new();
            let mut waiting = maxima.into_iter();
            for step in steps {
                match step {
                    Step::Start => {
                        let Some(max) = waiting.next() else { continue };
                        let before = purse;
                        match purse.reserve(want(max)) {
                            Ok(amount) => {
                                prop_assert!(amount > 0.0 && (max == 0.0 || amount <= max));
                                going.push(amount);
                            }
                            Err(Spent) => {
                                prop_assert_eq!(purse, before);
                                let least = if max > 0.0 { max } else { CENT };
                                prop_assert!(before.left() < least, "it waits though there is room");
                            }
                        }
                    }
                    Step::End(n, part) if !going.is_empty() => {
                        let reserved = going.swap_remove(n % going.len());
                        purse.reserved -= reserved;
                        purse.spent += charge(reserved, part.map(|p| p * reserved), true);
                    }
                    Step::End(..) => {}
                }
                prop_assert!(purse.spent + going.iter().sum::<f64>() <= 10.0 + 1e-6, "{:?}", purse);
            }
        }
    }
}
