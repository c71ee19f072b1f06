//! What the threads' last jobs say about the disk.
//!
//! It knows no retry and no clock: trouble ends when the thread that met it does a job without it. Damage does not
//! end: a page that reads as garbage is still there when another one reads well.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Error;

/// Shared by the threads of one store.
#[derive(Clone, Debug)]
pub(super) struct Trouble(Arc<Said>);

#[derive(Debug)]
struct Said {
    met: Mutex<Met>,
    worst: watch::Sender<Option<Error>>,
}

#[derive(Debug, Default)]
struct Met {
    damage: Option<Error>,
    /// By the thread that met it.
    last: [Option<Error>; 3],
}

/// A thread of the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// The one that writes.
    Writer,
    /// The one that claims.
    Claims,
    /// The one that reads for everybody else.
    Listings,
}

impl Trouble {
    /// No trouble.
    pub(super) fn none() -> Self {
        Trouble(Arc::new(Said { met: Mutex::default(), worst: watch::Sender::new(None) }))
    }

    /// Notes how a thread's job went. A write that was refused says nothing about the disk.
    pub(super) fn saw(&self, who: Who, error: Option<&Error>) {
        let error = error.filter(|error| !matches!(error, Error::Refused(_) | Error::Closed));
        let mut met = self.0.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.damage.is_none() {
            met.damage = error.filter(|error| matches!(error, Error::Corrupt(_))).cloned();
        }
        met.last[who as usize] = error.cloned();
        let worst = met.damage.iter().chain(met.last.iter().flatten()).next().cloned();
        // While the lock is held, so that what is told last is what was seen last.
        self.0.worst.send_if_modified(|told| {
            let is_new = *told != worst;
            *told = worst;
            is_new
        });
    }

    /// What is the matter now, and every change of it.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Error>> {
        self.0.worst.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_ends_with_the_next_good_job_of_its_thread_and_damage_never() {
        let trouble = Trouble::none();
        let seen = trouble.watch();
        let now = || seen.borrow().clone();
        trouble.saw(Who::Writer, Some(&Error::Full));
        trouble.saw(Who::Claims, None);
        assert_eq!(now(), Some(Error::Full), "another thread's good job ends it");
        trouble.saw(Who::Writer, None);
        assert_eq!(now(), None);
        trouble.saw(Who::Writer, Some(&Error::Refused("too long".to_owned())));
        assert_eq!(now(), None);
        let damage = Error::Corrupt("a page".to_owned());
        trouble.saw(Who::Listings, Some(&damage));
        trouble.saw(Who::Listings, None);
        trouble.saw(Who::Writer, Some(&Error::Full));
        assert_eq!(now(), Some(damage));
    }
}
