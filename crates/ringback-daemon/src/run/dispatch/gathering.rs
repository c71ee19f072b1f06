//! Calls that are gathered, with a made-up clock, over the real books and the real dispatcher's look at the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringback_model::Timestamp;
use ringback_model::budget::Moment;
use ringback_model::flow::{OnNewer, Rule, Window};
use ringback_model::inbound;
use ringback_model::run::{Request, RunId};
use ringback_store::{Ledger, MemoryStore};

use super::Taken;
use super::simulation::open;
use crate::run::Runs;

/// The made-up clock, in milliseconds. One test alone reads it.
static NOW: AtomicI64 = AtomicI64::new(0);

fn at(s: i64) -> Timestamp {
    Timestamp::from_millis(s * 1000)
}

fn set(s: i64) {
    NOW.store(s * 1000, Ordering::SeqCst);
}

fn now() -> Moment {
    let at = Timestamp::from_millis(NOW.load(Ordering::SeqCst));
    Moment { at, date: jiff::civil::date(1970, 1, 1) }
}

impl Runs {
    async fn push(&self, subject: &str) -> RunId {
        let body = br#"{"message":"look","source":"pr","agent":"script","isolated":true}"#;
        let request = self.request(inbound::parse_call(body, self.known()).unwrap());
        let request = Request { hook: Some("pr".to_owned()), ..request };
        let (quiet, max_wait) = (Duration::from_secs(30), Duration::from_secs(300));
        let rule = Rule { window: Some(Window { quiet, max_wait }), on_newer: OnNewer::Queue };
        self.accept_of_hook(request, Some((subject.to_owned(), rule)), "/hook/pr", None).await.unwrap().0
    }
}

fn started(taken: &Taken) -> Vec<RunId> {
    taken.runs.iter().map(|active| active.run().id).collect()
}

#[tokio::test]
async fn the_dispatcher_wakes_when_the_first_is_ready_and_holds_no_slot_meanwhile_also_after_a_restart() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryStore::new());
    let runs = open(Arc::clone(&ledger), now).await;
    let look = async |runs: &Runs| {
        let taken = runs.take_queued(1).await.unwrap();
        (started(&taken), taken.again_at, taken.runs)
    };
    let a = runs.push("pr:a").await;
    assert_eq!(look(&runs).await.1, Some(at(30)));
    set(10);
    let b = runs.push("pr:b").await;
    assert_eq!(look(&runs).await.1, Some(at(30)), "the earliest");
    set(20);
    assert_eq!(runs.push("pr:a").await, a);
    let (none, again_at, _) = look(&runs).await;
    assert_eq!((none, again_at), (vec![], Some(at(40))));
    assert_eq!(runs.waits_for(a).await, "quiet");
    // Those behind them are not held up.
    let other = runs.call("other", "script").await.unwrap();
    let (ids, _, taken) = look(&runs).await;
    assert_eq!(ids, [other]);
    runs.ends(&taken[0], None).await;

    let runs = open(ledger, now).await;
    set(39);
    assert_eq!(look(&runs).await.1, Some(at(40)));
    set(40);
    let (ids, _, taken) = look(&runs).await;
    assert_eq!(ids, [b]);
    runs.ends(&taken[0], None).await;
    set(50);
    let (ids, _, taken) = look(&runs).await;
    assert_eq!(ids, [a]);
    assert_eq!(taken[0].run().merged, 1);

    // What works gathers no longer: the next one is another run, and waits for its end.
    let next = runs.push("pr:a").await;
    assert_ne!(next, a);
    set(80);
    let (none, again_at, _) = look(&runs).await;
    assert_eq!((none, again_at), (vec![], None), "the end of the older one wakes the dispatcher");
    assert_eq!(runs.waits_for(next).await, "older_run");
    let after = runs.push("pr:a").await;
    assert_ne!(after, next);
    runs.ends(&taken[0], None).await;
    let (ids, _, taken) = look(&runs).await;
    assert_eq!(ids, [next]);
    runs.ends(&taken[0], None).await;
    assert_eq!(look(&runs).await.1, Some(at(110)));

    // It never waits longer than it may.
    for s in 81..=109 {
        set(s);
        assert_eq!(runs.push("pr:a").await, after);
    }
    for s in (110..380).step_by(20) {
        set(s);
        assert_eq!(runs.push("pr:a").await, after, "{s}");
    }
    assert_eq!(look(&runs).await.1, Some(at(380)));
    set(380);
    assert_eq!(look(&runs).await.0, [after]);
}
