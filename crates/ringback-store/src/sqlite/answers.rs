//! How long the last answers of each endpoint took.
//!
//! They are in a table, a ring for each endpoint, except for the newest few of each: writing one at a time would be a
//! page more of most commits, and with a thousand endpoints one for each delivery. A crash loses these few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Result, params};

use super::rows::{count, integer};
use crate::Latency;
use crate::latency::{WINDOW, percentiles};

/// So many answers of an endpoint are written at once.
const AT_ONCE: usize = 64;

/// Those that are not in the table yet, by endpoint. Shared by who writes and who lists; locked for copying only.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<HashMap<i64, Vec<u64>>>>);

impl Answers {
    fn unsaved(&self) -> MutexGuard<'_, HashMap<i64, Vec<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an endpoint's answers if there are enough of them with these new ones. Says whether it did. The caller
    /// tells with [`Answers::committed`] when the transaction is on the disk.
    pub(super) fn write(&self, conn: &Connection, endpoint: i64, new: &[u64]) -> Result<bool> {
        let mut all = self.unsaved().get(&endpoint).cloned().unwrap_or_default();
        all.extend(new);
        let is_due = all.len() >= AT_ONCE;
        if is_due {
            save(conn, endpoint, &all)?;
        }
        Ok(is_due)
    }

    /// Notes new answers whose transaction is on the disk, and whether they were written.
    pub(super) fn committed(&self, endpoint: i64, new: Vec<u64>, is_written: bool) {
        if is_written {
            self.unsaved().remove(&endpoint);
        } else if !new.is_empty() {
            self.unsaved().entry(endpoint).or_default().extend(new);
        }
    }

    /// Writes all of them, at the end.
    pub(super) fn save_all(&self, conn: &Connection) -> Result<()> {
        let unsaved = std::mem::take(&mut *self.unsaved());
        if unsaved.is_empty() {
            return Ok(());
        }
        conn.execute_batch("BEGIN IMMEDIATE")?;
        for (endpoint, durations_ms) in &unsaved {
            save(conn, *endpoint, durations_ms)?;
        }
        conn.execute_batch("COMMIT")
    }

    /// The percentiles of an endpoint's last answers.
    pub(super) fn latency(&self, conn: &Connection, endpoint: i64) -> Result<Option<Latency>> {
        let mut last = self.unsaved().get(&endpoint).cloned().unwrap_or_default();
        let answers = answers(conn, endpoint)?;
        // Where they will stand: what is there now is no more among the last.
        let taken: Vec<i64> = (answers..).take(last.len()).map(place).collect();
        let mut saved = conn.prepare_cached("SELECT place, duration_ms FROM latency WHERE endpoint = ?1")?;
        let mut rows = saved.query([endpoint])?;
        while let Some(row) = rows.next()? {
            if !taken.contains(&row.get(0)?) {
                last.push(count(row, 1)?);
            }
        }
        Ok(percentiles(last))
    }
}

/// How many answers an endpoint has in the table, with those that were overwritten.
fn answers(conn: &Connection, endpoint: i64) -> Result<i64> {
    conn.prepare_cached("SELECT answers FROM endpoint WHERE endpoint = ?1")?
        .query_row([endpoint], |row| row.get(0))
}

/// The place of an answer in its endpoint's ring.
fn place(number: i64) -> i64 {
    number.rem_euclid(WINDOW as i64)
}

fn save(conn: &Connection, endpoint: i64, durations_ms: &[u64]) -> Result<()> {
    let older = durations_ms.len().saturating_sub(WINDOW);
    let mut put = conn.prepare_cached(
        "INSERT OR REPLACE INTO latency (endpoint, place, duration_ms) VALUES (?1, ?2, ?3)",
    )?;
    for (number, ms) in (answers(conn, endpoint)?..).zip(durations_ms).skip(older) {
        put.execute(params![endpoint, place(number), integer(*ms)])?;
    }
    conn.prepare_cached("UPDATE endpoint SET answers = answers + ?2 WHERE endpoint = ?1")?
        .execute(params![endpoint, durations_ms.len() as i64])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn answers_count_once_they_are_committed_and_are_written_sixty_four_at_once() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn).unwrap();
        conn.execute_batch("INSERT INTO endpoint (endpoint, name) VALUES (1, 'e')").unwrap();
        let answers = Answers::default();
        let p50 = || answers.latency(&conn, 1).unwrap().map(|latency| latency.p50_ms);
        let rows = || conn.query_row("SELECT count(*) FROM latency", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(answers.write(&conn, 1, &[900; 3]), Ok(false));
        assert_eq!(p50(), None, "what came of that transaction is not known");
        answers.committed(1, vec![5; 60], false);
        assert_eq!((p50(), rows()), (Some(5), 0));
        assert_eq!(answers.write(&conn, 1, &[9; 4]), Ok(true));
        answers.committed(1, vec![9; 4], true);
        assert_eq!((p50(), rows()), (Some(5), 64));
        answers.committed(1, vec![9; 60], false);
        assert_eq!((p50(), rows()), (Some(9), 64));
        answers.save_all(&conn).unwrap();
        assert_eq!((p50(), rows()), (Some(9), 124));
    }
}
