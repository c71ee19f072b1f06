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
    ring: Arc<Mutex<Ring>>,
    newest: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Ring {
    items: VecDeque<Item>,
    newest: u64,
    /// Somebody has listened: until then nothing is serialised, and nothing kept.
    is_heard: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { ring: Arc::default(), newest: Arc::new(watch::Sender::new(0)) }
    }
}

impl Feed {
    /// Adds an event and wakes the clients. `data` is asked for the JSON when anybody may want it.
    pub fn push(&self, kind: &'static str, data: impl FnOnce() -> String) {
        let is_heard = self.lock().is_heard;
        let data = is_heard.then(data);
        let mut ring = self.lock();
        ring.newest += 1;
        let id = ring.newest;
        if let Some(data) = data {
            if ring.items.len() == KEPT {
                ring.items.pop_front();
            }
            ring.items.push_back(Item { id, kind, data: data.into() });
        } else if ring.is_heard {
            // Somebody began to listen this moment: what is kept has no gap.
            ring.items.clear();
        }
        self.newest.send_replace(id);
    }

    /// The events after `id`, at most `limit`; `None` when some of them are not kept.
    pub fn after(&self, id: u64, limit: usize) -> Option<Vec<Item>> {
        let ring = self.lock();
        let oldest = ring.items.front().map_or(ring.newest + 1, |i| i.id);
        if id > ring.newest || id + 1 < oldest {
            return (id == ring.newest).then(Vec::new);
        }
        let skip = usize::try_from(id + 1 - oldest).unwrap_or(usize::MAX);
        Some(ring.items.iter().skip(skip).take(limit).cloned().collect())
    }

    /// The number of the newest event, and its changes. From now on events are kept.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.lock().is_heard = true;
        self.newest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_came_after_its_last_id_or_learns_that_it_is_gone() {
        let feed = Feed::default();
        let _client = feed.newest();
        let ids = |after| feed.after(after, 100).map(|items| items.iter().map(|i| i.id).collect::<Vec<_>>());
        assert_eq!(ids(0), Some(vec![]));
        assert_eq!(ids(5), None);
        for n in 0..KEPT + 2 {
            feed.push("transition", || n.to_string());
        }
        assert_eq!(ids(0), None);
        assert_eq!(ids(1), None);
        assert_eq!(ids(KEPT as u64), Some(vec![10_001, 10_002]));
        assert_eq!(ids(10_002), Some(vec![]));
    }

    #[test]
    fn until_somebody_listens_events_are_numbered_and_nothing_is_kept() {
        let feed = Feed::default();
        feed.push("run", || panic!("nobody wants it"));
        feed.push("run", || panic!("nobody wants it"));
        let newest = feed.newest();
        assert_eq!(*newest.borrow(), 2);
        feed.push("run", || "3".to_owned());
        assert!(feed.after(1, 9).is_none());
        let items = feed.after(2, 9).unwrap();
        assert_eq!(items.iter().map(|item| (item.id, &*item.data)).collect::<Vec<_>>(), [(3, "3")]);
    }
}
