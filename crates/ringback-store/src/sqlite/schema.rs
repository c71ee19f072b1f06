//! The tables, and how an older file becomes a newer one.
//!
//! Times are milliseconds since the Unix epoch, ids of events and runs 16 bytes, closed sets of words the contract's words
//! (states of deliveries: numbers, because a partial index hangs on them; see `rows`). Names of endpoints are
//! interned: a delivery's row is some twenty bytes.

use rusqlite::{Connection, TransactionBehavior};

use super::failure::classify;
use crate::Error;

/// Marks a file as ours ("RbSt"), so that somebody else's database is never migrated.
pub(super) const APPLICATION_ID: i32 = 0x5262_5374;

/// From schema version N to N + 1, at index N. Never edited once released: a change is one more step at the end.
const MIGRATIONS: &[&str] = &[FIRST, RUNS, REPLAYS, SUBJECTS, HOOK_CALLS, ENDED, NO_ENDED];

const FIRST: &str = "
CREATE TABLE session (
    session_id TEXT NOT NULL PRIMARY KEY,
    agent      TEXT NOT NULL,
    activity   TEXT NOT NULL,
    reason     TEXT,
    since      INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    last_from  TEXT,
    last_to    TEXT,
    last_at    INTEGER
) WITHOUT ROWID;

CREATE TABLE name (
    session_id TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL
) WITHOUT ROWID;

-- Written once and never changed: that an event has ended is told by its deliveries.
CREATE TABLE event (
    event         INTEGER PRIMARY KEY AUTOINCREMENT,
    id            BLOB NOT NULL UNIQUE,
    session_id    TEXT NOT NULL,
    kind          TEXT NOT NULL,
    agent         TEXT NOT NULL,
    from_activity TEXT NOT NULL,
    to_activity   TEXT NOT NULL,
    at            INTEGER NOT NULL,
    recorded_at   INTEGER NOT NULL,
    body          BLOB NOT NULL,
    -- The event as JSON where the body's bytes are not just that.
    json          BLOB
);
CREATE INDEX event_of_session ON event (session_id);

-- Counts are kept here, in the transactions that change what they count: nothing ever counts rows.
CREATE TABLE endpoint (
    endpoint          INTEGER PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    pending           INTEGER NOT NULL DEFAULT 0,
    delivered         INTEGER NOT NULL DEFAULT 0,
    failed            INTEGER NOT NULL DEFAULT 0,
    dead              INTEGER NOT NULL DEFAULT 0,
    cancelled         INTEGER NOT NULL DEFAULT 0,
    answers           INTEGER NOT NULL DEFAULT 0,
    last_status       INTEGER,
    last_error        TEXT,
    last_attempt_at   INTEGER,
    disabled_at       INTEGER,
    disabled_reason   TEXT,
    entry_fingerprint TEXT
);

-- A ring per endpoint: the place of an answer is its number modulo the window.
CREATE TABLE latency (
    endpoint    INTEGER NOT NULL,
    place       INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    PRIMARY KEY (endpoint, place)
) WITHOUT ROWID;

CREATE TABLE tally (events INTEGER NOT NULL);
INSERT INTO tally VALUES (0);

CREATE TABLE delivery (
    delivery INTEGER PRIMARY KEY AUTOINCREMENT,
    event    INTEGER NOT NULL REFERENCES event ON DELETE CASCADE,
    endpoint INTEGER NOT NULL REFERENCES endpoint,
    state    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    tries    INTEGER NOT NULL,
    due_at   INTEGER NOT NULL
);
CREATE UNIQUE INDEX delivery_of_event ON delivery (event, endpoint);
CREATE INDEX delivery_of_endpoint ON delivery (endpoint);
CREATE INDEX delivery_pending ON delivery (endpoint, due_at) WHERE state = 0;
CREATE INDEX delivery_undelivered ON delivery (state) WHERE state > 1;

CREATE TABLE attempt (
    delivery    INTEGER NOT NULL REFERENCES delivery ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    error       TEXT,
    excerpt     TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

-- Events with no pending delivery, by the end of their last one: what prune may take.
CREATE TABLE finished (
    event    INTEGER PRIMARY KEY REFERENCES event ON DELETE CASCADE,
    ended_at INTEGER NOT NULL
);
CREATE INDEX finished_by_end ON finished (ended_at);
";

const RUNS: &str = "
-- Numbered in the order in which they were accepted.
CREATE TABLE run (
    run        INTEGER PRIMARY KEY,
    id         BLOB NOT NULL UNIQUE,
    state      TEXT NOT NULL,
    source     TEXT NOT NULL,
    session_id TEXT,
    created_at INTEGER NOT NULL,
    -- NULL = it is open.
    ended_at   INTEGER,
    cost_usd   REAL,
    -- All of it: the columns above repeat what is searched for.
    json       TEXT NOT NULL
);
CREATE INDEX run_of_state ON run (state);
CREATE INDEX run_of_source ON run (source);
CREATE INDEX run_of_session ON run (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX run_by_end ON run (ended_at, cost_usd) WHERE ended_at IS NOT NULL;

ALTER TABLE tally ADD COLUMN queued_runs INTEGER NOT NULL DEFAULT 0;

-- No reference to the run: a repeated call gets its first answer even when the run was pruned.
CREATE TABLE call_key (
    scope      TEXT NOT NULL,
    value      TEXT NOT NULL,
    run_id     BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, value)
) WITHOUT ROWID;
CREATE INDEX call_key_by_end ON call_key (expires_at);

CREATE TABLE value (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
";

const REPLAYS: &str = "
-- When the delivery was last made pending again; NULL = never.
ALTER TABLE delivery ADD COLUMN replayed_at INTEGER;
";

const SUBJECTS: &str = "
-- NULL = the run stands alone.
ALTER TABLE run ADD COLUMN subject TEXT;
CREATE INDEX run_of_subject ON run (subject, state) WHERE subject IS NOT NULL;
";

const HOOK_CALLS: &str = "
CREATE TABLE hook_call (
    call INTEGER PRIMARY KEY AUTOINCREMENT,
    hook TEXT NOT NULL,
    at   INTEGER NOT NULL,
    -- All of it but the body.
    json TEXT NOT NULL,
    -- NULL = it was too long. Last, so that listings do not read it.
    body BLOB
);
CREATE INDEX hook_call_of_hook ON hook_call (hook, call);
CREATE INDEX hook_call_by_time ON hook_call (at);
";

const ENDED: &str = "
-- What prune may take, by its end. An event that was replayed stands here as well, and again when it has ended again:
-- prune looks.
CREATE TABLE ended (
    ended_at INTEGER NOT NULL,
    event    INTEGER NOT NULL,
    PRIMARY KEY (ended_at, event)
) WITHOUT ROWID;
INSERT INTO ended SELECT ended_at, event FROM finished;
DROP TABLE finished;
";

/// Prune asks the deliveries: looking once an hour costs less than noting the end of every event.
const NO_ENDED: &str = "
DROP TABLE ended;
";

/// Returns the schema version of the file, 0 for one without tables, and refuses what this binary must not touch.
pub(super) fn version(conn: &Connection) -> Result<u32, Error> {
    let number = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(classify);
    let (application_id, version) = (number("application_id")?, number("user_version")?);
    let is_empty = conn
        .query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(classify)?;
    if is_empty {
        return Ok(0);
    }
    let version = u32::try_from(version).unwrap_or(0);
    if application_id != APPLICATION_ID || version == 0 {
        return Err(Error::Corrupt("it is another program's database".to_owned()));
    }
    let known = MIGRATIONS.len() as u32;
    if version > known {
        return Err(Error::NewerSchema { found: version, known });
    }
    Ok(version)
}

/// Takes the file to the newest schema, one step and one transaction after the other.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Error> {
    let from = version(conn)?;
    migrate_through(conn, from, MIGRATIONS).map_err(classify)
}

fn migrate_through(conn: &mut Connection, from: u32, steps: &[&str]) -> rusqlite::Result<()> {
    for (done, step) in (0u32..).zip(steps).skip(from as usize) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", done + 1)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_version(conn: &Connection) -> u32 {
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn migrations_run_in_order_from_the_files_version_each_in_a_transaction() {
        let mut conn = Connection::open_in_memory().unwrap();
        let steps =
            ["CREATE TABLE a (x)", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2); SELECT nope"];
        migrate_through(&mut conn, 0, &steps[..1]).unwrap();
        assert_eq!(user_version(&conn), 1);
        assert!(migrate_through(&mut conn, 1, &steps).is_err());
        let rows: i64 = conn.query_row("SELECT sum(x) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!((user_version(&conn), rows), (2, 1), "the failed step left something");
    }

    #[test]
    fn the_released_schema_stands() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(version(&conn), Ok(MIGRATIONS.len() as u32));
        conn.execute_batch("PRAGMA foreign_key_check").unwrap();
    }

    #[test]
    fn another_programs_database_is_not_touched() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 7").unwrap();
        assert!(matches!(migrate(&mut conn), Err(Error::Corrupt(_))));
        assert_eq!(user_version(&conn), 7);
    }
}
