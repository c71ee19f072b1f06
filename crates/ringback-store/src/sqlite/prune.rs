//! Removing finished history, a step at a time.
//!
//! It is looked for on the reading thread and removed on the writing one, which looks at each event again: it may
//! have been replayed meanwhile. Nothing is noted for it when an event ends: looking once an hour costs less.

use ringback_model::Timestamp;
use rusqlite::{Connection, Result, params};

use super::writer::Batch;
use crate::Pruned;

/// How many events one step looks at.
const EVENTS_AT_ONCE: usize = 200;
/// How many pages one step gives back to the file system.
const PAGES_AT_ONCE: u64 = 256;

/// What one step found.
pub(super) struct Look {
    /// Events that may go.
    pub(super) events: Vec<i64>,
    /// Where the next step begins; `None` = none of the rest may go.
    pub(super) next: Option<i64>,
}

/// Looks at the events behind `after`, in the order in which they were recorded, for those that ended before `cutoff`.
pub(super) fn look(conn: &Connection, after: i64, cutoff: Timestamp) -> Result<Look> {
    let rows: Vec<(i64, bool)> = conn
        .prepare_cached("SELECT event, recorded_at < ?2 FROM event WHERE event > ?1 ORDER BY event LIMIT ?3")?
        .query_map(params![after, cutoff.as_millis(), EVENTS_AT_ONCE as i64], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_>>()?;
    // One young event is not the end: the clock may have gone back behind it.
    let next = rows.last().filter(|_| rows.iter().any(|(_, is_old)| *is_old)).map(|(event, _)| *event);
    let mut events = Vec::new();
    for (event, is_old) in rows {
        if is_old && has_ended(conn, event, cutoff)? {
            events.push(event);
        }
    }
    Ok(Look { events, next })
}

/// Whether all deliveries of an event ended before `cutoff`.
fn has_ended(conn: &Connection, event: i64, cutoff: Timestamp) -> Result<bool> {
    conn.prepare_cached(
        "SELECT NOT EXISTS (SELECT 1 FROM delivery WHERE event = ?1 AND (state = 0 OR due_at >= ?2))",
    )?
    .query_row(params![event, cutoff.as_millis()], |row| row.get(0))
}

impl Batch<'_> {
    /// Removes those of the events that ended before `cutoff`, until the file's used pages are no more than
    /// `max_bytes`. Says whether they are.
    pub(super) fn prune(
        &mut self,
        events: &[i64],
        cutoff: Timestamp,
        max_bytes: u64,
    ) -> Result<(Pruned, bool)> {
        let mut pruned = Pruned::default();
        for event in events {
            if used_bytes(self.conn)? <= max_bytes {
                return Ok((pruned, true));
            }
            if !has_ended(self.conn, *event, cutoff)? {
                continue;
            }
            pruned.deliveries +=
                self.conn.prepare_cached("DELETE FROM delivery WHERE event = ?1")?.execute([event])? as u64;
            pruned.events +=
                self.conn.prepare_cached("DELETE FROM event WHERE event = ?1")?.execute([event])? as u64;
        }
        Ok((pruned, false))
    }

    /// Gives free pages back to the file system. Says whether there are more.
    pub(super) fn vacuum(&mut self) -> Result<bool> {
        let free = pragma(self.conn, "freelist_count")?;
        if free == 0 {
            return Ok(false);
        }
        // The pragma frees one page per step, so it is run to its end.
        let mut step = self.conn.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
        let mut rows = step.query(params![])?;
        while rows.next()?.is_some() {}
        Ok(free > PAGES_AT_ONCE)
    }
}

/// The size of what the file holds.
pub(super) fn used_bytes(conn: &Connection) -> Result<u64> {
    let pages = pragma(conn, "page_count")?.saturating_sub(pragma(conn, "freelist_count")?);
    Ok(pages.saturating_mul(pragma(conn, "page_size")?))
}

fn pragma(conn: &Connection, name: &str) -> Result<u64> {
    conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| super::rows::count(row, 0))
}
