//! Whose turn it is where the order of events within a session counts. Both engines share it.

use std::collections::HashSet;

use ringback_model::{DeliveryId, SessionId, Timestamp};

use crate::leases::Held;

/// What may be taken now; if nothing, when something may be.
pub(crate) struct Chosen {
    pub(crate) ids: Vec<DeliveryId>,
    pub(crate) next_due: Option<Timestamp>,
}

/// Chooses from an endpoint's pending deliveries, given in any order with their due times. Ids rise in the order of
/// events.
pub(crate) fn choose<E>(
    mut pending: Vec<(DeliveryId, Timestamp)>,
    held: Held<'_>,
    now: Timestamp,
    limit: usize,
    mut session_of: impl FnMut(DeliveryId) -> Result<SessionId, E>,
) -> Result<Chosen, E> {
    pending.sort_unstable();
    let mut chosen = Chosen { ids: Vec::new(), next_due: None };
    // Sessions whose first delivery that is left has to wait: all later ones wait for it.
    let mut waiting: HashSet<SessionId> = HashSet::new();
    for (id, due_at) in pending {
        if chosen.ids.len() >= limit {
            break;
        }
        let session = session_of(id)?;
        if waiting.contains(&session) {
            continue;
        }
        let held_until = held.until(id);
        if held_until.is_none() && due_at <= now {
            chosen.ids.push(id);
            continue;
        }
        let from = held_until.map_or(due_at, |end| due_at.max(end));
        chosen.next_due = Some(chosen.next_due.map_or(from, |next| next.min(from)));
        waiting.insert(session);
    }
    if !chosen.ids.is_empty() {
        chosen.next_due = None;
    }
    Ok(chosen)
}
