//! What every engine must do, as one story per sentence of the [`Ledger`]'s contract.

use std::sync::Arc;
use std::time::Duration;

use ringback_model::flow::{OnNewer, Rule, Window};
use ringback_model::run::{End, Limits, Request, Run, RunId, RunState};
use ringback_model::updates::UpdatePolicy;
use ringback_model::{DeliveryState, SessionId};
use uuid::Uuid;

use super::{claimed_events, end_all, endpoint, t, told};
use crate::{Accept, Accepted, Binding, CallKey, Error, Ledger, RunQuery, Save, Store, Told, Totals};

/// Tells every story, each with a new, empty engine from `make`.
///
/// # Panics
/// When the engine breaks its contract.
pub async fn run_all<S: Store + Ledger>(make: impl Fn() -> Arc<S>) {
    an_accepted_run_is_queued_as_it_is(&*make()).await;
    a_live_key_answers_with_the_first_run_of_its_scope(&*make()).await;
    an_expired_key_is_bound_again(&*make()).await;
    a_full_queue_stores_nothing_and_binds_no_key(&*make()).await;
    a_full_queue_still_answers_repeated_calls(&*make()).await;
    the_same_run_is_accepted_once_without_a_key_too(&*make()).await;
    only_a_queued_run_that_can_be_read_again_is_accepted(&*make()).await;
    runs_wait_in_the_order_in_which_they_were_accepted(&*make()).await;
    saving_replaces_runs_and_the_queue_shrinks_and_grows_with_them(&*make()).await;
    a_save_writes_runs_values_and_messages(&*make()).await;
    an_unknown_run_refuses_the_whole_save(&*make()).await;
    values_are_replaced_removed_and_found_by_prefix(&*make()).await;
    unfinished_runs_are_neither_queued_nor_ended(&*make()).await;
    runs_are_counted_by_state(&*make()).await;
    runs_are_listed_newest_first_in_pages(&*make()).await;
    a_session_leads_to_its_newest_run(&*make()).await;
    sessions_of_open_and_recent_runs_are_listed(&*make()).await;
    prune_removes_what_ended_long_ago_oldest_end_first(&*make()).await;
    a_repeated_call_is_answered_after_its_run_was_pruned(&*make()).await;
    cost_is_summed_over_the_runs_that_ended_since(&*make()).await;
    calls_on_a_subject_are_gathered_in_one_run_with_the_newest_request(&*make()).await;
    what_gathers_no_longer_is_not_merged_into(&*make()).await;
    a_merge_needs_no_room_and_a_repeated_call_is_not_merged(&*make()).await;
    a_call_of_a_known_run_binds_its_key_whatever_it_is_about(&*make()).await;
    a_newer_run_takes_the_place_of_queued_ones_in_the_same_write(&*make()).await;
    a_message_is_told_once_per_key_and_never_for_a_call_that_started_a_run(&*make()).await;
    simultaneous_calls_on_one_subject_are_one_run(make()).await;
    simultaneous_calls_with_one_key_start_one_run(make()).await;
    simultaneous_calls_fill_the_queue_to_its_bound(make()).await;
    a_closed_engine_says_so(&*make()).await;
}

/// The id of run number `n`.
pub fn run_id(n: u128) -> RunId {
    RunId(Uuid::from_u128(n))
}

/// Run number `n` from source "ci", queued at `at`.
pub fn run(n: u128, at: i64) -> Run {
    let request = Request {
        source: "ci".to_owned(),
        hook: None,
        agent: "claude".to_owned(),
        workspace: "default".to_owned(),
        message: format!("call {n}: \"quoted\", \u{202e}\nand long"),
        isolated: false,
        model: Some("haiku".to_owned()),
        thinking: true,
        allow_ping: true,
        update_main_session: UpdatePolicy::OnPing,
        allowed_tools: vec!["Read".to_owned()],
        limits: Limits { timeout_ms: 1_800_000, max_turns: 50, max_cost_usd: 2.0 },
        retry: false,
    };
    Run::queued(run_id(n), request, t(at))
}

/// The run at work since `at`, in a session of its own.
pub fn working(mut run: Run, session: &str, at: i64) -> Run {
    run.start(Some(SessionId::new("main")), 0.0, t(at)).unwrap();
    run.session_id = Some(SessionId::new(session));
    run
}

/// The run, at work before, at its end.
pub fn finished(mut run: Run, state: RunState, cost_usd: Option<f64>, at: i64) -> Run {
    run.finish(End { cost_usd, ..End::plain(state) }, true, t(at)).unwrap();
    run
}

/// A key.
pub fn key(scope: &str, value: &str) -> CallKey {
    CallKey { scope: scope.to_owned(), value: value.to_owned() }
}

/// A call without a key for run number `n` at `at`, with no bound that matters.
pub fn accept(n: u128, at: i64) -> Accept {
    Accept {
        run: run(n, at),
        key: None,
        now: t(at),
        key_ttl: Duration::from_millis(1000),
        max_queued: u64::MAX,
        rule: None,
    }
}

/// The same on a subject; gathered for 30 of at most 100 ms.
pub fn accept_on(subject: &str, on_newer: OnNewer, n: u128, at: i64) -> Accept {
    let (quiet, max_wait) = (Duration::from_millis(30), Duration::from_millis(100));
    let rule = Rule { window: Some(Window { quiet, max_wait }), on_newer };
    let call = accept(n, at);
    Accept { run: Run { subject: Some(subject.to_owned()), ..call.run }, rule: Some(rule), ..call }
}

fn with_key(scope: &str, value: &str, accept: Accept) -> Accept {
    Accept { key: Some(key(scope, value)), ..accept }
}

async fn accepted(ledger: &dyn Ledger, numbers: impl IntoIterator<Item = u128>) {
    for n in numbers {
        assert_eq!(ledger.accept(accept(n, n as i64)).await, Ok(Accepted::New));
    }
}

async fn save_runs(ledger: &dyn Ledger, runs: Vec<Run>) {
    ledger.save(Save { runs, ..Save::default() }).await.unwrap();
}

/// Accepts run `n`, has it work in session "s`n`" and, with `end`, ends it there.
async fn lived(ledger: &dyn Ledger, n: u128, end: Option<(RunState, i64)>) -> Run {
    accepted(ledger, [n]).await;
    let mut run = working(run(n, n as i64), &format!("s{n}"), n as i64);
    if let Some((state, at)) = end {
        run = finished(run, state, None, at);
    }
    save_runs(ledger, vec![run.clone()]).await;
    run
}

async fn queue(ledger: &dyn Ledger) -> Vec<u128> {
    let queued = ledger.queued(usize::MAX).await.unwrap();
    assert_eq!(ledger.queued_count().await, Ok(queued.len() as u64));
    numbers(&queued)
}

fn numbers(runs: &[Run]) -> Vec<u128> {
    runs.iter().map(|run| run.id.0.as_u128()).collect()
}

fn message(n: u64, at: i64, endpoints: &[&str]) -> Told {
    told(n, at, endpoints).told.unwrap()
}

async fn an_accepted_run_is_queued_as_it_is(ledger: &dyn Ledger) {
    assert_eq!(ledger.accept(with_key("agent", "a", accept(1, 10))).await, Ok(Accepted::New));
    assert_eq!(ledger.run(run_id(1)).await, Ok(Some(run(1, 10))));
    assert_eq!(ledger.queued(10).await, Ok(vec![run(1, 10)]));
    assert_eq!(ledger.queued_count().await, Ok(1));
    assert_eq!(ledger.run(run_id(2)).await, Ok(None));
}

async fn a_live_key_answers_with_the_first_run_of_its_scope(ledger: &dyn Ledger) {
    let call = async |scope, value, n| ledger.accept(with_key(scope, value, accept(n, 10))).await.unwrap();
    assert_eq!(call("agent", "k", 1).await, Accepted::New);
    assert_eq!(call("agent", "k", 2).await, Accepted::Repeated(run_id(1)));
    assert_eq!(call("github-ci", "k", 3).await, Accepted::New);
    assert_eq!(call("agent", "K", 4).await, Accepted::New);
    assert_eq!(call("github-ci", "k", 5).await, Accepted::Repeated(run_id(3)));
    // However the first run ended.
    save_runs(ledger, vec![finished(working(run(1, 10), "s", 20), RunState::Failed, None, 30)]).await;
    assert_eq!(call("agent", "k", 6).await, Accepted::Repeated(run_id(1)));
    assert_eq!(queue(ledger).await, [3, 4]);
    assert_eq!(ledger.run(run_id(2)).await, Ok(None));
}

async fn an_expired_key_is_bound_again(ledger: &dyn Ledger) {
    let call = async |n, at| ledger.accept(with_key("agent", "k", accept(n, at))).await.unwrap();
    assert_eq!(call(1, 10).await, Accepted::New);
    assert_eq!(call(2, 1009).await, Accepted::Repeated(run_id(1)), "a repeat does not bind it anew");
    assert_eq!(call(3, 1010).await, Accepted::New);
    assert_eq!(call(4, 2009).await, Accepted::Repeated(run_id(3)));
    assert_eq!(call(5, 2010).await, Accepted::New);
    assert_eq!(queue(ledger).await, [1, 3, 5]);
}

async fn a_full_queue_stores_nothing_and_binds_no_key(ledger: &dyn Ledger) {
    accepted(ledger, [1, 2]).await;
    let bounded = |n| with_key("agent", "k", Accept { max_queued: 2, ..accept(n, 10) });
    assert_eq!(ledger.accept(bounded(3)).await, Ok(Accepted::Full));
    assert_eq!(ledger.run(run_id(3)).await, Ok(None));
    assert_eq!(queue(ledger).await, [1, 2]);
    save_runs(ledger, vec![working(run(1, 1), "s", 20)]).await;
    assert_eq!(ledger.accept(bounded(4)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(bounded(5)).await, Ok(Accepted::Repeated(run_id(4))));
    assert_eq!(queue(ledger).await, [2, 4]);
    let never = Accept { max_queued: 0, ..accept(6, 10) };
    assert_eq!(ledger.accept(never).await, Ok(Accepted::Full));
}

async fn a_full_queue_still_answers_repeated_calls(ledger: &dyn Ledger) {
    let bounded = |n, at| with_key("agent", "k", Accept { max_queued: 1, ..accept(n, at) });
    assert_eq!(ledger.accept(bounded(1, 10)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(bounded(2, 20)).await, Ok(Accepted::Repeated(run_id(1))));
    assert_eq!(ledger.accept(bounded(3, 1010)).await, Ok(Accepted::Full), "the key expired");
}

async fn the_same_run_is_accepted_once_without_a_key_too(ledger: &dyn Ledger) {
    let call = |max_queued| Accept { max_queued, ..accept(1, 10) };
    assert_eq!(ledger.accept(call(1)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(call(2)).await, Ok(Accepted::Repeated(run_id(1))));
    assert_eq!(
        ledger.accept(call(1)).await,
        Ok(Accepted::Repeated(run_id(1))),
        "also when the queue is full"
    );
    assert_eq!(queue(ledger).await, [1]);
}

async fn only_a_queued_run_that_can_be_read_again_is_accepted(ledger: &dyn Ledger) {
    let at_work = Accept { run: working(run(1, 10), "s", 10), ..accept(1, 10) };
    assert!(matches!(ledger.accept(at_work).await, Err(Error::Refused(_))));
    let mut boundless = accept(2, 10);
    boundless.run.request.limits.max_cost_usd = f64::INFINITY;
    assert!(matches!(ledger.accept(boundless.clone()).await, Err(Error::Refused(_))));
    accepted(ledger, [2]).await;
    let save = Save { runs: vec![boundless.run], ..Save::default() };
    assert!(matches!(ledger.save(save).await, Err(Error::Refused(_))));
    assert_eq!(ledger.queued(10).await, Ok(vec![run(2, 2)]));
}

async fn runs_wait_in_the_order_in_which_they_were_accepted(ledger: &dyn Ledger) {
    // Neither ids nor times decide.
    for (n, at) in [(5, 50), (9, 10), (1, 30), (7, 20)] {
        assert_eq!(ledger.accept(accept(n, at)).await, Ok(Accepted::New));
    }
    assert_eq!(queue(ledger).await, [5, 9, 1, 7]);
    assert_eq!(numbers(&ledger.queued(2).await.unwrap()), [5, 9]);
    assert_eq!(ledger.queued(0).await, Ok(vec![]));
    save_runs(ledger, vec![working(run(9, 10), "s", 60)]).await;
    assert_eq!(queue(ledger).await, [5, 1, 7]);
}

async fn saving_replaces_runs_and_the_queue_shrinks_and_grows_with_them(ledger: &dyn Ledger) {
    accepted(ledger, 1..=3).await;
    let at_work = working(run(1, 1), "s1", 20);
    save_runs(ledger, vec![at_work.clone()]).await;
    save_runs(ledger, vec![at_work.clone()]).await;
    assert_eq!(ledger.run(run_id(1)).await, Ok(Some(at_work.clone())));
    assert_eq!(queue(ledger).await, [2, 3]);
    let mut cancelled = run(2, 2);
    cancelled.finish(End::plain(RunState::Cancelled), true, t(30)).unwrap();
    let done = finished(at_work, RunState::Completed, Some(0.25), 40);
    save_runs(ledger, vec![cancelled.clone(), done.clone()]).await;
    assert_eq!(ledger.run(run_id(2)).await, Ok(Some(cancelled)));
    assert_eq!(ledger.run(run_id(1)).await, Ok(Some(done)));
    assert_eq!(queue(ledger).await, [3]);
    // Of the same run twice the last one counts, and one that is put back has its old place.
    save_runs(ledger, vec![working(run(3, 3), "s3", 50), run(3, 3), run(2, 2)]).await;
    assert_eq!(queue(ledger).await, [2, 3]);
}

async fn a_save_writes_runs_values_and_messages<S: Store + Ledger>(engine: &S) {
    accepted(engine, [1]).await;
    let at_work = working(run(1, 1), "s", 20);
    let save = Save {
        runs: vec![at_work.clone()],
        values: vec![("ping_budget".to_owned(), Some("{\"left\":4.5}".to_owned()))],
        told: vec![message(1, 20, &["discord"]), message(2, 20, &["discord", "console"])],
    };
    engine.save(save.clone()).await.unwrap();
    // What was told is told once however often it is saved.
    engine.save(save).await.unwrap();
    assert_eq!(engine.run(run_id(1)).await, Ok(Some(at_work)));
    assert_eq!(engine.value("ping_budget").await, Ok(Some("{\"left\":4.5}".to_owned())));
    assert_eq!(claimed_events(engine, "discord", 20).await, [1, 2]);
    assert_eq!(claimed_events(engine, "console", 20).await, [2]);
    let totals = Totals { events: 2, pending: 3, ..Totals::default() };
    assert_eq!(engine.totals().await, Ok(totals));
    end_all(engine, "discord", DeliveryState::Delivered, 5000).await;
    assert_eq!(engine.pending_endpoints().await, Ok(vec![endpoint("console")]));
}

async fn an_unknown_run_refuses_the_whole_save<S: Store + Ledger>(engine: &S) {
    accepted(engine, [1]).await;
    let value = |text: &str| vec![("budget".to_owned(), Some(text.to_owned()))];
    engine.save(Save { values: value("5"), ..Save::default() }).await.unwrap();
    let save = Save {
        runs: vec![working(run(1, 1), "s", 20), run(2, 2)],
        values: value("4"),
        told: vec![message(1, 20, &["discord"])],
    };
    assert!(matches!(engine.save(save).await, Err(Error::Refused(_))));
    assert_eq!(queue(engine).await, [1]);
    assert_eq!(engine.run(run_id(2)).await, Ok(None));
    assert_eq!(engine.value("budget").await, Ok(Some("5".to_owned())));
    assert_eq!(engine.totals().await, Ok(Totals::default()));
}

async fn values_are_replaced_removed_and_found_by_prefix(ledger: &dyn Ledger) {
    let save = async |name: &str, value: Option<&str>| {
        let values = vec![(name.to_owned(), value.map(str::to_owned))];
        ledger.save(Save { values, ..Save::default() }).await.unwrap();
    };
    let found = async |prefix: &str| -> Vec<String> {
        ledger
            .values(prefix)
            .await
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    for (name, value) in [("updates/b", "1"), ("updates/a", "2"), ("updates", "3"), ("updatez", "4")] {
        save(name, Some(value)).await;
    }
    save("updates/a", Some("'; DROP TABLE value; --")).await;
    assert_eq!(found("updates/").await, ["updates/a='; DROP TABLE value; --", "updates/b=1"]);
    assert_eq!(found("updates").await.len(), 3);
    assert_eq!(found("").await.len(), 4);
    assert_eq!(found("updates/a%").await, [""; 0]);
    save("updates/a", None).await;
    save("updates/a", None).await;
    assert_eq!(ledger.value("updates/a").await, Ok(None));
    assert_eq!(found("updates/").await, ["updates/b=1"]);
    assert_eq!(ledger.value("updatez").await, Ok(Some("4".to_owned())));
}

async fn unfinished_runs_are_neither_queued_nor_ended(ledger: &dyn Ledger) {
    accepted(ledger, [9]).await;
    let at_work = lived(ledger, 5, None).await;
    lived(ledger, 4, Some((RunState::Completed, 50))).await;
    let later = lived(ledger, 3, None).await;
    assert_eq!(ledger.unfinished().await, Ok(vec![at_work.clone(), later.clone()]));
    save_runs(ledger, vec![finished(at_work, RunState::Interrupted, None, 60)]).await;
    assert_eq!(ledger.unfinished().await, Ok(vec![later]));
}

async fn runs_are_counted_by_state(ledger: &dyn Ledger) {
    let counts = async || -> String {
        let all = ledger.run_counts().await.unwrap();
        assert_eq!(all.iter().map(|(state, _)| *state).collect::<Vec<_>>(), RunState::ALL);
        let some = all.iter().filter(|(_, count)| *count > 0);
        some.map(|(state, count)| format!("{state}={count}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(counts().await, "");
    accepted(ledger, [1, 2]).await;
    let at_work = lived(ledger, 3, None).await;
    lived(ledger, 4, Some((RunState::Completed, 50))).await;
    lived(ledger, 5, Some((RunState::Completed, 60))).await;
    lived(ledger, 6, Some((RunState::TimedOut, 60))).await;
    assert_eq!(counts().await, "queued=2 working=1 completed=2 timed_out=1");
    save_runs(ledger, vec![finished(at_work, RunState::Failed, None, 70)]).await;
    ledger.prune_runs(t(55), 10).await.unwrap();
    assert_eq!(counts().await, "queued=2 completed=1 failed=1 timed_out=1", "what was pruned counts no more");
}

async fn runs_are_listed_newest_first_in_pages(ledger: &dyn Ledger) {
    for n in 1..=10 {
        let mut call = accept(n, 100);
        call.run.request.source = if n % 2 == 0 { "even" } else { "odd" }.to_owned();
        let mut next = call.run.clone();
        assert_eq!(ledger.accept(call).await, Ok(Accepted::New));
        if n <= 3 {
            next.finish(End::plain(RunState::Cancelled), true, t(200)).unwrap();
            save_runs(ledger, vec![next]).await;
        }
    }
    let all = async |mut query: RunQuery| -> Vec<u128> {
        let mut found = Vec::new();
        loop {
            let page = ledger.runs(query.clone()).await.unwrap();
            assert!(page.items.len() <= query.limit);
            assert!(page.next.is_none() || page.items.len() == query.limit);
            found.extend(numbers(&page.items));
            match page.next {
                Some(cursor) => query.cursor = Some(cursor.to_string().parse().unwrap()),
                None => return found,
            }
        }
    };
    let any = RunQuery { limit: 3, ..RunQuery::default() };
    assert_eq!(all(any.clone()).await, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let even = RunQuery { source: Some("even".to_owned()), ..any.clone() };
    assert_eq!(all(even.clone()).await, [10, 8, 6, 4, 2]);
    let cancelled = RunQuery { state: Some(RunState::Cancelled), ..any.clone() };
    assert_eq!(all(cancelled).await, [3, 2, 1]);
    let both = RunQuery { state: Some(RunState::Queued), limit: 1, ..even };
    assert_eq!(all(both).await, [10, 8, 6, 4]);
    let nobody = RunQuery { source: Some("nobody".to_owned()), ..any };
    assert_eq!(all(nobody).await, [0; 0]);
    assert_eq!(ledger.runs(RunQuery::default()).await.unwrap().items.len(), 10);
}

async fn a_session_leads_to_its_newest_run(ledger: &dyn Ledger) {
    let of = async |session: &str| ledger.run_of_session(&SessionId::new(session)).await.unwrap();
    lived(ledger, 1, None).await;
    lived(ledger, 2, Some((RunState::Completed, 50))).await;
    assert_eq!(of("s1").await, Some(run_id(1)));
    assert_eq!(of("s2").await, Some(run_id(2)));
    assert_eq!(of("main").await, None, "it was forked, not opened");
    accepted(ledger, [3]).await;
    save_runs(ledger, vec![working(run(3, 3), "s1", 60)]).await;
    assert_eq!(of("s1").await, Some(run_id(3)));
}

async fn sessions_of_open_and_recent_runs_are_listed(ledger: &dyn Ledger) {
    lived(ledger, 4, Some((RunState::Completed, 100))).await;
    lived(ledger, 3, None).await;
    lived(ledger, 2, Some((RunState::Failed, 99))).await;
    accepted(ledger, [1]).await;
    let since = async |at| -> Vec<(String, u128)> {
        let found = ledger.run_sessions(t(at)).await.unwrap();
        assert!(found.iter().all(|(_, _, source)| source == "ci"));
        found.into_iter().map(|(session, id, _)| (session.to_string(), id.0.as_u128())).collect()
    };
    let row = |n: u128| (format!("s{n}"), n);
    assert_eq!(since(99).await, [row(4), row(3), row(2)]);
    assert_eq!(since(100).await, [row(4), row(3)]);
    assert_eq!(since(101).await, [row(3)]);
}

async fn prune_removes_what_ended_long_ago_oldest_end_first(ledger: &dyn Ledger) {
    for (n, at) in [(1, 300), (2, 100), (3, 200), (4, 400)] {
        lived(ledger, n, Some((RunState::Completed, at))).await;
    }
    lived(ledger, 5, None).await;
    accepted(ledger, [6]).await;
    let prune = async |before, limit| ledger.prune_runs(t(before), limit).await.unwrap();
    assert_eq!(prune(100, 10).await, []);
    assert_eq!(prune(400, 2).await, [run_id(2), run_id(3)]);
    assert_eq!(ledger.run(run_id(2)).await, Ok(None));
    assert_eq!(ledger.run_of_session(&SessionId::new("s2")).await, Ok(None));
    assert_eq!(prune(400, 10).await, [run_id(1)]);
    assert_eq!(prune(i64::MAX, 0).await, []);
    assert_eq!(prune(i64::MAX, usize::MAX).await, [run_id(4)], "never what is queued or at work");
    assert_eq!(numbers(&ledger.runs(RunQuery::default()).await.unwrap().items), [6, 5]);
    assert_eq!(queue(ledger).await, [6]);
}

async fn a_repeated_call_is_answered_after_its_run_was_pruned(ledger: &dyn Ledger) {
    assert_eq!(ledger.accept(with_key("agent", "k", accept(1, 10))).await, Ok(Accepted::New));
    save_runs(ledger, vec![finished(working(run(1, 10), "s", 11), RunState::Completed, None, 12)]).await;
    assert_eq!(ledger.prune_runs(t(100), 10).await, Ok(vec![run_id(1)]));
    let again = ledger.accept(with_key("agent", "k", accept(2, 100))).await;
    assert_eq!(again, Ok(Accepted::Repeated(run_id(1))));
}

async fn cost_is_summed_over_the_runs_that_ended_since(ledger: &dyn Ledger) {
    assert_eq!(ledger.cost_since(t(0)).await, Ok(0.0));
    for (n, cost, at) in [(1, Some(0.5), 99), (2, Some(0.25), 100), (3, None, 150), (4, Some(1.0), 200)] {
        accepted(ledger, [n]).await;
        let ended = finished(working(run(n, 1), "s", 10), RunState::Failed, cost, at);
        save_runs(ledger, vec![ended]).await;
    }
    let mut open = lived(ledger, 5, None).await;
    open.cost_usd = Some(8.0);
    save_runs(ledger, vec![open]).await;
    assert_eq!(ledger.cost_since(t(0)).await, Ok(1.75));
    assert_eq!(ledger.cost_since(t(100)).await, Ok(1.25));
    assert_eq!(ledger.cost_since(t(201)).await, Ok(0.0));
}

async fn calls_on_a_subject_are_gathered_in_one_run_with_the_newest_request(ledger: &dyn Ledger) {
    let call = |n, at| accept_on("pr:1", OnNewer::Queue, n, at);
    assert_eq!(ledger.accept(call(1, 10)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(accept_on("pr:2", OnNewer::Queue, 2, 10)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(accept(3, 10)).await, Ok(Accepted::New));
    for (n, at, ready_at) in [(4, 30, 60), (5, 59, 89), (6, 88, 110)] {
        assert_eq!(ledger.accept(call(n, at)).await, Ok(Accepted::Merged(run_id(1))));
        let one = ledger.run(run_id(1)).await.unwrap().unwrap();
        assert_eq!((one.request, one.ready_at), (run(n, at).request, Some(t(ready_at))));
        assert_eq!((one.merged, one.created_at), (n as u32 - 3, t(10)));
    }
    assert_eq!(queue(ledger).await, [1, 2, 3]);
    assert_eq!(ledger.first_queued_on("pr:1").await, Ok(Some(run_id(1))));
    assert_eq!(ledger.first_queued_on("pr:3").await, Ok(None));
}

async fn what_gathers_no_longer_is_not_merged_into(ledger: &dyn Ledger) {
    let call = async |n, at| ledger.accept(accept_on("pr:1", OnNewer::Queue, n, at)).await.unwrap();
    assert_eq!(call(1, 10).await, Accepted::New);
    assert_eq!(call(2, 40).await, Accepted::New, "it was ready");
    let mut first = ledger.run(run_id(1)).await.unwrap().unwrap();
    first.start(None, 0.0, t(41)).unwrap();
    save_runs(ledger, vec![first]).await;
    assert_eq!(call(3, 50).await, Accepted::Merged(run_id(2)));
    assert_eq!(ledger.first_queued_on("pr:1").await, Ok(Some(run_id(2))));
    let mut second = ledger.run(run_id(2)).await.unwrap().unwrap();
    second.finish(End::plain(RunState::Cancelled), true, t(51)).unwrap();
    save_runs(ledger, vec![second]).await;
    assert_eq!(call(4, 52).await, Accepted::New);
    assert_eq!(queue(ledger).await, [4]);
}

async fn a_call_of_a_known_run_binds_its_key_whatever_it_is_about(ledger: &dyn Ledger) {
    accepted(ledger, [1]).await;
    let known = with_key("hook", "k", accept_on("pr:1", OnNewer::Queue, 1, 10));
    assert_eq!(ledger.accept(known).await, Ok(Accepted::Repeated(run_id(1))));
    let again = with_key("hook", "k", Accept { max_queued: 0, ..accept(2, 11) });
    assert_eq!(ledger.accept(again).await, Ok(Accepted::Repeated(run_id(1))));
}

async fn a_merge_needs_no_room_and_a_repeated_call_is_not_merged(ledger: &dyn Ledger) {
    let call = async |value, n| {
        let call = Accept { max_queued: 1, ..accept_on("pr:1", OnNewer::Queue, n, 10) };
        ledger.accept(with_key("hook", value, call)).await.unwrap()
    };
    assert_eq!(call("a", 1).await, Accepted::New);
    assert_eq!(call("b", 2).await, Accepted::Merged(run_id(1)));
    for value in ["a", "b"] {
        assert_eq!(call(value, 3).await, Accepted::Repeated(run_id(1)));
    }
    assert_eq!(ledger.run(run_id(1)).await.unwrap().unwrap().merged, 1);
    let other = Accept { max_queued: 1, ..accept_on("pr:2", OnNewer::Replace, 4, 10) };
    assert_eq!(ledger.accept(with_key("hook", "c", other.clone())).await, Ok(Accepted::Full));
    assert_eq!(
        ledger.accept(with_key("hook", "c", Accept { max_queued: 2, ..other })).await,
        Ok(Accepted::New)
    );
}

async fn a_newer_run_takes_the_place_of_queued_ones_in_the_same_write(ledger: &dyn Ledger) {
    let call = |on_newer, n, at| accept_on("pr:1", on_newer, n, at);
    assert_eq!(ledger.accept(call(OnNewer::Queue, 1, 10)).await, Ok(Accepted::New));
    let mut first = ledger.run(run_id(1)).await.unwrap().unwrap();
    first.start(None, 0.0, t(40)).unwrap();
    save_runs(ledger, vec![first.clone()]).await;
    assert_eq!(ledger.accept(call(OnNewer::Queue, 2, 40)).await, Ok(Accepted::New));
    assert_eq!(ledger.accept(call(OnNewer::Queue, 3, 41)).await, Ok(Accepted::Merged(run_id(2))));
    // The place of the one that goes is enough.
    let replacing = Accept { max_queued: 1, ..call(OnNewer::Replace, 4, 90) };
    assert_eq!(ledger.accept(replacing).await, Ok(Accepted::Replacing(vec![run_id(2)])));
    let second = ledger.run(run_id(2)).await.unwrap().unwrap();
    assert_eq!((second.state, second.superseded_by), (RunState::Superseded, Some(run_id(4))));
    assert_eq!(second.ended_at, Some(t(90)));
    assert_eq!(ledger.run(run_id(4)).await.unwrap().unwrap().merged, 2);
    assert_eq!(ledger.run(run_id(1)).await, Ok(Some(first)), "the one at work is left alone");
    assert_eq!(queue(ledger).await, [4]);
    let cancelling = call(OnNewer::Cancel, 5, 200);
    assert_eq!(ledger.accept(cancelling).await, Ok(Accepted::Replacing(vec![run_id(4), run_id(1)])));
    let first = ledger.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((first.state, first.superseded_by), (RunState::Working, Some(run_id(5))));
    assert_eq!(queue(ledger).await, [5]);
}

async fn a_message_is_told_once_per_key_and_never_for_a_call_that_started_a_run<S: Store + Ledger>(
    engine: &S,
) {
    let call = |value: &str, at| {
        Some(Binding { key: key("hook", value), now: t(at), ttl: Duration::from_millis(1000) })
    };
    assert_eq!(engine.tell(message(1, 10, &["discord"]), call("a", 10)).await, Ok(true));
    assert_eq!(engine.tell(message(2, 20, &["discord"]), call("a", 20)).await, Ok(false));
    assert_eq!(engine.tell(message(3, 20, &["discord"]), None).await, Ok(true));
    assert_eq!(engine.tell(message(4, 1010, &["discord"]), call("a", 1010)).await, Ok(true), "it expired");
    assert_eq!(engine.accept(with_key("hook", "b", accept(1, 10))).await, Ok(Accepted::New));
    assert_eq!(engine.tell(message(5, 20, &["discord"]), call("b", 20)).await, Ok(false));
    assert_eq!(claimed_events(engine, "discord", 2000).await, [1, 3, 4]);
}

async fn simultaneous_calls_on_one_subject_are_one_run(ledger: Arc<dyn Ledger>) {
    let call = |n: u128| with_key("hook", &n.to_string(), accept_on("pr:1", OnNewer::Queue, n, 10));
    let answers = all_at_once(&ledger, call).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Accepted::New).count(), 1);
    let queued = ledger.queued(10).await.unwrap();
    assert_eq!((queued.len(), queued[0].merged), (1, 99));
    let merged = answers.iter().filter(|answer| **answer == Accepted::Merged(queued[0].id));
    assert_eq!(merged.count(), 99);
}

async fn simultaneous_calls_with_one_key_start_one_run(ledger: Arc<dyn Ledger>) {
    let answers = all_at_once(&ledger, |n| with_key("agent", "k", accept(n, 10))).await;
    let winner = (1u128..).zip(&answers).find(|(_, answer)| **answer == Accepted::New).unwrap().0;
    let others = answers.iter().filter(|answer| **answer == Accepted::Repeated(run_id(winner)));
    assert_eq!(others.count(), answers.len() - 1);
    assert_eq!(queue(&*ledger).await, [winner]);
}

async fn simultaneous_calls_fill_the_queue_to_its_bound(ledger: Arc<dyn Ledger>) {
    let answers = all_at_once(&ledger, |n| Accept { max_queued: 30, ..accept(n, 10) }).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Accepted::New).count(), 30);
    assert_eq!(answers.iter().filter(|answer| **answer == Accepted::Full).count(), 70);
    assert_eq!(queue(&*ledger).await.len(), 30);
}

/// Calls 1 to 100 at the same time.
async fn all_at_once(ledger: &Arc<dyn Ledger>, call: impl Fn(u128) -> Accept) -> Vec<Accepted> {
    let tasks: Vec<_> = (1..=100)
        .map(|n| {
            let (ledger, call) = (Arc::clone(ledger), call(n));
            tokio::spawn(async move { ledger.accept(call).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

async fn a_closed_engine_says_so<S: Store + Ledger>(engine: &S) {
    accepted(engine, [1]).await;
    engine.close().await.unwrap();
    assert_eq!(engine.accept(accept(2, 10)).await, Err(Error::Closed));
    assert_eq!(engine.save(Save::default()).await, Err(Error::Closed));
    assert_eq!(engine.queued(1).await, Err(Error::Closed));
}
