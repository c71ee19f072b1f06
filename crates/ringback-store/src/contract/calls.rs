//! What every engine must do, as one story per sentence of the contract of [`Calls`].

use std::sync::Arc;

use ringback_model::hook_call::{CallOutcome, HookCall};

use super::ledger::run_id;
use super::t;
use crate::{CallId, CallQuery, Calls, Error, MAX_CALLS, Store};

/// Tells every story, each with a new, empty engine from `make`.
///
/// # Panics
/// When the engine breaks its contract.
pub async fn run_all<S: Store + Calls>(make: impl Fn() -> Arc<S>) {
    a_remembered_call_is_given_back_as_it_came(&*make()).await;
    a_listing_is_the_newest_first_in_pages_and_without_bodies(&*make()).await;
    of_each_hook_the_newest_stay(&*make()).await;
    prune_forgets_what_came_before(&*make()).await;
    a_closed_engine_says_so(&*make()).await;
}

/// A call of `hook` that came at `at`.
pub fn call(hook: &str, at: i64) -> HookCall {
    HookCall {
        hook: hook.to_owned(),
        at: t(at),
        event: Some("push".to_owned()),
        delivery_id: None,
        outcome: CallOutcome::Accepted,
        status: 202,
        error: None,
        run: Some(run_id(7)),
        headers: vec![("x-event".to_owned(), "\u{202e}push".to_owned())],
        query: Some("a=1".to_owned()),
        body_bytes: 3,
        body: Some(vec![0, 255, b'"']),
    }
}

async fn keep(calls: &dyn Calls, call: HookCall) -> CallId {
    calls.keep_call(call).await.unwrap()
}

async fn listed(calls: &dyn Calls, query: CallQuery) -> Vec<CallId> {
    calls.calls(query).await.unwrap().items.into_iter().map(|(id, _)| id).collect()
}

async fn a_remembered_call_is_given_back_as_it_came(calls: &dyn Calls) {
    let whole = call("ci", 5);
    let refused = HookCall {
        outcome: CallOutcome::Refused,
        status: 400,
        error: Some("{\"error\":\"invalid json\"}".to_owned()),
        run: None,
        body: None,
        ..call("ci", 6)
    };
    let ids = [keep(calls, whole.clone()).await, keep(calls, refused.clone()).await];
    assert_eq!(calls.call(ids[0]).await, Ok(Some(whole)));
    assert_eq!(calls.call(ids[1]).await, Ok(Some(refused)));
    assert_eq!(calls.call(CallId(4711)).await, Ok(None));
    assert_eq!(ids[0].to_string().parse(), Ok(ids[0]));
}

async fn a_listing_is_the_newest_first_in_pages_and_without_bodies(calls: &dyn Calls) {
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(keep(calls, call(if n == 2 { "other" } else { "ci" }, n)).await);
    }
    let of_ci = CallQuery { hook: Some("ci".to_owned()), limit: 3, cursor: None };
    let first = calls.calls(of_ci.clone()).await.unwrap();
    assert_eq!(first.items[0], (ids[4], HookCall { body: None, ..call("ci", 4) }));
    assert_eq!(first.items.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ids[4], ids[3], ids[1]]);
    let second = calls.calls(CallQuery { cursor: first.next, ..of_ci }).await.unwrap();
    assert_eq!((second.items[0].0, second.items.len(), second.next), (ids[0], 1, None));
    ids.reverse();
    assert_eq!(listed(calls, CallQuery::default()).await, ids);
}

async fn of_each_hook_the_newest_stay(calls: &dyn Calls) {
    let other = keep(calls, call("other", 0)).await;
    let mut ids = Vec::new();
    for n in 0..=MAX_CALLS {
        ids.push(keep(calls, call("ci", n as i64)).await);
    }
    let all = CallQuery { limit: 1000, ..CallQuery::default() };
    let mut left = listed(calls, all).await;
    left.reverse();
    assert_eq!((left.len(), left[0], left[1]), (MAX_CALLS + 1, other, ids[1]));
    assert_eq!(calls.call(ids[0]).await, Ok(None));
}

async fn prune_forgets_what_came_before(calls: &dyn Calls) {
    let mut ids = Vec::new();
    for n in 0..500 {
        ids.push(keep(calls, call(&format!("hook-{}", n % 5), n)).await);
    }
    assert_eq!(calls.prune_calls(t(450)).await, Ok(450));
    assert_eq!(calls.prune_calls(t(450)).await, Ok(0));
    assert_eq!(listed(calls, CallQuery::default()).await.last(), Some(&ids[450]));
    calls.prune_calls(t(1000)).await.unwrap();
    assert!(keep(calls, call("ci", 1)).await > ids[499], "an id was given twice");
}

async fn a_closed_engine_says_so<S: Store + Calls>(calls: &S) {
    calls.close().await.unwrap();
    assert_eq!(calls.keep_call(call("ci", 1)).await, Err(Error::Closed));
    assert_eq!(calls.calls(CallQuery::default()).await, Err(Error::Closed));
    assert_eq!(calls.call(CallId(1)).await, Err(Error::Closed));
    assert_eq!(calls.prune_calls(t(1)).await, Err(Error::Closed));
}
