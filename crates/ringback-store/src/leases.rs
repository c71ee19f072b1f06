//! Who is working on what, in this process's memory only.
//!
//! Both engines share it. It knows nothing of delivery states: a lease on a delivery that ended meanwhile is
//! harmless and goes when it is settled, released or run out.

use std::collections::HashMap;

use ringback_model::{DeliveryId, EndpointName, Timestamp};

use crate::order::Chosen;

/// The leases of all endpoints.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    ends: HashMap<EndpointName, HashMap<DeliveryId, Timestamp>>,
    /// Finds a delivery's endpoint again when only its id is known.
    endpoints: HashMap<DeliveryId, EndpointName>,
}

impl Leases {
    /// Returns the leases of one endpoint that hold at `now`; those that ran out are forgotten.
    pub(crate) fn held(&mut self, endpoint: &EndpointName, now: Timestamp) -> Held<'_> {
        let endpoints = &mut self.endpoints;
        let Some(ends) = self.ends.get_mut(endpoint) else { return Held(None) };
        ends.retain(|id, end| {
            let holds = *end > now;
            if !holds {
                endpoints.remove(id);
            }
            holds
        });
        Held(Some(ends))
    }

    /// Puts deliveries of one endpoint under a lease.
    pub(crate) fn take(
        &mut self,
        endpoint: &EndpointName,
        ids: impl Iterator<Item = DeliveryId>,
        until: Timestamp,
    ) {
        let ends = self.ends.entry(endpoint.clone()).or_default();
        for id in ids {
            ends.insert(id, until);
            self.endpoints.insert(id, endpoint.clone());
        }
    }

    /// Drops the leases of these deliveries, if there are any.
    pub(crate) fn drop_all(&mut self, ids: &[DeliveryId]) {
        for id in ids {
            if let Some(endpoint) = self.endpoints.remove(id)
                && let Some(ends) = self.ends.get_mut(&endpoint)
            {
                ends.remove(id);
            }
        }
    }
}

/// The leases of one endpoint at one instant.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a>(Option<&'a HashMap<DeliveryId, Timestamp>>);

impl Held<'_> {
    /// Until when somebody works on this delivery; `None` = nobody does.
    pub(crate) fn until(&self, id: DeliveryId) -> Option<Timestamp> {
        self.0.and_then(|ends| ends.get(&id)).copied()
    }

    /// Chooses what a claim takes until `lease_until`, given the endpoint's pending deliveries in the order in which
    /// they are due.
    pub(crate) fn choose<E>(
        &self,
        pending: impl Iterator<Item = Result<(Timestamp, DeliveryId), E>>,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Chosen, E> {
        let mut ids = Vec::new();
        let mut next: Option<Timestamp> = None;
        for row in pending {
            let (due_at, id) = row?;
            // Whatever follows is due no earlier.
            if due_at > now && next.is_some_and(|n| n <= due_at) {
                break;
            }
            let from = match self.until(id) {
                Some(end) => due_at.max(end),
                None if due_at > now => due_at,
                None if ids.len() == limit => return Ok(Chosen { ids, next_due: None }),
                None => {
                    ids.push(id);
                    lease_until
                }
            };
            next = Some(next.map_or(from, |n| n.min(from)));
        }
        Ok(Chosen { ids, next_due: next })
    }
}
