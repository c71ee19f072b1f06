//! The recorder: from what the observer sees to what the store keeps, state and event in one transaction.
//!
//! One task applies the transition rules in the observer's order. What the store cannot take now waits here,
//! bounded, and nothing is sent before it is journaled. A store that fails holds nobody up: observing goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ringback_model::event::{ApiLinks, EventKind};
use ringback_model::transition::{self, Change, Sighting};
use ringback_model::{About, Event, EventId, SessionId, SessionState, Timestamp};
use ringback_observe::{Seen, Sighted, Snapshot};
use ringback_store::{Entry, Recorded, Store, Told};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock;
use crate::feed::Feed;
use crate::lane::{Lanes, in_turn};
use crate::run::RunSessions;
use crate::storage::{self, Health};
use crate::view::{Shown, View};

/// Entries kept while the store fails; beyond that the oldest go, counted.
const MAX_WAITING: usize = 10_000;
/// Entries of one transaction.
const AT_ONCE: usize = 64;
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);

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

impl Origin {
    /// Where more is told about a session; `None` = the API does not listen.
    pub(crate) fn links(&self, session: &SessionId) -> Option<ApiLinks> {
        let api = self.api.as_ref()?;
        Some(ApiLinks { session_url: format!("{api}/api/sessions/{}", percent_encoded(session.as_str())) })
    }
}

/// What the store has not taken yet, oldest first.
#[derive(Default)]
struct Backlog {
    /// Behind what is being written.
    waiting: VecDeque<Waiting>,
    /// The write under way, and how many entries it carries.
    writing: Option<(usize, BoxFuture<'static, Written>)>,
    /// The store failed: not before this is it asked again.
    again_at: Option<Instant>,
    /// Deliveries that full queues had no room for, since that was last said.
    dropped: u64,
    /// When it was.
    dropped_told_at: Option<Instant>,
}

/// The entries of one write, and whether they are journaled.
struct Written {
    entries: Vec<Waiting>,
    result: Result<Recorded, ringback_store::Error>,
}

/// An entry on its way to the store.
struct Waiting {
    entry: Entry,
    /// The event's JSON, for the interfaces.
    transition: Option<bytes::Bytes>,
}

impl Recorder {
    /// Runs until the observer hangs up, or until `stop` turns true.
    pub async fn run(mut self, mut seen: mpsc::Receiver<Vec<Seen>>, mut stop: watch::Receiver<bool>) {
        let mut backlog = Backlog::default();
        while !*stop.borrow() {
            let again_at = backlog.again_at;
            tokio::select! {
                batch = seen.recv() => {
                    let Some(batch) = batch else { break };
                    self.take_in(batch, &mut backlog).await;
                }
                written = backlog.written() => self.land(written, &mut backlog),
                () = sleep_until(again_at), if again_at.is_some() => backlog.again_at = None,
                _ = stop.changed() => {}
            }
            self.write(&mut backlog);
        }
        while let Ok(batch) = seen.try_recv() {
            self.take_in(batch, &mut backlog).await;
        }
        // One last try, whatever the store said before.
        backlog.again_at = None;
        while backlog.again_at.is_none() && backlog.len() > 0 {
            self.write(&mut backlog);
            let written = backlog.written().await;
            self.land(written, &mut backlog);
        }
        if backlog.len() > 0 {
            tracing::error!(
                lost = backlog.len(),
                "the store failed to the end; what waited in memory is lost"
            );
        }
    }

    async fn take_in(&mut self, batch: Vec<Seen>, backlog: &mut Backlog) {
        for seen in batch {
            let snapshot = match seen {
                Seen::Sighting(sighted) => {
                    if let Some(entry) = self.step(&sighted, clock::now()) {
                        backlog.waiting.push_back(entry);
                        self.make_room(backlog);
                    }
                    sighted.snapshot
                }
                Seen::About(snapshot) => snapshot,
            };
            self.view.put(shown(snapshot));
            // A store that works is waited for: one read of a busy file can hold more than may ever wait.
            while backlog.waiting.len() >= AT_ONCE && backlog.again_at.is_none() {
                self.write(backlog);
                let written = backlog.written().await;
                self.land(written, backlog);
            }
        }
    }

    /// Lets the oldest go where too many wait.
    fn make_room(&self, backlog: &mut Backlog) {
        while backlog.len() > MAX_WAITING
            && let Some(gone) = backlog.waiting.pop_front()
        {
            // A state alone is no loss: the session's next one replaces it.
            self.health.lost.fetch_add(u64::from(gone.entry.told.is_some()), Ordering::Relaxed);
        }
        self.health.waiting.store(backlog.len() as u64, Ordering::Relaxed);
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
        let told = told.filter(|_| self.lanes.now().iter().any(|lane| lane.endpoint.enabled));
        self.states.insert(id.clone(), next.clone());
        Some(Waiting { entry: Entry { state: Some(next), told }, transition })
    }

    /// A change that happened while nobody looked is told if it is young.
    fn announced(&self, seen: &Sighted, now: Timestamp) -> Sighting {
        let young = seen.snapshot.newest_record_at.is_some_and(|at| now.since(at) < self.catch_up);
        Sighting { announce: seen.sighting.announce || (seen.catch_up && young), ..seen.sighting }
    }

    fn told(&self, about: &About, change: Change, now: Timestamp) -> Told {
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
            api: self.origin.links(&about.session_id),
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
        let lanes = self.lanes.now();
        let lanes = lanes.iter().filter(|lane| lane.accepts(&event));
        let endpoints = lanes.map(|lane| lane.endpoint.name.clone()).collect();
        let body = body_of(&event);
        Told { event, body, endpoints, at: now }
    }

    /// Begins to journal what waits, unless a write is under way or the store has to rest.
    fn write(&self, backlog: &mut Backlog) {
        if backlog.writing.is_some() || backlog.again_at.is_some() || backlog.waiting.is_empty() {
            return;
        }
        let some = backlog.waiting.len().min(AT_ONCE);
        let mut entries: Vec<Waiting> = backlog.waiting.drain(..some).collect();
        let (store, lanes, feed) = (Arc::clone(&self.store), self.lanes.clone(), self.feed.clone());
        let write = async move {
            let lanes = lanes.hold().await;
            for told in entries.iter_mut().filter_map(|w| w.entry.told.as_mut()) {
                // It may have waited for long, and an endpoint have gone away meanwhile.
                told.endpoints.retain(|name| lanes.get(name).is_some_and(|lane| lane.is_open()));
            }
            let result = store.record(entries.iter().map(|w| w.entry.clone()).collect()).await;
            if result.is_ok() {
                let told = entries.iter().filter_map(|written| written.entry.told.as_ref());
                let fed = told.flat_map(|told| &told.endpoints).filter_map(|name| lanes.get(name));
                in_turn(fed).iter().for_each(|lane| lane.wake.notify_one());
                for written in &entries {
                    if let Some(transition) = &written.transition {
                        feed.push("transition", || String::from_utf8_lossy(transition).into_owned());
                    }
                }
            }
            Written { entries, result }
        };
        backlog.writing = Some((some, Box::pin(write)));
    }

    /// Takes back what was not journaled.
    fn land(&self, written: Written, backlog: &mut Backlog) {
        backlog.writing = None;
        match written.result {
            Ok(recorded) => backlog.tell_dropped(recorded.dropped),
            Err(error) => {
                tracing::debug!(%error, waiting = backlog.len(), "events cannot be journaled");
                backlog.again_at = Some(Instant::now() + storage::PAUSE);
                for entry in written.entries.into_iter().rev() {
                    backlog.waiting.push_front(entry);
                }
            }
        }
        self.make_room(backlog);
    }
}

impl Backlog {
    fn len(&self) -> usize {
        self.waiting.len() + self.writing.as_ref().map_or(0, |(entries, _)| *entries)
    }

    /// Counts what full queues had no room for (in memory only), and says it once a second at most.
    fn tell_dropped(&mut self, dropped: u64) {
        self.dropped += dropped;
        if self.dropped > 0 && self.dropped_told_at.is_none_or(|at| at.elapsed() >= TELL_DROPPED_EVERY) {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(dropped, "deliveries are dropped: the queue of their endpoint is full");
            self.dropped_told_at = Some(Instant::now());
        }
    }

    /// Waits for the write under way; for ever when there is none.
    async fn written(&mut self) -> Written {
        match &mut self.writing {
            Some((_, write)) => write.await,
            None => std::future::pending().await,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
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
