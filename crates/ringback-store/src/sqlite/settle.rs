//! Writing what came of deliveries.

use ringback_model::{Attempt, DeliveryState, Timestamp};
use rusqlite::{OptionalExtension, Result, params};

use super::rows::{integer, state_code};
use super::writer::Batch;
use crate::{Ending, Settled};

/// How many deliveries one step of [`Batch::close_pending`] ends.
const CLOSED_AT_ONCE: i64 = 500;

impl Batch<'_> {
    pub(super) fn settle(&mut self, settled: &[Settled]) -> Result<()> {
        for one in settled {
            self.settle_one(one)?;
        }
        Ok(())
    }

    fn settle_one(&mut self, settled: &Settled) -> Result<()> {
        let id = settled.id.0;
        let number = settled.attempt.as_ref().map_or(0, |a| a.number);
        let next = settled.next;
        let due_at =
            if next.state == DeliveryState::Pending { next.due_at } else { settled.ended_at() }.as_millis();
        // Not by RETURNING, which builds a table for its one row.
        let pending: Option<(i64, i64)> = self
            .conn
            .prepare_cached("SELECT event, endpoint FROM delivery WHERE delivery = ?1 AND state = 0")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((event, endpoint)) = pending else { return self.note_late(settled, number) };
        self.conn
            .prepare_cached(
                "UPDATE delivery SET state = ?2, attempts = ?3, due_at = ?4, tries = max(tries, ?5)
                 WHERE delivery = ?1",
            )?
            .execute(params![id, state_code(next.state), next.attempts, due_at, number])?;
        self.note(endpoint, settled)?;
        if next.state != DeliveryState::Pending {
            self.tally.moved(endpoint, next.state, 1);
            self.finish_if_last(event, settled.ended_at())?;
        }
        Ok(())
    }

    /// It ended while the attempt was under way; if it was pruned as well, there is nothing to note.
    fn note_late(&mut self, settled: &Settled, number: u32) -> Result<()> {
        let endpoint: Option<i64> = self
            .conn
            .prepare_cached(
                "UPDATE delivery SET tries = max(tries, ?2) WHERE delivery = ?1 RETURNING endpoint",
            )?
            .query_row(params![settled.id.0, number], |row| row.get(0))
            .optional()?;
        endpoint.map_or(Ok(()), |endpoint| self.note(endpoint, settled))
    }

    fn note(&mut self, endpoint: i64, settled: &Settled) -> Result<()> {
        if let Some(attempt) = &settled.attempt
            && self.put_attempt(settled.id.0, attempt)?
        {
            self.tally.attempted(endpoint, attempt);
        }
        Ok(())
    }

    /// Says whether the attempt is new.
    fn put_attempt(&self, delivery: i64, attempt: &Attempt) -> Result<bool> {
        let rows = self
            .conn
            .prepare_cached(
                "INSERT INTO attempt (delivery, number, started_at, duration_ms, status, error, excerpt)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (delivery, number) DO NOTHING",
            )?
            .execute(params![
                delivery,
                attempt.number,
                attempt.started_at.as_millis(),
                integer(attempt.duration_ms),
                attempt.status,
                attempt.error,
                attempt.excerpt,
            ])?;
        Ok(rows == 1)
    }

    /// Ends the next pending deliveries of an endpoint, none with an id above `up_to`. Returns how many, and
    /// whether there may be more.
    pub(super) fn close_pending(
        &mut self,
        endpoint: &str,
        ending: Ending,
        at: Timestamp,
        up_to: i64,
    ) -> Result<(u64, bool)> {
        let rows: Vec<(i64, i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT delivery, event, endpoint FROM delivery INDEXED BY delivery_pending
                 WHERE endpoint = (SELECT endpoint FROM endpoint WHERE name = ?1) AND state = 0
                     AND delivery <= ?2
                 LIMIT ?3",
            )?
            .query_map(params![endpoint, up_to, CLOSED_AT_ONCE], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_>>()?;
        let mut close =
            self.conn.prepare_cached("UPDATE delivery SET state = ?2, due_at = ?3 WHERE delivery = ?1")?;
        for (delivery, event, endpoint) in &rows {
            close.execute(params![delivery, state_code(ending.into()), at.as_millis()])?;
            self.tally.moved(*endpoint, ending.into(), 1);
            self.finish_if_last(*event, at)?;
        }
        Ok((rows.len() as u64, rows.len() as i64 == CLOSED_AT_ONCE))
    }

    fn finish_if_last(&mut self, event: i64, at: Timestamp) -> Result<()> {
        if self.open.ends(self.conn, event)? { self.finish(event, at) } else { Ok(()) }
    }

    /// Puts an event where [`Batch::prune`] finds it.
    pub(super) fn finish(&self, event: i64, at: Timestamp) -> Result<()> {
        self.conn
            .prepare_cached("INSERT OR IGNORE INTO ended (ended_at, event) VALUES (?1, ?2)")?
            .execute(params![at.as_millis(), event])?;
        Ok(())
    }
}
