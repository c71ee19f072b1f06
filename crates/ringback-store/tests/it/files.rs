//! What the engine on disk promises: what is on disk stays, and what is not ours to touch is not touched.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ringback_model::{DeliveryState, SessionId};
use ringback_store::contract::{ended, endpoint, event, t, told};
use ringback_store::{DeliveryQuery, Ending, EndpointStatus, Error, Prune, Replay, SqliteStore, Store};

use crate::open;

#[tokio::test]
async fn a_reopened_store_has_everything_but_the_leases() {
    let directory = tempfile::tempdir().unwrap();
    let disabled =
        EndpointStatus { disabled_at: t(5), reason: "gone".to_owned(), entry_fingerprint: "x".to_owned() };
    let before = {
        let store = open(directory.path());
        store.record((1..=3).map(|n| told(n, 10, &["e"])).collect()).await.unwrap();
        let claims = store.claim(&endpoint("e"), t(10), 2, t(1_000_000)).await.unwrap().claims;
        store.settle(vec![ended(claims[0].delivery.id, DeliveryState::Delivered, 1, 10)]).await.unwrap();
        store.set_endpoint_status(&endpoint("f"), Some(disabled.clone())).await.unwrap();
        store.set_name(&SessionId::new("s"), Some("mine".to_owned())).await.unwrap();
        everything(&store).await
    };
    let store = open(directory.path());
    assert_eq!(everything(&store).await, before);
    assert_eq!(store.endpoint_status(&endpoint("f")).await, Ok(Some(disabled)));
    let claims = store.claim(&endpoint("e"), t(10), 10, t(20)).await.unwrap().claims;
    assert_eq!(
        claims.iter().map(|c| c.delivery.event_id).collect::<Vec<_>>(),
        [event(2, "s").id, event(3, "s").id]
    );
}

async fn everything(store: &dyn Store) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        store.deliveries(DeliveryQuery::default()).await.unwrap(),
        store.endpoint_counts().await.unwrap(),
        store.totals().await.unwrap(),
        store.names().await.unwrap(),
        store.transitions(&SessionId::new("s"), 10).await.unwrap(),
    )
}

#[tokio::test]
async fn what_was_answered_is_in_the_files_before_anything_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record(vec![told(1, 10, &["e"])]).await.unwrap();
    // The state of the disk if the process were killed now.
    let after_kill = tempfile::tempdir().unwrap();
    for file in ["ringback.db", "ringback.db-wal"] {
        let to = after_kill.path().join(file);
        fs::copy(directory.path().join(file), &to).unwrap();
    }
    let revived = open(after_kill.path());
    let claims = revived.claim(&endpoint("e"), t(10), 10, t(20)).await.unwrap().claims;
    assert_eq!(claims.len(), 1);
}

#[tokio::test]
async fn close_leaves_one_private_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record(vec![told(1, 10, &["e"])]).await.unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in fs::read_dir(directory.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.file_name());
        }
    }
    store.close().await.unwrap();
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["ringback.db"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).close().await.unwrap();
    let path = directory.path().join("ringback.db");
    // The version is a big-endian number at byte 60 of the header.
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut version = [0; 4];
    file.seek(SeekFrom::Start(60)).unwrap();
    file.read_exact(&mut version).unwrap();
    file.seek(SeekFrom::Start(60)).unwrap();
    file.write_all(&99u32.to_be_bytes()).unwrap();
    drop(file);
    let before = fs::read(&path).unwrap();
    let known = u32::from_be_bytes(version);
    assert_eq!(SqliteStore::open(&path).err(), Some(Error::NewerSchema { found: 99, known }));
    assert!(fs::read(&path).unwrap() == before, "the file changed");
}

#[tokio::test]
async fn a_corrupt_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringback.db");
    write_private(&path, &[b'x'; 10_000]);
    assert!(matches!(SqliteStore::open(&path).err(), Some(Error::Corrupt(_))));
    assert_eq!(fs::read(&path).unwrap(), [b'x'; 10_000]);
}

#[tokio::test]
async fn damage_behind_the_header_is_an_error_where_it_is_met() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record((1..=200).map(|n| told(n, 10, &["e"])).collect()).await.unwrap();
    store.close().await.unwrap();
    let path = directory.path().join("ringback.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0x55);
    write_private(&path, &bytes);
    let met = match SqliteStore::open(&path) {
        Ok(store) => store.deliveries(DeliveryQuery::default()).await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(met, Some(Error::Corrupt(_))), "{met:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
}

fn write_private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_files_that_others_may_read_are_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringback.db");
    open(directory.path()).close().await.unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(SqliteStore::open(&path).err(), Some(Error::Exposed { .. })));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

    let link = directory.path().join("link.db");
    symlink(&path, &link).unwrap();
    assert!(matches!(SqliteStore::open(&link).err(), Some(Error::Exposed { .. })));
    let dangling = directory.path().join("dangling.db");
    symlink(directory.path().join("nothing.db"), &dangling).unwrap();
    assert!(matches!(SqliteStore::open(&dangling).err(), Some(Error::Exposed { .. })));
    assert!(!directory.path().join("nothing.db").exists());

    // A link on the way to the directory is the owner's business.
    let way = tempfile::tempdir().unwrap();
    symlink(directory.path(), way.path().join("state")).unwrap();
    assert!(SqliteStore::open(&way.path().join("state/ringback.db")).is_ok());
    assert!(matches!(SqliteStore::open(&way.path().join("missing/ringback.db")).err(), Some(Error::Io(_))));
}

#[tokio::test]
async fn prune_gives_the_space_back_and_stops_when_the_rest_fits() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..20 {
        store.record((1..=200).map(|i| told(n * 200 + i, 10, &["e"])).collect()).await.unwrap();
        let claims = store.claim(&endpoint("e"), t(10), 200, t(20)).await.unwrap().claims;
        let settled = claims.iter().map(|c| ended(c.delivery.id, DeliveryState::Delivered, 1, 10));
        store.settle(settled.collect()).await.unwrap();
    }
    let size = async |store: SqliteStore| {
        store.close().await.unwrap();
        fs::metadata(directory.path().join("ringback.db")).unwrap().len()
    };
    let full = size(store).await;

    let store = open(directory.path());
    let half = Prune { now: t(100), keep_for: Duration::from_secs(1), max_bytes: full / 2 };
    let pruned = store.prune(half).await.unwrap();
    assert!((1000..3000).contains(&pruned.events), "{pruned:?}");
    let left = size(store).await;
    assert!(left <= full / 2 && left > full / 4, "{left} of {full}");
}

#[tokio::test]
async fn closing_an_endpoint_takes_as_many_steps_as_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record((1..=1234).map(|n| told(n, 10, &["e", "f"])).collect()).await.unwrap();
    assert_eq!(store.close_pending(&endpoint("e"), Ending::Cancelled, t(20)).await, Ok(1234));
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.pending, totals.cancelled), (1234, 1234));
}

#[tokio::test]
async fn a_replay_takes_as_many_steps_as_it_needs_and_each_delivery_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.record((1..=1234).map(|n| told(n, 10, &["e", "f"])).collect()).await.unwrap();
    store.close_pending(&endpoint("e"), Ending::Dead, t(20)).await.unwrap();
    store.close_pending(&endpoint("f"), Ending::Dead, t(20)).await.unwrap();
    let some = Replay::Of { endpoint: endpoint("e"), state: None, from: Some(t(35)), to: None };
    assert_eq!(store.replay(some, t(30)).await, Ok(1200));
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.pending, totals.dead), (1200, 1268));
    assert_eq!(store.claim(&endpoint("e"), t(30), 2000, t(40)).await.unwrap().claims.len(), 1200);
    drop(store);
    let store = open(directory.path());
    let reopened = store.totals().await.unwrap();
    assert_eq!(reopened, totals);
}
