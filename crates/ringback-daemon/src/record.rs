//! The recorder: from what the observer sees to what the store keeps, state and event in one transaction.
//!
//! One task applies the transition rules in the observer's order. What the store cannot take now waits here,
//! bounded, and nothing is sent before it is journaled.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ringback_model::event::{ApiLinks, EventKind};
use ringback_model::transition::{self, Change, Sighting};
use ringback_model::{About, Event, EventId, SessionId, SessionState, Timestamp};
use ringback_observe::{Seen, Sighted, Snapshot};
use ringback_store::{Entry, Store, Told};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock;
use crate::feed::Feed;
use crate::lane::Lanes;
use crate::run::RunSessions;
use crate::view::{Shown, View};

/// Entries kept while the store fails; beyond that the oldest go, counted.
const MAX_WAITING: usize = 10_000;
/// Entries of one transaction.
const AT_ONCE: usize = 512;
const STORE_PAUSE: Duration = Duration::from_secs(1);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The recorder's parts.
pub struct Recorder {
    /// Last known state of every session, as the store has it or is about to.
    pub states: HashMap<SessionId, SessionState>,
    /// Where states, events and deliveries are kept.
    pub store: Arc<dyn Store>,
    /// The endpoints.
    pub lanes: Lanes,
    /// What the interfaces show.
    pub view: View,
    /// What they are told live.
    pub feed: Feed,
    /// How the store does.
    pub health: Arc<Health>,
    /// Facts that go into every event.
    pub origin: Origin,
    /// Sessions that ringback started.
    pub run_sessions: RunSessions,
    /// How long the same change counts as one.
    pub dedup_window: Duration,
    /// How old a missed change may be and still be told.
    pub catch_up: Duration,
}

/// What every event says about where it comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Host name.
    pub host: Option<String>,
    /// Address of the API, without a path; `None` = it does not listen.
    pub api: Option<String>,
}

/// What the store has not taken yet.
#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Waiting>,
    /// When the failing store was last complained about.
    warned_at: Option<Timestamp>,
}

/// An entry on its way to the store.
struct Waiting {
    entry: Entry,
    /// The event's JSON, for the interfaces.
    transition: Option<bytes::Bytes>,
}

/// How the store does, for `/readyz` and the metrics.
#[derive(Debug, Default)]
pub struct Health {
    /// Why the store cannot be written; `None` = it can.
    pub failing: std::sync::Mutex<Option<String>>,
    /// Events lost because the store failed for too long.
    pub lost: AtomicU64,
}

impl Health {
    /// Why the store cannot be written; `None` = it can.
    pub fn problem(&self) -> Option<String> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<String>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Recorder {
    /// Runs until the observer hangs up, or until `stop` turns true.
    pub async fn run(mut self, mut seen: mpsc::Receiver<Vec<Seen>>, mut stop: watch::Receiver<bool>) {
        let mut backlog = Backlog::default();
        while !*stop.borrow() {
            tokio::select! {
                batch = seen.recv() => {
                    let Some(batch) = batch else { break };
                    self.take_in(batch, &mut backlog).await;
                    // Whatever else has come shares the transaction.
                    while backlog.waiting.len() < AT_ONCE && let Ok(batch) = seen.try_recv() {
                        self.take_in(batch, &mut backlog).await;
                    }
                }
                () = tokio::time::sleep(STORE_PAUSE), if !backlog.waiting.is_empty() => {}
                _ = stop.changed() => {}
            }
            self.write(&mut backlog).await;
        }
        while let Ok(batch) = seen.try_recv() {
            self.take_in(batch, &mut backlog).await;
        }
        self.write(&mut backlog).await;
    }

    async fn take_in(&mut self, batch: Vec<Seen>, backlog: &mut Backlog) {
        for seen in batch {
            let snapshot = match seen {
                Seen::Sighting(sighted) => {
                    if let Some(entry) = self.step(&sighted, clock::now()) {
                        if backlog.waiting.len() == MAX_WAITING {
                            backlog.waiting.pop_front();
                            self.health.lost.fetch_add(1, Ordering::Relaxed);
                        }
                        backlog.waiting.push_back(entry);
                    }
                    sighted.snapshot
                }
                Seen::About(snapshot) => snapshot,
            };
            self.view.put(shown(snapshot));
            // One read of a busy file can hold more than may ever wait; only a store that fails makes it wait.
            if !backlog.waiting.is_empty() && backlog.waiting.len().is_multiple_of(AT_ONCE) {
                self.write(backlog).await;
            }
        }
    }

    /// One sighting: the entry to store, if it changes anything that is stored.
    fn step(&mut self, seen: &Sighted, now: Timestamp) -> Option<Waiting> {
        let id = &seen.session_id;
        let Some(known) = self.states.get(id) else {
            let state = transition::first(id.clone(), seen.agent, seen.sighting, now);
            self.states.insert(id.clone(), state.clone());
            return Some(Waiting { entry: Entry { state: Some(state), told: None }, transition: None });
        };
        let (next, change) = transition::step(known, self.announced(seen, now), now, self.dedup_window);
        if next == *known {
            return None;
        }
        let told = change.map(|change| self.told(&seen.snapshot.about, change, now));
        let transition = told.as_ref().map(|told| told.body.clone());
        // Without an endpoint to tell, the interfaces hear of the change and the disk does not.
        let told = told.filter(|_| self.lanes.values().any(|lane| lane.endpoint.enabled));
        self.states.insert(id.clone(), next.clone());
        Some(Waiting { entry: Entry { state: Some(next), told }, transition })
    }

    /// A change that happened while nobody looked is told if it is young.
    fn announced(&self, seen: &Sighted, now: Timestamp) -> Sighting {
        let young = seen.snapshot.newest_record_at.is_some_and(|at| now.since(at) < self.catch_up);
        Sighting { announce: seen.sighting.announce || (seen.catch_up && young), ..seen.sighting }
    }

    fn told(&self, about: &About, change: Change, now: Timestamp) -> Told {
        let api = self.origin.api.as_ref().map(|api| ApiLinks {
            session_url: format!("{api}/api/sessions/{}", percent_encoded(about.session_id.as_str())),
        });
        let run =
            self.run_sessions.read().unwrap_or_else(PoisonError::into_inner).get(&about.session_id).cloned();
        let event = Event {
            id: EventId(Uuid::now_v7()),
            event: EventKind::StateTransition,
            session_id: about.session_id.clone(),
            agent: about.agent,
            from: change.from,
            to: change.to,
            project_path: about.cwd.clone(),
            timestamp: change.at,
            api,
            sequence: change.sequence,
            reason: change.reason,
            host: self.origin.host.clone(),
            session_name: self.view.custom_name(&about.session_id).or_else(|| about.title.clone()),
            model: about.model.clone(),
            git_branch: about.git_branch.clone(),
            duration_ms: u64::try_from(change.spent.as_millis()).ok(),
            run_id: run.as_ref().map(|(id, _)| id.0),
            source: run.map(|(_, source)| source),
        };
        let lanes = self.lanes.values().filter(|lane| lane.accepts(&event));
        let endpoints = lanes.map(|lane| lane.endpoint.name.clone()).collect();
        let body = body_of(&event);
        Told { event, body, endpoints, at: now }
    }

    /// Journals what waits; on success wakes the endpoints and tells the interfaces.
    async fn write(&mut self, backlog: &mut Backlog) {
        let Backlog { waiting, warned_at } = backlog;
        if waiting.is_empty() {
            return;
        }
        let entries: Vec<Entry> = waiting.iter().map(|w| w.entry.clone()).collect();
        match self.store.record(entries).await {
            Ok(_) => {
                self.health.set(None);
                for written in waiting.drain(..) {
                    for name in written.entry.told.iter().flat_map(|told| &told.endpoints) {
                        if let Some(lane) = self.lanes.get(name) {
                            lane.wake.notify_one();
                        }
                    }
                    if let Some(transition) = written.transition {
                        self.feed.push("transition", String::from_utf8_lossy(&transition).into_owned());
                    }
                }
            }
            Err(error) => {
                let now = clock::now();
                if warned_at.is_none_or(|at| now.since(at) >= WARN_EVERY) {
                    *warned_at = Some(now);
                    tracing::warn!(%error, waiting = waiting.len(), "the store cannot be written; events wait in memory");
                }
                self.health.set(Some(error.to_string()));
            }
        }
    }
}

pub(crate) fn shown(snapshot: Snapshot) -> Shown {
    Shown {
        about: snapshot.about,
        activity: snapshot.verdict.activity,
        reason: snapshot.verdict.reason,
        current_tool: snapshot.current_tool,
    }
}

/// The bytes that are sent and signed.
pub fn body_of(event: &Event) -> bytes::Bytes {
    // Every field is a string, a number or a list of known shape, so that serialising cannot fail.
    serde_json::to_vec(event).unwrap_or_default().into()
}

/// Percent-encodes one segment of a path.
pub fn percent_encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
