//! What the inbound half keeps: runs, the keys of calls, and small named values.
//!
//! Owns: the [`Ledger`] trait and its questions and answers. Which state follows which, what a run costs at most and
//! what the values mean is decided elsewhere; this crate keeps what was decided.

use std::time::Duration;

use async_trait::async_trait;
use ringback_model::flow::Rule;
use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{SessionId, Timestamp};

use crate::{Cursor, Error, Page, Told};

/// The journal of runs, beside [`Store`](crate::Store) in the same engines and the same transactions.
///
/// Makes the same promises: a write is durable (as far as the engine is) when its call returns, and whole; every call
/// may be repeated after an error; every read sees all writes that returned before it was asked.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Puts a new run at the end of the queue, unless its call was accepted before or the queue is full.
    ///
    /// A run whose id is known already is not put there again and answers [`Accepted::Repeated`] with that id. A run
    /// with a subject and a rule meets those before it as [`flow::meet`](ringback_model::flow::meet) decides, all in
    /// one transaction; what is merged needs no room in the queue.
    ///
    /// # Errors
    /// [`Error::Refused`] for a run that is not queued.
    async fn accept(&self, accept: Accept) -> Result<Accepted, Error>;

    /// Writes a message that no run causes, unless its call was accepted before: says whether it did.
    async fn tell(&self, told: Told, call: Option<Binding>) -> Result<bool, Error>;

    /// Writes runs, values and messages, all in one transaction.
    ///
    /// # Errors
    /// [`Error::Refused`] when one of the runs is unknown; then nothing is written.
    async fn save(&self, save: Save) -> Result<(), Error>;

    /// Returns a named value.
    async fn value(&self, name: &str) -> Result<Option<String>, Error>;

    /// Returns the values whose names begin with `prefix`, in the order of their names.
    async fn values(&self, prefix: &str) -> Result<Vec<(String, String)>, Error>;

    /// Returns the first `limit` queued runs in the order in which they were accepted.
    async fn queued(&self, limit: usize) -> Result<Vec<Run>, Error>;

    /// Returns the queued run on a subject that was accepted first.
    async fn first_queued_on(&self, subject: &str) -> Result<Option<RunId>, Error>;

    /// Returns how many runs are queued. Costs the same with any number of them.
    async fn queued_count(&self) -> Result<u64, Error>;

    /// Returns how many runs are in each state, in the order of [`RunState::ALL`].
    async fn run_counts(&self) -> Result<Vec<(RunState, u64)>, Error>;

    /// Returns the runs that left the queue and did not end, in the order in which they were accepted. At a start
    /// these are what a killed ringback left behind.
    async fn unfinished(&self) -> Result<Vec<Run>, Error>;

    /// Returns one run; `None` = there is none (or no longer).
    async fn run(&self, id: RunId) -> Result<Option<Run>, Error>;

    /// Lists runs, the one accepted last first.
    async fn runs(&self, query: RunQuery) -> Result<Page<Run>, Error>;

    /// Returns the run that opened a session; of several the one accepted last.
    async fn run_of_session(&self, session: &SessionId) -> Result<Option<RunId>, Error>;

    /// Returns the sessions of the runs that are open or ended at `since` or later, with the run's id and source, in
    /// the order in which the runs were accepted.
    async fn run_sessions(&self, since: Timestamp) -> Result<Vec<(SessionId, RunId, String)>, Error>;

    /// Removes runs that ended before `before`, oldest end first, and returns their ids, so that the caller removes
    /// what it keeps of them elsewhere. At most `limit`, and never more than [`PRUNED_AT_ONCE`]: whoever wants all
    /// of them asks until nothing comes back.
    async fn prune_runs(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>, Error>;

    /// Returns what the runs that ended at `since` or later count for together, in US dollars: what they were charged,
    /// else what they cost. An unknown cost counts as nothing, and so does a run that is open.
    async fn cost_since(&self, since: Timestamp) -> Result<f64, Error>;
}

/// Runs that one [`Ledger::prune_runs`] removes at most.
pub const PRUNED_AT_ONCE: usize = 500;

/// A call that asks for a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    /// The run, queued.
    pub run: Run,
    /// By what a repeated call is recognised; `None` = every call is a new one.
    pub key: Option<CallKey>,
    /// The present.
    pub now: Timestamp,
    /// How long the key is bound from now on.
    pub key_ttl: Duration,
    /// With so many runs queued no other is accepted.
    pub max_queued: u64,
    /// How it meets earlier runs on its subject; `None` = not at all.
    pub rule: Option<Rule>,
}

impl Accept {
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.run.state {
            RunState::Queued => check(&self.run),
            state => Err(Error::Refused(format!("a {state} run cannot be accepted"))),
        }
    }

    pub(crate) fn binding(&self) -> Option<Binding> {
        let key = self.key.clone()?;
        Some(Binding { key, now: self.now, ttl: self.key_ttl })
    }
}

/// A key that is bound at `now` for so long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// By what a repeated call is recognised.
    pub key: CallKey,
    /// The present.
    pub now: Timestamp,
    /// How long the key is bound.
    pub ttl: Duration,
}

impl Binding {
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.now.plus(self.ttl)
    }
}

/// The key of a call. The same value in another scope is another key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// Where the value was sent: the route.
    pub scope: String,
    /// What the caller or its provider sent.
    pub value: String,
}

/// What became of an [`Accept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The run is queued.
    New,
    /// The run is queued in the place of these: they are superseded, or still work and are to be ended.
    Replacing(Vec<RunId>),
    /// The call is part of this run, which was queued before.
    Merged(RunId),
    /// Its key is bound to this run; nothing was stored.
    Repeated(RunId),
    /// As many runs as may be are queued; nothing was stored and the key was not bound.
    Full,
}

/// What is written together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Save {
    /// Each replaces the run with its id, which must be known.
    pub runs: Vec<Run>,
    /// Small texts by name; `None` removes the value.
    pub values: Vec<(String, Option<String>)>,
    /// Messages, journaled as [`Store::record`](crate::Store::record) does.
    pub told: Vec<Told>,
}

impl Save {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.runs.iter().try_for_each(check)
    }
}

/// JSON has no words for such a bound, so the run could not be read again.
fn check(run: &Run) -> Result<(), Error> {
    let max = run.request.limits.max_cost_usd;
    if max.is_finite() {
        Ok(())
    } else {
        Err(Error::Refused(format!("a run's cost cannot be at most {max}")))
    }
}

/// Which runs to list. The filters are joined by "and".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunQuery {
    /// Only in this state.
    pub state: Option<RunState>,
    /// Only from this source.
    pub source: Option<String>,
    /// Rows of one page, moved into `1..=1000`.
    pub limit: usize,
    /// Where the page before ended; `None` = from the newest.
    pub cursor: Option<Cursor>,
}

impl RunQuery {
    pub(crate) fn page_size(&self) -> usize {
        self.limit.clamp(1, 1000)
    }
}

impl Default for RunQuery {
    /// The newest hundred.
    fn default() -> Self {
        RunQuery { state: None, source: None, limit: 100, cursor: None }
    }
}

/// When a run ended; `None` = it is open. One that ended without noting when ended, for us, when it was accepted:
/// whatever is finished must be old enough to be pruned some day.
pub(crate) fn ended_at(run: &Run) -> Option<Timestamp> {
    run.state.is_terminal().then(|| run.ended_at.unwrap_or(run.created_at))
}

/// What a run counts for: what was decided at its end, else what it cost. What is no number counts for nothing.
pub(crate) fn cost_usd(run: &Run) -> Option<f64> {
    run.charged_usd.or(run.cost_usd).filter(|cost| cost.is_finite())
}
