//! A day of money with a made-up clock, in a zone of its own, over the real books and the real dispatcher's look at
//! the queue. No agent is started: a run ends when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringback_model::Timestamp;
use ringback_model::budget::{self, Moment};
use ringback_model::inbound::bounds::{Bound, Bounds, Caller};
use ringback_model::inbound::{self, Refusal};
use ringback_model::money::Day;
use ringback_model::prompt::Reach;
use ringback_model::run::{End, RunId, RunState};
use ringback_runs::Adapter;
use ringback_store::{Ledger, MemoryStore};

use crate::config::{self, AgentEntry, Workspace};
use crate::env::Env;
use crate::run::{Active, Runs, Setup};

/// The made-up clock. One test alone reads it.
static NOW: AtomicI64 = AtomicI64::new(0);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn set(text: &str) {
    NOW.store(at(text).as_millis(), Ordering::SeqCst);
}

fn now() -> Moment {
    let at = Timestamp::from_millis(NOW.load(Ordering::SeqCst));
    Moment { at, date: jiff::civil::date(2026, 3, 28) }
}

/// Central Europe: in the night to 2026-03-29 clocks are put forward.
fn day(at: Timestamp) -> Day {
    Day::of(at, &jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
}

/// Over these books, by this clock.
pub(super) async fn open(ledger: Arc<dyn Ledger>, now: fn() -> Moment) -> Runs {
    let agent = |adapter| AgentEntry {
        adapter,
        command: vec!["sh".to_owned()],
        env: Vec::new(),
        allowed_tools: Vec::new(),
        models: BTreeMap::new(),
    };
    let workspace = Workspace { path: PathBuf::from("/"), main_session: None, worktree: false };
    let ci = Bound { rate: None, concurrency: Some(1) };
    let config = config::Runs {
        agent: "claude".to_owned(),
        workspace: "default".to_owned(),
        timeout: Duration::from_secs(60),
        max_concurrent: 4,
        max_queued: 1000,
        max_turns: 50,
        max_cost_usd: 2.0,
        daily_cost_usd: 5.0,
        retry: false,
        agents: [("claude", Adapter::Claude), ("script", Adapter::Command)]
            .map(|(name, adapter)| (name.to_owned(), agent(adapter)))
            .into(),
        workspaces: BTreeMap::from([("default".to_owned(), workspace)]),
        never: BTreeSet::new(),
    };
    let setup = Setup {
        ledger,
        config,
        limits: budget::Limits::default(),
        bounds: Bounds::from([(Caller::Source("ci".to_owned()), ci)]),
        env: Env::default(),
        view: Default::default(),
        feed: Default::default(),
        outlets: Default::default(),
        reach: Reach::ConsoleOnly,
        tokens: Default::default(),
        mcp_url: None,
        output: PathBuf::from("/nowhere/runs"),
        worktrees: PathBuf::from("/nowhere/worktrees"),
        denied: Vec::new(),
        now,
        day,
    };
    Runs::open(setup).await.unwrap()
}

impl Runs {
    pub(super) async fn call(&self, source: &str, agent: &str) -> Result<RunId, Refusal> {
        let body = format!(r#"{{"message":"look","source":"{source}","agent":"{agent}","isolated":true}}"#);
        let call = inbound::parse_call(body.as_bytes(), self.known()).unwrap();
        self.accept(call, "/hook/agent", None).await
    }

    pub(super) async fn ends(&self, active: &Active, cost_usd: Option<f64>) {
        let run = active.run().clone();
        self.finish(run, End { cost_usd, ..End::plain(RunState::Completed) }).await;
    }

    pub(super) async fn waits_for(&self, id: RunId) -> String {
        let run = self.run(id).await.unwrap().unwrap();
        let shown = self.shown_with_waits(&[run]).await.unwrap();
        shown[0]["waiting"]["reason"].as_str().unwrap_or("-").to_owned()
    }
}

#[tokio::test]
async fn what_exceeds_the_day_waits_calls_get_429_and_after_local_midnight_work_goes_on() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryStore::new());
    let runs = open(Arc::clone(&ledger), now).await;
    set("2026-03-28T09:00:00+01:00");
    let mut calls = Vec::new();
    for n in 0..4 {
        calls.push(runs.call(&format!("s{n}"), "claude").await.unwrap());
    }
    // Each reserves 2 of 5: two start, the others wait for midnight, and nothing else may come.
    let taken = runs.take_queued(4).await.unwrap();
    assert_eq!(taken.runs.len(), 2);
    let midnight = at("2026-03-29T00:00:00+01:00");
    assert_eq!(taken.again_at, Some(midnight));
    assert_eq!(runs.waits_for(calls[3]).await, "daily_cost_usd");
    let left = |hours: u64| Refusal::TooManyRequests { wait: Duration::from_secs(hours * 3600) };
    assert_eq!(runs.call("late", "claude").await, Err(left(15)));

    // One cost less than it had reserved: what it gives back starts the next one at once.
    set("2026-03-28T13:00:00+01:00");
    runs.ends(&taken.runs[0], Some(0.5)).await;
    let more = runs.take_queued(4).await.unwrap();
    assert_eq!((more.runs.len(), more.again_at), (1, Some(midnight)));
    // What is not known counts as the maximum: 0.5 + 2 + 2 are spent.
    runs.ends(&taken.runs[1], None).await;
    runs.ends(&more.runs[0], None).await;
    assert!(runs.take_queued(4).await.unwrap().runs.is_empty());
    assert_eq!(runs.call("late", "claude").await, Err(left(11)));

    // Another process finds the same books, a millisecond before midnight.
    let runs = open(ledger, now).await;
    set("2026-03-28T23:59:59.999+01:00");
    let none = runs.take_queued(4).await.unwrap();
    assert_eq!((none.runs.len(), none.again_at), (0, Some(midnight)));
    let refused = runs.call("late", "claude").await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(1));

    // After midnight it goes on; that day has 23 hours.
    set("2026-03-29T00:00:00+01:00");
    assert_eq!(runs.take_queued(4).await.unwrap().runs.len(), 1);
    runs.call("early", "claude").await.unwrap();
    assert_eq!(runs.take_queued(4).await.unwrap().runs.len(), 1);
    assert_eq!(runs.call("late", "claude").await, Err(left(23)));

    // A plain program tells of no cost: it reserves while it works, and counts nothing then.
    let script = runs.call("s", "script").await;
    assert_eq!(script, Err(left(23)));
    set("2026-03-30T12:00:00+02:00");
    for active in runs.all_active() {
        runs.ends(&active, Some(0.0)).await;
    }
    for _ in 0..20 {
        runs.call("s", "script").await.unwrap();
        let taken = runs.take_queued(1).await.unwrap();
        runs.ends(&taken.runs[0], None).await;
    }

    // A source's excess stays queued while others go on, however many of it come first.
    let of_ci = futures_util::future::join_all((0..200).map(|_| runs.call("ci", "script"))).await;
    let other = runs.call("other", "script").await.unwrap();
    let taken = runs.take_queued(4).await.unwrap();
    let started: Vec<RunId> = taken.runs.iter().map(|active| active.run().id).collect();
    assert_eq!((started.len(), started[1]), (2, other));
    assert_eq!(runs.waits_for(*of_ci[199].as_ref().unwrap()).await, "concurrency");
}
