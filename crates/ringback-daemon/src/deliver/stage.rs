//! A stage for deliverers: a scripted network, made-up time, a store in memory.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use ringback_model::delivery::{Answer, Reply};
use ringback_model::event::EventKind;
use ringback_model::{
    Activity, Agent, DeliveryState, Endpoint, EndpointName, Event, EventId, Failure, Format, Secret,
    SessionId, Timestamp,
};
use ringback_store::{DeliveryDetail, DeliveryQuery, Entry, Ledger, MemoryStore, Store, Told};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::{Deliverer, Patience, Wire};
use crate::feed::Feed;
use crate::lane::Lane;

thread_local! {
    /// A runtime with paused time lives on one thread, and so does its clock.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The paused runtime's time as the store knows it.
pub(super) fn now() -> Timestamp {
    let began = BEGAN.get().expect("a stage was set up");
    Timestamp::from_millis(1_000_000).plus(began.elapsed())
}

/// Runs one play on a runtime of its own, in which time passes when nobody has anything to do.
pub(super) fn play<T>(play: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs no more than memory").block_on(async {
        BEGAN.set(Some(Instant::now()));
        play.await
    })
}

/// An endpoint with one slot, unsigned, for everything.
pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        name: EndpointName::new("e"),
        url: Secret::new("http://e.example/"),
        secrets: Vec::new(),
        events: BTreeSet::new(),
        agents: BTreeSet::new(),
        projects: None,
        reasons: BTreeSet::new(),
        runs: false,
        enabled: true,
        format: Format::Json,
        timeout: Duration::from_secs(2),
        backoff: [1, 5, 30].map(Duration::from_secs).to_vec(),
        concurrency: 1,
        headers: Vec::new(),
        ordered: false,
        rate: None,
        allow: BTreeSet::new(),
    }
}

/// This status and nothing else.
pub(super) fn status(status: u16) -> Reply {
    Ok(Answer { status, ..Answer::default() })
}

/// This status with a `Retry-After`.
pub(super) fn retry_after(status: u16, secs: u64) -> Reply {
    Ok(Answer { status, retry_after: Some(Duration::from_secs(secs)), ..Answer::default() })
}

/// What the network does with an event: each reply after its delay, the last one again and again.
pub(super) type Script = Vec<(Duration, Reply)>;

/// An attempt as the network saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) event: u64,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) headers: HeaderMap,
}

/// The scripted network.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<Wires>>);

pub(super) struct Wires {
    scripts: HashMap<u64, Script>,
    pub(super) seen: Vec<Seen>,
    made: HashMap<u64, usize>,
    pub(super) in_flight: usize,
    pub(super) most: usize,
    /// Told of each attempt as it begins; says what is wrong with it.
    pub(super) judge: Box<dyn FnMut(u64) -> Option<String> + Send>,
    pub(super) wrong: Vec<String>,
}

impl Network {
    pub(super) fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().expect("no test panics with the lock held")
    }
}

impl Wire for Network {
    async fn post(
        &self,
        _url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        _at: Timestamp,
    ) -> Result<(Answer, Vec<u8>), Failure> {
        struct Airborne(Network);
        impl Drop for Airborne {
            fn drop(&mut self) {
                self.0.wires().in_flight -= 1;
            }
        }
        let event: u64 = String::from_utf8_lossy(&body).parse().expect("the body is the event's number");
        let began = now();
        let (delay, reply) = {
            let mut wires = self.wires();
            wires.in_flight += 1;
            wires.most = wires.most.max(wires.in_flight);
            let wrong = (wires.judge)(event);
            wires.wrong.extend(wrong);
            let made = wires.made.entry(event).or_default();
            let turn = *made;
            *made += 1;
            let script = wires.scripts.get(&event).expect("every event has a script");
            script[turn.min(script.len() - 1)].clone()
        };
        let airborne = Airborne(self.clone());
        let reply = match tokio::time::timeout(timeout, tokio::time::sleep(delay)).await {
            Ok(()) => reply,
            Err(_) => Err(Failure::Timeout),
        };
        drop(airborne);
        self.wires().seen.push(Seen { event, began, ended: now(), headers });
        reply.map(|answer| (answer, Vec::new()))
    }
}

/// An endpoint, its store and its network.
pub(super) struct Stage {
    pub(super) lane: Arc<Lane>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) network: Network,
    pub(super) disable_after: Duration,
}

impl Stage {
    pub(super) fn new(endpoint: Endpoint) -> Stage {
        let wires = Wires {
            scripts: HashMap::new(),
            seen: Vec::new(),
            made: HashMap::new(),
            in_flight: 0,
            most: 0,
            judge: Box::new(|_| None),
            wrong: Vec::new(),
        };
        Stage {
            lane: Arc::new(Lane::webhook(endpoint, "key")),
            store: Arc::new(MemoryStore::new()),
            network: Network(Arc::new(Mutex::new(wires))),
            disable_after: Duration::from_secs(5 * 86_400),
        }
    }

    /// Journals event number `n`, as the recorder does.
    pub(super) async fn tell(&self, n: u64, session: &str, script: Script) {
        self.network.wires().scripts.insert(n, script);
        let event = Event {
            id: id_of(n),
            event: EventKind::StateTransition,
            session_id: SessionId::new(session),
            agent: Agent::Claude,
            from: Activity::Thinking,
            to: Activity::Waiting,
            project_path: "/p".to_owned(),
            timestamp: now(),
            api: None,
            sequence: n,
            reason: None,
            host: None,
            session_name: None,
            model: None,
            git_branch: None,
            duration_ms: None,
            run_id: None,
            source: None,
        };
        let endpoints = vec![self.lane.endpoint.name.clone()];
        let told = Told { event, body: Bytes::from(n.to_string()), endpoints, at: now() };
        self.store.record(vec![Entry { state: None, told: Some(told) }]).await.expect("memory takes it");
        self.lane.wake.notify_one();
    }

    /// Starts the endpoint's loop.
    pub(super) fn start(&self) -> Running {
        let (stop, stopping) = watch::channel(false);
        let deliverer = Deliverer {
            lane: Arc::clone(&self.lane),
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            client: self.network.clone(),
            feed: Feed::default(),
            mourner: None,
            patience: Some(Patience {
                disable_after: self.disable_after,
                ledger: Arc::clone(&self.store) as Arc<dyn Ledger>,
            }),
            allowance: Arc::default(),
            now,
        };
        Running { stop, task: tokio::spawn(deliverer.run(stopping)) }
    }

    /// Every delivery, in the order of events.
    pub(super) async fn deliveries(&self) -> Vec<DeliveryDetail> {
        let query = DeliveryQuery { limit: 1000, ..DeliveryQuery::default() };
        let rows = self.store.deliveries(query).await.expect("memory answers").items;
        let mut all = Vec::new();
        for row in rows.into_iter().rev() {
            all.extend(self.store.delivery(row.delivery.id).await.expect("memory answers"));
        }
        all
    }

    pub(super) async fn states(&self) -> Vec<DeliveryState> {
        self.deliveries().await.iter().map(|d| d.row.delivery.state).collect()
    }

    /// Lets time pass until nothing is pending; gives up after so much of it.
    pub(super) async fn settle(&self, give_up: Duration) -> bool {
        let began = Instant::now();
        while self.store.totals().await.expect("memory answers").pending > 0 {
            if began.elapsed() > give_up {
                return false;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        true
    }
}

/// A loop under way.
pub(super) struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the loop does not panic");
    }
}

pub(super) fn id_of(n: u64) -> EventId {
    EventId(Uuid::from_u128(u128::from(n)))
}

/// The states of these events at this moment; the store in memory never waits.
pub(super) fn state_of(store: &MemoryStore, n: u64) -> Option<DeliveryState> {
    let query = DeliveryQuery { limit: 1000, ..DeliveryQuery::default() };
    let page = store.deliveries(query).now_or_never()?.ok()?;
    page.items.iter().find(|row| row.delivery.event_id == id_of(n)).map(|row| row.delivery.state)
}
