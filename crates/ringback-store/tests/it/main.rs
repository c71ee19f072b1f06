//! The store's contract on both engines, and what each of them promises beyond it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its own functions")]

mod files;
mod memory;
mod migrate;
mod repair;
mod same;

use std::path::Path;
use std::sync::Arc;

use ringback_store::{MemoryStore, SqliteStore, Store, contract};

/// Opens the database in a directory.
fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&directory.join("ringback.db")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    let make = || {
        let n = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(SqliteStore::open(&directory.path().join(format!("{n}.db"))).unwrap())
    };
    contract::run_all(|| {
        let store = make();
        async { store as Arc<dyn Store> }
    })
    .await;
    contract::ledger::run_all(&make).await;
    contract::calls::run_all(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    contract::run_all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
    contract::ledger::run_all(|| Arc::new(MemoryStore::new())).await;
    contract::calls::run_all(|| Arc::new(MemoryStore::new())).await;
}
