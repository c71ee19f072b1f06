//! What the two ends of an endpoint's queue share: the recorder that fills it and the deliverer that empties it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringback_model::{Endpoint, EndpointName, Event, Format, Secret};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify};

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
    /// Something was queued; the deliverer looks at the store. Losing one costs latency, never an event.
    pub wake: Notify,
    /// The receiver said that it wants nothing more, or the operator did.
    disabled: AtomicBool,
    /// Held while the queue is stopped, emptied or reopened: one of these at a time, and whole.
    pub switching: Mutex<()>,
    /// How often the queue was stopped: what was claimed before the last time may be dead.
    stops: AtomicU64,
}

/// What takes a delivery to its receiver.
#[derive(Debug)]
pub enum Carrier {
    /// A signed POST to the endpoint's URL.
    Webhook,
    /// A message to the user.
    Notifier(Outlet),
}

/// All endpoints by name. Cheap to clone.
pub type Lanes = Arc<HashMap<EndpointName, Arc<Lane>>>;

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
            wake: Notify::new(),
            disabled: AtomicBool::new(false),
            switching: Mutex::new(()),
            stops: AtomicU64::new(0),
        }
    }

    /// Whether an event is queued here.
    pub fn accepts(&self, event: &Event) -> bool {
        matches!(self.carrier, Carrier::Webhook) && !self.is_disabled() && self.endpoint.wants(event)
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
