//! What the interfaces are told live: typed events in a bounded ring, numbered from 1.
//!
//! The ring is a convenience for clients that are connected or were a moment ago; the store is the truth.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Events kept for clients that come back.
const KEPT: usize = 10_000;

/// One typed event, serialised once for all clients.
#[derive(Clone, Debug)]
pub struct Item {
    /// Rises by one.
    pub id: u64,
    /// `transition` or `delivery`.
    pub kind: &'static str,
    /// The JSON.
    pub data: Arc<str>,
}

/// The ring. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    // Held for pushes and copies only, never across an await.
    ring: Arc<Mutex<VecDeque<Item>>>,
    newest: Arc<watch::Sender<u64>>,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { ring: Arc::default(), newest: Arc::new(watch::Sender::new(0)) }
    }
}

impl Feed {
    /// Adds an event and wakes the clients.
    pub fn push(&self, kind: &'static str, data: String) {
        let mut ring = self.lock();
        let id = ring.back().map_or(0, |i| i.id) + 1;
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Item { id, kind, data: data.into() });
        self.newest.send_replace(id);
    }

    /// The events after `id`, at most `limit`; `None` when some of them are no longer kept.
    pub fn after(&self, id: u64, limit: usize) -> Option<Vec<Item>> {
        let ring = self.lock();
        let newest = ring.back().map_or(0, |i| i.id);
        let oldest = ring.front().map_or(newest + 1, |i| i.id);
        if id > newest || id + 1 < oldest {
            return (id == newest).then(Vec::new);
        }
        let skip = usize::try_from(id + 1 - oldest).unwrap_or(usize::MAX);
        Some(ring.iter().skip(skip).take(limit).cloned().collect())
    }

    /// The number of the newest event, and its changes.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_came_after_its_last_id_or_learns_that_it_is_gone() {
        let feed = Feed::default();
        let ids = |after| feed.after(after, 100).map(|items| items.iter().map(|i| i.id).collect::<Vec<_>>());
        assert_eq!(ids(0), Some(vec![]));
        assert_eq!(ids(5), None);
        for n in 0..KEPT + 2 {
            feed.push("transition", n.to_string());
        }
        assert_eq!(ids(0), None);
        assert_eq!(ids(1), None);
        assert_eq!(ids(KEPT as u64), Some(vec![10_001, 10_002]));
        assert_eq!(ids(10_002), Some(vec![]));
    }
}
