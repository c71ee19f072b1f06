//! Runs, keys and values in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use ringback_model::flow::{Meeting, meet};
use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{SessionId, Timestamp};

use super::MemoryStore;
use crate::ledger::{cost_usd, ended_at};
use crate::{Accept, Accepted, Binding, CallKey, Error, Ledger, PRUNED_AT_ONCE, Page, RunQuery, Save, Told};

#[derive(Default)]
pub(super) struct Runs {
    /// By a number that rises with each run that is accepted.
    runs: BTreeMap<i64, Run>,
    numbers: HashMap<RunId, i64>,
    newest: i64,
    queued: BTreeSet<i64>,
    keys: HashMap<CallKey, (Timestamp, RunId)>,
    key_ends: BTreeSet<(Timestamp, CallKey)>,
    values: BTreeMap<String, String>,
}

impl Runs {
    fn accept(&mut self, accept: Accept) -> Accepted {
        self.forget_keys(accept.now);
        let call = accept.binding();
        let Accept { run, now, max_queued, rule, .. } = accept;
        let id = run.id;
        if let Some(first) = call.as_ref().and_then(|call| self.bound_to(call)) {
            return Accepted::Repeated(first);
        }
        let is_known = self.numbers.contains_key(&id);
        if let (Some(rule), Some(subject), false) = (rule, &run.subject, is_known) {
            let (queued, working) =
                (self.on_subject(subject, RunState::Queued), self.on_subject(subject, RunState::Working));
            let (run, older) = match meet(rule, run, queued, working, now) {
                Meeting::Merged(run) => {
                    let id = run.id;
                    self.bind(call, id);
                    self.put_known(run);
                    return Accepted::Merged(id);
                }
                Meeting::Queued { run, superseded, ending } => {
                    if (self.queued.len() - superseded.len()) as u64 >= max_queued {
                        return Accepted::Full;
                    }
                    (run, [superseded, ending].concat())
                }
            };
            let ids: Vec<RunId> = older.iter().map(|run| run.id).collect();
            older.into_iter().for_each(|run| self.put_known(run));
            self.bind(call, id);
            self.put_new(run);
            return if ids.is_empty() { Accepted::New } else { Accepted::Replacing(ids) };
        }
        if self.queued.len() as u64 >= max_queued {
            return if is_known { Accepted::Repeated(id) } else { Accepted::Full };
        }
        self.bind(call, id);
        if is_known {
            return Accepted::Repeated(id);
        }
        self.put_new(run);
        Accepted::New
    }

    fn bound_to(&self, call: &Binding) -> Option<RunId> {
        self.keys.get(&call.key).map(|(_, first)| *first)
    }

    fn bind(&mut self, call: Option<Binding>, id: RunId) {
        let Some(call) = call else { return };
        // A key that was bound for no time at all is not live for a moment.
        let expires_at = call.expires_at();
        if expires_at > call.now {
            self.key_ends.insert((expires_at, call.key.clone()));
            self.keys.insert(call.key, (expires_at, id));
        }
    }

    fn on_subject(&self, subject: &str, state: RunState) -> Vec<Run> {
        let is_on = |run: &&Run| run.state == state && run.subject.as_deref() == Some(subject);
        self.runs.values().filter(is_on).cloned().collect()
    }

    fn forget_keys(&mut self, now: Timestamp) {
        while let Some((expires_at, _)) = self.key_ends.first()
            && *expires_at <= now
        {
            if let Some((_, key)) = self.key_ends.pop_first() {
                self.keys.remove(&key);
            }
        }
    }

    fn put(&mut self, number: i64, run: Run) {
        if run.state == RunState::Queued {
            self.queued.insert(number);
        } else {
            self.queued.remove(&number);
        }
        self.runs.insert(number, run);
    }

    fn put_new(&mut self, run: Run) {
        self.newest += 1;
        self.numbers.insert(run.id, self.newest);
        self.put(self.newest, run);
    }

    fn put_known(&mut self, run: Run) {
        if let Some(number) = self.numbers.get(&run.id) {
            self.put(*number, run);
        }
    }

    /// Replaces all of the runs, or none if one is unknown.
    fn replace(&mut self, runs: Vec<Run>) -> Result<(), Error> {
        if let Some(unknown) = runs.iter().find(|run| !self.numbers.contains_key(&run.id)) {
            return Err(Error::Refused(format!("there is no run {}", unknown.id)));
        }
        runs.into_iter().for_each(|run| self.put_known(run));
        Ok(())
    }

    fn listed(&self, query: &RunQuery) -> Page<Run> {
        let size = query.page_size();
        let before = query.cursor.map_or(i64::MAX, |c| c.0);
        let rows = self
            .runs
            .range(..before)
            .rev()
            .filter(|(_, run)| query.state.is_none_or(|s| s == run.state))
            .filter(|(_, run)| query.source.as_ref().is_none_or(|s| *s == run.request.source))
            .take(size + 1)
            .collect();
        Page::cut(rows, size, |(number, _): &(&i64, &Run)| **number).map(|(_, run)| run.clone())
    }

    fn prune(&mut self, before: Timestamp, limit: usize) -> Vec<RunId> {
        let ended = self.runs.iter().filter_map(|(number, run)| ended_at(run).map(|at| (at, *number)));
        let mut old: Vec<(Timestamp, i64)> = ended.filter(|(at, _)| *at < before).collect();
        old.sort_unstable();
        old.truncate(limit.min(PRUNED_AT_ONCE));
        let removed = old.iter().filter_map(|(_, number)| self.runs.remove(number));
        let ids: Vec<RunId> = removed.map(|run| run.id).collect();
        for id in &ids {
            self.numbers.remove(id);
        }
        ids
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted, Error> {
        accept.check()?;
        Ok(self.tables()?.runs.accept(accept))
    }

    async fn tell(&self, told: Told, call: Option<Binding>) -> Result<bool, Error> {
        let mut tables = self.tables()?;
        if let Some(call) = call {
            tables.runs.forget_keys(call.now);
            if tables.runs.bound_to(&call).is_some() {
                return Ok(false);
            }
            tables.runs.bind(Some(call), RunId(told.event.id.0));
        }
        tables.record(told);
        Ok(true)
    }

    async fn save(&self, save: Save) -> Result<(), Error> {
        save.check()?;
        let mut tables = self.tables()?;
        tables.runs.replace(save.runs)?;
        for (name, value) in save.values {
            match value {
                Some(value) => tables.runs.values.insert(name, value),
                None => tables.runs.values.remove(&name),
            };
        }
        for told in save.told {
            tables.record(told);
        }
        Ok(())
    }

    async fn value(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.tables()?.runs.values.get(name).cloned())
    }

    async fn values(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        let tables = self.tables()?;
        let values = tables.runs.values.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(values.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    async fn queued(&self, limit: usize) -> Result<Vec<Run>, Error> {
        let tables = self.tables()?;
        let first = tables.runs.queued.iter().take(limit);
        Ok(first.filter_map(|number| tables.runs.runs.get(number)).cloned().collect())
    }

    async fn first_queued_on(&self, subject: &str) -> Result<Option<RunId>, Error> {
        let first = self.tables()?.runs.on_subject(subject, RunState::Queued).into_iter().next();
        Ok(first.map(|run| run.id))
    }

    async fn queued_count(&self) -> Result<u64, Error> {
        Ok(self.tables()?.runs.queued.len() as u64)
    }

    async fn run_counts(&self) -> Result<Vec<(RunState, u64)>, Error> {
        let tables = self.tables()?;
        let in_state = |state| tables.runs.runs.values().filter(|run| run.state == state).count() as u64;
        Ok(RunState::ALL.iter().map(|state| (*state, in_state(*state))).collect())
    }

    async fn unfinished(&self) -> Result<Vec<Run>, Error> {
        let tables = self.tables()?;
        let left = |run: &&Run| run.state != RunState::Queued && !run.state.is_terminal();
        Ok(tables.runs.runs.values().filter(left).cloned().collect())
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        let tables = self.tables()?;
        Ok(tables.runs.numbers.get(&id).and_then(|number| tables.runs.runs.get(number)).cloned())
    }

    async fn runs(&self, query: RunQuery) -> Result<Page<Run>, Error> {
        Ok(self.tables()?.runs.listed(&query))
    }

    async fn run_of_session(&self, session: &SessionId) -> Result<Option<RunId>, Error> {
        let tables = self.tables()?;
        let mut newest_first = tables.runs.runs.values().rev();
        Ok(newest_first.find(|run| run.session_id.as_ref() == Some(session)).map(|run| run.id))
    }

    async fn run_sessions(&self, since: Timestamp) -> Result<Vec<(SessionId, RunId, String)>, Error> {
        let tables = self.tables()?;
        let recent = tables.runs.runs.values().filter(|run| ended_at(run).is_none_or(|at| at >= since));
        let with_session = recent.filter_map(|run| {
            let session = run.session_id.clone()?;
            Some((session, run.id, run.request.source.clone()))
        });
        Ok(with_session.collect())
    }

    async fn prune_runs(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        Ok(self.tables()?.runs.prune(before, limit))
    }

    async fn cost_since(&self, since: Timestamp) -> Result<f64, Error> {
        let tables = self.tables()?;
        let ended = tables.runs.runs.values().filter(|run| ended_at(run).is_some_and(|at| at >= since));
        // Not `sum`, which makes a negative zero of nothing.
        Ok(ended.filter_map(cost_usd).fold(0.0, |sum, cost| sum + cost))
    }
}
