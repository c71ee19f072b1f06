//! The journal as rows: the same records in the same common syncs, in tables of SQLite that have what the program's
//! answers need and nothing else. Beside it stands what the program costs; beside the file, what rows cost.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, params};

/// What the records are of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tables {
    /// Calls, each a run that is found by its id, its state and its source.
    Runs,
    /// Lists of events, one a line, and outcomes: `ID ENDPOINT STATUS`. Deliveries are found by when they are due.
    Deliveries,
}

const RUNS: &str = "
    CREATE TABLE run (run INTEGER PRIMARY KEY, id BLOB UNIQUE, state TEXT, source TEXT, json TEXT);
    CREATE INDEX by_state ON run (state);
    CREATE INDEX by_source ON run (source)";

const DELIVERIES: &str = "
    CREATE TABLE event (event INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT);
    CREATE TABLE delivery (delivery INTEGER PRIMARY KEY, state INTEGER, due_at INTEGER);
    CREATE INDEX pending ON delivery (due_at) WHERE state = 0;
    CREATE TABLE attempt (delivery INTEGER, number INTEGER, at INTEGER, status INTEGER,
        PRIMARY KEY (delivery, number)) WITHOUT ROWID";

pub(super) struct Rows {
    conn: Connection,
    tables: Tables,
    written: i64,
}

impl Rows {
    pub(super) fn open(path: &Path, tables: Tables) -> Result<Rows> {
        let conn = Connection::open(path)?;
        // Those of the program's settings that cost time.
        for (name, value) in [
            ("journal_mode", "WAL"),
            ("synchronous", "FULL"),
            ("wal_autocheckpoint", "4096"),
            ("cache_size", "-8192"),
        ] {
            conn.pragma_update(None, name, value)?;
        }
        conn.execute_batch(match tables {
            Tables::Runs => RUNS,
            Tables::Deliveries => DELIVERIES,
        })?;
        Ok(Rows { conn, tables, written: 0 })
    }

    /// Writes records in one transaction; they are on the disk when this returns.
    pub(super) fn write(&mut self, records: &[Vec<u8>]) -> Result<()> {
        self.run("BEGIN IMMEDIATE")?;
        for record in records {
            let record = std::str::from_utf8(record).context("a record that is no text")?;
            match self.tables {
                Tables::Runs => self.put_run(record)?,
                Tables::Deliveries if record.starts_with('{') => {
                    for event in record.lines() {
                        self.put_event(event)?;
                    }
                }
                Tables::Deliveries => self.put_outcome(record)?,
            }
        }
        self.run("COMMIT")
    }

    fn run(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn put_run(&self, body: &str) -> Result<()> {
        let sql = "INSERT INTO run (id, state, source, json) VALUES (?1, 'queued', 'agent', ?2)";
        self.conn.prepare_cached(sql)?.execute(params![uuid::Uuid::new_v4().as_bytes(), body])?;
        Ok(())
    }

    fn put_event(&mut self, event: &str) -> Result<()> {
        self.written += 1;
        let id = event.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).context("no id")?;
        let number = number(id)?;
        let sql = "INSERT INTO event (event, id, body) VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![number, id, event])?;
        let sql = "INSERT INTO delivery (delivery, state, due_at) VALUES (?1, 0, ?2)";
        self.conn.prepare_cached(sql)?.execute(params![number, self.written])?;
        Ok(())
    }

    fn put_outcome(&self, outcome: &str) -> Result<()> {
        let mut words = outcome.split(' ');
        let (id, status) = (words.next().context("no id")?, words.nth(1).context("no status")?);
        let number = number(id)?;
        let sql = "UPDATE delivery SET state = 1 WHERE delivery = ?1 AND state = 0";
        self.conn.prepare_cached(sql)?.execute([number])?;
        let sql = "INSERT INTO attempt (delivery, number, at, status) VALUES (?1, 1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![number, self.written, status])?;
        Ok(())
    }
}

/// The row of an event: its session, then its place in it.
fn number(id: &str) -> Result<i64> {
    let part = |at: usize| i64::from_str_radix(id.split('-').nth(at).unwrap_or_default(), 16);
    Ok((part(0)? << 32) | part(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceiling::sender::Event;

    #[test]
    fn events_and_their_outcomes_are_rows() {
        let directory = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(&directory.path().join("rows"), Tables::Deliveries).unwrap();
        let events = [Event::new(1, 1), Event::new(1, 2)];
        let lines = events.iter().map(|event| std::str::from_utf8(&event.body).unwrap());
        rows.write(&[lines.collect::<Vec<_>>().join("\n").into_bytes()]).unwrap();
        rows.write(&[format!("{} 0 204", events[0].id).into_bytes()]).unwrap();
        let states = "SELECT group_concat(state) FROM (SELECT state FROM delivery ORDER BY delivery)";
        let of = |sql| rows.conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(of(states), "1,0");
        assert_eq!(of("SELECT group_concat(delivery || ' ' || status) FROM attempt"), "4294967297 204");
    }
}
