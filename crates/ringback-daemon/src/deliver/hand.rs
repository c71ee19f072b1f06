//! What a deliverer has taken from the store: what waits for a slot, and what is on the wire.
//!
//! Knows whose turn it is within a session. It does not know the store, the time or the network.

use std::collections::{HashMap, HashSet, VecDeque};

use ringback_model::{Delivery, DeliveryId, SessionId};
use ringback_store::Claim;
use tokio::task;

/// Claims of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Hand {
    is_ordered: bool,
    waiting: VecDeque<Claim>,
    aloft: HashMap<task::Id, (Delivery, SessionId)>,
    /// Sessions of what is aloft; empty where order does not count.
    busy: HashSet<SessionId>,
}

impl Hand {
    /// An empty hand.
    pub(super) fn new(is_ordered: bool) -> Self {
        Hand { is_ordered, ..Hand::default() }
    }

    /// Adds claims, those of one session in their order.
    pub(super) fn add(&mut self, claims: Vec<Claim>) {
        self.waiting.extend(claims);
    }

    /// Takes the first claim whose turn it is.
    pub(super) fn next(&mut self) -> Option<Claim> {
        let free = self.waiting.iter().position(|claim| !self.busy.contains(&claim.session_id))?;
        self.waiting.remove(free)
    }

    /// Notes that a task makes an attempt.
    pub(super) fn flies(&mut self, task: task::Id, delivery: Delivery, session: SessionId) {
        if self.is_ordered {
            self.busy.insert(session.clone());
        }
        self.aloft.insert(task, (delivery, session));
    }

    /// Notes that the task is over. What waits of an ordered session whose turn is not over is no longer ours to
    /// send: it is returned, to be given back.
    pub(super) fn lands(&mut self, task: task::Id, is_finished: bool) -> (Option<Delivery>, Vec<DeliveryId>) {
        let Some((delivery, session)) = self.aloft.remove(&task) else { return (None, Vec::new()) };
        self.busy.remove(&session);
        let mut late = Vec::new();
        if self.is_ordered && !is_finished {
            self.waiting.retain(|claim| {
                let stays = claim.session_id != session;
                if !stays {
                    late.push(claim.delivery.id);
                }
                stays
            });
        }
        (Some(delivery), late)
    }

    /// Whether nothing waits for a slot.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Everything that waits for a slot.
    pub(super) fn waiting(&self) -> Vec<DeliveryId> {
        self.waiting.iter().map(|claim| claim.delivery.id).collect()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Forgets what is on the wire, and returns it.
    pub(super) fn abandon(&mut self) -> Vec<DeliveryId> {
        self.busy.clear();
        self.aloft.drain().map(|(_, (delivery, _))| delivery.id).collect()
    }
}
