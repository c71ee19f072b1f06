//! What goes on at an endpoint whatever its entry says: an edit of the entry changes the bounds, and not what was done
//! under them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringback_model::{Pace, Rate};
use tokio::time::Instant;

/// Attempts of one endpoint: how many are under way, and when the last ones began.
#[derive(Debug)]
pub struct Traffic {
    in_flight: AtomicUsize,
    /// What the pace counts from.
    began: Instant,
    /// `None` = there is no rate. Held for look-ups only.
    pace: Mutex<Option<Pace>>,
}

/// A place on the wire, free again when this is dropped.
pub(super) struct Slot(Arc<Traffic>);

impl Default for Traffic {
    fn default() -> Self {
        Traffic { in_flight: AtomicUsize::new(0), began: Instant::now(), pace: Mutex::default() }
    }
}

impl Traffic {
    /// Takes a slot, if fewer than `slots` are taken.
    pub(super) fn enter(self: &Arc<Self>, slots: usize) -> Option<Slot> {
        let one_more = |taken: usize| (taken < slots).then_some(taken + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Slot(Arc::clone(self)))
    }

    /// Goes by this rate from now on. What began under another one counts; what began under none does not.
    pub(super) fn go_by(&self, rate: Option<Rate>) {
        let mut pace = self.pace();
        match (&mut *pace, rate) {
            (Some(pace), Some(rate)) => pace.set(rate),
            (pace, rate) => *pace = rate.map(Pace::new),
        }
    }

    /// How many attempts may begin now.
    pub(super) fn room(&self) -> usize {
        self.pace().as_mut().map_or(usize::MAX, |pace| pace.room(self.began.elapsed()))
    }

    /// How long no attempt may begin.
    pub(super) fn wait(&self) -> Duration {
        self.pace().as_mut().map_or(Duration::ZERO, |pace| pace.wait(self.began.elapsed()))
    }

    /// Counts an attempt that begins now.
    pub(super) fn begin(&self) {
        if let Some(pace) = self.pace().as_mut() {
            pace.begin(self.began.elapsed());
        }
    }

    fn pace(&self) -> MutexGuard<'_, Option<Pace>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}
