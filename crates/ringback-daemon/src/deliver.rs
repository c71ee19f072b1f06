//! The deliverer: one loop per endpoint that claims what is due from the store and sends it.
//!
//! An endpoint has its own loop, its own slots and its own due times, so that one that is down delays no other.
//! Nothing sleeps in a slot: a delivery that has to wait goes back to the store with its due time. A slot is held
//! until the outcome is committed, so that a crash repeats at most `concurrency` attempts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ringback_model::delivery::{self, DeliveryState, Failure, Outcome, Reply};
use ringback_model::{Attempt, EventId, Timestamp};
use ringback_store::{Claim, Ending, EndpointStatus, Settled, Store};
use ringback_webhook::client::Client;
use ringback_webhook::request::Post;
use ringback_webhook::sign::Key;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::feed::Feed;
use crate::lane::{Carrier, Lane};

/// A stuck claimer's deliveries come back after this; far longer than any attempt.
const LEASE: Duration = Duration::from_secs(15 * 60);
/// How long a store that fails is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long attempts in flight may go on once the daemon stops.
const GRACE: Duration = Duration::from_secs(10);

/// The loop of one endpoint.
pub struct Deliverer {
    /// The endpoint and its wake-up.
    pub lane: Arc<Lane>,
    /// Where deliveries are claimed from and settled.
    pub store: Arc<dyn Store>,
    /// Sends attempts.
    pub client: Client,
    /// Where outcomes are told to the interfaces.
    pub feed: Feed,
    /// Who wants to know of deliveries that will not arrive.
    pub mourner: Option<Mourner>,
}

/// Is told the event and the body of a delivery that ended without success.
pub type Mourner = Arc<dyn Fn(EventId, Bytes) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a flight leaves behind for its loop.
struct Landed {
    /// The receiver asked for quiet until then.
    pause_until: Option<Timestamp>,
    /// The receiver wants nothing more: why.
    disable: Option<String>,
}

impl Deliverer {
    /// Runs until `stop` turns true; then lets attempts in flight end and gives back what it has claimed.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let keys: Arc<[Key]> = Key::all(&this.lane.endpoint.secrets).into();
        let slots = this.lane.endpoint.concurrency;
        let mut claimed: VecDeque<Claim> = VecDeque::new();
        let mut flights: JoinSet<Landed> = JoinSet::new();
        let mut paused_until: Option<Timestamp> = None;

        while !*stop.borrow() {
            let now = clock::now();
            paused_until = paused_until.filter(|until| *until > now);
            let mut again_at = paused_until;
            if paused_until.is_none() && !this.lane.is_disabled() {
                again_at = this.launch(&keys, slots, now, &mut claimed, &mut flights).await;
            }
            tokio::select! {
                Some(landed) = flights.join_next() => {
                    this.land(landed, &mut paused_until).await;
                    while let Some(landed) = flights.try_join_next() {
                        this.land(landed, &mut paused_until).await;
                    }
                }
                () = this.lane.wake.notified() => {}
                () = sleep_until(again_at), if again_at.is_some() => {}
                _ = stop.changed() => {}
            }
        }

        let left: Vec<_> = claimed.iter().map(|c| c.delivery.id).collect();
        if let Err(error) = this.store.release(left).await {
            tracing::debug!(%error, "claims are left to the next start");
        }
        let ended = async { while flights.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::info!(endpoint = %this.lane.endpoint.name, "attempts cut off at the end of the grace period");
        }
    }

    /// Fills the free slots. Returns when to look again although nothing wakes us: when something becomes due.
    async fn launch(
        self: &Arc<Self>,
        keys: &Arc<[Key]>,
        slots: usize,
        now: Timestamp,
        claimed: &mut VecDeque<Claim>,
        flights: &mut JoinSet<Landed>,
    ) -> Option<Timestamp> {
        let name = &self.lane.endpoint.name;
        while flights.len() < slots {
            if claimed.is_empty() {
                // A few rounds of slots at once: one query serves many attempts.
                match self.store.claim(name, now, slots * 4, now.plus(LEASE)).await {
                    Ok(claims) => claimed.extend(claims),
                    Err(error) => {
                        tracing::warn!(endpoint = %name, %error, "cannot claim deliveries");
                        return Some(now.plus(STORE_PAUSE));
                    }
                }
            }
            let Some(claim) = claimed.pop_front() else {
                return match self.store.next_due(name, now).await {
                    Ok(due) => due.map(|due| due.max(now)),
                    Err(_) => Some(now.plus(STORE_PAUSE)),
                };
            };
            let this = Arc::clone(self);
            let keys = Arc::clone(keys);
            flights.spawn(async move { this.fly(claim, &keys).await });
        }
        None
    }

    /// One attempt, from the wire to the committed outcome.
    async fn fly(&self, claim: Claim, keys: &[Key]) -> Landed {
        let endpoint = &self.lane.endpoint;
        let started_at = clock::now();
        let began = Instant::now();
        let number = claim.tries.saturating_add(1);
        let reply = self.carry(&claim, keys, number, started_at).await;

        let now = clock::now();
        let outcome = delivery::outcome(&reply);
        let next = delivery::after(&claim.delivery, &outcome, &endpoint.backoff, now, jitter());
        let attempt = attempt(number, started_at, began.elapsed(), &reply, endpoint.timeout);
        self.tell(&claim, &attempt, &outcome, next.state);
        let landed = Landed {
            pause_until: match outcome {
                Outcome::Retry { wait: Some(wait), pause: true } => Some(now.plus(wait)),
                _ => None,
            },
            disable: matches!(outcome, Outcome::Disable).then(|| match attempt.status {
                Some(410) => "the receiver answered 410 Gone".to_owned(),
                _ => "the receiver answered webhook-delivery: disable".to_owned(),
            }),
        };
        if let (DeliveryState::Failed | DeliveryState::Dead, Some(mourner)) = (next.state, &self.mourner) {
            mourner(claim.delivery.event_id, claim.body.clone()).await;
        }
        self.settle(Settled { id: claim.delivery.id, attempt: Some(attempt), next }).await;
        landed
    }

    async fn carry(&self, claim: &Claim, keys: &[Key], number: u32, at: Timestamp) -> Reply {
        let endpoint = &self.lane.endpoint;
        match &self.lane.carrier {
            Carrier::Webhook => {
                let post = Post {
                    keys,
                    event_id: claim.delivery.event_id,
                    kind: claim.kind,
                    body: &claim.body,
                    attempt: number,
                    at,
                };
                let headers = post.headers();
                self.client
                    .send(endpoint.url.reveal(), headers, claim.body.clone(), endpoint.timeout, at)
                    .await
            }
            Carrier::Notifier(outlet) => {
                outlet.send(&claim.body, claim.delivery.event_id.0, endpoint.timeout, at).await
            }
        }
    }

    /// Writes the outcome down, again and again while the store fails: what was sent must not be sent twice
    /// because the disk was full for a moment.
    async fn settle(&self, settled: Settled) {
        loop {
            match self.store.settle(vec![settled.clone()]).await {
                Ok(()) | Err(ringback_store::Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(endpoint = %self.lane.endpoint.name, %error, "cannot write an outcome down");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    async fn land(
        &self,
        landed: Result<Landed, tokio::task::JoinError>,
        paused_until: &mut Option<Timestamp>,
    ) {
        let landed = match landed {
            Ok(landed) => landed,
            Err(error) => {
                // The lease runs out and the delivery is tried again.
                tracing::error!(endpoint = %self.lane.endpoint.name, %error, "an attempt failed inside ringback");
                return;
            }
        };
        *paused_until = (*paused_until).max(landed.pause_until);
        if let Some(reason) = landed.disable
            && !self.lane.is_disabled()
        {
            self.disable(reason).await;
        }
    }

    async fn disable(&self, reason: String) {
        let name = &self.lane.endpoint.name;
        tracing::warn!(endpoint = %name, %reason, "endpoint disabled; edit its entry to enable it again");
        self.lane.set_disabled(true);
        let status = EndpointStatus {
            disabled_at: clock::now(),
            reason,
            entry_fingerprint: self.lane.fingerprint.clone(),
        };
        if let Err(error) = self.store.set_endpoint_status(name, Some(status)).await {
            tracing::warn!(endpoint = %name, %error, "cannot write down that it is disabled");
        }
        if let Err(error) = self.store.close_pending(name, Ending::Dead, clock::now()).await {
            tracing::warn!(endpoint = %name, %error, "cannot end its pending deliveries");
        }
    }

    fn tell(&self, claim: &Claim, attempt: &Attempt, outcome: &Outcome, state: DeliveryState) {
        let name = &self.lane.endpoint.name;
        if matches!(outcome, Outcome::Rejected) || state == DeliveryState::Dead {
            let answer: String = attempt.excerpt.chars().take(200).collect();
            tracing::warn!(
                endpoint = %name, event = %claim.delivery.event_id, status = attempt.status,
                error = attempt.error.as_deref(), answer, state = %state, "delivery ended without success"
            );
        }
        let told = serde_json::json!({
            "id": claim.delivery.id.to_string(),
            "event": claim.delivery.event_id,
            "endpoint": name,
            "state": state,
            "attempt": attempt.number,
            "status": attempt.status,
            "error": attempt.error,
            "duration_ms": attempt.duration_ms,
        });
        self.feed.push("delivery", told.to_string());
    }
}

fn attempt(number: u32, started_at: Timestamp, took: Duration, reply: &Reply, timeout: Duration) -> Attempt {
    let (status, error, excerpt) = match reply {
        Ok(answer) => {
            let error = match (answer.status, &answer.location) {
                (200..=299, _) => None,
                (300..=399, Some(to)) => Some(format!("redirected to {to}; redirects are not followed")),
                (status, _) => Some(format!("status {status}")),
            };
            (Some(answer.status), error, answer.excerpt.clone())
        }
        Err(failure) => (None, Some(words(failure, timeout)), String::new()),
    };
    Attempt {
        number,
        started_at,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        status,
        error,
        excerpt,
    }
}

fn words(failure: &Failure, timeout: Duration) -> String {
    match failure {
        Failure::Timeout => format!("timeout after {timeout:?}"),
        Failure::Refused => "connection refused".to_owned(),
        Failure::Broken(why) => format!("connection broken: {why}"),
        Failure::Tls(why) => format!("no TLS session: {why}"),
        Failure::Dns(why) => format!("name not resolved: {why}"),
        Failure::Unreachable(why) => format!("network unreachable: {why}"),
        Failure::Blocked(why) => format!("address not allowed: {why}"),
    }
}

/// A number in `-1.0..1.0`; it only spreads retries, so that a failing random source may give zero.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX) * 2.0 - 1.0
}

async fn sleep_until(at: Option<Timestamp>) {
    let wait = at.map_or(Duration::ZERO, |at| at.since(clock::now()));
    // The wall clock may jump while we sleep; a bounded sleep notices within a minute.
    tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
}
