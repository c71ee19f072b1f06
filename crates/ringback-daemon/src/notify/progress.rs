//! How far messages of several parts came, so that a retry goes on with the part that failed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Messages of which it is remembered how many parts were sent; the oldest goes first.
const REMEMBERED_MESSAGES: usize = 256;

/// Messages that came only so far: event id and number of parts sent. Forgotten when the process ends.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<VecDeque<(Uuid, usize)>>);

impl Progress {
    /// How many parts were sent.
    pub(super) fn of(&self, message: Uuid) -> usize {
        self.lock().iter().find(|(id, _)| *id == message).map_or(0, |(_, sent)| *sent)
    }

    /// So many parts were sent.
    pub(super) fn note(&self, message: Uuid, sent: usize) {
        let mut progress = self.lock();
        match progress.iter_mut().find(|(id, _)| *id == message) {
            Some(entry) => entry.1 = sent,
            None => {
                if progress.len() == REMEMBERED_MESSAGES {
                    progress.pop_front();
                }
                progress.push_back((message, sent));
            }
        }
    }

    /// All of it was sent.
    pub(super) fn forget(&self, message: Uuid) {
        self.lock().retain(|(id, _)| *id != message);
    }

    /// What is behind the lock is whole at every moment, so that a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Uuid, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_messages_came_is_remembered_for_a_bounded_number() {
        let progress = Progress::default();
        for event in 0..=REMEMBERED_MESSAGES as u128 {
            progress.note(Uuid::from_u128(event), 2);
        }
        assert_eq!(progress.lock().len(), REMEMBERED_MESSAGES);
        assert_eq!(progress.of(Uuid::from_u128(0)), 0);
        assert_eq!(progress.of(Uuid::from_u128(1)), 2);
        progress.forget(Uuid::from_u128(1));
        assert_eq!(progress.of(Uuid::from_u128(1)), 0);
    }
}
