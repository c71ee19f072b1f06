//! Writing what came of deliveries.

use ringback_model::{DeliveryState, Timestamp};
use rusqlite::{OptionalExtension, Result, params};

use super::rows::{integer, state, state_code};
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
        let pending: Option<i64> = self
            .statement("SELECT endpoint FROM delivery WHERE delivery = ?1 AND state = 0")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        let Some(endpoint) = pending else { return self.note_late(settled, number) };
        self.statement(
            "UPDATE delivery SET state = ?2, attempts = ?3, due_at = ?4, tries = max(tries, ?5)
             WHERE delivery = ?1",
        )?
        .execute(params![id, state_code(next.state), next.attempts, due_at, number])?;
        self.note(endpoint, settled)?;
        if next.state != DeliveryState::Pending {
            self.tally.moved(endpoint, next.state, 1);
        }
        Ok(())
    }

    /// It ended while the attempt was under way; if it was pruned as well, there is nothing to note. What the receiver
    /// took is delivered, whatever the endpoint's end made of it meanwhile.
    fn note_late(&mut self, settled: &Settled, number: u32) -> Result<()> {
        let ended: Option<(i64, DeliveryState)> = self
            .conn
            .prepare_cached(
                "UPDATE delivery SET tries = max(tries, ?2) WHERE delivery = ?1 RETURNING endpoint, state",
            )?
            .query_row(params![settled.id.0, number], |row| Ok((row.get(0)?, state(row, 1)?)))
            .optional()?;
        let Some((endpoint, ended)) = ended else { return Ok(()) };
        if settled.is_late_success(ended) {
            let next = settled.next;
            self.statement("UPDATE delivery SET state = ?2, attempts = ?3, due_at = ?4 WHERE delivery = ?1")?
                .execute(params![
                    settled.id.0,
                    state_code(next.state),
                    next.attempts,
                    settled.ended_at().as_millis()
                ])?;
            self.tally.reopened(endpoint, ended);
            self.tally.moved(endpoint, next.state, 1);
        }
        self.note(endpoint, settled)
    }

    fn note(&mut self, endpoint: i64, settled: &Settled) -> Result<()> {
        let Some(attempt) = &settled.attempt else { return Ok(()) };
        let rows = self
            .statement(
                "INSERT INTO attempt (delivery, number, started_at, duration_ms, status, error, excerpt)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (delivery, number) DO NOTHING",
            )?
            .execute(params![
                settled.id.0,
                attempt.number,
                attempt.started_at.as_millis(),
                integer(attempt.duration_ms),
                attempt.status,
                attempt.error,
                attempt.excerpt,
            ])?;
        // It may be noted already: a write whose end is not known is made again.
        if rows == 1 {
            self.tally.attempted(endpoint, attempt);
        }
        Ok(())
    }

    /// Makes due at `now` what is due after `latest`. Returns how many those were.
    pub(super) fn hasten(&mut self, endpoint: &str, latest: Timestamp, now: Timestamp) -> Result<u64> {
        let hastened = self
            .conn
            .prepare_cached(
                "UPDATE delivery INDEXED BY delivery_pending SET due_at = ?3
                 WHERE endpoint = (SELECT endpoint FROM endpoint WHERE name = ?1) AND state = 0 AND due_at > ?2",
            )?
            .execute(params![endpoint, latest.as_millis(), now.as_millis()])?;
        Ok(hastened as u64)
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
        let rows: Vec<(i64, i64)> = self
            .conn
            .prepare_cached(
                "SELECT delivery, endpoint FROM delivery INDEXED BY delivery_pending
                 WHERE endpoint = (SELECT endpoint FROM endpoint WHERE name = ?1) AND state = 0
                     AND delivery <= ?2
                 LIMIT ?3",
            )?
            .query_map(params![endpoint, up_to, CLOSED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let mut close =
            self.conn.prepare_cached("UPDATE delivery SET state = ?2, due_at = ?3 WHERE delivery = ?1")?;
        for (delivery, endpoint) in &rows {
            close.execute(params![delivery, state_code(ending.into()), at.as_millis()])?;
            self.tally.moved(*endpoint, ending.into(), 1);
        }
        Ok((rows.len() as u64, rows.len() as i64 == CLOSED_AT_ONCE))
    }
}
