//! Follows the configuration's files and hands on each configuration that can be used.
//!
//! Knows what to read when something changed. It does not know what a change means.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::changes::Changes;
use crate::config::{Config, Source};

/// Follows the configuration.
pub(crate) struct Follower {
    source: Source,
    /// As the daemon started with it.
    first: Arc<Config>,
    /// The last configuration that could be used.
    good: Arc<Config>,
    /// What the files held when they were last read.
    read: Vec<(PathBuf, Option<Vec<u8>>)>,
    changes: Changes,
}

impl Follower {
    /// Follows the files of a configuration that was just read.
    pub(crate) fn new(source: Source, config: Arc<Config>) -> Follower {
        let mut follower = Follower {
            source,
            first: Arc::clone(&config),
            good: config,
            read: Vec::new(),
            changes: Changes::new("the configuration's files"),
        };
        follower.watch();
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
            self.changes.settled().await;
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
                    // What the files held is what was seen before they were loaded: an edit since then must differ
                    // from it. Files that this configuration names for the first time do, which loads it once more.
                    self.watch();
                    return Arc::clone(&self.good);
                }
                Err(error) => tracing::warn!(%error, "the last good configuration stays in force"),
            }
        }
    }

    /// What the files hold: their bytes, since times are too coarse for two edits in a row.
    fn contents(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let files = self.source.files(&self.good).into_iter();
        files.map(|file| (file.clone(), std::fs::read(file).ok())).collect()
    }

    fn watch(&mut self) {
        self.changes.watch(self.source.files(&self.good).iter());
    }
}
