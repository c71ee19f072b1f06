//! Files of older versions open, and keep everything that is in them.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use ringback_model::{Activity, DeliveryState, SessionId};
use ringback_store::contract::ledger::{accept, key, run, run_id, working};
use ringback_store::contract::{ended, endpoint, event, t, told};
use ringback_store::{
    Accept, Accepted, DeliveryQuery, EndpointStatus, Ledger, Prune, Pruned, Save, Store, Totals,
};

use crate::open;

/// The schema of version 1 as it was released, with a session, a name, a delivered, a retried and a fresh delivery,
/// an event that was for nobody, and a disabled endpoint.
const VERSION_1: &str = r#"
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
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
    json          BLOB
);
CREATE INDEX event_of_session ON event (session_id);
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
CREATE TABLE finished (
    event    INTEGER PRIMARY KEY REFERENCES event ON DELETE CASCADE,
    ended_at INTEGER NOT NULL
);
CREATE INDEX finished_by_end ON finished (ended_at);
INSERT INTO session VALUES ('s', 'claude', 'waiting', 'turn_end', 900, 3, 'thinking', 'waiting', 900);
INSERT INTO name VALUES ('s', 'mine');
INSERT INTO endpoint VALUES (1, 'e', 2, 1, 0, 0, 0, 2, 503, NULL, 1200, NULL, NULL, NULL);
INSERT INTO endpoint VALUES (2, 'gone', 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 5, 'answered 410', 'abc');
INSERT INTO latency VALUES (1, 0, 7), (1, 1, 9);
UPDATE tally SET events = 4;
INSERT INTO event VALUES
    (1, x'00000000000000000000000000000001', 's', 'state_transition', 'claude', 'thinking', 'waiting', 1, 1000,
     CAST('{"id":"00000000-0000-0000-0000-000000000001","event":"state_transition","session_id":"s","agent":"claude","from":"thinking","to":"waiting","project_path":"/home/dev/code/bar","timestamp":"1970-01-01T00:00:00.001Z","sequence":1,"reason":"turn_end"}' AS BLOB), NULL),
    (2, x'00000000000000000000000000000002', 's', 'state_transition', 'claude', 'thinking', 'waiting', 2, 1001,
     x'00FF', CAST('{"id":"00000000-0000-0000-0000-000000000002","event":"state_transition","session_id":"s","agent":"claude","from":"thinking","to":"waiting","project_path":"/home/dev/code/bar","timestamp":"1970-01-01T00:00:00.002Z","sequence":2,"reason":"turn_end"}' AS BLOB)),
    (3, x'00000000000000000000000000000003', 's', 'ping', 'claude', 'idle', 'idle', 3, 1002, x'7B7D', NULL),
    (4, x'00000000000000000000000000000004', 't', 'state_transition', 'claude', 'thinking', 'waiting', 4, 1003,
     CAST('{"id":"00000000-0000-0000-0000-000000000004","event":"state_transition","session_id":"t","agent":"claude","from":"thinking","to":"waiting","project_path":"/home/dev/code/bar","timestamp":"1970-01-01T00:00:00.004Z","sequence":4,"reason":"turn_end"}' AS BLOB), NULL);
INSERT INTO delivery VALUES (1, 1, 1, 1, 1, 1, 1107), (2, 2, 1, 0, 1, 1, 9000), (5, 3, 1, 0, 0, 0, 1002);
INSERT INTO attempt VALUES (1, 1, 1100, 7, 204, NULL, 'ok'), (2, 1, 1200, 9, 503, NULL, 'busy');
INSERT INTO finished VALUES (1, 1107), (4, 1003);
PRAGMA application_id = 1382175604;
PRAGMA user_version = 1;
COMMIT;
"#;

fn make_version_1(directory: &Path) {
    let path = directory.join("ringback.db");
    let file = File::create(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    drop(file);
    rusqlite::Connection::open(&path).unwrap().execute_batch(VERSION_1).unwrap();
}

#[tokio::test]
async fn a_version_1_file_opens_with_everything_in_it() {
    let directory = tempfile::tempdir().unwrap();
    make_version_1(directory.path());
    for _ in 0..2 {
        let store = open(directory.path());
        let sessions = store.sessions().await.unwrap();
        assert_eq!((sessions.len(), sessions[0].activity), (1, Activity::Waiting));
        assert_eq!(store.names().await, Ok(vec![(SessionId::new("s"), "mine".to_owned())]));
        let totals = Totals { events: 4, pending: 2, delivered: 1, ..Totals::default() };
        assert_eq!(store.totals().await, Ok(totals));
        let transitions = store.transitions(&SessionId::new("s"), 10).await;
        assert_eq!(transitions, Ok(vec![event(1, "s"), event(2, "s")]));
        let gone = EndpointStatus {
            disabled_at: t(5),
            reason: "answered 410".to_owned(),
            entry_fingerprint: "abc".to_owned(),
        };
        assert_eq!(store.endpoint_status(&endpoint("gone")).await, Ok(Some(gone)));
        let listed = store.deliveries(DeliveryQuery::default()).await.unwrap().items;
        let rows: Vec<_> = listed.iter().map(|row| (row.delivery.id.0, row.last_status)).collect();
        assert_eq!(rows, [(5, None), (2, Some(503)), (1, Some(204))]);
        let counts = &store.endpoint_counts().await.unwrap()[0];
        assert_eq!((counts.pending, counts.latency.unwrap().p99_ms), (2, 9));
        assert_eq!(store.queued_count().await, Ok(0));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_1_file_goes_on_and_takes_runs() {
    let directory = tempfile::tempdir().unwrap();
    make_version_1(directory.path());
    let store = open(directory.path());
    let claims = store.claim(&endpoint("e"), t(9000), 10, t(9999)).await.unwrap().claims;
    let due: Vec<_> = claims.iter().map(|claim| (claim.delivery.id.0, &claim.body[..])).collect();
    assert_eq!(due, [(5, &b"{}"[..]), (2, &b"\x00\xff"[..])]);
    store.settle(vec![ended(claims[1].delivery.id, DeliveryState::Delivered, 2, 9000)]).await.unwrap();
    store.record(vec![told(9, 9001, &["e"])]).await.unwrap();
    assert_eq!(store.accept(accept(1, 9002)).await, Ok(Accepted::New));
    let totals = Totals { events: 5, pending: 2, delivered: 2, ..Totals::default() };
    assert_eq!(store.totals().await, Ok(totals));
    assert_eq!(store.queued(10).await, Ok(vec![run(1, 9002)]));
    let everything = Prune { now: t(10_000), keep_for: Duration::ZERO, max_bytes: u64::MAX };
    assert_eq!(
        store.prune(everything).await,
        Ok(Pruned { events: 3, deliveries: 2 }),
        "1, 2 and 4 have ended"
    );
}

#[tokio::test]
async fn a_reopened_store_has_the_runs_the_keys_the_values_and_the_count() {
    let directory = tempfile::tempdir().unwrap();
    let call = |n| Accept { key: Some(key("agent", "k")), ..accept(n, 10) };
    {
        let store = open(directory.path());
        assert_eq!(store.accept(call(1)).await, Ok(Accepted::New));
        assert_eq!(store.accept(accept(2, 11)).await, Ok(Accepted::New));
        let values = vec![("main/default".to_owned(), Some("\"s\"".to_owned()))];
        let runs = vec![working(run(2, 11), "s2", 12)];
        store.save(Save { runs, values, told: vec![] }).await.unwrap();
    }
    let store = open(directory.path());
    assert_eq!(store.queued_count().await, Ok(1));
    assert_eq!(store.queued(10).await, Ok(vec![run(1, 10)]));
    assert_eq!(store.unfinished().await, Ok(vec![working(run(2, 11), "s2", 12)]));
    assert_eq!(store.value("main/default").await, Ok(Some("\"s\"".to_owned())));
    assert_eq!(store.accept(call(3)).await, Ok(Accepted::Repeated(run_id(1))));
}

#[tokio::test]
async fn an_accepted_run_is_in_the_files_before_anything_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert_eq!(store.accept(accept(1, 10)).await, Ok(Accepted::New));
    // The state of the disk if the process were killed now.
    let after_kill = tempfile::tempdir().unwrap();
    for file in ["ringback.db", "ringback.db-wal"] {
        std::fs::copy(directory.path().join(file), after_kill.path().join(file)).unwrap();
    }
    assert_eq!(open(after_kill.path()).queued(10).await, Ok(vec![run(1, 10)]));
}
