//! Copying what can still be read of a damaged database into a new one.
//!
//! A table is read by its own tree and never by an index, upwards from its first row; where a page cannot be read,
//! reading goes on behind it. Counts are worked out again.

use std::collections::HashSet;
use std::fmt::Display;

use ringback_model::run::RunState;
use ringback_model::{Activity, Agent, DeliveryState, Reason};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result as Sql, params_from_iter};

use super::failure::classify;
use crate::Error;

/// A table that is copied.
struct Table {
    name: &'static str,
    order: Order,
    /// True for a row that this program can read.
    sound: String,
}

/// How the rows of a table lie.
enum Order {
    /// By number, so that one can go on behind a gap.
    ByNumber,
    /// By these columns; readable from both ends.
    By(&'static str),
}

/// Every table that is copied, those that others refer to first.
fn tables() -> Vec<Table> {
    let table = |name, order, sound: &str| Table { name, order, sound: sound.to_owned() };
    let agent = one_of("agent", Agent::ALL);
    let is_activity = |column| one_of(column, Activity::ALL);
    let or_none = |column: &str, list: String| format!("({column} IS NULL OR {list})");
    vec![
        table("tally", Order::ByNumber, "typeof(events) = 'integer'"),
        table("endpoint", Order::ByNumber, "typeof(name) = 'text' AND typeof(answers) = 'integer'"),
        table(
            "event",
            Order::ByNumber,
            &format!(
                "typeof(id) = 'blob' AND length(id) = 16 AND typeof(session_id) = 'text'
                 AND kind IN ('state_transition', 'ping', 'message') AND {agent} AND {} AND {}
                 AND typeof(at) = 'integer' AND typeof(recorded_at) = 'integer' AND typeof(body) = 'blob'
                 AND json_valid(CAST(coalesce(json, body) AS TEXT))",
                is_activity("from_activity"),
                is_activity("to_activity")
            ),
        ),
        table(
            "delivery",
            Order::ByNumber,
            &format!(
                "state BETWEEN 0 AND {} AND typeof(attempts) = 'integer' AND attempts >= 0
                 AND typeof(tries) = 'integer' AND tries >= 0 AND typeof(due_at) = 'integer'",
                DeliveryState::ALL.len() - 1
            ),
        ),
        table(
            "attempt",
            Order::By("delivery, number"),
            "typeof(number) = 'integer' AND number >= 0 AND typeof(started_at) = 'integer'
             AND typeof(duration_ms) = 'integer' AND coalesce(status, 0) BETWEEN 0 AND 65535
             AND typeof(excerpt) = 'text'",
        ),
        table(
            "session",
            Order::By("session_id"),
            &format!(
                "typeof(session_id) = 'text' AND {agent} AND {} AND {} AND {} AND {}
                 AND typeof(since) = 'integer' AND typeof(sequence) = 'integer'",
                is_activity("activity"),
                or_none("reason", one_of("reason", Reason::ALL)),
                or_none("last_from", is_activity("last_from")),
                or_none("last_to", is_activity("last_to")),
            ),
        ),
        table("name", Order::By("session_id"), "typeof(session_id) = 'text' AND typeof(name) = 'text'"),
        table("latency", Order::By("endpoint, place"), "typeof(duration_ms) = 'integer'"),
        table(
            "run",
            Order::ByNumber,
            &format!(
                "typeof(id) = 'blob' AND length(id) = 16 AND {} AND typeof(created_at) = 'integer'
                 AND typeof(json) = 'text' AND json_valid(json)",
                one_of("state", RunState::ALL)
            ),
        ),
        table(
            "call_key",
            Order::By("scope, value"),
            "typeof(run_id) = 'blob' AND length(run_id) = 16 AND typeof(expires_at) = 'integer'",
        ),
        table("value", Order::By("name"), "typeof(name) = 'text' AND typeof(value) = 'text'"),
        table(
            "hook_call",
            Order::ByNumber,
            "typeof(hook) = 'text' AND typeof(at) = 'integer' AND typeof(json) = 'text' AND json_valid(json)
             AND typeof(body) IN ('blob', 'null')",
        ),
    ]
}

fn one_of<T: Display>(column: &str, words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("{column} IN ({})", words.join(", "))
}

/// Names the tables with rows that this program cannot read although the file as such is sound.
pub(super) fn unreadable_rows(conn: &Connection) -> Sql<Vec<String>> {
    let mut problems = Vec::new();
    for table in tables() {
        if columns(conn, table.name)?.is_empty() {
            continue;
        }
        let sql = format!("SELECT count(*) FROM {} WHERE NOT coalesce(({}), 0)", table.name, table.sound);
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        if rows > 0 {
            problems.push(format!("{rows} rows of table {} are not what ringback writes", table.name));
        }
    }
    Ok(problems)
}

/// Copies every table. Says whether everything could be read.
pub(super) fn copy_all(old: &Connection, new: &Connection) -> Result<bool, Error> {
    let mut is_whole = true;
    for table in tables() {
        new.execute_batch("BEGIN IMMEDIATE").map_err(classify)?;
        is_whole &= copy_table(old, new, &table)?;
        new.execute_batch("COMMIT").map_err(classify)?;
    }
    new.execute_batch(DERIVED).map_err(classify)?;
    Ok(is_whole)
}

/// What follows from the rows.
const DERIVED: &str = "
    BEGIN IMMEDIATE;
    UPDATE delivery SET replayed_at = NULL WHERE typeof(replayed_at) NOT IN ('integer', 'null');
    UPDATE endpoint SET pending =
        (SELECT count(*) FROM delivery d WHERE d.endpoint = endpoint.endpoint AND d.state = 0);
    INSERT INTO tally (events) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM tally);
    UPDATE tally SET events = max(events, (SELECT count(*) FROM event)),
        queued_runs = (SELECT count(*) FROM run WHERE state = 'queued');
    COMMIT;";

fn copy_table(old: &Connection, new: &Connection, table: &Table) -> Result<bool, Error> {
    let known: HashSet<String> = match columns(old, table.name) {
        Ok(known) => known.into_iter().collect(),
        Err(error) => return damage(error).map(|()| false),
    };
    // A file of an older schema has fewer tables and columns.
    let columns: Vec<String> = columns(new, table.name).map_err(classify)?;
    let columns: Vec<String> = columns.into_iter().filter(|column| known.contains(column)).collect();
    if columns.is_empty() {
        return Ok(true);
    }
    new.execute(&format!("DELETE FROM {}", table.name), []).map_err(classify)?;
    let mut copier = Copier { old, new, table, columns: columns.join(", "), refused: 0 };
    let is_read = match table.order {
        Order::ByNumber => copier.copy_around_gaps()?,
        Order::By(key) => copier.copy_from_both_ends(key)?,
    };
    let unsound = format!("DELETE FROM {} WHERE NOT coalesce(({}), 0)", table.name, table.sound);
    let unsound = new.execute(&unsound, []).map_err(classify)?;
    Ok(is_read && unsound == 0 && copier.refused == 0)
}

fn columns(conn: &Connection, table: &str) -> Sql<Vec<String>> {
    conn.prepare("SELECT name FROM pragma_table_info(?1)")?.query_map([table], |row| row.get(0))?.collect()
}

/// An error of reading is damage, to be passed by, unless the file is only held by somebody.
fn damage(error: rusqlite::Error) -> Result<(), Error> {
    match classify(error) {
        error @ Error::Locked => Err(error),
        _ => Ok(()),
    }
}

struct Copier<'a> {
    old: &'a Connection,
    new: &'a Connection,
    table: &'a Table,
    columns: String,
    /// Rows that the new file does not take: their like is there already, or what they refer to is lost.
    refused: u64,
}

/// How far one reading came.
struct Reached {
    /// The number of the last row.
    last: Option<i64>,
    /// There was no other row behind it.
    is_end: bool,
}

impl Copier<'_> {
    /// Says whether every row was read.
    fn copy_around_gaps(&mut self) -> Result<bool, Error> {
        let name = self.table.name;
        let read = |order, above| {
            format!("FROM {name} NOT INDEXED WHERE rowid >= ?1 AND rowid < ?2 ORDER BY rowid {order}{above}")
        };
        let (up, down) = (read("ASC", ""), read("DESC", ""));
        let first = format!("SELECT rowid {}", read("ASC", " LIMIT 1"));
        let mut from = i64::MIN;
        let mut is_whole = true;
        loop {
            let reached = self.copy(&up, &[from, i64::MAX])?;
            if reached.is_end {
                return Ok(is_whole);
            }
            is_whole = false;
            // Numbers are positive and rise; damaged ones may do anything.
            let gap = reached.last.map_or(from, |last| last.saturating_add(1)).max(from).max(0);
            let Some(behind) = self.behind(gap, &first)? else {
                self.copy(&down, &[gap, i64::MAX])?;
                return Ok(false);
            };
            self.copy(&down, &[gap, behind])?;
            from = behind;
        }
    }

    /// A row behind a gap, found by looking ever further away; `None` = the table ends before.
    fn behind(&self, gap: i64, first: &str) -> Result<Option<i64>, Error> {
        for at in (0..63).map_while(|power| gap.checked_add(1 << power)) {
            let seek = |conn: &Connection| {
                conn.prepare_cached(first)?.query_row([at, i64::MAX], |row| row.get::<_, i64>(0)).optional()
            };
            match seek(self.old) {
                Ok(row) => return Ok(row.filter(|row| *row >= at)),
                Err(error) => damage(error)?,
            }
        }
        Ok(None)
    }

    /// The same for tables without numbers.
    fn copy_from_both_ends(&mut self, key: &str) -> Result<bool, Error> {
        let name = self.table.name;
        if self.copy(&format!("FROM {name} ORDER BY {key}"), &[])?.is_end {
            return Ok(true);
        }
        let descending = key.replace(',', " DESC,");
        self.copy(&format!("FROM {name} ORDER BY {descending} DESC"), &[])?;
        Ok(false)
    }

    /// Copies rows until there is none, or one that cannot be read. An error is one of writing.
    fn copy(&mut self, from: &str, bounds: &[i64]) -> Result<Reached, Error> {
        let number = if bounds.is_empty() { "0" } else { "rowid" };
        let mut reached = Reached { last: None, is_end: false };
        let mut read = match self.old.prepare(&format!("SELECT {number}, {} {from}", self.columns)) {
            Ok(read) => read,
            Err(error) => return damage(error).map(|()| reached),
        };
        let width = read.column_count() - 1;
        let places = vec!["?"; width].join(", ");
        let insert =
            format!("INSERT OR IGNORE INTO {} ({}) VALUES ({places})", self.table.name, self.columns);
        let mut insert = self.new.prepare_cached(&insert).map_err(classify)?;
        let mut rows = match read.query(params_from_iter(bounds)) {
            Ok(rows) => rows,
            Err(error) => return damage(error).map(|()| reached),
        };
        loop {
            let values: Sql<Option<(i64, Vec<Value>)>> = match rows.next() {
                Ok(Some(row)) => row
                    .get(0)
                    .and_then(|number| Ok((number, (1..=width).map(|n| row.get(n)).collect::<Sql<_>>()?)))
                    .map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match values {
                Ok(Some((number, values))) => {
                    self.refused += u64::from(!is_taken(insert.execute(params_from_iter(values)))?);
                    reached.last = Some(number);
                }
                Ok(None) => {
                    reached.is_end = true;
                    return Ok(reached);
                }
                Err(error) => return damage(error).map(|()| reached),
            }
        }
    }
}

/// Whether the new file took a row.
fn is_taken(inserted: Sql<usize>) -> Result<bool, Error> {
    match inserted {
        Ok(rows) => Ok(rows == 1),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
        Err(error) => Err(classify(error)),
    }
}
