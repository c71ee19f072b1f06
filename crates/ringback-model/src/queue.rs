//! Which queued run may start.
//!
//! Owns: what holds a run back, and in which words that is told. Each run is judged by itself, in the order in which
//! they were accepted: what holds one back does not hold back those behind it. Does not know how many slots there
//! are: whoever asks stops when the last one is taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::inbound::bounds::{Bounds, Caller};
use crate::money::{Day, Purse, Want};
use crate::run::Request;
use crate::time::Timestamp;

/// What goes on, as far as it decides what may start.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The day's money.
    pub purse: Purse,
    /// The day.
    pub day: Day,
    /// Bounds of callers.
    pub bounds: &'a Bounds,
    /// Runs that go on, by who asked for them.
    pub going: BTreeMap<Caller, u32>,
}

/// What a queued run waits for. As JSON: `{"reason": "daily_cost_usd", "until": "2026-05-20T22:00:00Z", …}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Wait {
    /// A free slot (`max_concurrent`).
    Slot,
    /// Its source or hook has as many runs as it may have at once.
    Concurrency {
        /// That many.
        limit: u32,
    },
    /// The day's money: the next day's, or what a run gives back that costs less than it reserved.
    DailyCostUsd {
        /// Local midnight.
        until: Timestamp,
        /// `daily_cost_usd`.
        daily: f64,
        /// What is spent of it.
        spent: f64,
        /// What runs that go on have reserved.
        reserved: f64,
    },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Slot => write!(f, "waits for a free slot"),
            Wait::Concurrency { limit } => {
                write!(f, "waits for another run of its source (concurrency = {limit})")
            }
            Wait::DailyCostUsd { until, daily, spent, reserved } => write!(
                f,
                "waits for money until {until}: of daily_cost_usd = {daily}, {spent:.2} are spent and {reserved:.2} reserved"
            ),
        }
    }
}

impl Situation<'_> {
    /// Lets a run start, and counts it: gives the most that it may cost, 0 = no bound.
    ///
    /// # Errors
    /// It has to wait, for this; nothing is counted.
    pub fn admit(&mut self, request: &Request, is_metered: bool) -> Result<f64, Wait> {
        let caller = Caller::of(request);
        let going = self.going.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = self.bounds.get(&caller).and_then(|b| b.concurrency).filter(|max| going >= *max)
        {
            return Err(Wait::Concurrency { limit });
        }
        let want = Want { max_cost_usd: request.limits.max_cost_usd, is_metered };
        let purse = self.purse;
        let amount = self.purse.reserve(want).map_err(|_| Wait::DailyCostUsd {
            until: self.day.until,
            daily: purse.daily,
            spent: purse.spent,
            reserved: purse.reserved,
        })?;
        *self.going.entry(caller).or_default() += 1;
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::bounds::Bound;
    use crate::run::Limits;
    use crate::updates::UpdatePolicy;

    fn request(source: &str, max_cost_usd: f64) -> Request {
        Request {
            source: source.to_owned(),
            hook: None,
            agent: "claude".to_owned(),
            workspace: "default".to_owned(),
            message: "look".to_owned(),
            isolated: true,
            model: None,
            thinking: true,
            allow_ping: true,
            update_main_session: UpdatePolicy::OnPing,
            allowed_tools: Vec::new(),
            limits: Limits { timeout_ms: 60_000, max_turns: 50, max_cost_usd },
            retry: false,
        }
    }

    fn situation(bounds: &Bounds, daily: f64) -> Situation<'_> {
        Situation {
            purse: Purse { daily, spent: 0.0, reserved: 0.0 },
            day: Day { from: Timestamp::from_millis(0), until: Timestamp::from_millis(86_400_000) },
            bounds,
            going: BTreeMap::new(),
        }
    }

    #[test]
    fn a_sources_excess_waits_while_others_go_on() {
        let bound = Bound { rate: None, concurrency: Some(2) };
        let bounds = Bounds::from([(Caller::Source("ci".to_owned()), bound)]);
        let mut situation = situation(&bounds, 0.0);
        let started: Vec<bool> = ["ci", "ci", "ci", "other", "ci", "other"]
            .iter()
            .map(|source| situation.admit(&request(source, 1.0), true).is_ok())
            .collect();
        assert_eq!(started, [true, true, false, true, false, true]);
        let wait = situation.admit(&request("ci", 1.0), true).unwrap_err();
        assert_eq!(wait, Wait::Concurrency { limit: 2 });
        assert_eq!(wait.to_string(), "waits for another run of its source (concurrency = 2)");
        // A hook counts apart from a source of the same name.
        let hook = Request { hook: Some("ci".to_owned()), ..request("ci", 1.0) };
        assert!(situation.admit(&hook, true).is_ok());
    }

    #[test]
    fn what_exceeds_the_day_waits_for_local_midnight_and_says_so() {
        let bounds = Bounds::new();
        let mut situation = situation(&bounds, 2.5);
        situation.purse.spent = 0.5;
        assert_eq!(situation.admit(&request("ci", 1.5), true), Ok(1.5));
        let wait = situation.admit(&request("ci", 1.0), true).unwrap_err();
        assert_eq!(
            serde_json::to_string(&wait).unwrap(),
            r#"{"reason":"daily_cost_usd","until":"1970-01-02T00:00:00Z","daily":2.5,"spent":0.5,"reserved":1.5}"#
        );
        assert_eq!(
            wait.to_string(),
            "waits for money until 1970-01-02T00:00:00Z: of daily_cost_usd = 2.5, 0.50 are spent and 1.50 reserved"
        );
        assert_eq!(situation.admit(&request("ci", 0.5), true), Ok(0.5), "a cheaper one does not wait for it");
    }
}
