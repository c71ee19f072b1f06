//! The deliverer: one loop per endpoint that claims what is due from the store and sends it.
//!
//! An endpoint has its own loop, its own slots and its own due times, so that one that is down delays no other.
//! Nothing sleeps in a slot: a delivery that has to wait goes back to the store with its due time. A slot is held
//! until the outcome is committed, so that a crash repeats at most `concurrency` attempts.

mod allowance;
mod dress;
mod hand;
mod patience;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
mod traffic;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use ringback_model::delivery::{self, Answer, DeliveryState, Failure, MAX_RETRY_AFTER, Next, Outcome, Reply};
use ringback_model::{Attempt, DeliveryId, Endpoint, EndpointName, EventId, Format, Timestamp};
use ringback_store::{Claim, Ending, EndpointStatus, Settled, Store, Turn};
use ringback_webhook::client::Client;
use ringback_webhook::request::Post;
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use url::Url;

pub use self::allowance::Allowance;
use self::dress::Dress;
use self::hand::Hand;
pub use self::patience::Patience;
use self::patience::Vigil;
pub use self::traffic::Traffic;
use crate::feed::Feed;
use crate::lane::{Carrier, Lane};
use crate::notify::not_sent;

/// A claim holds until it is settled or given back. It has no other end: the clock may jump and the machine may sleep
/// while an attempt is under way, and one process holds the lock.
const FOR_GOOD: Timestamp = Timestamp::from_millis(i64::MAX);
/// How long a store that fails is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long a delivery rests whose attempt failed inside ringback.
const BUG_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long attempts in flight may go on once the daemon stops.
const GRACE: Duration = Duration::from_secs(10);
/// Claims of one query, in rounds of all slots. They wait in memory, with their bodies.
const CLAIMED_ROUNDS: usize = 16;
/// Claims of one query at an ordered endpoint, at least: most of them may be of one session.
const ORDERED_CLAIMS: usize = 64;

/// Makes one attempt on the wire: the network in the daemon, a script in tests.
pub trait Wire: Send + Sync + 'static {
    /// POSTs `body` to `url` and returns the answer with its body as it came, for the destination to read. Returns at
    /// the end of `timeout` at the latest; `at` is the time of the attempt.
    fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        at: Timestamp,
    ) -> impl Future<Output = Result<(Answer, Vec<u8>), Failure>> + Send;
}

impl Wire for Client {
    async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        at: Timestamp,
    ) -> Result<(Answer, Vec<u8>), Failure> {
        self.exchange(url, headers, body, timeout, at).await
    }
}

/// The loop of one endpoint.
pub struct Deliverer<W = Client> {
    /// The endpoint and its wake-up.
    pub lane: Arc<Lane>,
    /// Where deliveries are claimed from and settled.
    pub store: Arc<dyn Store>,
    /// Sends attempts.
    pub client: W,
    /// Where outcomes are told to the interfaces.
    pub feed: Feed,
    /// Who wants to know of deliveries that will not arrive.
    pub mourner: Option<Mourner>,
    /// When an endpoint that only fails is disabled; `None` = never.
    pub patience: Option<Patience>,
    /// What endpoints that fail may do, all together.
    pub allowance: Arc<Allowance>,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// Is told the event and the body of a delivery that ended without success.
pub type Mourner = Arc<dyn Fn(EventId, Bytes) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the loop keeps between two rounds.
struct Work {
    /// What every request carries.
    dress: Arc<Dress>,
    hand: Hand,
    flights: JoinSet<Landed>,
    vigil: Option<Vigil>,
    /// Nothing is due before, unless something is queued; `None` = the store has to be asked.
    quiet_until: Option<Timestamp>,
}

impl Work {
    /// Whether there is nothing to send, as far as is known.
    fn is_quiet(&self, now: Timestamp) -> bool {
        self.hand.is_empty() && self.quiet_until.is_some_and(|until| now < until)
    }
}

/// What a flight leaves behind for its loop.
#[derive(Default)]
struct Landed {
    /// `None` = no attempt was made.
    outcome: Option<Outcome>,
    /// The delivery's turn is over.
    is_finished: bool,
    /// When it is due again.
    due_at: Option<Timestamp>,
    /// The receiver asked for quiet until then.
    pause_until: Option<Timestamp>,
    /// The receiver wants nothing more: why.
    disable: Option<String>,
}

impl<W: Wire> Deliverer<W> {
    /// Runs until `stop` turns true or the lane is retired; then gives back what it has claimed and lets attempts in
    /// flight end: all of them after a retirement, within the grace period after a stop.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        let endpoint = &this.lane.endpoint;
        let mut work = Work {
            dress: Arc::new(Dress::of(endpoint)),
            hand: Hand::new(endpoint.ordered),
            flights: JoinSet::new(),
            vigil: match &this.patience {
                Some(patience) => Some(Vigil::open(patience, &this.lane).await),
                None => None,
            },
            quiet_until: None,
        };
        this.lane.traffic.go_by(endpoint.rate);
        this.hasten().await;
        let mut stops = this.lane.stops();

        while !*stop.borrow() && !this.lane.is_retired() {
            let now = (this.now)();
            let paused_until = this.lane.paused_at(now, now.plus(MAX_RETRY_AFTER));
            if stops != this.lane.stops() {
                stops = this.lane.stops();
                this.give_back(&mut work).await;
            }
            let again_at = if this.lane.is_disabled() {
                this.empty_the_queue().await.err().map(|_| now.plus(STORE_PAUSE))
            } else if paused_until.is_some() {
                this.give_back(&mut work).await;
                paused_until
            } else {
                this.launch(&mut work, stops, now).await
            };
            tokio::select! {
                biased;
                // Nobody can say stop any more: that is one too.
                changed = stop.changed() => if changed.is_err() { break },
                Some(landed) = work.flights.join_next_with_id() => {
                    this.land(landed, &mut work).await;
                    while let Some(landed) = work.flights.try_join_next_with_id() {
                        this.land(landed, &mut work).await;
                    }
                    if this.lane.is_retired() {
                        this.lane.wake.notify_one();
                    }
                }
                () = this.lane.retirement() => {}
                () = this.lane.wake.notified() => work.quiet_until = None,
                () = this.sleep_until(again_at), if again_at.is_some() => work.quiet_until = None,
            }
        }

        this.give_back(&mut work).await;
        // Whoever has the entry now may take it.
        this.lane.wake.notify_one();
        let ended = async {
            while let Some(landed) = work.flights.join_next_with_id().await {
                this.land(landed, &mut work).await;
                // Whoever has the entry now may have to try again what ended here.
                this.lane.wake.notify_one();
            }
        };
        let cut_off = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = ended => {}
            () = cut_off => {
                tracing::info!(endpoint = %this.lane.endpoint.name, "attempts cut off at the end of the grace period");
                work.flights.shutdown().await;
                this.release(work.hand.abandon()).await;
            }
        }
        if let Some(vigil) = work.vigil.as_mut().filter(|_| !this.lane.is_retired()) {
            vigil.save().await;
        }
    }

    /// Brings back what a clock that was ahead put where no delivery has to wait for.
    async fn hasten(&self) {
        let (name, now) = (&self.lane.endpoint.name, (self.now)());
        let latest = now.plus(delivery::longest_wait(&self.lane.endpoint.backoff));
        match self.store.hasten(name, latest, now).await {
            Ok(0) => {}
            Ok(hastened) => {
                tracing::info!(endpoint = %name, hastened, "deliveries were due too late and are due now");
            }
            Err(error) => tracing::debug!(endpoint = %name, %error, "cannot look for what is due too late"),
        }
    }

    /// Lets go of what was claimed and not begun: a delivery that has to wait is kept by the store alone.
    async fn give_back(&self, work: &mut Work) {
        work.quiet_until = None;
        if self.release(work.hand.waiting()).await {
            work.hand.clear();
        }
    }

    async fn release(&self, deliveries: Vec<DeliveryId>) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let released = self.store.release(deliveries).await;
        released.inspect_err(|error| tracing::debug!(%error, "claims are left to the next start")).is_ok()
    }

    /// Ends what is pending at a disabled endpoint, also what was queued at the moment when it was disabled.
    /// Messages to the user are not ended: they wait for the next start.
    async fn empty_the_queue(&self) -> Result<(), ringback_store::Error> {
        if !matches!(self.lane.carrier, Carrier::Webhook) {
            return Ok(());
        }
        let name = &self.lane.endpoint.name;
        let _whole = self.lane.switching.lock().await;
        if !self.lane.is_disabled() {
            self.lane.wake.notify_one();
            return Ok(());
        }
        let closed = self.store.close_pending(name, Ending::Dead, (self.now)()).await;
        closed.map(|_| ()).inspect_err(|error| {
            tracing::debug!(endpoint = %name, %error, "cannot end its pending deliveries");
        })
    }

    /// Fills the free slots. Returns when to look again although nothing wakes us: when something becomes due.
    async fn launch(self: &Arc<Self>, work: &mut Work, stops: u64, now: Timestamp) -> Option<Timestamp> {
        let slots = self.lane.endpoint.concurrency;
        let traffic = &self.lane.traffic;
        while self.lane.stops() == stops
            && let Some(slot) = traffic.enter(slots)
        {
            let room = traffic.room();
            if room == 0 {
                self.give_back(work).await;
                return Some(now.plus(traffic.wait()));
            }
            if self.lane.is_failing()
                && let Some(wait) = self.allowance.wait(&self.lane.endpoint.name)
                && !work.is_quiet(now)
            {
                self.give_back(work).await;
                return Some(now.plus(wait));
            }
            let Some(claim) = work.hand.next() else {
                // What the store said last holds until something is queued or lands: asking again is most of what a
                // delivery costs.
                if let Some(until) = work.quiet_until.filter(|until| now < *until) {
                    return Some(until).filter(|until| *until < FOR_GOOD);
                }
                match self.claim(now, room).await {
                    Ok(turn) if turn.claims.is_empty() => {
                        let due = turn.next_due.map(|due| due.max(now));
                        work.quiet_until = due.or(Some(FOR_GOOD));
                        return due.filter(|due| *due < FOR_GOOD);
                    }
                    Ok(turn) => {
                        work.quiet_until = turn.next_due;
                        work.hand.add(turn.claims);
                    }
                    Err(error) => {
                        tracing::debug!(endpoint = %self.lane.endpoint.name, %error, "cannot claim deliveries");
                        return Some(now.plus(STORE_PAUSE));
                    }
                }
                continue;
            };
            traffic.begin();
            if self.lane.is_failing() {
                self.allowance.take();
            }
            let (delivery, session) = (claim.delivery.clone(), claim.session_id.clone());
            let (this, dress) = (Arc::clone(self), Arc::clone(&work.dress));
            // In a box, since a task is moved several times before it runs.
            let task = work.flights.spawn(Box::pin(async move {
                let landed = this.fly(claim, &dress, stops).await;
                drop(slot);
                landed
            }));
            work.hand.flies(task.id(), delivery, session);
        }
        None
    }

    /// Takes what is due; if that is nothing, says when something will be.
    async fn claim(&self, now: Timestamp, room: usize) -> Result<Turn, ringback_store::Error> {
        let Endpoint { name, concurrency, ordered, .. } = &self.lane.endpoint;
        // Many rounds of slots at once: while the store is asked, slots that become free stay so.
        let round = concurrency * CLAIMED_ROUNDS;
        if *ordered {
            let limit = round.max(ORDERED_CLAIMS).min(room);
            return self.store.claim_in_order(name, now, limit, FOR_GOOD).await;
        }
        self.store.claim(name, now, round.min(room), FOR_GOOD).await
    }

    /// One attempt, from the wire to the committed outcome.
    async fn fly(&self, claim: Claim, dress: &Dress, stops: u64) -> Landed {
        if self.lane.stops() != stops {
            // It may have ended with the others of its queue.
            self.release(vec![claim.delivery.id]).await;
            return Landed::default();
        }
        let endpoint = &self.lane.endpoint;
        let started_at = (self.now)();
        let began = Instant::now();
        let number = claim.tries.saturating_add(1);
        let reply = self.carry(&claim, dress, number, started_at).await;

        let now = (self.now)();
        let outcome = delivery::outcome(&reply);
        let jitter = jitter(&endpoint.name, claim.delivery.event_id, number);
        let next = delivery::after(&claim.delivery, &outcome, &endpoint.backoff, now, jitter);
        let attempt = attempt(number, started_at, began.elapsed(), &reply, endpoint.timeout);
        self.tell(&claim, &attempt, &outcome, next.state);
        let pause_until = match outcome {
            Outcome::Retry { wait: Some(wait), pause: true } => Some(now.plus(wait)),
            _ => None,
        };
        let disable = matches!(outcome, Outcome::Disable { .. }).then(|| match attempt.status {
            Some(410) => "the receiver answered 410 Gone".to_owned(),
            Some(status @ 400..) if endpoint.format != Format::Json => {
                format!(
                    "the receiver answered {status}: {}",
                    attempt.excerpt.chars().take(100).collect::<String>()
                )
            }
            _ => "the receiver answered webhook-delivery: disable".to_owned(),
        });
        if let (DeliveryState::Failed | DeliveryState::Dead, Some(mourner)) = (next.state, &self.mourner) {
            mourner(claim.delivery.event_id, claim.body.clone()).await;
        }
        self.settle(Settled { id: claim.delivery.id, attempt: Some(attempt), next }).await;
        let is_finished = next.state != DeliveryState::Pending;
        let due_at = (!is_finished).then_some(next.due_at);
        Landed { outcome: Some(outcome), is_finished, due_at, pause_until, disable }
    }

    async fn carry(&self, claim: &Claim, dress: &Dress, number: u32, at: Timestamp) -> Reply {
        let endpoint = &self.lane.endpoint;
        match &self.lane.carrier {
            Carrier::Webhook => {
                let told = dress.destination.as_ref().and_then(|to| Some((to, to.tell(&claim.body)?)));
                let Some((destination, request)) = told else {
                    return Ok(not_sent("the journaled body is no event that this format can show"));
                };
                let post = Post {
                    keys: &dress.keys,
                    event_id: claim.delivery.event_id,
                    kind: claim.kind,
                    body: &request.body,
                    attempt: number,
                    at,
                };
                let mut headers = post.headers();
                request.dress(&mut headers);
                headers.extend(dress.headers.clone());
                let reply = self.client.post(&request.url, headers, request.body, endpoint.timeout, at).await;
                reply.map(|(mut answer, said)| {
                    // Not the excerpt, in which a line break is escaped and credentials are masked.
                    destination.read(&mut answer, &said);
                    answer
                })
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
                    tracing::debug!(endpoint = %self.lane.endpoint.name, %error, "cannot write an outcome down");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    async fn land(&self, landed: Result<(task::Id, Landed), JoinError>, work: &mut Work) {
        let (task, landed) = match landed {
            Ok(landed) => landed,
            Err(error) => {
                tracing::error!(endpoint = %self.lane.endpoint.name, %error, "an attempt failed inside ringback");
                let (delivery, late) = work.hand.lands(error.id(), false);
                self.release(late).await;
                work.quiet_until = None;
                if let Some(delivery) = delivery {
                    let due_at = (self.now)().plus(BUG_PAUSE);
                    let next = Next { state: DeliveryState::Pending, attempts: delivery.attempts, due_at };
                    self.settle(Settled { id: delivery.id, attempt: None, next }).await;
                }
                return;
            }
        };
        let (_, late) = work.hand.lands(task, landed.is_finished);
        self.release(late).await;
        work.quiet_until = match landed.due_at {
            // Its session's turn is another one now.
            _ if self.lane.endpoint.ordered => None,
            // It was given back.
            _ if landed.outcome.is_none() => None,
            Some(due) => work.quiet_until.map(|until| until.min(due)),
            None => work.quiet_until,
        };
        if let Some(outcome) = &landed.outcome {
            let has_success = matches!(outcome, Outcome::Delivered | Outcome::Disable { accepted: true });
            self.lane.set_failing(!has_success);
        }
        if let Some(until) = landed.pause_until {
            self.lane.pause_until(until);
        }
        let mut disable = landed.disable;
        if let (Some(vigil), Some(outcome)) = (&mut work.vigil, &landed.outcome) {
            let given_up = vigil.saw(outcome).await;
            disable = disable.or(given_up);
            if disable.is_some() {
                vigil.reset().await;
            }
        }
        // What an answer says of an entry that is another one by now counts no more.
        if let Some(reason) = disable
            && !self.lane.is_disabled()
            && !self.lane.is_retired()
        {
            self.disable(reason).await;
        }
    }

    async fn disable(&self, reason: String) {
        let name = &self.lane.endpoint.name;
        let _whole = self.lane.switching.lock().await;
        if self.lane.is_disabled() {
            return;
        }
        tracing::warn!(endpoint = %name, %reason, "endpoint disabled; `ringback webhooks enable` or an edit of its entry enables it again");
        self.lane.set_disabled(true);
        let status = EndpointStatus {
            disabled_at: (self.now)(),
            reason,
            entry_fingerprint: self.lane.fingerprint.clone(),
        };
        if let Err(error) = self.store.set_endpoint_status(name, Some(status)).await {
            tracing::warn!(endpoint = %name, %error, "cannot write down that it is disabled");
        }
        if let Err(error) = self.store.close_pending(name, Ending::Dead, (self.now)()).await {
            tracing::warn!(endpoint = %name, %error, "cannot end its pending deliveries");
        }
    }

    async fn sleep_until(&self, at: Option<Timestamp>) {
        let wait = at.map_or(Duration::ZERO, |at| at.since((self.now)()));
        // The wall clock may jump while we sleep; a bounded sleep notices within a minute.
        tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
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
        let told = || {
            serde_json::json!({
                "id": claim.delivery.id.to_string(),
                "event": claim.delivery.event_id,
                "endpoint": name,
                "state": state,
                "attempt": attempt.number,
                "status": attempt.status,
                "error": attempt.error,
                "duration_ms": attempt.duration_ms,
            })
            .to_string()
        };
        self.feed.push("delivery", told);
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

/// A number in `-1.0..1.0` that spreads retries: another one for each event, endpoint and attempt.
fn jitter(endpoint: &EndpointName, event: EventId, number: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (endpoint, event, number).hash(&mut hasher);
    let high = u32::try_from(hasher.finish() >> 32).unwrap_or(0);
    f64::from(high) / f64::from(u32::MAX) * 2.0 - 1.0
}
