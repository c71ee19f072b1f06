//! Reading runs and named values.

use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{SessionId, Timestamp};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use uuid::Uuid;

use super::rows::{count, unreadable};
use crate::{Page, RunQuery};

/// Runs in one state, in the order in which they were accepted.
const IN_STATE: &str = "SELECT json FROM run WHERE state = ?1 ORDER BY run LIMIT ?2";

/// Runs on a subject in one state, the one accepted last first.
const ON_SUBJECT: &str = "SELECT json FROM run WHERE subject = ?1 AND state = ?2 ORDER BY run DESC LIMIT ?3";

/// The same, the one accepted first alone.
const FIRST_ON_SUBJECT: &str = "SELECT id FROM run WHERE subject = ?1 AND state = ?2 ORDER BY run LIMIT 1";

/// How many are in each state. Read from the index alone: a run's row is long.
const IN_STATES: &str = "SELECT state, count(*) FROM run GROUP BY state";

/// Sessions of runs that are open or ended late enough: the open states by name, because that has an index.
const SESSIONS: &str = "
    SELECT run, session_id, id, source FROM run INDEXED BY run_of_state
    WHERE state IN ('queued', 'working') AND session_id IS NOT NULL
    UNION ALL
    SELECT run, session_id, id, source FROM run INDEXED BY run_by_end
    WHERE ended_at >= ?1 AND session_id IS NOT NULL
    ORDER BY run";

/// Read from the index alone.
const COST: &str = "SELECT total(cost_usd) FROM run WHERE ended_at >= ?1";

pub(super) fn queued(conn: &Connection, limit: usize) -> Result<Vec<Run>> {
    in_state(conn, RunState::Queued, limit)
}

pub(super) fn unfinished(conn: &Connection) -> Result<Vec<Run>> {
    in_state(conn, RunState::Working, usize::MAX)
}

fn in_state(conn: &Connection, state: RunState, limit: usize) -> Result<Vec<Run>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    conn.prepare_cached(IN_STATE)?
        .query_map(params![state.as_str(), limit], |row| read_run(row, 0))?
        .collect()
}

/// The last `limit` runs on a subject in a state, in the order in which they were accepted.
pub(super) fn on_subject(
    conn: &Connection,
    subject: &str,
    state: RunState,
    limit: usize,
) -> Result<Vec<Run>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut runs: Vec<Run> = conn
        .prepare_cached(ON_SUBJECT)?
        .query_map(params![subject, state.as_str(), limit], |row| read_run(row, 0))?
        .collect::<Result<_>>()?;
    runs.reverse();
    Ok(runs)
}

pub(super) fn first_queued_on(conn: &Connection, subject: &str) -> Result<Option<RunId>> {
    conn.prepare_cached(FIRST_ON_SUBJECT)?
        .query_row(params![subject, RunState::Queued.as_str()], |row| read_id(row, 0))
        .optional()
}

pub(super) fn queued_count(conn: &Connection) -> Result<u64> {
    conn.prepare_cached("SELECT queued_runs FROM tally")?.query_row([], |row| count(row, 0))
}

pub(super) fn run_counts(conn: &Connection) -> Result<Vec<(RunState, u64)>> {
    let found: Vec<(String, u64)> = conn
        .prepare_cached(IN_STATES)?
        .query_map([], |row| Ok((row.get(0)?, count(row, 1)?)))?
        .collect::<Result<_>>()?;
    let in_state = |state: RunState| {
        found.iter().find(|(word, _)| word == state.as_str()).map_or(0, |(_, count)| *count)
    };
    Ok(RunState::ALL.iter().map(|state| (*state, in_state(*state))).collect())
}

pub(super) fn run(conn: &Connection, id: RunId) -> Result<Option<Run>> {
    conn.prepare_cached("SELECT json FROM run WHERE id = ?1")?
        .query_row([id.0.as_bytes()], |row| read_run(row, 0))
        .optional()
}

pub(super) fn runs(conn: &Connection, query: &RunQuery) -> Result<Page<Run>> {
    let size = query.page_size();
    // One more row than the page tells whether there is another page.
    let limit = size as i64 + 1;
    let state = query.state.map(RunState::as_str);
    let before = query.cursor.map(|c| c.0);

    let mut conditions = vec!["1"];
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
    if let Some(state) = &state {
        conditions.push("state = :state");
        values.push((":state", state));
    }
    if let Some(source) = &query.source {
        conditions.push("source = :source");
        values.push((":source", source));
    }
    if let Some(before) = &before {
        conditions.push("run < :before");
        values.push((":before", before));
    }
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT run, json FROM run WHERE {conditions} ORDER BY run DESC LIMIT :limit");
    let rows = conn
        .prepare_cached(&sql)?
        .query_map(&values[..], |row| Ok((row.get(0)?, read_run(row, 1)?)))?
        .collect::<Result<_>>()?;
    Ok(Page::cut(rows, size, |(number, _): &(i64, Run)| *number).map(|(_, run)| run))
}

pub(super) fn run_of_session(conn: &Connection, session: &str) -> Result<Option<RunId>> {
    conn.prepare_cached("SELECT id FROM run WHERE session_id = ?1 ORDER BY run DESC LIMIT 1")?
        .query_row([session], |row| read_id(row, 0))
        .optional()
}

pub(super) fn run_sessions(conn: &Connection, since: Timestamp) -> Result<Vec<(SessionId, RunId, String)>> {
    conn.prepare_cached(SESSIONS)?
        .query_map([since.as_millis()], |row| {
            Ok((SessionId::new(row.get::<_, String>(1)?), read_id(row, 2)?, row.get(3)?))
        })?
        .collect()
}

pub(super) fn cost_since(conn: &Connection, since: Timestamp) -> Result<f64> {
    conn.prepare_cached(COST)?.query_row([since.as_millis()], |row| row.get(0))
}

pub(super) fn value(conn: &Connection, name: &str) -> Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM value WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn values(conn: &Connection, prefix: &str) -> Result<Vec<(String, String)>> {
    // Asked of the name alone: a row that is looked at here is read whole, and a value can be megabytes.
    conn.prepare_cached(
        "SELECT name, value FROM value WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?
    .query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

fn read_run(row: &Row<'_>, column: usize) -> Result<Run> {
    let json = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    serde_json::from_str(json).map_err(|e| unreadable(column, e))
}

fn read_id(row: &Row<'_>, column: usize) -> Result<RunId> {
    Ok(RunId(Uuid::from_bytes(row.get(column)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn what_is_asked_often_is_answered_by_an_index() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn).unwrap();
        let plan = |sql: &str| {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = statement.raw_query().mapped(|row| row.get(3)).collect::<Result<Vec<String>>>();
            rows.unwrap().join("; ")
        };
        for (sql, index) in [
            (IN_STATE, "USING INDEX run_of_state (state=?)"),
            (IN_STATES, "USING COVERING INDEX run_of_state"),
            (ON_SUBJECT, "USING INDEX run_of_subject (subject=? AND state=?)"),
            (FIRST_ON_SUBJECT, "USING INDEX run_of_subject (subject=? AND state=?)"),
            (COST, "USING COVERING INDEX run_by_end (ended_at>?)"),
        ] {
            assert!(plan(sql).contains(index), "{}", plan(sql));
        }
        for sql in [IN_STATE, IN_STATES, ON_SUBJECT, FIRST_ON_SUBJECT] {
            assert!(!plan(sql).contains("TEMP B-TREE"), "{}", plan(sql));
        }
    }

    #[test]
    fn the_open_states_are_those_that_the_statement_names() {
        let open = RunState::ALL.iter().filter(|state| !state.is_terminal());
        let words: Vec<String> = open.map(|state| format!("'{state}'")).collect();
        assert!(SESSIONS.contains(&format!("({})", words.join(", "))), "{words:?}");
    }
}
