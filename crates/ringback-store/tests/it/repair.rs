//! `ringback_store::repair`: what is damaged is moved aside as it is, and what can be read is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringback_model::{DeliveryState, SessionId, SessionState};
use ringback_store::contract::ledger::accept;
use ringback_store::contract::{ended, endpoint, t, told};
use ringback_store::{
    Accepted, DeliveryQuery, Entry, Error, Ledger, Repaired, RunQuery, SqliteStore, Store, check, repair,
};
use rusqlite::{Connection, OpenFlags};

use crate::open;

const PAGE: usize = 4096;
const EVENTS: u64 = 150;
const DELIVERED: u64 = 30;

/// A closed database with rows in every table that matters.
async fn filled(directory: &Path) -> PathBuf {
    let store = open(directory);
    let state = |n: u64| {
        let told = told(n, 10, &["e"]);
        let session_id = SessionId::new(format!("s{n}"));
        let event = &told.told.as_ref().unwrap().event;
        let state = SessionState {
            session_id,
            agent: event.agent,
            activity: event.to,
            reason: None,
            since: t(1),
            sequence: 1,
            last_event: None,
        };
        Entry { state: Some(state), ..told }
    };
    store.record((1..=EVENTS).map(state).collect()).await.unwrap();
    let count = usize::try_from(DELIVERED).unwrap();
    let claims = store.claim(&endpoint("e"), t(10), count, t(20)).await.unwrap().claims;
    let settled = claims.iter().map(|c| ended(c.delivery.id, DeliveryState::Delivered, 1, 10));
    store.settle(settled.collect()).await.unwrap();
    for n in 1..=20 {
        assert_eq!(store.accept(accept(n, 10)).await, Ok(Accepted::New));
    }
    store.set_name(&SessionId::new("s1"), Some("mine".to_owned())).await.unwrap();
    store.close().await.unwrap();
    directory.join("ringback.db")
}

/// Puts bytes where the file is.
fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Pages of a table or an index, numbered from 1.
fn pages(path: &Path, name: &str) -> Vec<usize> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut pages = conn
        .prepare("SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path")
        .unwrap();
    let numbers = pages.query_map([name], |row| row.get::<_, u32>(0)).unwrap();
    numbers.map(|number| number.unwrap() as usize).collect()
}

fn damage(bytes: &mut [u8], page: usize) {
    bytes[(page - 1) * PAGE..page * PAGE].fill(0x55);
}

/// Everything that is asked at a start or by the interfaces is answered.
async fn works(directory: &Path, repaired: &Repaired) {
    let store = open(directory);
    assert_eq!(store.sessions().await.unwrap().len() as u64, repaired.sessions);
    assert_eq!(store.totals().await.unwrap().pending, repaired.pending);
    let runs = store.runs(RunQuery { limit: 1000, ..RunQuery::default() }).await.unwrap();
    assert_eq!(runs.items.len() as u64, repaired.runs);
    assert_eq!(store.queued_count().await, Ok(repaired.runs));
    for counts in store.endpoint_counts().await.unwrap() {
        assert_eq!(counts.pending, repaired.pending);
    }
    let claims = store.claim(&endpoint("e"), t(10), 1000, t(20)).await.unwrap().claims;
    assert_eq!(claims.len() as u64, repaired.pending);
    let listed = store.deliveries(DeliveryQuery { limit: 1000, ..DeliveryQuery::default() }).await.unwrap();
    for row in listed.items {
        assert!(store.delivery(row.delivery.id).await.unwrap().is_some());
    }
    store.transitions(&SessionId::new("s"), 1000).await.unwrap();
    store.names().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(check(&directory.join("ringback.db")), Ok(vec![]));
}

#[tokio::test]
async fn a_sound_file_and_a_missing_one_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringback.db");
    assert_eq!((check(&path), repair(&path)), (Ok(vec![]), Ok(None)));
    assert!(!path.exists());
    filled(directory.path()).await;
    let before = fs::read(&path).unwrap();
    assert_eq!((check(&path), repair(&path)), (Ok(vec![]), Ok(None)));
    assert!(fs::read(&path).unwrap() == before, "the file changed");
}

#[tokio::test]
async fn a_damaged_page_costs_its_own_rows_and_those_around_it_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    let events = pages(&path, "event");
    assert!(events.len() > 5, "{events:?}");
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes, events[1]);
    damage(&mut bytes, events[3]);
    put(&path, &bytes);

    let problems = check(&path).unwrap();
    assert!(!problems.is_empty() && problems.len() <= 20, "{problems:?}");
    assert!(fs::read(&path).unwrap() == bytes, "looking changed the file");

    let repaired = repair(&path).unwrap().unwrap();
    assert!(fs::read(&repaired.aside).unwrap() == bytes, "the damaged file is not as it was");
    let a_page = EVENTS / events.len() as u64 + 2;
    assert!(repaired.events >= EVENTS - 2 * a_page, "{repaired:?}");
    assert!(repaired.pending >= EVENTS - DELIVERED - 2 * a_page, "{repaired:?}");
    assert!(!repaired.is_whole);
    assert_eq!((repaired.sessions, repaired.runs), (EVENTS, 20));
    works(directory.path(), &repaired).await;
}

#[tokio::test]
async fn whichever_page_is_damaged_the_new_file_works() {
    let source = tempfile::tempdir().unwrap();
    let path = filled(source.path()).await;
    let sound = fs::read(&path).unwrap();
    let rows: Vec<usize> = ["event", "delivery", "attempt", "session", "run", "endpoint", "latency", "name"]
        .iter()
        .flat_map(|table| pages(&path, table))
        .collect();
    let of_an_index: Vec<usize> = ["delivery_pending", "event_of_session", "delivery_of_event"]
        .iter()
        .flat_map(|index| pages(&path, index))
        .collect();
    for page in 1..=sound.len() / PAGE {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ringback.db");
        let mut bytes = sound.clone();
        damage(&mut bytes, page);
        put(&path, &bytes);
        let Some(repaired) = repair(&path).unwrap() else {
            assert!(!rows.contains(&page) && !of_an_index.contains(&page), "page {page} is missed");
            continue;
        };
        works(directory.path(), &repaired).await;
        assert!(!(repaired.is_whole && rows.contains(&page)), "page {page}: {repaired:?}");
        if of_an_index.contains(&page) {
            let all = (repaired.events, repaired.pending, repaired.is_whole);
            assert_eq!(all, (EVENTS, EVENTS - DELIVERED, true), "page {page}");
        }
    }
}

#[tokio::test]
async fn a_log_that_was_not_moved_into_the_file_is_read_and_moved_aside_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record(vec![told(1, 10, &["e"])]).await.unwrap();
    // The state of the disk if the process were killed now, and the table of sessions damaged.
    let killed = tempfile::tempdir().unwrap();
    for file in ["ringback.db", "ringback.db-wal"] {
        put(&killed.path().join(file), &fs::read(directory.path().join(file)).unwrap());
    }
    let path = killed.path().join("ringback.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute("UPDATE event SET kind = 'no such kind'", []).unwrap();
    conn.execute("INSERT INTO name VALUES ('s', 'kept')", []).unwrap();
    let log = fs::read(killed.path().join("ringback.db-wal")).unwrap();
    // Never dropped: closing would move the log into the file.
    std::mem::forget(conn);

    assert_eq!(check(&path).unwrap(), ["1 rows of table event are not what ringback writes"]);
    let repaired = repair(&path).unwrap().unwrap();
    assert_eq!((repaired.events, repaired.pending, repaired.is_whole), (0, 0, false));
    assert!(fs::read(killed.path().join("ringback.db.corrupt-wal")).unwrap() == log, "the log changed");
    assert_eq!(open(killed.path()).names().await.unwrap(), [(SessionId::new("s"), "kept".to_owned())]);
}

#[tokio::test]
async fn what_was_moved_aside_before_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringback.db");
    for (n, aside) in [(1, "ringback.db.corrupt"), (2, "ringback.db.corrupt-2")] {
        put(&path, &[n; 10_000]);
        let repaired = repair(&path).unwrap().unwrap();
        let name = repaired.aside.file_name().and_then(|name| name.to_str());
        assert_eq!((name, repaired.is_whole, repaired.events), (Some(aside), false, 0));
        works(directory.path(), &repaired).await;
    }
    assert_eq!(fs::read(directory.path().join("ringback.db.corrupt")).unwrap(), [1; 10_000]);
}

#[tokio::test]
async fn a_newer_schema_is_not_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let path = filled(directory.path()).await;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(check(&path), Err(Error::NewerSchema { found: 99, .. })));
    assert!(matches!(repair(&path), Err(Error::NewerSchema { found: 99, .. })));
    assert!(fs::read(&path).unwrap() == before, "the file changed");
    assert_eq!(SqliteStore::open(&path).err().map(|e| matches!(e, Error::NewerSchema { .. })), Some(true));
}
