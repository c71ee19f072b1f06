//! What the two ends of an endpoint's queue share: the recorder that fills it and the deliverer that empties it; and
//! which endpoints there are at this moment.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ringback_model::{Endpoint, EndpointName, Event, Format, Secret, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify, RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

use crate::deliver::Traffic;
use crate::notify::Outlet;

/// One endpoint and the signal that its queue changed.
#[derive(Debug)]
pub struct Lane {
    /// The configured entry.
    pub endpoint: Endpoint,
    /// What takes a delivery to its receiver.
    pub carrier: Carrier,
    /// The entry in one word, to notice that the operator edited it. Opens nothing.
    pub fingerprint: String,
    /// Something was queued; the deliverer looks at the store. Losing one costs latency, never an event. The lane
    /// that follows this one after an edit of its entry has the same.
    pub wake: Arc<Notify>,
    /// The receiver said that it wants nothing more, or the operator did.
    disabled: AtomicBool,
    /// Held while the queue is stopped, emptied or reopened: one of these at a time, and whole.
    pub switching: Mutex<()>,
    /// Its last attempt had no success: others are served first.
    failing: AtomicBool,
    /// How often the queue was stopped: what was claimed before the last time may be dead.
    stops: AtomicU64,
    /// What is under way, and when the last attempts began. The lane that follows this one has the same.
    pub traffic: Arc<Traffic>,
    /// Until when its receiver asked for quiet. The lane that follows this one has the same, if it has the same
    /// receiver. Held for a read or a write of it.
    paused_until: Arc<std::sync::Mutex<Option<Timestamp>>>,
    /// The entry is gone or another one by now: attempts on the wire end as they began, no other begins.
    retired: watch::Sender<bool>,
}

/// The notifiers' lanes by name; they stay as they are from start to stop.
pub type Outlets = Arc<HashMap<EndpointName, Arc<Lane>>>;

/// What takes a delivery to its receiver.
#[derive(Debug)]
pub enum Carrier {
    /// A signed POST to the endpoint's URL.
    Webhook,
    /// A message to the user.
    Notifier(Outlet),
}

/// The endpoints of one moment, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Table {
    lanes: Vec<Arc<Lane>>,
    places: HashMap<EndpointName, usize>,
}

/// The endpoints as they are now. Cheap to clone; an edit of the configuration replaces the table as a whole.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: std::sync::RwLock<Arc<Table>>,
    /// Read-held by whoever queues, so that nothing is queued at an endpoint that went away meanwhile.
    queueing: RwLock<()>,
}

/// The endpoints, which stay as they are until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    table: Arc<Table>,
    _queueing: RwLockReadGuard<'a, ()>,
}

/// Nobody queues anything until this is dropped.
#[derive(Debug)]
pub struct Switching<'a> {
    lanes: &'a Lanes,
    _alone: RwLockWriteGuard<'a, ()>,
}

/// Lanes in the order in which they are woken: those first that are likely to deliver, because the others must not
/// cost them time.
pub(crate) fn in_turn<'a>(lanes: impl Iterator<Item = &'a Arc<Lane>>) -> Vec<&'a Arc<Lane>> {
    let mut lanes: Vec<_> = lanes.collect();
    lanes.sort_by_key(|lane| lane.is_failing());
    lanes
}

impl Table {
    /// A table of these; names are unique.
    pub fn new(lanes: Vec<Arc<Lane>>) -> Table {
        let places = lanes.iter().enumerate().map(|(place, lane)| (lane.endpoint.name.clone(), place));
        Table { places: places.collect(), lanes }
    }

    /// The lane of an endpoint.
    pub fn get(&self, name: &EndpointName) -> Option<&Arc<Lane>> {
        self.lanes.get(*self.places.get(name)?)
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Lane>> {
        self.lanes.iter()
    }
}

impl Lanes {
    /// The endpoints at this moment; they may be others a moment later.
    pub fn now(&self) -> Arc<Table> {
        Arc::clone(&self.0.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The endpoints, to queue something there. Not to be asked for twice by one task.
    pub async fn hold(&self) -> Held<'_> {
        let queueing = self.0.queueing.read().await;
        Held { table: self.now(), _queueing: queueing }
    }

    /// Waits until nobody queues anything, to replace the table.
    pub async fn switch(&self) -> Switching<'_> {
        Switching { _alone: self.0.queueing.write().await, lanes: self }
    }
}

impl Deref for Held<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl Switching<'_> {
    /// Puts a table in the place of the present one, and lets the others go on.
    pub fn to(self, table: Table) {
        *self.lanes.0.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

impl Lane {
    /// A lane for an endpoint. `key` makes the fingerprint worthless to whoever reads the store without it.
    pub fn webhook(endpoint: Endpoint, key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(key);
        hash.update(endpoint.url.reveal());
        for secret in endpoint.secrets.iter().chain(endpoint.headers.iter().map(|(_, value)| value)) {
            hash.update([0]);
            hash.update(secret.reveal());
        }
        // Debug shows every field but the secret ones.
        hash.update(format!("{endpoint:?}"));
        let fingerprint = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
        Lane::with(endpoint, Carrier::Webhook, fingerprint)
    }

    /// A lane for messages to the user. They are few and meant for a person: one at a time, and patiently.
    pub fn notifier(name: &str, outlet: Outlet) -> Self {
        let endpoint = Endpoint {
            name: EndpointName::new(name),
            url: Secret::new(""),
            secrets: Vec::new(),
            events: BTreeSet::new(),
            agents: BTreeSet::new(),
            projects: None,
            reasons: BTreeSet::new(),
            runs: false,
            enabled: true,
            format: Format::Json,
            timeout: Duration::from_secs(30),
            backoff: [1, 5, 30, 120, 600].map(Duration::from_secs).to_vec(),
            concurrency: 1,
            headers: Vec::new(),
            ordered: false,
            rate: None,
            allow: BTreeSet::new(),
        };
        Lane::with(endpoint, Carrier::Notifier(outlet), String::new())
    }

    fn with(endpoint: Endpoint, carrier: Carrier, fingerprint: String) -> Self {
        Lane {
            endpoint,
            carrier,
            fingerprint,
            wake: Arc::default(),
            disabled: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            switching: Mutex::new(()),
            stops: AtomicU64::new(0),
            traffic: Arc::default(),
            paused_until: Arc::default(),
            retired: watch::Sender::new(false),
        }
    }

    /// This lane in the place of another one of the same name: who ends an attempt there wakes the loop here, and what
    /// was done there counts here.
    pub fn after(mut self, other: &Lane) -> Self {
        self.wake = Arc::clone(&other.wake);
        self.traffic = Arc::clone(&other.traffic);
        if self.endpoint.url == other.endpoint.url {
            self.paused_until = Arc::clone(&other.paused_until);
        }
        self
    }

    /// Whether an event is queued here.
    pub fn accepts(&self, event: &Event) -> bool {
        matches!(self.carrier, Carrier::Webhook) && self.is_open() && self.endpoint.wants(event)
    }

    /// Whether anything is queued here.
    pub fn is_open(&self) -> bool {
        self.endpoint.enabled && !self.is_disabled()
    }

    /// Until when its receiver asked for quiet.
    pub fn paused_until(&self) -> Option<Timestamp> {
        *self.pause()
    }

    /// The same at an instant, when what was before is forgotten. A pause that ends after `latest` ends then: the clock
    /// may have gone back meanwhile.
    pub fn paused_at(&self, now: Timestamp, latest: Timestamp) -> Option<Timestamp> {
        let mut pause = self.pause();
        *pause = pause.filter(|until| *until > now).map(|until| until.min(latest));
        *pause
    }

    /// Notes that its receiver asked for quiet.
    pub fn pause_until(&self, until: Timestamp) {
        let mut pause = self.pause();
        *pause = (*pause).max(Some(until));
    }

    fn pause(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its last attempt had no success.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Notes what became of an attempt.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Takes the lane out of use, for good.
    pub fn retire(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.retired.send_replace(true);
    }

    /// Whether it is out of use.
    pub fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    /// Resolves once it is out of use.
    pub async fn retirement(&self) {
        // The sender is a field of ours: it cannot be gone.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    /// Whether the receiver or the operator disabled it.
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::SeqCst)
    }

    /// Stops or reopens the queue.
    pub fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::SeqCst);
        self.stops.fetch_add(u64::from(disabled), Ordering::SeqCst);
    }

    /// How often the queue was stopped so far.
    pub fn stops(&self) -> u64 {
        self.stops.load(Ordering::SeqCst)
    }
}
