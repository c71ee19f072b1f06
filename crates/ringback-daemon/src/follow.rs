//! Follows the configuration's files and hands on each configuration that can be used.
//!
//! Knows what to read when something changed. It does not know what a change means.

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
    /// Why the files cannot be used as they are, for the log to say it once; `None` = they can.
    broken: Option<String>,
    changes: Changes,
}

impl Follower {
    /// Follows the files of a configuration that was just read.
    pub(crate) fn new(source: Source, config: Arc<Config>) -> Follower {
        let mut follower = Follower {
            source,
            first: Arc::clone(&config),
            good: config,
            broken: None,
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

    /// The next configuration that can be used. It may be the last one again: what the files held before they were
    /// loaded says nothing of what was loaded while somebody wrote, so that they are loaded at each look.
    async fn next(&mut self) -> Arc<Config> {
        loop {
            self.changes.settled().await;
            self.watch();
            let (source, good) = (self.source.clone(), Arc::clone(&self.good));
            // A file may be a pipe, or on a file system that does not answer, and the rest of the daemon must not wait.
            let loading = tokio::task::spawn_blocking(move || source.load(&good)).await;
            let Ok(loaded) = loading.inspect_err(|error| {
                tracing::error!(%error, "the configuration could not be loaded");
            }) else {
                continue;
            };
            match loaded {
                Ok(config) => {
                    for warning in config.warnings.iter().filter(|w| !self.good.warnings.contains(w)) {
                        tracing::warn!("{warning}");
                    }
                    let late = self.first.fixed_at_start(&config);
                    if !late.is_empty() && late != self.first.fixed_at_start(&self.good) {
                        tracing::warn!("changed, and taken in at the next start: {}", late.join(", "));
                    }
                    self.good = Arc::new(config);
                    self.broken = None;
                    // It may name other files.
                    self.watch();
                    return Arc::clone(&self.good);
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.broken.as_ref() != Some(&error) {
                        tracing::warn!(error, "the last good configuration stays in force");
                    }
                    self.broken = Some(error);
                }
            }
        }
    }

    fn watch(&mut self) {
        self.changes.watch(self.source.files(&self.good).iter());
    }
}
