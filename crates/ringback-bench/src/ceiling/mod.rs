//! The ceilings: what a program cannot do without, and nothing else. No retries, no limits, no state beyond a file or, to
//! see what those cost, a few tables.
//!
//! They run on threads of their own in this process, so that they have what the program has: the rest of the machine.

pub(crate) mod door;
pub(crate) mod history;
pub(crate) mod journal;
pub(crate) mod rows;
pub(crate) mod sender;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process;
use journal::Journal;
use rows::Tables;

/// Threads and a journal. All of it ends when this is dropped.
pub(crate) struct Ceiling {
    /// With as many workers as the machine has cores, as the program has.
    pub(crate) runtime: Runtime,
    pub(crate) journal: Journal,
    /// Of its threads, by which their time is told from that of the load.
    name: String,
    dir: TempDir,
}

impl Ceiling {
    pub(crate) fn start() -> Result<Ceiling> {
        Ceiling::on(Journal::open)
    }

    /// With a journal of rows.
    pub(crate) fn of_rows(tables: Tables) -> Result<Ceiling> {
        Ceiling::on(|path, name| Journal::of_rows(path, name, tables))
    }

    fn on(journal: impl FnOnce(&Path, &str) -> Result<Journal>) -> Result<Ceiling> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("ceiling-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(&name).enable_all().build()?;
        let dir = tempfile::tempdir()?;
        let journal = journal(&dir.path().join("journal"), &name)?;
        Ok(Ceiling { runtime, journal, name, dir })
    }

    /// A directory for files.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Time of its threads on the processors since the start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu_of_threads(&self.name)
    }
}
