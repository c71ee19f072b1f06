//! Which queued run may start.
//!
//! Owns: what holds a run back, and in which words that is told. Each run is judged by itself, in the order in which
//! they were accepted: what holds one back does not hold back those behind it. Does not know how many slots there
//! are: whoever asks stops when the last one is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::inbound::bounds::{Bounds, Caller};
use crate::money::{Day, Purse, Want};
use crate::run::{Request, Run};
use crate::time::Timestamp;

/// What goes on, as far as it decides what may start.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The present.
    pub now: Timestamp,
    /// The day's money.
    pub purse: Purse,
    /// The day.
    pub day: Day,
    /// Bounds of callers.
    pub bounds: Arc<Bounds>,
    /// Runs that go on, by who asked for them.
    pub going: BTreeMap<Caller, u32>,
    /// Subjects of runs that go on, or were asked about here and wait: see [`Run::subject`].
    pub subjects: BTreeSet<String>,
    /// Since when hooks are paused, by their slugs.
    pub paused: BTreeMap<String, Timestamp>,
}

/// What a queued run waits for. As JSON: `{"reason": "daily_cost_usd", "until": "2026-05-20T22:00:00Z", …}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Wait {
    /// A free slot (`max_concurrent`).
    Slot,
    /// Further calls that it gathers (`coalesce`).
    Quiet {
        /// When it starts if none comes.
        until: Timestamp,
    },
    /// An older run on the same subject (`on_newer`).
    OlderRun,
    /// Somebody who lets its hook go on.
    HookPaused {
        /// The hook's slug.
        hook: String,
        /// Since when it is paused.
        since: Timestamp,
    },
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
            Wait::Quiet { until } => write!(f, "gathers further calls until {until}"),
            Wait::OlderRun => write!(f, "waits for the end of an older run about the same"),
            Wait::HookPaused { hook, .. } => {
                write!(f, "waits because its hook is paused: ringback hooks resume {hook}")
            }
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

impl Situation {
    /// Lets a run start, and counts it: gives the most that it may cost, 0 = no bound. Asked in the order in which
    /// the runs were accepted, so that of one subject none overtakes another.
    ///
    /// # Errors
    /// It has to wait, for this; nothing is counted.
    pub fn admit(&mut self, run: &Run, is_metered: bool) -> Result<f64, Wait> {
        let is_first = run.subject.as_ref().is_none_or(|subject| self.subjects.insert(subject.clone()));
        self.may_start(run, is_first)?;
        let amount = self.afford(&run.request, is_metered)?;
        *self.going.entry(Caller::of(&run.request)).or_default() += 1;
        Ok(amount)
    }

    fn may_start(&self, run: &Run, is_first: bool) -> Result<(), Wait> {
        let caller = Caller::of(&run.request);
        if let Caller::Hook(hook) = &caller
            && let Some(since) = self.paused.get(hook)
        {
            return Err(Wait::HookPaused { hook: hook.clone(), since: *since });
        }
        if let Some(until) = run.ready_at.filter(|at| *at > self.now) {
            return Err(Wait::Quiet { until });
        }
        if !is_first {
            return Err(Wait::OlderRun);
        }
        let going = self.going.get(&caller).copied().unwrap_or(0);
        if let Some(limit) = self.bounds.get(&caller).and_then(|b| b.concurrency).filter(|max| going >= *max)
        {
            return Err(Wait::Concurrency { limit });
        }
        Ok(())
    }

    /// Takes what a run reserves from the day's money: the most that it may cost, 0 = no bound.
    ///
    /// # Errors
    /// There is not enough left of it; nothing is taken.
    fn afford(&mut self, request: &Request, is_metered: bool) -> Result<f64, Wait> {
        let want = Want { max_cost_usd: request.limits.max_cost_usd, is_metered };
        let purse = self.purse;
        self.purse.reserve(want).map_err(|_| Wait::DailyCostUsd {
            until: self.day.until,
            daily: purse.daily,
            spent: purse.spent,
            reserved: purse.reserved,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::bounds::Bound;
    use crate::run::{Limits, RunId};
    use crate::updates::UpdatePolicy;
    use uuid::Uuid;

    fn request(source: &str, max_cost_usd: f64) -> Run {
        let request = Request {
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
        };
        Run::queued(RunId(Uuid::nil()), request, Timestamp::default())
    }

    fn situation(bounds: Bounds, daily: f64) -> Situation {
        Situation {
            now: Timestamp::from_millis(10_000),
            purse: Purse { daily, spent: 0.0, reserved: 0.0 },
            day: Day { from: Timestamp::from_millis(0), until: Timestamp::from_millis(86_400_000) },
            bounds: Arc::new(bounds),
            going: BTreeMap::new(),
            subjects: BTreeSet::new(),
            paused: BTreeMap::new(),
        }
    }

    #[test]
    fn a_sources_excess_waits_while_others_go_on() {
        let bound = Bound { rate: None, concurrency: Some(2) };
        let bounds = Bounds::from([(Caller::Source("ci".to_owned()), bound)]);
        let mut situation = situation(bounds, 0.0);
        let started: Vec<bool> = ["ci", "ci", "ci", "other", "ci", "other"]
            .iter()
            .map(|source| situation.admit(&request(source, 1.0), true).is_ok())
            .collect();
        assert_eq!(started, [true, true, false, true, false, true]);
        let wait = situation.admit(&request("ci", 1.0), true).unwrap_err();
        assert_eq!(wait, Wait::Concurrency { limit: 2 });
        assert_eq!(wait.to_string(), "waits for another run of its source (concurrency = 2)");
        // A hook counts apart from a source of the same name.
        assert!(situation.admit(&of_hook("ci", None), true).is_ok());
    }

    fn of_hook(slug: &str, subject: Option<&str>) -> Run {
        let mut run = Run { subject: subject.map(str::to_owned), ..request(slug, 1.0) };
        run.request.hook = Some(slug.to_owned());
        run
    }

    #[test]
    fn of_one_subject_the_oldest_goes_first_and_alone_whatever_it_waits_for() {
        let mut situation = situation(Bounds::new(), 0.0);
        let (one, other) = (of_hook("pr", Some("pr:1")), of_hook("pr", Some("pr:2")));
        assert!(situation.admit(&one, true).is_ok());
        assert_eq!(situation.admit(&one, true), Err(Wait::OlderRun));
        let gathers = Run { ready_at: Some(Timestamp::from_millis(10_001)), ..other.clone() };
        let wait = situation.admit(&gathers, true).unwrap_err();
        assert_eq!(
            serde_json::to_string(&wait).unwrap(),
            r#"{"reason":"quiet","until":"1970-01-01T00:00:10.001Z"}"#
        );
        assert_eq!(
            situation.admit(&other, true),
            Err(Wait::OlderRun),
            "the one that gathers was there first"
        );
        let ready = Run { ready_at: Some(Timestamp::from_millis(10_000)), ..of_hook("pr", Some("pr:3")) };
        assert!(situation.admit(&ready, true).is_ok() && situation.admit(&of_hook("pr", None), true).is_ok());
    }

    #[test]
    fn runs_of_a_paused_hook_wait_and_those_of_others_do_not() {
        let mut situation = situation(Bounds::new(), 0.0);
        situation.paused.insert("ci".to_owned(), Timestamp::default());
        let wait = situation.admit(&of_hook("ci", None), true).unwrap_err();
        assert_eq!(wait.to_string(), "waits because its hook is paused: ringback hooks resume ci");
        assert!(situation.admit(&request("ci", 1.0), true).is_ok());
    }

    #[test]
    fn what_exceeds_the_day_waits_for_local_midnight_and_says_so() {
        let mut situation = situation(Bounds::new(), 2.5);
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
