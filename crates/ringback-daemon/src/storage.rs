//! How the store does: known to `/readyz` and the metrics, said in the log once a minute, and tried again until it
//! works.
//!
//! It decides nothing: what cannot be written waits with whoever wants it written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ringback_store::{Error, Store};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a store that fails is left alone.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How the store does.
#[derive(Debug, Default)]
pub struct Health {
    /// Why the store cannot be written or read; `None` = it can.
    problem: std::sync::Mutex<Option<Error>>,
    /// Events that wait in memory until they are journaled.
    pub waiting: AtomicU64,
    /// Events lost because the store failed for too long.
    pub lost: AtomicU64,
}

impl Health {
    /// Why the store cannot be written or read, and what mends it; `None` = it can.
    pub fn problem(&self) -> Option<String> {
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.as_ref().map(|error| format!("{error}; {}", mend(error)))
    }

    fn set(&self, problem: Option<Error>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Follows the store's trouble until `stop` turns true: one warning a minute, and a try each second, so that its
    /// end is noticed also when nobody else has anything to write.
    pub async fn watch(self: Arc<Self>, store: Arc<dyn Store>, mut stop: watch::Receiver<bool>) {
        let mut trouble = store.trouble();
        let mut warned_at: Option<Instant> = None;
        let mut was_failing = false;
        while !*stop.borrow() {
            let problem = trouble.borrow_and_update().clone();
            self.set(problem.clone());
            let is_failing = problem.is_some();
            if let Some(error) = problem {
                if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned_at = Some(Instant::now());
                    let (waiting, lost) = (self.waiting(), self.lost());
                    tracing::warn!(%error, mend = mend(&error), waiting, lost, "the store fails; what is new waits in memory");
                }
            } else if was_failing {
                tracing::info!("the store works again");
            }
            was_failing = is_failing;
            tokio::select! {
                changed = trouble.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if is_failing => {
                    // What it meets is in the trouble.
                    let _ = store.probe().await;
                }
                changed = stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Events that wait in memory until they are journaled.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Events lost because the store failed for too long.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What ends a store's trouble.
fn mend(error: &Error) -> &'static str {
    match error {
        Error::Full => "make room on the disk that holds the state directory",
        Error::ReadOnly => "make the state directory writable again",
        Error::Locked => "end the other program that has ringback.db open",
        Error::Corrupt(_) => "stop ringback and run `ringback doctor --repair`",
        Error::Io(_) => "look at the disk that holds the state directory",
        Error::NewerSchema { .. } | Error::Exposed { .. } | Error::Refused(_) | Error::Closed => {
            "start ringback again"
        }
    }
}
