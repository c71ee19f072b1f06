//! Removing finished history, a step at a time.

use ringback_model::Timestamp;
use rusqlite::{Connection, Result, params};

use super::writer::Batch;
use crate::Pruned;

/// How many events one step removes.
const EVENTS_AT_ONCE: usize = 200;
/// How many pages one step gives back to the file system.
const PAGES_AT_ONCE: u64 = 256;

impl Batch<'_> {
    /// Removes the finished events that ended first: those that ended before `cutoff`, and any while the file's
    /// used pages are more than `max_bytes`. Says whether there may be more to do.
    pub(super) fn prune(&mut self, cutoff: Timestamp, max_bytes: u64) -> Result<(Pruned, bool)> {
        let oldest: Vec<(i64, i64)> = self
            .conn
            .prepare_cached("SELECT event, ended_at FROM ended ORDER BY ended_at, event LIMIT ?1")?
            .query_map([EVENTS_AT_ONCE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?;
        let mut pruned = Pruned::default();
        let mut may_be_more = oldest.len() == EVENTS_AT_ONCE;
        for (event, ended_at) in &oldest {
            if *ended_at >= cutoff.as_millis() && used_bytes(self.conn)? <= max_bytes {
                return Ok((pruned, false));
            }
            self.conn
                .prepare_cached("DELETE FROM ended WHERE ended_at = ?1 AND event = ?2")?
                .execute([ended_at, event])?;
            // It may have been replayed since.
            let (is_pending, last_end): (bool, Option<i64>) = self
                .conn
                .prepare_cached(
                    "SELECT ifnull(min(state) = 0, 0), max(due_at) FROM delivery WHERE event = ?1",
                )?
                .query_row([event], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if is_pending {
                continue;
            }
            if let Some(last_end) = last_end.filter(|last_end| last_end > ended_at) {
                self.finish(*event, Timestamp::from_millis(last_end))?;
                may_be_more = true;
                continue;
            }
            pruned.deliveries +=
                self.conn.prepare_cached("DELETE FROM delivery WHERE event = ?1")?.execute([event])? as u64;
            pruned.events +=
                self.conn.prepare_cached("DELETE FROM event WHERE event = ?1")?.execute([event])? as u64;
        }
        Ok((pruned, may_be_more))
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

fn used_bytes(conn: &Connection) -> Result<u64> {
    let pages = pragma(conn, "page_count")?.saturating_sub(pragma(conn, "freelist_count")?);
    Ok(pages.saturating_mul(pragma(conn, "page_size")?))
}

fn pragma(conn: &Connection, name: &str) -> Result<u64> {
    conn.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| super::rows::count(row, 0))
}
