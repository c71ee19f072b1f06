//! What endpoints that fail may cost the others: so many attempts a second, all of them together.
//!
//! A dead endpoint has its backlog to try again and again; with many of them that would be most of what the machine
//! does. One that accepts something needs no allowance from then on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringback_model::{EndpointName, Pace, Rate};
use tokio::time::Instant;

/// Attempts of endpoints whose last attempt had no success. Far more than one needs to notice that it is well again.
const RATE: &str = "400/s";
/// How long an endpoint waits for its part, and how much longer some do, so that they do not all come at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Shared by all endpoints of a daemon.
#[derive(Debug)]
pub struct Allowance {
    began: Instant,
    /// Held for look-ups only.
    pace: Mutex<Option<Pace>>,
}

impl Default for Allowance {
    fn default() -> Self {
        Allowance { began: Instant::now(), pace: Mutex::new(RATE.parse::<Rate>().ok().map(Pace::new)) }
    }
}

impl Allowance {
    /// How long an endpoint has to wait before it may ask again; `None` = there is something left.
    pub(super) fn wait(&self, endpoint: &EndpointName) -> Option<Duration> {
        let room = self.pace().as_mut().map_or(usize::MAX, |pace| pace.room(self.began.elapsed()));
        let spread = || {
            let mut hasher = DefaultHasher::new();
            endpoint.hash(&mut hasher);
            PAUSE + Duration::from_millis(hasher.finish() % 100)
        };
        (room == 0).then(spread)
    }

    /// Takes one attempt.
    pub(super) fn take(&self) {
        if let Some(pace) = self.pace().as_mut() {
            pace.begin(self.began.elapsed());
        }
    }

    fn pace(&self) -> MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
