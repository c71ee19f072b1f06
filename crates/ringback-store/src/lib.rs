//! The durable store of ringback: session states, events, deliveries and attempts, and the journal of runs.
//!
//! Owns: the [`Store`] trait, which says what the domain needs kept of what goes out, and [`Ledger`], which says the
//! same of what comes in; [`Calls`], which remembers who called; [`SqliteStore`], which keeps both on disk; and [`MemoryStore`], which keeps them for the
//! life of the process. One suite, `contract`, is run on both engines.
//!
//! Deliberately absent: clocks (every instant is an argument), HTTP, configuration, and any decision about what a
//! delivery's outcome means. That is [`ringback_model::delivery`]; this crate writes down what it decided.
//!
//! The store is the truth. Whoever wakes a loop up does so beside it: losing a wake-up costs latency, never an
//! event.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ringback_model::delivery::Next;
use ringback_model::event::EventKind;
use ringback_model::{
    Activity, Agent, Attempt, Delivery, DeliveryId, DeliveryState, EndpointName, Event, SessionId,
    SessionState, Timestamp,
};
use tokio::sync::watch;

mod calls;
mod error;
mod latency;
mod leases;
mod ledger;
mod memory;
mod order;
mod sqlite;

#[cfg(feature = "contract")]
pub mod contract;

pub use calls::{CallId, CallQuery, Calls, MAX_CALLS, NotACallId};
pub use error::Error;
pub use ledger::{Accept, Accepted, Binding, CallKey, Ledger, PRUNED_AT_ONCE, RunQuery, Save};
pub use memory::{MAX_FINISHED, MAX_PENDING, MemoryStore};
pub use sqlite::{Repaired, SqliteStore, check, repair};

/// What ringback keeps between two moments.
///
/// Every write is durable (as far as the engine is) when its call returns, and whole: a call that returns an error
/// has stored nothing, or, when the disk failed during the commit itself, perhaps all of it. Exceptions are
/// [`close_pending`](Store::close_pending), [`replay`](Store::replay) and [`prune`](Store::prune), which work in steps. Every call may be
/// repeated after an error. Every read sees all writes that returned before it was asked. A call whose future is
/// dropped may still be carried out.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the state of every session ever seen, in the order of their ids.
    async fn sessions(&self) -> Result<Vec<SessionState>, Error>;

    /// Writes states, events and the deliveries that follow from them, all in one transaction.
    ///
    /// An event whose id is known already changes nothing, nor do its deliveries: the call may be repeated when its
    /// outcome is unknown. The state of such an entry is written again.
    async fn record(&self, entries: Vec<Entry>) -> Result<Recorded, Error>;

    /// Takes due deliveries of one endpoint under a lease: pending, due at `now` or before, not leased; those due
    /// first come first, then by id. At most `limit`.
    ///
    /// Leases live in the memory of this process alone, on purpose: one process claims at a time (the daemon's
    /// lock sees to it), and after it was killed everything pending is claimable at once. A lease that ran out
    /// (`lease_until` is not later than a later claim's `now`) makes its delivery claimable again.
    async fn claim(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error>;

    /// As [`claim`](Store::claim), in the order of events within each session: a delivery is taken only if this call
    /// also takes every earlier one of its session that is pending at this endpoint. A session of which somebody
    /// holds a pending delivery is passed over. Those of the oldest events come first.
    ///
    /// Costs more the more deliveries wait for their turn; [`claim`](Store::claim) is for where order is not asked.
    async fn claim_in_order(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error>;

    /// Writes down what came of claimed deliveries and drops their leases.
    ///
    /// A delivery that is no longer pending keeps its state and still gets the attempt; but one that ended with its
    /// endpoint, dead or cancelled, while the receiver took it is delivered. One that is no longer there is passed
    /// over. The same attempt number twice is one attempt: the call may be repeated when its outcome is
    /// unknown.
    async fn settle(&self, settled: Vec<Settled>) -> Result<(), Error>;

    /// Drops leases: the deliveries are claimable at once.
    async fn release(&self, deliveries: Vec<DeliveryId>) -> Result<(), Error>;

    /// Makes those pending deliveries of an endpoint that are due after `latest`, leased or not, due at `now`, and
    /// returns how many there were. For a clock that was ahead when they were told to wait.
    async fn hasten(&self, endpoint: &EndpointName, latest: Timestamp, now: Timestamp) -> Result<u64, Error>;

    /// Ends all deliveries of an endpoint that are pending now, leased or not, and returns how many there were.
    ///
    /// Works in steps: after an error, or a kill in the middle, some are ended and the rest is pending.
    async fn close_pending(
        &self,
        endpoint: &EndpointName,
        ending: Ending,
        at: Timestamp,
    ) -> Result<u64, Error>;

    /// Makes finished deliveries pending again and returns how many: nothing of `backoff` used up, due at
    /// `now`, and created then too: old age starts anew. Event, earlier attempts and their numbering stay. Pending
    /// ones are never touched, nor is what ends while this runs, nor what a full queue (in memory only) has no room
    /// for.
    ///
    /// Works in steps: after an error, or a kill in the middle, some are pending and the rest is as it was.
    async fn replay(&self, replay: Replay, now: Timestamp) -> Result<u64, Error>;

    /// Lists deliveries, newest first.
    async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>, Error>;

    /// Returns one delivery with its attempts, oldest first; `None` = there is none (or no longer).
    async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, Error>;

    /// Returns the endpoints that have pending deliveries, by name. Entries that went away while nothing ran are
    /// found this way.
    async fn pending_endpoints(&self) -> Result<Vec<EndpointName>, Error>;

    /// Returns the newest `limit` transitions of a session that are still kept, newest last. Pings are none.
    async fn transitions(&self, session: &SessionId, limit: usize) -> Result<Vec<Event>, Error>;

    /// Returns the counts of every endpoint ever recorded, by name. Costs the same with any number of rows.
    async fn endpoint_counts(&self) -> Result<Vec<EndpointCounts>, Error>;

    /// Returns why an endpoint is disabled; `None` = it is not.
    async fn endpoint_status(&self, endpoint: &EndpointName) -> Result<Option<EndpointStatus>, Error>;

    /// Disables an endpoint, or with `None` enables it again.
    async fn set_endpoint_status(
        &self,
        endpoint: &EndpointName,
        status: Option<EndpointStatus>,
    ) -> Result<(), Error>;

    /// Returns the names that the user gave, in the order of session ids.
    async fn names(&self) -> Result<Vec<(SessionId, String)>, Error>;

    /// Names a session, or with `None` forgets its name.
    async fn set_name(&self, session: &SessionId, name: Option<String>) -> Result<(), Error>;

    /// Removes finished history: events none of whose deliveries is pending, with deliveries and attempts. Never
    /// pending work.
    ///
    /// Works in steps, so that no other write waits for long; after an error some of it is done.
    async fn prune(&self, prune: Prune) -> Result<Pruned, Error>;

    /// Returns the counts over all endpoints. Costs the same with any number of rows.
    async fn totals(&self) -> Result<Totals, Error>;

    /// What keeps the store from working, as of the last tries, and every change of that; `None` = nothing. Ends
    /// when a later try ([`probe`](Store::probe)) works; a corrupt file stays one until the store is opened anew.
    fn trouble(&self) -> watch::Receiver<Option<Error>>;

    /// Writes and reads something of no consequence, so that [`trouble`](Store::trouble) is true of now.
    async fn probe(&self) -> Result<(), Error>;

    /// Finishes what was asked before, writes everything to its final place and lets go of the file. Every later
    /// call says [`Error::Closed`]; a second close does nothing.
    async fn close(&self) -> Result<(), Error>;
}

/// One thing to record: a session's new state, an event, or both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Replaces the session's state.
    pub state: Option<SessionState>,
    /// The event that is told.
    pub told: Option<Told>,
}

/// An event and whom it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The event.
    pub event: Event,
    /// Its bytes as they will be sent; kept exactly.
    pub body: Bytes,
    /// One delivery each, pending and due at `at`; a name given twice counts once. Empty = history only.
    pub endpoints: Vec<EndpointName>,
    /// When it is journaled: the deliveries' `created_at` and first `due_at`.
    pub at: Timestamp,
}

/// What became of a [`Store::record`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Deliveries that were not queued because their endpoint's queue was full (in memory only; 0 on disk).
    pub dropped: u64,
}

/// A delivery under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The delivery.
    pub delivery: Delivery,
    /// Attempts ever made, also those that did not count against `backoff`: the next one's number is one more.
    pub tries: u32,
    /// The event's session.
    pub session_id: SessionId,
    /// The event's kind.
    pub kind: EventKind,
    /// The event's bytes, exactly as recorded.
    pub body: Bytes,
}

/// What a claim found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The deliveries. From [`Store::claim_in_order`] those of one session in the order of its events.
    pub claims: Vec<Claim>,
    /// The earliest instant, past or future, from which the same call takes something if nothing else happens: the
    /// due time of a pending delivery, or the end of its lease if that is later. `None` = nothing is pending, or only
    /// another call can tell: [`Store::claim`] reached its limit, [`Store::claim_in_order`] took something.
    pub next_due: Option<Timestamp>,
}

/// What came of a claimed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The delivery.
    pub id: DeliveryId,
    /// The attempt; `None` = none was made.
    pub attempt: Option<Attempt>,
    /// Where the delivery stands now. One that is finished ended when its attempt did, or, without an attempt, at
    /// `due_at`.
    pub next: Next,
}

impl Settled {
    /// Whether the receiver took a delivery that was ended meanwhile in this state.
    pub(crate) fn is_late_success(&self, ended: DeliveryState) -> bool {
        self.next.state == DeliveryState::Delivered
            && matches!(ended, DeliveryState::Dead | DeliveryState::Cancelled)
    }

    pub(crate) fn ended_at(&self) -> Timestamp {
        match &self.attempt {
            Some(attempt) => attempt.started_at.plus(Duration::from_millis(attempt.duration_ms)),
            None => self.next.due_at,
        }
    }
}

/// How pending deliveries end without an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The endpoint's entry went away.
    Cancelled,
    /// The endpoint was disabled; replayable.
    Dead,
}

impl From<Ending> for DeliveryState {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Cancelled => DeliveryState::Cancelled,
            Ending::Dead => DeliveryState::Dead,
        }
    }
}

/// Which finished deliveries to make pending again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// This one.
    One(DeliveryId),
    /// All of one endpoint that pass the filters.
    Of {
        /// The endpoint.
        endpoint: EndpointName,
        /// Only in this state; `None` = in any but pending.
        state: Option<DeliveryState>,
        /// Only of events that happened then or later.
        from: Option<Timestamp>,
        /// Only of events that happened before.
        to: Option<Timestamp>,
    },
}

impl Replay {
    pub(crate) fn state(&self) -> Option<DeliveryState> {
        match self {
            Replay::One(_) => None,
            Replay::Of { state, .. } => *state,
        }
    }
}

/// Which deliveries to list. The filters are joined by "and".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Only of this endpoint.
    pub endpoint: Option<EndpointName>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only of this session's events.
    pub session: Option<SessionId>,
    /// Rows of one page, moved into `1..=1000`.
    pub limit: usize,
    /// Where the page before ended; `None` = from the newest.
    pub cursor: Option<Cursor>,
}

impl DeliveryQuery {
    pub(crate) fn page_size(&self) -> usize {
        self.limit.clamp(1, 1000)
    }
}

impl Default for DeliveryQuery {
    /// The newest hundred.
    fn default() -> Self {
        DeliveryQuery { endpoint: None, state: None, session: None, limit: 100, cursor: None }
    }
}

/// A place in a listing, opaque: only what a [`Page`] gave is worth anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The text is no cursor that a page gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this listing")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(s: &str) -> Result<Self, NotACursor> {
        i64::from_str_radix(s, 16).map(Cursor).map_err(|_| NotACursor)
    }
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where to go on; `None` = this was the last page.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// Cuts rows, of which one more than the page's size was looked for, to the page.
    pub(crate) fn cut(mut items: Vec<T>, size: usize, id: impl Fn(&T) -> i64) -> Self {
        let is_more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| is_more).map(|last| Cursor(id(last)));
        Page { items, next }
    }

    /// The same page of something else.
    pub(crate) fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

/// A delivery in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The delivery.
    pub delivery: Delivery,
    /// The event's session.
    pub session_id: SessionId,
    /// The event's agent.
    pub agent: Agent,
    /// Activity before.
    pub from: Activity,
    /// Activity after.
    pub to: Activity,
    /// When the change happened.
    pub at: Timestamp,
    /// Status of the last attempt's answer.
    pub last_status: Option<u16>,
    /// What went wrong in the last attempt.
    pub last_error: Option<String>,
}

/// A delivery with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryDetail {
    /// As in a listing.
    pub row: DeliveryRow,
    /// The event's bytes, exactly as recorded.
    pub body: Bytes,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// How an endpoint does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointCounts {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Deliveries pending now.
    pub pending: u64,
    /// Deliveries that ended delivered, ever: what prune removed stays counted, and what is replayed counts as
    /// pending until it ends again. So with those below.
    pub delivered: u64,
    /// Refused for good.
    pub failed: u64,
    /// Attempts used up, or ended with the endpoint.
    pub dead: u64,
    /// Ended with the entry.
    pub cancelled: u64,
    /// Never queued, for want of room.
    pub dropped: u64,
    /// Status of the answer to the attempt that was settled last; `None` = there was none.
    pub last_status: Option<u16>,
    /// What went wrong in that attempt.
    pub last_error: Option<String>,
    /// When that attempt began; `None` = there was never one.
    pub last_attempt_at: Option<Timestamp>,
    /// How long answers took; `None` = there was never one.
    pub latency: Option<Latency>,
}

/// Durations of an endpoint's last 1,000 attempts that got an answer, in milliseconds, by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half were no slower.
    pub p50_ms: u64,
    /// Of a hundred, 99 were no slower.
    pub p99_ms: u64,
}

/// Why an endpoint is disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Since when.
    pub disabled_at: Timestamp,
    /// For a reader.
    pub reason: String,
    /// What its entry was then: another fingerprint means that the operator edited it.
    pub entry_fingerprint: String,
}

/// What finished history may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// The present.
    pub now: Timestamp,
    /// An event goes when its last delivery ended longer ago than this.
    pub keep_for: Duration,
    /// The oldest go until the rest takes no more than this: on disk those recorded first, until the file's used pages
    /// are no more; in memory those that ended first, until the bodies are.
    pub max_bytes: u64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events.
    pub events: u64,
    /// Their deliveries.
    pub deliveries: u64,
}

/// Counts over all endpoints, as in [`EndpointCounts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events ever recorded.
    pub events: u64,
    /// Deliveries pending now.
    pub pending: u64,
    /// Ended delivered, ever.
    pub delivered: u64,
    /// Ended failed, ever.
    pub failed: u64,
    /// Ended dead, ever.
    pub dead: u64,
    /// Ended cancelled, ever.
    pub cancelled: u64,
    /// Never queued, ever.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_from_its_text_and_other_text_is_no_cursor() {
        let cursor = Cursor(4711);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "zz", "4711 ", "ffffffffffffffffff"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text:?}");
        }
    }
}
