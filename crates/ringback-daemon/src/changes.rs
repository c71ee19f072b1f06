//! Tells when files change, whatever the system says about it.
//!
//! Owns: when to look, and that what is looked at may be half written. Does not know what the files hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A file that did not change for so long is taken to be written.
const QUIET: Duration = Duration::from_millis(100);
/// Files that keep changing are read after so long all the same.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the files are looked at where the system does not tell of changes.
const POLL: Duration = Duration::from_millis(500);
/// How often they are looked at all the same: an event may get lost.
const LOOK: Duration = Duration::from_secs(30);

/// Waits for changes of some files.
pub(crate) struct Changes {
    /// What the files are, for the log.
    what: &'static str,
    changed: Arc<Notify>,
    /// `None` = the system cannot tell of changes.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Changes {
    /// Nothing is watched yet. `what`: the files, in the plural.
    pub(crate) fn new(what: &'static str) -> Changes {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is no change.
            if !event.is_ok_and(|e| matches!(e.kind, EventKind::Access(access) if !is_written(access))) {
                wake.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "the system does not tell of changes; {what} are looked at twice a second");
        });
        Changes { what, changed, watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Waits for a change, and then until the files rest.
    pub(crate) async fn settled(&self) {
        let look = if self.watcher.is_some() { LOOK } else { POLL };
        let _ = tokio::time::timeout(look, self.changed.notified()).await;
        let began = Instant::now();
        while began.elapsed() < PATIENCE && tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok()
        {
        }
    }

    /// Watches the directories of the files, and no other ones: a file that is replaced is another one.
    pub(crate) fn watch<'a>(&mut self, files: impl Iterator<Item = &'a PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let directories: BTreeSet<PathBuf> = files.filter_map(|f| nearest_directory(f)).collect();
        for gone in self.watched.difference(&directories) {
            let _ = watcher.unwatch(gone);
        }
        let mut watched = BTreeSet::new();
        for directory in directories {
            if self.watched.contains(&directory) {
                watched.insert(directory);
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    watched.insert(directory);
                    // An edit before that raised no event.
                    self.changed.notify_one();
                }
                Err(error) => {
                    let (directory, what) = (directory.display(), self.what);
                    tracing::warn!(%directory, %error, "not watched; {what} are looked at twice a second");
                    self.watcher = None;
                    return;
                }
            }
        }
        self.watched = watched;
    }
}

fn is_written(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    matches!(access, AccessKind::Close(AccessMode::Write))
}

/// The directory of a file, or the nearest one above it that is there.
fn nearest_directory(file: &Path) -> Option<PathBuf> {
    file.ancestors().skip(1).find(|directory| directory.is_dir()).map(Path::to_owned)
}
