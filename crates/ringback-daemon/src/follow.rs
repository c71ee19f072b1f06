//! Follows the configuration's files and hands on each configuration that can be used.
//!
//! Knows when to read, and that what it reads may be half written. It does not know what a change means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::{Config, Source};

/// A file that did not change for so long is taken to be written.
const QUIET: Duration = Duration::from_millis(100);
/// Files that keep changing are read after so long all the same.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the files are looked at where the system does not tell of changes.
const POLL: Duration = Duration::from_millis(500);
/// How often they are looked at all the same: an event may get lost.
const LOOK: Duration = Duration::from_secs(30);

/// Follows the configuration.
pub(crate) struct Follower {
    source: Source,
    /// As the daemon started with it.
    first: Arc<Config>,
    /// The last configuration that could be used.
    good: Arc<Config>,
    /// What the files held when they were last read.
    read: Vec<(PathBuf, Option<Vec<u8>>)>,
    changed: Arc<Notify>,
    /// `None` = the system cannot tell of changes.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Follower {
    /// Follows the files of a configuration that was just read.
    pub(crate) fn new(source: Source, config: Arc<Config>) -> Follower {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is no change.
            if !event.is_ok_and(|e| matches!(e.kind, EventKind::Access(access) if !is_written(access))) {
                wake.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "the system does not tell of changes; the configuration is looked at twice a second");
        });
        let mut follower = Follower {
            source,
            first: Arc::clone(&config),
            good: config,
            read: Vec::new(),
            changed,
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
        };
        follower.watch();
        // An edit since it was read would raise no event.
        follower.changed.notify_one();
        follower
    }

    /// Sends each configuration that can be used, until `stop` turns true.
    pub(crate) async fn run(mut self, configs: watch::Sender<Arc<Config>>, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                config = self.next() => { configs.send_replace(config); }
                _ = stop.changed() => {}
            }
        }
    }

    /// The next configuration that can be used and is not the last one.
    async fn next(&mut self) -> Arc<Config> {
        loop {
            self.settled().await;
            self.watch();
            let contents = self.contents();
            if contents == self.read {
                continue;
            }
            self.read = contents;
            match self.source.load(&self.good) {
                Ok(config) => {
                    for warning in config.warnings.iter().filter(|w| !self.good.warnings.contains(w)) {
                        tracing::warn!("{warning}");
                    }
                    let late = self.first.fixed_at_start(&config);
                    if !late.is_empty() && late != self.first.fixed_at_start(&self.good) {
                        tracing::warn!("changed, and taken in at the next start: {}", late.join(", "));
                    }
                    self.good = Arc::new(config);
                    self.watch();
                    self.read = self.contents();
                    return Arc::clone(&self.good);
                }
                Err(error) => tracing::warn!(%error, "the last good configuration stays in force"),
            }
        }
    }

    /// Waits for a change, and then until the files rest.
    async fn settled(&self) {
        let look = if self.watcher.is_some() { LOOK } else { POLL };
        let _ = tokio::time::timeout(look, self.changed.notified()).await;
        let began = Instant::now();
        while began.elapsed() < PATIENCE && tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok()
        {
        }
    }

    /// What the files hold: their bytes, since times are too coarse for two edits in a row.
    fn contents(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let files = self.source.files(&self.good).into_iter();
        files.map(|file| (file.clone(), std::fs::read(file).ok())).collect()
    }

    /// Watches the directories of the files: a file that is replaced is another one.
    fn watch(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let files = self.source.files(&self.good);
        let directories: BTreeSet<PathBuf> = files.iter().filter_map(|f| nearest_directory(f)).collect();
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
                }
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "not watched; the configuration is looked at twice a second");
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
