//! What queued runs wait for: the day's money as the journal has it, and the runs that go on.
//!
//! What is spent and reserved is summed up from the journal whenever a run is to start, so that neither a crash nor a
//! restart loses any of it, and a run that waits needs no mark that could go stale. Calls are judged by the last sum as
//! long as no run has started or ended since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ringback_model::inbound::bounds::Caller;
use ringback_model::money::{Day, Purse, Want};
use ringback_model::queue::{Situation, Wait};
use ringback_model::run::{Request, Run, RunId, RunState};
use ringback_runs::Adapter;
use ringback_store::Error;
use serde_json::{Value, json};

use super::Runs;

/// What is left of the money, for callers: they are many, and few of them change it.
#[derive(Debug, Default)]
pub(super) struct Money {
    /// Rises with every change, so that what was summed up before it is not taken for what holds after it.
    generation: u64,
    known: Option<(Day, Purse)>,
}

impl Runs {
    /// What decides which run may start. Held under the books' lock it stays true until the lock is let go.
    pub(super) async fn situation(&self) -> Result<Situation, Error> {
        let now = self.moment().at;
        let day = (self.0.day)(now);
        let unfinished = self.0.ledger.unfinished().await?;
        let daily = self.0.config.daily_cost_usd;
        let spent = if daily > 0.0 { self.0.ledger.cost_since(day.from).await? } else { 0.0 };
        let mut going: BTreeMap<Caller, u32> = BTreeMap::new();
        for run in &unfinished {
            *going.entry(Caller::of(&run.request)).or_default() += 1;
        }
        let reserved = unfinished.iter().filter_map(|run| run.charged_usd).sum();
        let subjects: BTreeSet<String> = unfinished.into_iter().filter_map(|run| run.subject).collect();
        Ok(Situation {
            now,
            purse: Purse { daily, spent, reserved },
            day,
            bounds: Arc::clone(&self.hook_files().bounds),
            going,
            subjects,
            paused: self.paused(),
        })
    }

    /// Whether the day's money has no room for another run like this: then how long the day still lasts.
    pub(super) async fn money_gone(&self, request: &Request) -> Result<Option<Duration>, Error> {
        if self.0.config.daily_cost_usd <= 0.0 {
            return Ok(None);
        }
        let now = self.moment().at;
        let day = (self.0.day)(now);
        let (generation, known) = {
            let money = self.money();
            (money.generation, money.known)
        };
        let mut purse = match known.filter(|(of, _)| *of == day) {
            Some((_, purse)) => purse,
            None => {
                let Situation { day, purse, .. } = self.situation().await?;
                let mut money = self.money();
                if money.generation == generation {
                    money.known = Some((day, purse));
                }
                purse
            }
        };
        let want = Want { max_cost_usd: request.limits.max_cost_usd, is_metered: self.is_metered(request) };
        Ok(purse.reserve(want).is_err().then(|| day.left(now)))
    }

    /// A run took some of the day's money or gave some back, and the journal has it.
    pub(super) fn money_changed(&self) {
        let mut money = self.money();
        *money = Money { generation: money.generation + 1, known: None };
    }

    fn money(&self) -> MutexGuard<'_, Money> {
        self.0.money.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent of a run tells what it cost.
    pub(super) fn is_metered(&self, request: &Request) -> bool {
        self.0.config.agents.get(&request.agent).is_none_or(|entry| entry.adapter != Adapter::Command)
    }

    /// Runs as the interfaces show them, the queued ones with what they wait for.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn shown_with_waits(&self, runs: &[Run]) -> Result<Vec<Value>, Error> {
        let is_queued = |run: &Run| run.state == RunState::Queued;
        let situation = if runs.iter().any(is_queued) { Some(self.situation().await?) } else { None };
        let mut first_on: BTreeMap<&str, Option<RunId>> = BTreeMap::new();
        for subject in runs.iter().filter(|run| is_queued(run)).filter_map(|run| run.subject.as_deref()) {
            if !first_on.contains_key(subject) {
                first_on.insert(subject, self.0.ledger.first_queued_on(subject).await?);
            }
        }
        let with_wait = |run: &Run| {
            let mut shown = self.shown(run);
            if let Some(situation) = situation.as_ref().filter(|_| is_queued(run)) {
                let mut situation = situation.clone();
                if let Some(subject) = &run.subject
                    && first_on.get(&**subject) != Some(&Some(run.id))
                {
                    situation.subjects.insert(subject.clone());
                }
                let admitted = situation.admit(run, self.is_metered(&run.request));
                let wait = admitted.err().unwrap_or(Wait::Slot);
                shown["waiting"] = json!(wait);
                shown["waiting"]["text"] = json!(wait.to_string());
            }
            shown
        };
        Ok(runs.iter().map(with_wait).collect())
    }
}
