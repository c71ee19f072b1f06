//! The engine for `durability = "memory"`: nothing outlives the process, and all that [`Store`] asks for is bounded.
//! Runs stay until [`Ledger::prune_runs`](crate::Ledger::prune_runs), because more than this engine knows goes with
//! them.
//!
//! Also the model that the engine on disk is tested against, so it is written to be read: plain maps under one
//! lock, no step of which waits for anything.

mod calls;
mod ledger;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ringback_model::event::EventKind;
use ringback_model::{
    Attempt, Delivery, DeliveryId, DeliveryState, EndpointName, Event, EventId, SessionId, SessionState,
    Timestamp,
};
use tokio::sync::watch;

use self::calls::Remembered;
use self::ledger::Runs;
use crate::latency::{WINDOW, percentiles};
use crate::leases::Leases;
use crate::{
    Claim, DeliveryDetail, DeliveryQuery, DeliveryRow, Ending, EndpointCounts, EndpointStatus, Entry, Error,
    Page, Prune, Pruned, Recorded, Replay, Settled, Store, Told, Totals, Turn, order,
};

/// Pending deliveries of one endpoint; what comes on top is dropped and counted.
pub const MAX_PENDING: usize = 256;
/// Events that are kept after their last delivery ended; then the one that ended first goes.
pub const MAX_FINISHED: usize = 1000;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore(Mutex<Tables>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    fn tables(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        // A panic in the middle of a change would be a bug; going on with the rest beats taking the daemon down.
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.is_closed { Err(Error::Closed) } else { Ok(tables) }
    }
}

#[derive(Default)]
struct Tables {
    is_closed: bool,
    sessions: BTreeMap<SessionId, SessionState>,
    names: BTreeMap<SessionId, String>,
    /// By a number that rises with each event.
    events: BTreeMap<u64, Kept>,
    event_numbers: HashMap<EventId, u64>,
    recorded: u64,
    deliveries: BTreeMap<DeliveryId, Queued>,
    newest: i64,
    endpoints: BTreeMap<EndpointName, AtEndpoint>,
    /// Events with no pending delivery, by the end of their last one.
    finished: BTreeSet<(Timestamp, u64)>,
    leases: Leases,
    runs: Runs,
    calls: Remembered,
}

struct Kept {
    event: Event,
    body: Bytes,
    deliveries: Vec<DeliveryId>,
}

struct Queued {
    event: u64,
    delivery: Delivery,
    tries: u32,
    /// By number.
    attempts: BTreeMap<u32, Attempt>,
}

#[derive(Default)]
struct AtEndpoint {
    pending: BTreeSet<(Timestamp, DeliveryId)>,
    delivered: u64,
    failed: u64,
    dead: u64,
    cancelled: u64,
    dropped: u64,
    answers_ms: VecDeque<u64>,
    last: Option<Attempt>,
    status: Option<EndpointStatus>,
}

impl Tables {
    fn record(&mut self, told: Told) -> u64 {
        let Told { event, body, endpoints, at } = told;
        if self.event_numbers.contains_key(&event.id) {
            return 0;
        }
        self.recorded += 1;
        let number = self.recorded;
        self.event_numbers.insert(event.id, number);
        let mut dropped = 0;
        let mut deliveries = Vec::new();
        for (n, name) in endpoints.iter().enumerate() {
            if endpoints[..n].contains(name) {
                continue;
            }
            let endpoint = self.endpoints.entry(name.clone()).or_default();
            if endpoint.pending.len() >= MAX_PENDING {
                endpoint.dropped += 1;
                dropped += 1;
                continue;
            }
            self.newest += 1;
            let id = DeliveryId(self.newest);
            let delivery = Delivery {
                id,
                event_id: event.id,
                endpoint: name.clone(),
                state: DeliveryState::Pending,
                attempts: 0,
                created_at: at,
                due_at: at,
            };
            endpoint.pending.insert((at, id));
            deliveries.push(id);
            self.deliveries
                .insert(id, Queued { event: number, delivery, tries: 0, attempts: BTreeMap::new() });
        }
        let is_history = deliveries.is_empty();
        self.events.insert(number, Kept { event, body, deliveries });
        if is_history {
            self.finish(number, at);
        }
        dropped
    }

    fn claim(&mut self, name: &EndpointName, now: Timestamp, limit: usize, until: Timestamp) -> Turn {
        let Some(endpoint) = self.endpoints.get(name) else { return Turn::default() };
        let pending = endpoint.pending.iter().map(|row| Ok(*row));
        let Ok(chosen) = self.leases.held(name, now).choose::<Infallible>(pending, now, limit, until);
        Turn { claims: self.take(name, &chosen.ids, until), next_due: chosen.next_due }
    }

    fn claim_in_order(
        &mut self,
        name: &EndpointName,
        now: Timestamp,
        limit: usize,
        until: Timestamp,
    ) -> Turn {
        let Tables { endpoints, events, deliveries, leases, .. } = self;
        let pending = endpoints.get(name).map(|at| at.pending.iter().map(|(due_at, id)| (*id, *due_at)));
        let Ok(chosen) = order::choose::<Infallible>(
            pending.into_iter().flatten().collect(),
            leases.held(name, now),
            now,
            limit,
            |id| {
                let event = deliveries.get(&id).and_then(|queued| events.get(&queued.event));
                Ok(event.map_or_else(|| SessionId::new(""), |kept| kept.event.session_id.clone()))
            },
        );
        Turn { claims: self.take(name, &chosen.ids, until), next_due: chosen.next_due }
    }

    fn take(&mut self, name: &EndpointName, ids: &[DeliveryId], until: Timestamp) -> Vec<Claim> {
        let claims: Vec<Claim> = ids
            .iter()
            .filter_map(|id| {
                let queued = self.deliveries.get(id)?;
                let kept = self.events.get(&queued.event)?;
                Some(Claim {
                    delivery: queued.delivery.clone(),
                    tries: queued.tries,
                    session_id: kept.event.session_id.clone(),
                    kind: kept.event.event,
                    body: kept.body.clone(),
                })
            })
            .collect();
        self.leases.take(name, claims.iter().map(|c| c.delivery.id), until);
        claims
    }

    fn settle(&mut self, settled: Settled) {
        let ended_at = settled.ended_at();
        self.leases.drop_all(&[settled.id]);
        let state = self.deliveries.get(&settled.id).map(|queued| queued.delivery.state);
        if state.is_some_and(|state| settled.is_late_success(state)) {
            self.take_back_the_end(settled.id);
        }
        let Settled { id, attempt, next } = settled;
        let Some(queued) = self.deliveries.get_mut(&id) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&queued.delivery.endpoint) else { return };
        if let Some(attempt) = attempt
            && !queued.attempts.contains_key(&attempt.number)
        {
            queued.tries = queued.tries.max(attempt.number);
            if attempt.status.is_some() {
                endpoint.answers_ms.push_back(attempt.duration_ms);
                if endpoint.answers_ms.len() > WINDOW {
                    endpoint.answers_ms.pop_front();
                }
            }
            endpoint.last = Some(Attempt { excerpt: String::new(), ..attempt.clone() });
            queued.attempts.insert(attempt.number, attempt);
        }
        if queued.delivery.state != DeliveryState::Pending {
            return;
        }
        queued.delivery.attempts = next.attempts;
        if next.state == DeliveryState::Pending {
            endpoint.pending.remove(&(queued.delivery.due_at, id));
            endpoint.pending.insert((next.due_at, id));
            queued.delivery.due_at = next.due_at;
        } else {
            self.end(id, next.state, ended_at);
        }
    }

    fn hasten(&mut self, name: &EndpointName, latest: Timestamp, now: Timestamp) -> u64 {
        let Some(endpoint) = self.endpoints.get_mut(name) else { return 0 };
        let far: Vec<_> =
            endpoint.pending.iter().rev().take_while(|(due_at, _)| *due_at > latest).copied().collect();
        for (due_at, id) in &far {
            endpoint.pending.remove(&(*due_at, *id));
            endpoint.pending.insert((now, *id));
            if let Some(queued) = self.deliveries.get_mut(id) {
                queued.delivery.due_at = now;
            }
        }
        far.len() as u64
    }

    /// Makes a finished delivery a pending one, due when it ended.
    fn take_back_the_end(&mut self, id: DeliveryId) {
        let Some(queued) = self.deliveries.get_mut(&id) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&queued.delivery.endpoint) else { return };
        match queued.delivery.state {
            DeliveryState::Pending => return,
            DeliveryState::Delivered => endpoint.delivered -= 1,
            DeliveryState::Failed => endpoint.failed -= 1,
            DeliveryState::Dead => endpoint.dead -= 1,
            DeliveryState::Cancelled => endpoint.cancelled -= 1,
        }
        endpoint.pending.insert((queued.delivery.due_at, id));
        queued.delivery.state = DeliveryState::Pending;
        let number = queued.event;
        self.finished.retain(|(_, finished)| *finished != number);
    }

    /// Ends a pending delivery.
    fn end(&mut self, id: DeliveryId, state: DeliveryState, at: Timestamp) {
        let Some(queued) = self.deliveries.get_mut(&id) else { return };
        let Some(endpoint) = self.endpoints.get_mut(&queued.delivery.endpoint) else { return };
        endpoint.pending.remove(&(queued.delivery.due_at, id));
        match state {
            DeliveryState::Pending => {}
            DeliveryState::Delivered => endpoint.delivered += 1,
            DeliveryState::Failed => endpoint.failed += 1,
            DeliveryState::Dead => endpoint.dead += 1,
            DeliveryState::Cancelled => endpoint.cancelled += 1,
        }
        queued.delivery.state = state;
        queued.delivery.due_at = at;
        let number = queued.event;
        let Some(kept) = self.events.get(&number) else { return };
        let all = || kept.deliveries.iter().filter_map(|id| self.deliveries.get(id)).map(|q| &q.delivery);
        if all().any(|delivery| delivery.state == DeliveryState::Pending) {
            return;
        }
        let last_end = all().map(|delivery| delivery.due_at).max();
        self.finish(number, last_end.unwrap_or(at));
    }

    fn replay(&mut self, replay: &Replay, now: Timestamp) -> u64 {
        let ids: Vec<DeliveryId> = match replay {
            Replay::One(id) => vec![*id],
            Replay::Of { endpoint, state, from, to } => {
                let is_meant = |queued: &Queued| {
                    let at = self.events.get(&queued.event).map(|kept| kept.event.timestamp);
                    queued.delivery.endpoint == *endpoint
                        && state.is_none_or(|s| s == queued.delivery.state)
                        && from.is_none_or(|from| at >= Some(from))
                        && to.is_none_or(|to| at < Some(to))
                };
                self.deliveries.iter().filter(|(_, queued)| is_meant(queued)).map(|(id, _)| *id).collect()
            }
        };
        ids.into_iter().filter(|id| self.reopen(*id, now)).count() as u64
    }

    /// Makes a finished delivery pending; false = it is none, or there is no room.
    fn reopen(&mut self, id: DeliveryId, now: Timestamp) -> bool {
        let Some(queued) = self.deliveries.get(&id) else { return false };
        let Some(endpoint) = self.endpoints.get(&queued.delivery.endpoint) else { return false };
        if queued.delivery.state == DeliveryState::Pending || endpoint.pending.len() >= MAX_PENDING {
            return false;
        }
        self.take_back_the_end(id);
        let Some(queued) = self.deliveries.get_mut(&id) else { return false };
        let Some(endpoint) = self.endpoints.get_mut(&queued.delivery.endpoint) else { return false };
        endpoint.pending.remove(&(queued.delivery.due_at, id));
        endpoint.pending.insert((now, id));
        queued.delivery.attempts = 0;
        queued.delivery.created_at = now;
        queued.delivery.due_at = now;
        true
    }

    fn finish(&mut self, number: u64, at: Timestamp) {
        self.finished.insert((at, number));
        while self.finished.len() > MAX_FINISHED {
            self.forget_oldest();
        }
    }

    /// Removes the finished event that ended first and returns how many deliveries went with it.
    fn forget_oldest(&mut self) -> u64 {
        let Some((_, number)) = self.finished.pop_first() else { return 0 };
        let Some(kept) = self.events.remove(&number) else { return 0 };
        self.event_numbers.remove(&kept.event.id);
        for id in &kept.deliveries {
            self.deliveries.remove(id);
        }
        kept.deliveries.len() as u64
    }

    fn prune(&mut self, prune: Prune) -> Pruned {
        let cutoff = prune.now.minus(prune.keep_for);
        let mut bytes: u64 = self.events.values().map(|kept| kept.body.len() as u64).sum();
        let mut pruned = Pruned::default();
        while let Some((ended_at, number)) = self.finished.first()
            && (*ended_at < cutoff || bytes > prune.max_bytes)
        {
            let size = self.events.get(number).map_or(0, |kept| kept.body.len() as u64);
            bytes = bytes.saturating_sub(size);
            pruned.events += 1;
            pruned.deliveries += self.forget_oldest();
        }
        pruned
    }

    fn row(&self, queued: &Queued) -> Option<DeliveryRow> {
        let event = &self.events.get(&queued.event)?.event;
        let last = queued.attempts.values().next_back();
        Some(DeliveryRow {
            delivery: queued.delivery.clone(),
            session_id: event.session_id.clone(),
            agent: event.agent,
            from: event.from,
            to: event.to,
            at: event.timestamp,
            last_status: last.and_then(|a| a.status),
            last_error: last.and_then(|a| a.error.clone()),
        })
    }

    fn deliveries(&self, query: &DeliveryQuery) -> Page<DeliveryRow> {
        let size = query.page_size();
        let before = DeliveryId(query.cursor.map_or(i64::MAX, |c| c.0));
        let rows = self
            .deliveries
            .range(..before)
            .rev()
            .filter_map(|(_, queued)| self.row(queued))
            .filter(|row| query.endpoint.as_ref().is_none_or(|e| *e == row.delivery.endpoint))
            .filter(|row| query.state.is_none_or(|s| s == row.delivery.state))
            .filter(|row| query.session.as_ref().is_none_or(|s| *s == row.session_id))
            .take(size + 1)
            .collect();
        Page::cut(rows, size, |row: &DeliveryRow| row.delivery.id.0)
    }
}

impl AtEndpoint {
    fn counts(&self, endpoint: &EndpointName) -> EndpointCounts {
        EndpointCounts {
            endpoint: endpoint.clone(),
            pending: self.pending.len() as u64,
            delivered: self.delivered,
            failed: self.failed,
            dead: self.dead,
            cancelled: self.cancelled,
            dropped: self.dropped,
            last_status: self.last.as_ref().and_then(|a| a.status),
            last_error: self.last.as_ref().and_then(|a| a.error.clone()),
            last_attempt_at: self.last.as_ref().map(|a| a.started_at),
            latency: percentiles(self.answers_ms.iter().copied().collect()),
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn sessions(&self) -> Result<Vec<SessionState>, Error> {
        Ok(self.tables()?.sessions.values().cloned().collect())
    }

    async fn record(&self, entries: Vec<Entry>) -> Result<Recorded, Error> {
        let mut tables = self.tables()?;
        let mut dropped = 0;
        for entry in entries {
            if let Some(state) = entry.state {
                tables.sessions.insert(state.session_id.clone(), state);
            }
            if let Some(told) = entry.told {
                dropped += tables.record(told);
            }
        }
        Ok(Recorded { dropped })
    }

    async fn claim(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error> {
        Ok(self.tables()?.claim(endpoint, now, limit, lease_until))
    }

    async fn claim_in_order(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error> {
        Ok(self.tables()?.claim_in_order(endpoint, now, limit, lease_until))
    }

    async fn settle(&self, settled: Vec<Settled>) -> Result<(), Error> {
        let mut tables = self.tables()?;
        for one in settled {
            tables.settle(one);
        }
        Ok(())
    }

    async fn release(&self, deliveries: Vec<DeliveryId>) -> Result<(), Error> {
        self.tables()?.leases.drop_all(&deliveries);
        Ok(())
    }

    async fn hasten(&self, endpoint: &EndpointName, latest: Timestamp, now: Timestamp) -> Result<u64, Error> {
        Ok(self.tables()?.hasten(endpoint, latest, now))
    }

    async fn close_pending(
        &self,
        endpoint: &EndpointName,
        ending: Ending,
        at: Timestamp,
    ) -> Result<u64, Error> {
        let mut tables = self.tables()?;
        let Some(pending) = tables.endpoints.get(endpoint).map(|e| e.pending.clone()) else { return Ok(0) };
        for (_, id) in &pending {
            tables.end(*id, ending.into(), at);
        }
        Ok(pending.len() as u64)
    }

    async fn replay(&self, replay: Replay, now: Timestamp) -> Result<u64, Error> {
        Ok(self.tables()?.replay(&replay, now))
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>, Error> {
        Ok(self.tables()?.deliveries(&query))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, Error> {
        let tables = self.tables()?;
        Ok(tables.deliveries.get(&id).and_then(|queued| {
            Some(DeliveryDetail {
                row: tables.row(queued)?,
                body: tables.events.get(&queued.event)?.body.clone(),
                attempts: queued.attempts.values().cloned().collect(),
            })
        }))
    }

    async fn pending_endpoints(&self) -> Result<Vec<EndpointName>, Error> {
        let tables = self.tables()?;
        let with_work = tables.endpoints.iter().filter(|(_, at)| !at.pending.is_empty());
        Ok(with_work.map(|(name, _)| name.clone()).collect())
    }

    async fn transitions(&self, session: &SessionId, limit: usize) -> Result<Vec<Event>, Error> {
        let tables = self.tables()?;
        let of_session = tables
            .events
            .values()
            .rev()
            .map(|kept| &kept.event)
            .filter(|e| e.session_id == *session && e.event == EventKind::StateTransition);
        let mut newest: Vec<Event> = of_session.take(limit).cloned().collect();
        newest.reverse();
        Ok(newest)
    }

    async fn endpoint_counts(&self) -> Result<Vec<EndpointCounts>, Error> {
        Ok(self.tables()?.endpoints.iter().map(|(name, at)| at.counts(name)).collect())
    }

    async fn endpoint_status(&self, endpoint: &EndpointName) -> Result<Option<EndpointStatus>, Error> {
        Ok(self.tables()?.endpoints.get(endpoint).and_then(|at| at.status.clone()))
    }

    async fn set_endpoint_status(
        &self,
        endpoint: &EndpointName,
        status: Option<EndpointStatus>,
    ) -> Result<(), Error> {
        let mut tables = self.tables()?;
        if status.is_some() {
            tables.endpoints.entry(endpoint.clone()).or_default().status = status;
        } else if let Some(at) = tables.endpoints.get_mut(endpoint) {
            at.status = None;
        }
        Ok(())
    }

    async fn names(&self) -> Result<Vec<(SessionId, String)>, Error> {
        Ok(self.tables()?.names.iter().map(|(id, name)| (id.clone(), name.clone())).collect())
    }

    async fn set_name(&self, session: &SessionId, name: Option<String>) -> Result<(), Error> {
        let mut tables = self.tables()?;
        match name {
            Some(name) => tables.names.insert(session.clone(), name),
            None => tables.names.remove(session),
        };
        Ok(())
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, Error> {
        Ok(self.tables()?.prune(prune))
    }

    async fn totals(&self) -> Result<Totals, Error> {
        let tables = self.tables()?;
        let mut totals = Totals { events: tables.recorded, ..Totals::default() };
        for at in tables.endpoints.values() {
            totals.pending += at.pending.len() as u64;
            totals.delivered += at.delivered;
            totals.failed += at.failed;
            totals.dead += at.dead;
            totals.cancelled += at.cancelled;
            totals.dropped += at.dropped;
        }
        Ok(totals)
    }

    fn trouble(&self) -> watch::Receiver<Option<Error>> {
        // Memory has none: nobody will ever say anything.
        watch::channel(None).1
    }

    async fn probe(&self) -> Result<(), Error> {
        self.tables().map(|_| ())
    }

    async fn close(&self) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        Ok(())
    }
}
