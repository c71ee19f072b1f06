//! How many deliveries of an event are pending, so that the last one is known without looking at the others: an event
//! may go to a thousand endpoints.

use std::collections::HashMap;

use rusqlite::{Connection, Result};

/// Events whose count is remembered; of others it is read again.
const REMEMBERED: usize = 4096;

/// The counts of some events. Must forget them when a transaction that changed one is undone.
#[derive(Default)]
pub(super) struct Open(HashMap<i64, u64>);

impl Open {
    /// Notes an event that has just been written with so many deliveries.
    pub(super) fn begins(&mut self, event: i64, deliveries: u64) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(event, deliveries);
    }

    /// Notes that a delivery, whose row says so already, has ended. Says whether it was the event's last.
    pub(super) fn ends(&mut self, conn: &Connection, event: i64) -> Result<bool> {
        let left = match self.0.get(&event) {
            Some(open) => open.saturating_sub(1),
            None => {
                let count: i64 = conn
                    .prepare_cached("SELECT count(*) FROM delivery WHERE event = ?1 AND state = 0")?
                    .query_row([event], |row| row.get(0))?;
                u64::try_from(count).unwrap_or(0)
            }
        };
        if left == 0 {
            self.0.remove(&event);
        } else {
            self.begins(event, left);
        }
        Ok(left == 0)
    }

    /// Notes that deliveries of an event are pending again.
    pub(super) fn reopens(&mut self, event: i64) {
        self.0.remove(&event);
    }

    /// Forgets all of them.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
