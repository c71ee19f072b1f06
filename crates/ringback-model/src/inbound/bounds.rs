//! Bounds of those who call: how many calls are accepted in a span of time, and how many runs go on at once.
//!
//! Owns: who a bound is for, and the counting of accepted calls. Runs are counted where the queue is read: see
//! [`queue`](crate::queue). Knows no clock: an instant is a time since any fixed moment, on a clock that never goes
//! back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rate::{Pace, Rate};
use crate::run::Request;

/// Who calls, as far as bounds go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// A `source` of `POST /hook/agent`.
    Source(String),
    /// A declared hook, by its slug.
    Hook(String),
}

impl Caller {
    /// Who asked for a run.
    pub fn of(request: &Request) -> Caller {
        match &request.hook {
            Some(slug) => Caller::Hook(slug.clone()),
            None => Caller::Source(request.source.clone()),
        }
    }
}

/// The bounds of one caller; `None` = no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Accepted calls.
    pub rate: Option<Rate>,
    /// Runs at once; more wait in the queue.
    pub concurrency: Option<u32>,
}

/// The callers that have bounds of their own.
pub type Bounds = BTreeMap<Caller, Bound>;

/// Counts accepted calls against their rates.
#[derive(Debug)]
pub struct Gate {
    all: Option<Pace>,
    callers: BTreeMap<Caller, Pace>,
}

impl Gate {
    /// `all`: the rate of all callers together.
    pub fn new(all: Option<Rate>, bounds: &Bounds) -> Gate {
        let paces = bounds.iter().filter_map(|(caller, b)| Some((caller.clone(), Pace::new(b.rate?))));
        Gate { all: all.map(Pace::new), callers: paces.collect() }
    }

    /// The rate of a caller from now on. What was counted of it still counts.
    pub fn bound(&mut self, caller: &Caller, rate: Option<Rate>) {
        match (rate, self.callers.get_mut(caller)) {
            (Some(rate), Some(pace)) => pace.set(rate),
            (Some(rate), None) => {
                self.callers.insert(caller.clone(), Pace::new(rate));
            }
            (None, _) => {
                self.callers.remove(caller);
            }
        }
    }

    /// How long until a call of this caller, or of anybody, can be accepted; zero = now. Counts nothing.
    pub fn wait(&mut self, caller: Option<&Caller>, now: Duration) -> Duration {
        let of_caller = caller.and_then(|caller| self.callers.get_mut(caller));
        let waits = self.all.iter_mut().chain(of_caller).map(|pace| pace.wait(now));
        waits.max().unwrap_or(Duration::ZERO)
    }

    /// Counts a call that is accepted at `now`.
    ///
    /// # Errors
    /// It is over a rate: how long until it is not. Nothing is counted.
    pub fn admit(&mut self, caller: &Caller, now: Duration) -> Result<(), Duration> {
        let of_caller = self.callers.get_mut(caller);
        let mut paces: Vec<&mut Pace> = self.all.iter_mut().chain(of_caller).collect();
        match paces.iter_mut().map(|pace| pace.wait(now)).max().filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(wait),
            None => {
                paces.iter_mut().for_each(|pace| pace.begin(now));
                Ok(())
            }
        }
    }

    /// Takes back a call that was counted at `at` and then refused for another reason.
    pub fn take_back(&mut self, caller: &Caller, at: Duration) {
        let of_caller = self.callers.get_mut(caller);
        self.all.iter_mut().chain(of_caller).for_each(|pace| pace.take_back(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Caller {
        Caller::Source(name.to_owned())
    }

    fn gate(all: &str, ci: &str) -> Gate {
        let bound = Bound { rate: Some(ci.parse().unwrap()), concurrency: None };
        Gate::new(Some(all.parse().unwrap()), &Bounds::from([(source("ci"), bound)]))
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_source_has_its_own_rate_and_all_together_have_one() {
        let mut gate = gate("3/m", "1/m");
        assert_eq!(gate.admit(&source("ci"), at(0)), Ok(()));
        assert_eq!(gate.admit(&source("ci"), at(10)), Err(at(50)));
        // What is refused counts for nobody; a hook of the same name is somebody else.
        assert_eq!(gate.admit(&Caller::Hook("ci".to_owned()), at(20)), Ok(()));
        assert_eq!(gate.wait(None, at(20)), Duration::ZERO);
        assert_eq!(gate.admit(&source("other"), at(30)), Ok(()));
        assert_eq!((gate.wait(None, at(30)), gate.admit(&source("other"), at(30))), (at(30), Err(at(30))));
        assert_eq!(gate.admit(&source("ci"), at(60)), Ok(()));
    }

    #[test]
    fn only_accepted_calls_count() {
        let mut gate = gate("1/m", "1/m");
        for _ in 0..5 {
            assert_eq!(gate.admit(&source("ci"), at(0)), Ok(()));
            gate.take_back(&source("ci"), at(0));
        }
        assert_eq!(gate.admit(&source("ci"), at(1)), Ok(()));
        assert_eq!(gate.admit(&source("ci"), at(1)), Err(at(60)));
    }

    #[test]
    fn without_rates_nothing_waits() {
        let mut gate = Gate::new(None, &Bounds::new());
        assert!(
            (0..10_000).all(|_| gate.admit(&source("ci"), at(0)).is_ok()) && gate.wait(None, at(0)).is_zero()
        );
    }

    #[test]
    fn a_new_rate_of_a_caller_counts_what_was_accepted_under_the_old_one() {
        let mut gate = Gate::new(None, &Bounds::new());
        let hook = Caller::Hook("ci".to_owned());
        gate.bound(&hook, "5/m".parse().ok());
        for s in 0..3 {
            assert_eq!(gate.admit(&hook, at(s)), Ok(()));
        }
        gate.bound(&hook, "2/m".parse().ok());
        assert_eq!((gate.wait(Some(&hook), at(3)), gate.admit(&hook, at(3))), (at(58), Err(at(58))));
        assert_eq!(gate.wait(Some(&source("ci")), at(3)), Duration::ZERO);
        gate.bound(&hook, "4/m".parse().ok());
        assert_eq!(gate.admit(&hook, at(4)), Ok(()));
        assert!(gate.admit(&hook, at(5)).is_err());
        gate.bound(&hook, None);
        assert_eq!(gate.admit(&hook, at(5)), Ok(()));
    }
}
