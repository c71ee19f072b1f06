//! Counts, gathered over a transaction and written once per endpoint: a burst to one endpoint changes its row once,
//! not once per event.

use std::collections::HashMap;

use ringback_model::run::RunState;
use ringback_model::{Attempt, DeliveryState, EndpointName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::answers::Answers;
use super::rows::state_code;

/// Ids of the endpoints met so far. Must forget them when a transaction that may have made one is undone.
#[derive(Default)]
pub(super) struct Endpoints(HashMap<EndpointName, i64>);

impl Endpoints {
    /// Returns the id of an endpoint, giving one to a new endpoint.
    pub(super) fn id(&mut self, conn: &Connection, name: &EndpointName) -> Result<i64> {
        if let Some(id) = self.0.get(name) {
            return Ok(*id);
        }
        let known = conn
            .prepare_cached("SELECT endpoint FROM endpoint WHERE name = ?1")?
            .query_row([name.as_str()], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => conn
                .prepare_cached("INSERT INTO endpoint (name) VALUES (?1) RETURNING endpoint")?
                .query_row([name.as_str()], |row| row.get(0))?,
        };
        self.0.insert(name.clone(), id);
        Ok(id)
    }

    /// Forgets all of them.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// What changes in the counts.
#[derive(Default)]
pub(super) struct Tally {
    events: i64,
    queued_runs: i64,
    endpoints: HashMap<i64, Change>,
}

#[derive(Default)]
struct Change {
    /// By the number of the state.
    states: [i64; 5],
    answers_ms: Vec<u64>,
    has_answers_written: bool,
    last: Option<Last>,
}

struct Last {
    status: Option<u16>,
    error: Option<String>,
    started_at: Timestamp,
}

impl Tally {
    /// Counts a new event.
    pub(super) fn event(&mut self) {
        self.events += 1;
    }

    /// Counts a run that is in another state than before; `None` = it is new.
    pub(super) fn run_changed(&mut self, before: Option<RunState>, after: RunState) {
        self.queued_runs +=
            i64::from(after == RunState::Queued) - i64::from(before == Some(RunState::Queued));
    }

    /// How many more runs are queued than before.
    pub(super) fn queued_runs(&self) -> i64 {
        self.queued_runs
    }

    /// Counts new pending deliveries.
    pub(super) fn queued(&mut self, endpoint: i64) {
        self.of(endpoint).states[slot(DeliveryState::Pending)] += 1;
    }

    /// Counts `n` pending deliveries that are now in another state.
    pub(super) fn moved(&mut self, endpoint: i64, to: DeliveryState, n: i64) {
        let states = &mut self.of(endpoint).states;
        states[slot(DeliveryState::Pending)] -= n;
        states[slot(to)] += n;
    }

    /// Counts a delivery that had ended and is pending again.
    pub(super) fn reopened(&mut self, endpoint: i64, from: DeliveryState) {
        self.moved(endpoint, from, -1);
    }

    /// Counts an attempt.
    pub(super) fn attempted(&mut self, endpoint: i64, attempt: &Attempt) {
        let change = self.of(endpoint);
        if attempt.status.is_some() {
            change.answers_ms.push(attempt.duration_ms);
        }
        change.last = Some(Last {
            status: attempt.status,
            error: attempt.error.clone(),
            started_at: attempt.started_at,
        });
    }

    /// Adds what came later.
    pub(super) fn add(&mut self, later: Tally) {
        self.events += later.events;
        self.queued_runs += later.queued_runs;
        for (endpoint, change) in later.endpoints {
            let sum = self.of(endpoint);
            for (sum, n) in sum.states.iter_mut().zip(change.states) {
                *sum += n;
            }
            sum.answers_ms.extend(change.answers_ms);
            sum.last = change.last.or(sum.last.take());
        }
    }

    /// Writes all of it but answers that have to wait for more.
    pub(super) fn write(&mut self, conn: &Connection, answers: &Answers) -> Result<()> {
        if self.events != 0 || self.queued_runs != 0 {
            conn.prepare_cached("UPDATE tally SET events = events + ?1, queued_runs = queued_runs + ?2")?
                .execute([self.events, self.queued_runs])?;
        }
        for (endpoint, change) in &mut self.endpoints {
            change.write(conn, *endpoint)?;
            change.has_answers_written = answers.write(conn, *endpoint, &change.answers_ms)?;
        }
        Ok(())
    }

    /// Hands over the answers, once what was written is on the disk.
    pub(super) fn committed(self, answers: &Answers) {
        for (endpoint, change) in self.endpoints {
            answers.committed(endpoint, change.answers_ms, change.has_answers_written);
        }
    }

    fn of(&mut self, endpoint: i64) -> &mut Change {
        self.endpoints.entry(endpoint).or_default()
    }
}

impl Change {
    fn write(&self, conn: &Connection, endpoint: i64) -> Result<()> {
        let [pending, delivered, failed, dead, cancelled] = self.states;
        let Some(last) = &self.last else {
            conn.prepare_cached(
                "UPDATE endpoint SET pending = pending + ?2, delivered = delivered + ?3, failed = failed + ?4,
                     dead = dead + ?5, cancelled = cancelled + ?6
                 WHERE endpoint = ?1",
            )?
            .execute(params![endpoint, pending, delivered, failed, dead, cancelled])?;
            return Ok(());
        };
        conn.prepare_cached(
            "UPDATE endpoint SET pending = pending + ?2, delivered = delivered + ?3, failed = failed + ?4,
                 dead = dead + ?5, cancelled = cancelled + ?6, last_status = ?7, last_error = ?8,
                 last_attempt_at = ?9
             WHERE endpoint = ?1",
        )?
        .execute(params![
            endpoint,
            pending,
            delivered,
            failed,
            dead,
            cancelled,
            last.status,
            last.error,
            last.started_at.as_millis()
        ])?;
        Ok(())
    }
}

fn slot(state: DeliveryState) -> usize {
    state_code(state) as usize
}
