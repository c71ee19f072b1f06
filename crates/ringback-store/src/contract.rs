//! What every engine must do, as one story per sentence of the [`Store`]'s contract; those of the
//! [`Ledger`](crate::Ledger) are in [`ledger`], those of [`Calls`](crate::Calls) in [`calls`].
//!
//! Behind the feature `contract`, so that the tests of each engine run the same stories. A story that fails panics.
//! What only one engine promises (durability, the cap of the queue) is tested beside that engine.

#![expect(clippy::unwrap_used, reason = "a story is a test: it fails by panicking")]

pub mod calls;
pub mod ledger;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringback_model::delivery::Next;
use ringback_model::event::EventKind;
use ringback_model::transition::LastEvent;
use ringback_model::{
    Activity, Agent, Attempt, DeliveryId, DeliveryState, EndpointName, Event, EventId, Reason, SessionId,
    SessionState, Timestamp,
};
use uuid::Uuid;

use crate::{
    Claim, DeliveryQuery, Ending, EndpointCounts, EndpointStatus, Entry, Error, Latency, Prune, Pruned,
    Recorded, Replay, Settled, Store, Told, Totals,
};

/// Tells every story, each with a new, empty store from `make`.
///
/// # Panics
/// When the store breaks its contract.
pub async fn run_all<F: Future<Output = Arc<dyn Store>>>(make: impl Fn() -> F) {
    session_states_are_replaced_and_listed(&*make().await).await;
    an_event_is_claimed_with_its_exact_bytes(&*make().await).await;
    recording_the_same_event_again_changes_nothing(&*make().await).await;
    what_is_due_first_is_claimed_first(&*make().await).await;
    only_due_deliveries_of_that_endpoint_are_claimed_up_to_the_limit(&*make().await).await;
    a_leased_delivery_is_not_claimed_until_the_lease_ends_or_is_dropped(&*make().await).await;
    a_settled_delivery_is_written_down_and_its_lease_dropped(&*make().await).await;
    a_retry_is_claimable_when_it_is_due_and_counts_its_tries(&*make().await).await;
    a_late_success_of_what_ended_with_its_endpoint_is_a_delivery(&*make().await).await;
    a_late_failure_keeps_the_state_and_the_attempt(&*make().await).await;
    settling_twice_counts_one_attempt(&*make().await).await;
    a_claim_says_when_the_next_one_finds_something(&*make().await).await;
    in_order_a_session_waits_for_its_earliest_delivery_and_others_go_on(&*make().await).await;
    what_is_due_too_late_is_hastened_and_the_rest_is_not(&*make().await).await;
    closing_ends_what_is_pending_at_one_endpoint(&*make().await).await;
    a_replayed_delivery_is_due_at_once_and_keeps_its_event_and_its_attempts(&*make().await).await;
    a_replay_takes_what_is_finished_and_passes_its_filters(&*make().await).await;
    deliveries_are_listed_newest_first_in_pages(&*make().await).await;
    transitions_are_the_newest_of_the_session_newest_last(&*make().await).await;
    counts_follow_every_change(&*make().await).await;
    latency_is_over_the_last_thousand_answers(&*make().await).await;
    a_disabled_endpoint_stays_disabled_until_it_is_enabled(&*make().await).await;
    names_are_kept_and_forgotten(&*make().await).await;
    prune_removes_what_ended_long_ago_and_never_pending_work(&*make().await).await;
    prune_finds_what_ended_behind_pending_work_and_behind_a_clock_that_went_back(&*make().await).await;
    prune_removes_the_oldest_until_the_rest_fits(&*make().await).await;
    simultaneous_writers_all_get_their_answers(make().await).await;
    a_closed_store_says_so(&*make().await).await;
}

/// The instant `ms` after the epoch.
pub fn t(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// An endpoint's name.
pub fn endpoint(name: &str) -> EndpointName {
    EndpointName::new(name)
}

/// Event number `n` of a session.
pub fn event(n: u64, session: &str) -> Event {
    Event {
        id: EventId(Uuid::from_u128(u128::from(n))),
        event: EventKind::StateTransition,
        session_id: SessionId::new(session),
        agent: Agent::Claude,
        from: Activity::Thinking,
        to: Activity::Waiting,
        project_path: "/home/dev/code/bar".to_owned(),
        timestamp: t(n as i64),
        api: None,
        sequence: n,
        reason: Some(Reason::TurnEnd),
        host: None,
        session_name: None,
        model: None,
        git_branch: None,
        duration_ms: None,
        run_id: None,
        source: None,
    }
}

/// Event number `n` of session "s", recorded at `at` for these endpoints.
pub fn told(n: u64, at: i64, endpoints: &[&str]) -> Entry {
    told_of(event(n, "s"), at, endpoints)
}

fn told_of(event: Event, at: i64, endpoints: &[&str]) -> Entry {
    let body = Bytes::from(serde_json::to_vec(&event).unwrap());
    let endpoints = endpoints.iter().map(|e| endpoint(e)).collect();
    Entry { state: None, told: Some(Told { event, body, endpoints, at: t(at) }) }
}

/// An attempt that began at `at` and took 7 ms.
pub fn attempt(number: u32, at: i64, status: Option<u16>) -> Attempt {
    let error = status.is_none().then(|| "timeout after 10s".to_owned());
    Attempt { number, started_at: t(at), duration_ms: 7, status, error, excerpt: "ok".to_owned() }
}

/// The delivery ended in this state with attempt number `number` at `at`.
pub fn ended(id: DeliveryId, state: DeliveryState, number: u32, at: i64) -> Settled {
    let status = match state {
        DeliveryState::Delivered => Some(204),
        DeliveryState::Failed => Some(404),
        _ => None,
    };
    let next = Next { state, attempts: number, due_at: t(at + 7) };
    Settled { id, attempt: Some(attempt(number, at, status)), next }
}

fn retried(id: DeliveryId, number: u32, at: i64, due_at: i64) -> Settled {
    let next = Next { state: DeliveryState::Pending, attempts: number, due_at: t(due_at) };
    Settled { id, attempt: Some(attempt(number, at, None)), next }
}

async fn record(store: &dyn Store, entries: Vec<Entry>) {
    assert_eq!(store.record(entries).await, Ok(Recorded { dropped: 0 }));
}

async fn claim(store: &dyn Store, name: &str, now: i64, limit: usize) -> Vec<Claim> {
    store.claim(&endpoint(name), t(now), limit, t(now + 1000)).await.unwrap().claims
}

/// Claims everything at an endpoint and returns the sequence numbers of the events.
async fn claimed_events(store: &dyn Store, name: &str, now: i64) -> Vec<u128> {
    claim(store, name, now, usize::MAX).await.iter().map(|c| c.delivery.event_id.0.as_u128()).collect()
}

async fn end_all(store: &dyn Store, name: &str, state: DeliveryState, at: i64) -> Vec<DeliveryId> {
    let claims = claim(store, name, at, usize::MAX).await;
    let ids: Vec<DeliveryId> = claims.iter().map(|c| c.delivery.id).collect();
    store.settle(ids.iter().map(|id| ended(*id, state, 1, at)).collect()).await.unwrap();
    ids
}

async fn counts(store: &dyn Store, name: &str) -> EndpointCounts {
    let all = store.endpoint_counts().await.unwrap();
    all.into_iter().find(|c| c.endpoint == endpoint(name)).unwrap()
}

async fn session_states_are_replaced_and_listed(store: &dyn Store) {
    let state = |id: &str, sequence| SessionState {
        session_id: SessionId::new(id),
        agent: Agent::Codex,
        activity: Activity::Waiting,
        reason: Some(Reason::Question),
        since: t(5),
        sequence,
        last_event: Some(LastEvent { from: Activity::Idle, to: Activity::Waiting, at: t(4) }),
    };
    let entry = |state| Entry { state: Some(state), told: None };
    let quiet = SessionState { reason: None, last_event: None, ..state("a", 0) };
    record(store, vec![entry(state("b", 1)), entry(quiet.clone())]).await;
    record(store, vec![entry(state("b", 2))]).await;
    assert_eq!(store.sessions().await, Ok(vec![quiet, state("b", 2)]));
}

async fn an_event_is_claimed_with_its_exact_bytes(store: &dyn Store) {
    let body = Bytes::from_static(b"{ \"not\": \"how we would write it\" }\0\xff");
    let told = Told { event: event(1, "s"), body: body.clone(), endpoints: vec![endpoint("e")], at: t(10) };
    record(store, vec![Entry { state: None, told: Some(told) }]).await;

    let claims = claim(store, "e", 10, 10).await;
    assert_eq!(claims.len(), 1);
    let Claim { delivery, tries, session_id, kind, body: claimed } = &claims[0];
    assert_eq!(*claimed, body);
    assert_eq!((delivery.event_id, &delivery.endpoint), (event(1, "s").id, &endpoint("e")));
    assert_eq!((delivery.state, delivery.attempts, *tries), (DeliveryState::Pending, 0, 0));
    assert_eq!((delivery.created_at, delivery.due_at), (t(10), t(10)));
    assert_eq!((session_id, *kind), (&SessionId::new("s"), EventKind::StateTransition));

    let detail = store.delivery(delivery.id).await.unwrap().unwrap();
    assert_eq!((detail.body, &detail.row.delivery, detail.attempts), (body, delivery, vec![]));
    let row = detail.row;
    assert_eq!((row.agent, row.from, row.to), (Agent::Claude, Activity::Thinking, Activity::Waiting));
    assert_eq!((row.session_id, row.at), (SessionId::new("s"), t(1)));
    assert_eq!(store.delivery(DeliveryId(delivery.id.0 + 1)).await, Ok(None));
    // The event itself is kept although the bytes do not say it.
    assert_eq!(store.transitions(&SessionId::new("s"), 10).await, Ok(vec![event(1, "s")]));
}

async fn recording_the_same_event_again_changes_nothing(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e", "e", "f"])]).await;
    end_all(store, "e", DeliveryState::Delivered, 20).await;
    record(store, vec![told(1, 30, &["e", "f", "g"]), told(2, 30, &["e"]), told(2, 30, &["e"])]).await;
    assert_eq!(claimed_events(store, "e", 40).await, [2]);
    assert_eq!(claimed_events(store, "f", 40).await, [1]);
    assert_eq!(claimed_events(store, "g", 40).await, [0; 0]);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.pending, totals.delivered), (2, 2, 1));
}

async fn what_is_due_first_is_claimed_first(store: &dyn Store) {
    record(store, vec![told(1, 30, &["e"]), told(2, 10, &["e"]), told(3, 20, &["e"]), told(4, 10, &["e"])])
        .await;
    assert_eq!(claimed_events(store, "e", 100).await, [2, 4, 3, 1]);
}

async fn only_due_deliveries_of_that_endpoint_are_claimed_up_to_the_limit(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e", "f"]), told(2, 20, &["e"]), told(3, 30, &["e"])]).await;
    assert_eq!(claimed_events(store, "nowhere", 100).await, [0; 0]);
    assert_eq!(claimed_events(store, "f", 9).await, [0; 0]);
    assert_eq!(claimed_events(store, "f", 10).await, [1]);
    assert_eq!(claim(store, "e", 29, 0).await, []);
    assert_eq!(claim(store, "e", 29, 1).await.len(), 1);
    assert_eq!(claimed_events(store, "e", 29).await, [2]);
    assert_eq!(claimed_events(store, "e", 30).await, [3]);
}

async fn a_leased_delivery_is_not_claimed_until_the_lease_ends_or_is_dropped(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e"]), told(2, 20, &["e"])]).await;
    let first = store.claim(&endpoint("e"), t(10), 5, t(100)).await.unwrap().claims;
    assert_eq!(first.len(), 1);
    assert_eq!(claimed_events(store, "e", 99).await, [2]);
    assert_eq!(claimed_events(store, "e", 100).await, [1]);
    store.release(vec![first[0].delivery.id, DeliveryId(999)]).await.unwrap();
    assert_eq!(claimed_events(store, "e", 100).await, [1]);
    assert_eq!(claimed_events(store, "e", 101).await, [0; 0]);
}

async fn a_settled_delivery_is_written_down_and_its_lease_dropped(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e"]), told(2, 10, &["e"]), told(3, 10, &["e"])]).await;
    let ids: Vec<_> = claim(store, "e", 10, 3).await.iter().map(|c| c.delivery.id).collect();
    let unsent = Next { state: DeliveryState::Dead, attempts: 0, due_at: t(60) };
    store
        .settle(vec![
            ended(ids[0], DeliveryState::Delivered, 1, 50),
            ended(ids[1], DeliveryState::Failed, 1, 51),
            Settled { id: ids[2], attempt: None, next: unsent },
            ended(DeliveryId(999), DeliveryState::Delivered, 1, 50),
        ])
        .await
        .unwrap();
    assert_eq!(claimed_events(store, "e", i64::MAX / 2).await, [0; 0]);
    let done = store.delivery(ids[0]).await.unwrap().unwrap();
    assert_eq!((done.row.delivery.state, done.row.delivery.attempts), (DeliveryState::Delivered, 1));
    assert_eq!((done.row.last_status, done.row.last_error), (Some(204), None));
    assert_eq!(done.attempts, [attempt(1, 50, Some(204))]);
    let failed = store.delivery(ids[1]).await.unwrap().unwrap();
    assert_eq!((failed.row.delivery.state, failed.row.last_status), (DeliveryState::Failed, Some(404)));
    let dead = store.delivery(ids[2]).await.unwrap().unwrap();
    assert_eq!((dead.row.delivery.state, dead.attempts), (DeliveryState::Dead, vec![]));
    assert_eq!(store.delivery(DeliveryId(999)).await, Ok(None));
}

async fn a_retry_is_claimable_when_it_is_due_and_counts_its_tries(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e"]), told(2, 15, &["e"])]).await;
    let id = claim(store, "e", 10, 1).await[0].delivery.id;
    store.settle(vec![retried(id, 1, 10, 500)]).await.unwrap();
    // A later one that is due overtakes it.
    assert_eq!(claimed_events(store, "e", 499).await, [2]);
    let again = claim(store, "e", 500, 10).await;
    assert_eq!((again.len(), again[0].tries, again[0].delivery.attempts), (1, 1, 1));
    // An attempt that used up nothing still has its number.
    let offline = Settled {
        id,
        attempt: Some(attempt(2, 500, None)),
        next: Next { state: DeliveryState::Pending, attempts: 1, due_at: t(600) },
    };
    store.settle(vec![offline]).await.unwrap();
    let third = claim(store, "e", 600, 10).await;
    assert_eq!((third[0].tries, third[0].delivery.attempts), (2, 1));
    store.settle(vec![ended(id, DeliveryState::Delivered, 3, 600)]).await.unwrap();
    let detail = store.delivery(id).await.unwrap().unwrap();
    assert_eq!(detail.attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(detail.row.last_status, Some(204));
}

async fn a_late_success_of_what_ended_with_its_endpoint_is_a_delivery(store: &dyn Store) {
    for (n, ending) in [(1, Ending::Cancelled), (2, Ending::Dead)] {
        record(store, vec![told(n, 10, &["e"])]).await;
        let id = claim(store, "e", 10, 1).await[0].delivery.id;
        assert_eq!(store.close_pending(&endpoint("e"), ending, t(20)).await, Ok(1));
        let late = ended(id, DeliveryState::Delivered, 1, 15);
        store.settle(vec![late.clone()]).await.unwrap();
        // A write whose end is not known is made again.
        store.settle(vec![late]).await.unwrap();
        let detail = store.delivery(id).await.unwrap().unwrap();
        let delivery = &detail.row.delivery;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
        assert_eq!((detail.attempts, detail.row.last_status), (vec![attempt(1, 15, Some(204))], Some(204)));
        let counts = counts(store, "e").await;
        assert_eq!((counts.pending, counts.cancelled, counts.dead, counts.delivered), (0, 0, 0, n));
        assert_eq!(counts.last_status, Some(204));
    }
    assert_eq!(claimed_events(store, "e", 5000).await, [0; 0]);
    assert_eq!(store.totals().await.unwrap().delivered, 2);
    // It ended when its attempt did.
    let prune = |now| Prune { now: t(now), keep_for: Duration::from_millis(1000), max_bytes: u64::MAX };
    assert_eq!(store.prune(prune(1022)).await, Ok(Pruned::default()));
    assert_eq!(store.prune(prune(1023)).await, Ok(Pruned { events: 2, deliveries: 2 }));
}

async fn a_late_failure_keeps_the_state_and_the_attempt(store: &dyn Store) {
    for (n, ending, kept) in
        [(1, Ending::Cancelled, DeliveryState::Cancelled), (2, Ending::Dead, DeliveryState::Dead)]
    {
        record(store, vec![told(n, 10, &["e"])]).await;
        let id = claim(store, "e", 10, 1).await[0].delivery.id;
        assert_eq!(store.close_pending(&endpoint("e"), ending, t(20)).await, Ok(1));
        store.settle(vec![ended(id, DeliveryState::Failed, 1, 15)]).await.unwrap();
        store.settle(vec![retried(id, 2, 30, 500)]).await.unwrap();
        let detail = store.delivery(id).await.unwrap().unwrap();
        assert_eq!((detail.row.delivery.state, detail.row.delivery.attempts), (kept, 0));
        assert_eq!(detail.attempts, [attempt(1, 15, Some(404)), attempt(2, 30, None)]);
    }
    let counts = counts(store, "e").await;
    assert_eq!((counts.pending, counts.cancelled, counts.dead, counts.failed), (0, 1, 1, 0));
    assert_eq!(claimed_events(store, "e", 5000).await, [0; 0]);
    // What was refused stays refused, whatever is said of it later.
    record(store, vec![told(3, 10, &["f"])]).await;
    let id = end_all(store, "f", DeliveryState::Failed, 10).await[0];
    store.settle(vec![ended(id, DeliveryState::Delivered, 2, 30)]).await.unwrap();
    assert_eq!(store.delivery(id).await.unwrap().unwrap().row.delivery.state, DeliveryState::Failed);
}

async fn settling_twice_counts_one_attempt(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e"])]).await;
    let id = claim(store, "e", 10, 1).await[0].delivery.id;
    store.settle(vec![retried(id, 1, 10, 20)]).await.unwrap();
    store.settle(vec![retried(id, 1, 10, 20)]).await.unwrap();
    let again = claim(store, "e", 20, 1).await;
    assert_eq!((again[0].tries, again[0].delivery.attempts), (1, 1));
    let last = ended(id, DeliveryState::Delivered, 2, 20);
    store.settle(vec![last.clone(), last]).await.unwrap();
    assert_eq!(store.delivery(id).await.unwrap().unwrap().attempts.len(), 2);
    assert_eq!(counts(store, "e").await.delivered, 1);
}

async fn a_claim_says_when_the_next_one_finds_something(store: &dyn Store) {
    let turn = async |now, limit, until| {
        let turn = store.claim(&endpoint("e"), t(now), limit, t(until)).await.unwrap();
        let events: Vec<u128> = turn.claims.iter().map(|c| c.delivery.event_id.0.as_u128()).collect();
        (events, turn.next_due)
    };
    assert_eq!(turn(0, 9, 40).await, (vec![], None));
    record(store, vec![told(1, 10, &["e"]), told(2, 70, &["e"]), told(3, 5, &["f"]), told(4, 10, &["e"])])
        .await;
    assert_eq!(turn(9, 9, 40).await, (vec![], Some(t(10))));
    assert_eq!(turn(20, 1, 40).await, (vec![1], None), "there may be more");
    assert_eq!(turn(20, 1, 40).await, (vec![4], Some(t(40))), "nothing more until the leases end");
    assert_eq!(turn(39, 9, 900).await, (vec![], Some(t(40))));
    assert_eq!(turn(40, 9, 900).await, (vec![1, 4], Some(t(70))));
    let id = store.deliveries(DeliveryQuery::default()).await.unwrap().items.last().unwrap().delivery.id;
    store.settle(vec![retried(id, 1, 40, 60)]).await.unwrap();
    assert_eq!(turn(50, 9, 900).await, (vec![], Some(t(60))));
    assert_eq!(turn(80, 9, 900).await, (vec![1, 2], Some(t(900))));
    store.close_pending(&endpoint("e"), Ending::Dead, t(90)).await.unwrap();
    assert_eq!(turn(950, 9, 990).await, (vec![], None));
}

async fn in_order_a_session_waits_for_its_earliest_delivery_and_others_go_on(store: &dyn Store) {
    let of = |n, session: &str, at| told_of(event(n, session), at, &["e"]);
    record(store, vec![of(1, "a", 10), of(2, "b", 30), of(3, "a", 10), of(4, "b", 10)]).await;
    let turn = async |now, limit| {
        let turn = store.claim_in_order(&endpoint("e"), t(now), limit, t(now + 1000)).await.unwrap();
        let events: Vec<u128> = turn.claims.iter().map(|c| c.delivery.event_id.0.as_u128()).collect();
        let ids: Vec<DeliveryId> = turn.claims.iter().map(|c| c.delivery.id).collect();
        (events, ids, turn.next_due)
    };
    assert_eq!(turn(9, 10).await.2, Some(t(10)));
    // Number 4 is due and waits for number 2, which is not.
    let (events, ids, next_due) = turn(20, 10).await;
    assert_eq!((events, next_due), (vec![1, 3], None));
    store.release(vec![ids[1]]).await.unwrap();
    assert_eq!(turn(20, 10).await.0, [0; 0], "number 3 is free, but somebody works on number 1");
    assert_eq!(turn(20, 10).await.2, Some(t(30)));
    store.settle(vec![retried(ids[0], 1, 20, 500)]).await.unwrap();
    let (events, others, _) = turn(40, 1).await;
    assert_eq!(events, [2], "number 3 waits for the retry of number 1");
    store.settle(vec![ended(others[0], DeliveryState::Failed, 1, 40)]).await.unwrap();
    let (events, others, _) = turn(40, 10).await;
    assert_eq!(events, [4]);
    store.settle(vec![ended(others[0], DeliveryState::Delivered, 1, 40)]).await.unwrap();
    let (events, _, next_due) = turn(499, 10).await;
    assert_eq!((events, next_due), (vec![], Some(t(500))));
    assert_eq!(turn(500, 10).await.0, [1, 3]);
    assert_eq!(turn(500, 10).await.2, Some(t(1500)), "the end of the lease");
    store.close_pending(&endpoint("e"), Ending::Cancelled, t(600)).await.unwrap();
    assert_eq!(turn(9999, 10).await.2, None);
}

async fn what_is_due_too_late_is_hastened_and_the_rest_is_not(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e", "f"]), told(2, 500, &["e"]), told(3, 501, &["e"])]).await;
    record(store, vec![told(4, 90_000, &["e", "f"]), told(5, 80_000, &["e"])]).await;
    end_all(store, "e", DeliveryState::Dead, 10).await;
    assert_eq!(store.hasten(&endpoint("e"), t(500), t(100)).await, Ok(3));
    assert_eq!(store.hasten(&endpoint("e"), t(500), t(100)).await, Ok(0));
    assert_eq!(store.hasten(&endpoint("nowhere"), t(500), t(100)).await, Ok(0));
    assert_eq!(claimed_events(store, "e", 99).await, [0; 0]);
    assert_eq!(claimed_events(store, "e", 100).await, [3, 4, 5]);
    assert_eq!(claimed_events(store, "e", 500).await, [2]);
    assert_eq!(claimed_events(store, "f", 89_999).await, [1], "another endpoint's are as they were");
    let e = counts(store, "e").await;
    assert_eq!((e.pending, e.dead), (4, 1));
}

async fn closing_ends_what_is_pending_at_one_endpoint(store: &dyn Store) {
    let many: Vec<Entry> = (1..=250).map(|n| told(n, 10, &["e", "f"])).collect();
    record(store, many).await;
    let ids = claim(store, "e", 10, 2).await;
    store.settle(vec![ended(ids[0].delivery.id, DeliveryState::Delivered, 1, 10)]).await.unwrap();
    assert_eq!(store.pending_endpoints().await, Ok(vec![endpoint("e"), endpoint("f")]));
    assert_eq!(store.close_pending(&endpoint("e"), Ending::Dead, t(20)).await, Ok(249));
    assert_eq!(store.close_pending(&endpoint("e"), Ending::Dead, t(20)).await, Ok(0));
    assert_eq!(store.close_pending(&endpoint("nowhere"), Ending::Dead, t(20)).await, Ok(0));
    assert_eq!(store.pending_endpoints().await, Ok(vec![endpoint("f")]));
    let e = counts(store, "e").await;
    assert_eq!((e.pending, e.dead, e.delivered), (0, 249, 1));
    assert_eq!(counts(store, "f").await.pending, 250);
}

async fn a_replayed_delivery_is_due_at_once_and_keeps_its_event_and_its_attempts(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e", "f"])]).await;
    end_all(store, "f", DeliveryState::Delivered, 10).await;
    let id = claim(store, "e", 10, 1).await[0].delivery.id;
    assert_eq!(store.replay(Replay::One(id), t(15)).await, Ok(0), "it is pending");
    store.settle(vec![retried(id, 1, 10, 20)]).await.unwrap();
    claim(store, "e", 20, 1).await;
    store.settle(vec![ended(id, DeliveryState::Dead, 2, 20)]).await.unwrap();
    let before = counts(store, "e").await;
    assert_eq!((before.pending, before.dead), (0, 1));

    assert_eq!(store.replay(Replay::One(id), t(5000)).await, Ok(1));
    assert_eq!(store.replay(Replay::One(id), t(5001)).await, Ok(0), "it is pending again");
    assert_eq!(store.replay(Replay::One(DeliveryId(999)), t(5001)).await, Ok(0));
    assert_eq!(counts(store, "e").await, EndpointCounts { pending: 1, dead: 0, ..before });
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.pending, totals.dead, totals.delivered), (1, 1, 0, 1));
    // Pending work is never pruned, whatever ended beside it.
    let everything = Prune { now: t(9000), keep_for: Duration::ZERO, max_bytes: 0 };
    assert_eq!(store.prune(everything).await, Ok(Pruned::default()));

    let again = claim(store, "e", 5000, 10).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].delivery.id, again[0].delivery.event_id), (id, event(1, "s").id));
    assert_eq!((again[0].delivery.attempts, again[0].tries), (0, 2), "`backoff` begins anew, numbers go on");
    assert_eq!(again[0].delivery.created_at, t(5000), "a machine that is offline gives it up at once");
    store.settle(vec![ended(id, DeliveryState::Delivered, 3, 5000)]).await.unwrap();
    let detail = store.delivery(id).await.unwrap().unwrap();
    assert_eq!(detail.attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(counts(store, "e").await.delivered, 1);
    let early = Prune { now: t(5000), max_bytes: u64::MAX, ..everything };
    assert_eq!(store.prune(early).await, Ok(Pruned::default()), "its last end counts");
    let old = Prune { now: t(100_000), ..everything };
    assert_eq!(store.prune(old).await, Ok(Pruned { events: 1, deliveries: 2 }));
}

async fn a_replay_takes_what_is_finished_and_passes_its_filters(store: &dyn Store) {
    // Event n happened at n.
    for (n, state) in [
        (1, DeliveryState::Dead),
        (2, DeliveryState::Failed),
        (3, DeliveryState::Delivered),
        (4, DeliveryState::Dead),
    ] {
        record(store, vec![told(n, 10, &["e"])]).await;
        end_all(store, "e", state, 10).await;
    }
    record(store, vec![told(5, 10, &["e"])]).await;
    assert_eq!(store.close_pending(&endpoint("e"), Ending::Cancelled, t(20)).await, Ok(1));
    record(store, vec![told(6, 10, &["f"]), told(7, 10, &["e"])]).await;
    end_all(store, "f", DeliveryState::Dead, 10).await;
    let of = |state, from: Option<i64>, to: Option<i64>| Replay::Of {
        endpoint: endpoint("e"),
        state,
        from: from.map(t),
        to: to.map(t),
    };
    let pending = Some(DeliveryState::Pending);
    assert_eq!(store.replay(of(pending, None, None), t(30)).await, Ok(0), "7 is pending as it was");
    assert_eq!(claimed_events(store, "e", 29).await, [7]);
    for (state, from, to, events) in [
        (Some(DeliveryState::Dead), Some(2), None, vec![4]),
        (Some(DeliveryState::Dead), None, None, vec![1]),
        (Some(DeliveryState::Delivered), None, None, vec![3]),
        (Some(DeliveryState::Failed), None, Some(2), vec![]),
        (None, Some(2), Some(5), vec![2]),
        (None, None, None, vec![5]),
        (None, None, None, vec![]),
    ] {
        let count = events.len() as u64;
        assert_eq!(store.replay(of(state, from, to), t(30)).await, Ok(count), "{state:?} {from:?} {to:?}");
        assert_eq!(claimed_events(store, "e", 30).await, events, "{state:?} {from:?} {to:?}");
    }
    let nowhere = Replay::Of { endpoint: endpoint("nowhere"), state: None, from: None, to: None };
    assert_eq!(store.replay(nowhere, t(30)).await, Ok(0));
    assert_eq!((counts(store, "e").await.pending, counts(store, "f").await.dead), (6, 1));
}

async fn deliveries_are_listed_newest_first_in_pages(store: &dyn Store) {
    for n in 1..=10 {
        let session = if n % 2 == 0 { "even" } else { "odd" };
        record(store, vec![told_of(event(n, session), n as i64, &["e", "f"])]).await;
    }
    end_all(store, "f", DeliveryState::Failed, 3).await;
    let all = async |query: DeliveryQuery| {
        let mut query = query;
        let mut found: Vec<(u128, String)> = Vec::new();
        loop {
            let page = store.deliveries(query.clone()).await.unwrap();
            assert!(page.items.len() <= query.limit);
            assert!(page.next.is_none() || page.items.len() == query.limit);
            found.extend(
                page.items.iter().map(|r| (r.delivery.event_id.0.as_u128(), r.delivery.endpoint.to_string())),
            );
            // A cursor survives the way through a client.
            match page.next {
                Some(cursor) => query.cursor = Some(cursor.to_string().parse().unwrap()),
                None => return found,
            }
        }
    };
    let any = DeliveryQuery { limit: 3, ..DeliveryQuery::default() };
    let listed = all(any.clone()).await;
    assert_eq!(listed.len(), 20);
    assert!(listed.is_sorted_by_key(|(n, _)| std::cmp::Reverse(*n)));
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 20);

    let numbers = |found: Vec<(u128, String)>| found.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    let of_e = DeliveryQuery { endpoint: Some(endpoint("e")), ..any.clone() };
    assert_eq!(numbers(all(of_e.clone()).await), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let failed = DeliveryQuery { state: Some(DeliveryState::Failed), ..any.clone() };
    assert_eq!(numbers(all(failed.clone()).await), [3, 2, 1]);
    assert_eq!(store.deliveries(failed.clone()).await.unwrap().items[0].last_status, Some(404));
    let even = DeliveryQuery { session: Some(SessionId::new("even")), ..of_e };
    assert_eq!(numbers(all(even).await), [10, 8, 6, 4, 2]);
    let odd = DeliveryQuery { session: Some(SessionId::new("odd")), ..failed };
    assert_eq!(numbers(all(odd).await), [3, 1]);
    let pending =
        DeliveryQuery { state: Some(DeliveryState::Pending), endpoint: Some(endpoint("f")), ..any.clone() };
    assert_eq!(numbers(all(pending).await), [10, 9, 8, 7, 6, 5, 4]);
    let nowhere = DeliveryQuery { endpoint: Some(endpoint("nowhere")), ..any };
    assert_eq!(all(nowhere).await, []);
}

async fn transitions_are_the_newest_of_the_session_newest_last(store: &dyn Store) {
    let session = SessionId::new("s");
    assert_eq!(store.transitions(&session, 10).await, Ok(vec![]));
    let ping = Event { event: EventKind::Ping, ..event(4, "s") };
    record(store, vec![told(1, 1, &[]), told(2, 2, &["e"]), told_of(event(3, "other"), 3, &["e"])]).await;
    record(store, vec![told_of(ping, 4, &["e"]), told(5, 5, &[])]).await;
    assert_eq!(store.transitions(&session, 10).await, Ok(vec![event(1, "s"), event(2, "s"), event(5, "s")]));
    assert_eq!(store.transitions(&session, 2).await, Ok(vec![event(2, "s"), event(5, "s")]));
    assert_eq!(store.transitions(&session, 0).await, Ok(vec![]));
    let kinds: Vec<EventKind> = claim(store, "e", 10, 10).await.iter().map(|c| c.kind).collect();
    assert_eq!(kinds, [EventKind::StateTransition, EventKind::StateTransition, EventKind::Ping]);
}

async fn counts_follow_every_change(store: &dyn Store) {
    assert_eq!(store.totals().await, Ok(Totals::default()));
    assert_eq!(store.endpoint_counts().await, Ok(vec![]));
    record(store, (1..=5).map(|n| told(n, 10, &["e", "f"])).collect()).await;
    let ids: Vec<_> = claim(store, "e", 10, 4).await.iter().map(|c| c.delivery.id).collect();
    store
        .settle(vec![
            ended(ids[0], DeliveryState::Delivered, 1, 100),
            ended(ids[1], DeliveryState::Failed, 1, 200),
            ended(ids[2], DeliveryState::Dead, 1, 300),
            retried(ids[3], 1, 400, 500),
        ])
        .await
        .unwrap();
    let e = counts(store, "e").await;
    assert_eq!((e.pending, e.delivered, e.failed, e.dead, e.cancelled, e.dropped), (2, 1, 1, 1, 0, 0));
    assert_eq!((e.last_status, e.last_error.as_deref()), (None, Some("timeout after 10s")));
    assert_eq!(e.last_attempt_at, Some(t(400)));
    assert_eq!(e.latency, Some(Latency { p50_ms: 7, p99_ms: 7 }));
    store.close_pending(&endpoint("f"), Ending::Cancelled, t(600)).await.unwrap();
    let f = counts(store, "f").await;
    assert_eq!((f.pending, f.cancelled, f.last_attempt_at, f.latency), (0, 5, None, None));
    assert_eq!(
        store.totals().await,
        Ok(Totals { events: 5, pending: 2, delivered: 1, failed: 1, dead: 1, cancelled: 5, dropped: 0 })
    );
    // What prune removes stays counted.
    let everything = Prune { now: t(10_000), keep_for: Duration::ZERO, max_bytes: u64::MAX };
    assert_eq!(store.prune(everything).await, Ok(Pruned { events: 3, deliveries: 6 }));
    assert_eq!(counts(store, "e").await, e);
}

async fn latency_is_over_the_last_thousand_answers(store: &dyn Store) {
    // 400 slow answers are pushed out by a thousand faster ones, told by and by or all at once.
    for (n, at_once) in [(1, 100), (2, 1400), (3, 9)] {
        record(store, vec![told(n, 10, &["e"])]).await;
        let id = claim(store, "e", 10, 10).await[0].delivery.id;
        let settled = (1..=1400).map(|number| {
            let duration_ms = if number <= 400 { 1_000_000 } else { u64::from(number) - 400 };
            let answered = Attempt { duration_ms, ..attempt(number, 10, Some(500)) };
            Settled { attempt: Some(answered), ..retried(id, number, 10, 10) }
        });
        let settled: Vec<Settled> = settled.collect();
        for some in settled.chunks(at_once) {
            store.settle(some.to_vec()).await.unwrap();
        }
        assert_eq!(counts(store, "e").await.latency, Some(Latency { p50_ms: 500, p99_ms: 990 }));
        store.settle(vec![ended(id, DeliveryState::Dead, 1401, 20)]).await.unwrap();
    }
}

async fn a_disabled_endpoint_stays_disabled_until_it_is_enabled(store: &dyn Store) {
    let e = endpoint("e");
    assert_eq!(store.endpoint_status(&e).await, Ok(None));
    store.set_endpoint_status(&e, None).await.unwrap();
    let gone = EndpointStatus {
        disabled_at: t(5),
        reason: "answered 410".to_owned(),
        entry_fingerprint: "abc".to_owned(),
    };
    store.set_endpoint_status(&e, Some(gone.clone())).await.unwrap();
    assert_eq!(store.endpoint_status(&e).await, Ok(Some(gone.clone())));
    let again = EndpointStatus { disabled_at: t(6), ..gone };
    store.set_endpoint_status(&e, Some(again.clone())).await.unwrap();
    record(store, vec![told(1, 10, &["e", "f"])]).await;
    assert_eq!(store.endpoint_status(&e).await, Ok(Some(again)));
    assert_eq!(store.endpoint_status(&endpoint("f")).await, Ok(None));
    store.set_endpoint_status(&e, None).await.unwrap();
    assert_eq!(store.endpoint_status(&e).await, Ok(None));
    assert_eq!(counts(store, "e").await.pending, 1);
}

async fn names_are_kept_and_forgotten(store: &dyn Store) {
    let (a, b) = (SessionId::new("a"), SessionId::new("b"));
    store.set_name(&b, Some("old".to_owned())).await.unwrap();
    store.set_name(&b, Some("new".to_owned())).await.unwrap();
    store.set_name(&a, Some("'; DROP TABLE name; --".to_owned())).await.unwrap();
    let both = vec![(a.clone(), "'; DROP TABLE name; --".to_owned()), (b.clone(), "new".to_owned())];
    assert_eq!(store.names().await, Ok(both));
    store.set_name(&a, None).await.unwrap();
    store.set_name(&a, None).await.unwrap();
    assert_eq!(store.names().await, Ok(vec![(b, "new".to_owned())]));
}

async fn prune_removes_what_ended_long_ago_and_never_pending_work(store: &dyn Store) {
    // 1 ends at 107 on both, 2 only on one, 3 ends later, 4 was for nobody, 5 is not begun.
    record(
        store,
        vec![
            told(1, 10, &["e", "f"]),
            told(2, 10, &["e", "g"]),
            told(3, 150, &["e"]),
            told(4, 50, &[]),
            told(5, 10_000, &["e"]),
        ],
    )
    .await;
    let gone = end_all(store, "e", DeliveryState::Delivered, 100).await;
    end_all(store, "f", DeliveryState::Failed, 100).await;
    end_all(store, "e", DeliveryState::Delivered, 200).await;
    let old = Prune { now: t(1107), keep_for: Duration::from_millis(1000), max_bytes: u64::MAX };
    assert_eq!(store.prune(old).await, Ok(Pruned { events: 1, deliveries: 0 }), "event 4");
    let older = Prune { now: t(1108), ..old };
    assert_eq!(store.prune(older).await, Ok(Pruned { events: 1, deliveries: 2 }), "event 1");
    assert_eq!(store.prune(older).await, Ok(Pruned::default()));
    assert_eq!(store.delivery(gone[0]).await, Ok(None));
    assert!(store.delivery(gone[1]).await.unwrap().is_some(), "event 2 is pending elsewhere");

    let everything = Prune { now: t(1_000_000), keep_for: Duration::ZERO, max_bytes: 0 };
    assert_eq!(store.prune(everything).await, Ok(Pruned { events: 1, deliveries: 1 }), "event 3");
    assert_eq!(claimed_events(store, "g", 10).await, [2]);
    assert_eq!(claimed_events(store, "e", 10_000).await, [5]);
    // What comes after a delivery that was pruned does not take its id.
    record(store, vec![told(6, 20_000, &["e"])]).await;
    let newest = claim(store, "e", 20_000, 10).await;
    assert!(newest.iter().all(|c| !gone.contains(&c.delivery.id)));
}

async fn prune_finds_what_ended_behind_pending_work_and_behind_a_clock_that_went_back(store: &dyn Store) {
    record(store, (1..=250).map(|n| told(n, 10, &["e"])).collect()).await;
    record(store, vec![told(251, 9000, &[])]).await;
    record(store, (301..=550).map(|n| told(n, 10, &[])).collect()).await;
    let old = Prune { now: t(1000), keep_for: Duration::ZERO, max_bytes: u64::MAX };
    assert_eq!(store.prune(old).await, Ok(Pruned { events: 250, deliveries: 0 }));
    assert_eq!(store.totals().await.unwrap().pending, 250);
}

async fn prune_removes_the_oldest_until_the_rest_fits(store: &dyn Store) {
    record(store, (1..=250).map(|n| told(n, n as i64, &["e"])).collect()).await;
    // The last one recorded ends first.
    let ids: Vec<_> = claim(store, "e", 1000, 1000).await.iter().map(|c| c.delivery.id).collect();
    for (n, id) in (0i64..).zip(ids.iter().rev()) {
        store.settle(vec![ended(*id, DeliveryState::Delivered, 1, 1000 + n)]).await.unwrap();
    }
    let keep = Prune { now: t(2000), keep_for: Duration::from_secs(3600), max_bytes: u64::MAX };
    assert_eq!(store.prune(keep).await, Ok(Pruned::default()));
    assert_eq!(
        store.prune(Prune { max_bytes: 0, ..keep }).await,
        Ok(Pruned { events: 250, deliveries: 250 })
    );
    assert_eq!(store.deliveries(DeliveryQuery::default()).await.unwrap().items, []);
    assert_eq!(store.transitions(&SessionId::new("s"), 10).await, Ok(vec![]));
}

async fn simultaneous_writers_all_get_their_answers(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (1..=100u64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                record(&*store, vec![told(n, 10, &["e"])]).await;
                let claims = claim(&*store, "e", 10, 1).await;
                let settled = claims.iter().map(|c| ended(c.delivery.id, DeliveryState::Delivered, 1, 10));
                store.settle(settled.collect()).await.unwrap();
                claims.into_iter().map(|c| c.delivery.id).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for task in tasks {
        claimed.extend(task.await.unwrap());
    }
    claimed.sort();
    assert_eq!(claimed.len(), 100, "whoever recorded finds something to claim");
    claimed.dedup();
    assert_eq!(claimed.len(), 100, "nothing is claimed twice");
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.pending, totals.delivered), (100, 0, 100));
}

async fn a_closed_store_says_so(store: &dyn Store) {
    record(store, vec![told(1, 10, &["e"])]).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.record(vec![told(2, 10, &["e"])]).await, Err(Error::Closed));
    assert_eq!(store.totals().await, Err(Error::Closed));
    assert_eq!(store.claim(&endpoint("e"), t(10), 1, t(20)).await, Err(Error::Closed));
}
