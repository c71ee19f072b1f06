//! Writing a new run, once per call.

use ringback_model::flow::{Meeting, OnNewer, Rule, meet};
use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{EventId, Timestamp};
use rusqlite::{Error as Sql, OptionalExtension, Result, params};
use uuid::Uuid;

use super::record::Ready;
use super::runs::on_subject;
use super::save::run_json;
use super::writer::Batch;
use crate::{Accept, Accepted, Binding, CallKey};

/// Expired keys that go with each key that is bound: more than one, so that they become fewer.
const KEYS_AT_ONCE: i64 = 2;

impl Batch<'_> {
    pub(super) fn accept(&mut self, accept: &Accept, json: &str) -> Result<Accepted> {
        let id = accept.run.id;
        if let (Some(rule), Some(subject)) = (accept.rule, &accept.run.subject)
            && !self.is_known(id)?
        {
            return self.accept_on(subject, rule, accept);
        }
        if self.queued_runs()? >= accept.max_queued {
            // What was accepted before is answered as it was then, however long the queue is now.
            let first = match &accept.key {
                Some(key) => self.bound_to(key, accept.now)?,
                None => None,
            };
            return Ok(match first {
                Some(first) => Accepted::Repeated(first),
                None if self.is_known(id)? => Accepted::Repeated(id),
                None => Accepted::Full,
            });
        }
        if let Some(call) = &accept.binding()
            && !self.bind(call, id)?
            && let Some(first) = self.bound_to(&call.key, call.now)?
        {
            return Ok(Accepted::Repeated(first));
        }
        Ok(if self.insert_run(&accept.run, json)? { Accepted::New } else { Accepted::Repeated(id) })
    }

    /// The same for a run that meets others on its subject.
    fn accept_on(&mut self, subject: &str, rule: Rule, accept: &Accept) -> Result<Accepted> {
        let call = accept.binding();
        if let Some(call) = &call
            && let Some(first) = self.bound_to(&call.key, call.now)?
        {
            return Ok(Accepted::Repeated(first));
        }
        let needed = if rule.on_newer == OnNewer::Queue { 1 } else { usize::MAX };
        let queued = on_subject(self.conn, subject, RunState::Queued, needed)?;
        let working = match rule.on_newer {
            OnNewer::Cancel => on_subject(self.conn, subject, RunState::Working, usize::MAX)?,
            OnNewer::Queue | OnNewer::Replace => Vec::new(),
        };
        let (run, older) = match meet(rule, accept.run.clone(), queued, working, accept.now) {
            Meeting::Merged(run) => {
                self.replace_run(&run, &json_of(&run)?)?;
                self.bind_to(run.id, call.as_ref())?;
                return Ok(Accepted::Merged(run.id));
            }
            Meeting::Queued { run, superseded, ending } => {
                let others = self.queued_runs()?.saturating_sub(superseded.len() as u64);
                if others >= accept.max_queued {
                    return Ok(Accepted::Full);
                }
                (run, [superseded, ending].concat())
            }
        };
        for older in &older {
            self.replace_run(older, &json_of(older)?)?;
        }
        self.insert_run(&run, &json_of(&run)?)?;
        self.bind_to(run.id, call.as_ref())?;
        let ids: Vec<RunId> = older.iter().map(|run| run.id).collect();
        Ok(if ids.is_empty() { Accepted::New } else { Accepted::Replacing(ids) })
    }

    /// Writes a message once per call; a key is bound to the message's own id.
    pub(super) fn tell(&mut self, told: &Ready, id: EventId, call: Option<&Binding>) -> Result<bool> {
        if !self.bind_to(RunId(id.0), call)? {
            return Ok(false);
        }
        self.record(std::slice::from_ref(told)).map(|_| true)
    }

    /// Says `false` when the key is bound already.
    fn bind_to(&self, run: RunId, call: Option<&Binding>) -> Result<bool> {
        call.map_or(Ok(true), |call| self.bind(call, run))
    }

    /// Runs that are queued, with all that this transaction did so far.
    fn queued_runs(&mut self) -> Result<u64> {
        let committed: i64 =
            self.statement("SELECT queued_runs FROM tally")?.query_row([], |row| row.get(0))?;
        let queued = committed + self.whole.queued_runs() + self.tally.queued_runs();
        Ok(u64::try_from(queued).unwrap_or(0))
    }

    fn is_known(&self, id: RunId) -> Result<bool> {
        self.conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM run WHERE id = ?1)")?
            .query_row([id.0.as_bytes()], |row| row.get(0))
    }

    /// The run that a live key is bound to.
    fn bound_to(&self, key: &CallKey, now: Timestamp) -> Result<Option<RunId>> {
        self.conn
            .prepare_cached(
                "SELECT run_id FROM call_key WHERE scope = ?1 AND value = ?2 AND expires_at > ?3",
            )?
            .query_row(params![key.scope, key.value, now.as_millis()], |row| {
                Ok(RunId(Uuid::from_bytes(row.get(0)?)))
            })
            .optional()
    }

    /// Binds a key unless it is live; says whether it did.
    fn bind(&self, call: &Binding, run: RunId) -> Result<bool> {
        let Binding { key, now, .. } = call;
        let rows = self
            .conn
            .prepare_cached(
                "INSERT INTO call_key (scope, value, run_id, expires_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (scope, value) DO UPDATE SET
                     run_id = excluded.run_id, expires_at = excluded.expires_at
                 WHERE expires_at <= ?5",
            )?
            .execute(params![
                key.scope,
                key.value,
                run.0.as_bytes(),
                call.expires_at().as_millis(),
                now.as_millis()
            ])?;
        if rows == 0 {
            return Ok(false);
        }
        self.forget_keys(*now)?;
        Ok(true)
    }

    fn forget_keys(&self, now: Timestamp) -> Result<()> {
        let mut find = self.conn.prepare_cached(
            "SELECT scope, value FROM call_key WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
        )?;
        // Gathered first: nothing is removed from under the statement that reads.
        let expired: Vec<(String, String)> = find
            .query_map([now.as_millis(), KEYS_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        for (scope, value) in expired {
            self.conn
                .prepare_cached("DELETE FROM call_key WHERE scope = ?1 AND value = ?2")?
                .execute([scope, value])?;
        }
        Ok(())
    }
}

fn json_of(run: &Run) -> Result<String> {
    run_json(run).map_err(|error| Sql::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::contract::ledger::{accept, key};
    use crate::sqlite::SqliteStore;
    use crate::{Accept, Accepted, Ledger};

    #[tokio::test]
    async fn expired_keys_go_a_few_with_each_that_is_bound() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("ringback.db")).unwrap();
        let bind = async |n: u128, at: i64| {
            let call = Accept {
                key: Some(key("hook", &n.to_string())),
                key_ttl: Duration::from_millis(10),
                ..accept(n, at)
            };
            assert_eq!(store.accept(call).await, Ok(Accepted::New));
        };
        let keys = async || {
            let count = |conn: &rusqlite::Connection| {
                conn.query_row("SELECT count(*) FROM call_key", [], |row| row.get::<_, i64>(0))
            };
            store.listings.read(count).await.unwrap()
        };
        for n in 1..=5 {
            bind(n, 100).await;
        }
        assert_eq!(keys().await, 5);
        bind(6, 109).await;
        assert_eq!(keys().await, 6, "none was expired");
        bind(7, 110).await;
        assert_eq!(keys().await, 5);
        bind(8, 110).await;
        bind(9, 110).await;
        assert_eq!(keys().await, 4, "6 to 9 are live");
    }
}
