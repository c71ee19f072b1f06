//! Both engines answer any sequence of calls alike: the one in memory is the model of the one on disk.

use std::time::Duration;

use proptest::prelude::*;
use ringback_model::delivery::Next;
use ringback_model::flow::OnNewer;
use ringback_model::run::RunState;
use ringback_model::{Activity, Agent, DeliveryState, SessionId, SessionState};
use ringback_store::contract::ledger::{accept, accept_on, key, run, run_id};
use ringback_store::contract::{attempt, endpoint, event, t, told};
use ringback_store::{
    Accept, Binding, Claim, DeliveryQuery, Ending, EndpointStatus, Entry, Ledger, MemoryStore, Prune, Replay,
    RunQuery, Save, Settled, Store,
};

use crate::open;

const ENDPOINTS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Call {
    /// Event `n`, maybe not for the first time, to the endpoints in the mask.
    Record {
        events: Vec<(u64, u8)>,
    },
    Claim {
        at: usize,
        limit: usize,
        lease_ms: i64,
        in_order: bool,
    },
    /// The `which`-th claim so far.
    Settle {
        which: usize,
        state: DeliveryState,
        with_attempt: bool,
        wait_ms: i64,
    },
    Release {
        which: usize,
    },
    Close {
        at: usize,
        ending: Ending,
    },
    /// The `which`-th claim so far, or what is finished at an endpoint.
    Replay {
        which: Option<usize>,
        at: usize,
        state: Option<DeliveryState>,
        from: Option<i64>,
        to: Option<i64>,
    },
    Disable {
        at: usize,
        is_disabled: bool,
    },
    Name {
        session: u8,
        name: Option<String>,
    },
    Prune {
        keep_ms: u64,
        is_full: bool,
    },
    Accept {
        run: u8,
        key: Option<u8>,
        max_queued: u64,
        on: Option<(u8, OnNewer)>,
    },
    /// Tells event `n`, unless its key is bound.
    Tell {
        key: Option<u8>,
        n: u64,
    },
    /// Puts runs into these states, known or not, and tells event `n`.
    Save {
        runs: Vec<(u8, RunState)>,
        value: Option<bool>,
        n: u64,
    },
    PruneRuns {
        keep_ms: i64,
        limit: usize,
    },
    Wait {
        ms: i64,
    },
}

fn call() -> impl Strategy<Value = Call> {
    let at = 0..ENDPOINTS.len();
    prop_oneof![
        4 => prop::collection::vec((1..40u64, 0..8u8), 1..5).prop_map(|events| Call::Record { events }),
        4 => (at.clone(), 0..5usize, 0..200i64, any::<bool>())
            .prop_map(|(at, limit, lease_ms, in_order)| Call::Claim { at, limit, lease_ms, in_order }),
        6 => (0..100usize, prop::sample::select(DeliveryState::ALL), any::<bool>(), 0..100i64).prop_map(
            |(which, state, with_attempt, wait_ms)| Call::Settle { which, state, with_attempt, wait_ms }
        ),
        1 => (0..100usize).prop_map(|which| Call::Release { which }),
        1 => (at.clone(), prop::sample::select(vec![Ending::Cancelled, Ending::Dead]))
            .prop_map(|(at, ending)| Call::Close { at, ending }),
        2 => (
            prop::option::of(0..100usize),
            at.clone(),
            prop::option::of(prop::sample::select(DeliveryState::ALL)),
            prop::option::of(0..40i64),
            prop::option::of(0..40i64),
        )
            .prop_map(|(which, at, state, from, to)| Call::Replay { which, at, state, from, to }),
        1 => (at, any::<bool>()).prop_map(|(at, is_disabled)| Call::Disable { at, is_disabled }),
        1 => (0..3u8, prop::option::of("[a-c]{0,3}"))
            .prop_map(|(session, name)| Call::Name { session, name }),
        1 => (0..300u64, any::<bool>()).prop_map(|(keep_ms, is_full)| Call::Prune { keep_ms, is_full }),
        6 => (
            0..20u8,
            prop::option::of(0..4u8),
            0..8u64,
            prop::option::of((0..2u8, prop::sample::select(OnNewer::ALL))),
        )
            .prop_map(|(run, key, max_queued, on)| Call::Accept { run, key, max_queued, on }),
        1 => (prop::option::of(0..4u8), 1..40u64).prop_map(|(key, n)| Call::Tell { key, n }),
        4 => (
            prop::collection::vec((0..8u8, prop::sample::select(RunState::ALL)), 0..3),
            prop::option::of(any::<bool>()),
            1..40u64,
        )
            .prop_map(|(runs, value, n)| Call::Save { runs, value, n }),
        1 => (0..100i64, 0..3usize).prop_map(|(keep_ms, limit)| Call::PruneRuns { keep_ms, limit }),
        3 => (0..100i64).prop_map(|ms| Call::Wait { ms }),
    ]
}

/// Drives one store; everything it answers goes into `seen`.
struct Drive<'a, S> {
    store: &'a S,
    now: i64,
    claims: Vec<Claim>,
    seen: Vec<String>,
}

impl<S: Store + Ledger> Drive<'_, S> {
    async fn run(store: &S, calls: &[Call]) -> Vec<String> {
        let mut drive = Drive { store, now: 1000, claims: Vec::new(), seen: Vec::new() };
        for call in calls {
            drive.call(call).await;
            drive.look().await;
        }
        drive.seen
    }

    fn saw(&mut self, what: impl std::fmt::Debug) {
        self.seen.push(format!("{what:?}"));
    }

    fn claimed(&self, which: usize) -> Option<Claim> {
        (!self.claims.is_empty()).then(|| self.claims[which % self.claims.len()].clone())
    }

    async fn call(&mut self, call: &Call) {
        let (store, now) = (self.store, self.now);
        match call {
            Call::Record { events } => {
                let entries = events.iter().map(|(n, mask)| record(*n, *mask, now)).collect();
                self.saw(store.record(entries).await);
            }
            Call::Claim { at, limit, lease_ms, in_order } => {
                let (name, until) = (endpoint(ENDPOINTS[*at]), t(now + lease_ms));
                let turn = if *in_order {
                    store.claim_in_order(&name, t(now), *limit, until).await.unwrap()
                } else {
                    store.claim(&name, t(now), *limit, until).await.unwrap()
                };
                self.saw(&turn);
                self.claims.extend(turn.claims);
            }
            Call::Settle { which, state, with_attempt, wait_ms } => {
                let Some(Claim { delivery, tries, .. }) = self.claimed(*which) else { return };
                let status = (*state != DeliveryState::Dead).then_some(200);
                let next = Next { state: *state, attempts: delivery.attempts + 1, due_at: t(now + wait_ms) };
                let attempt = with_attempt.then(|| attempt(tries + 1, now, status));
                self.saw(store.settle(vec![Settled { id: delivery.id, attempt, next }]).await);
            }
            Call::Release { which } => {
                let ids = self.claimed(*which).into_iter().map(|c| c.delivery.id).collect();
                self.saw(store.release(ids).await);
            }
            Call::Close { at, ending } => {
                self.saw(store.close_pending(&endpoint(ENDPOINTS[*at]), *ending, t(now)).await);
            }
            Call::Replay { which, at, state, from, to } => {
                let one = which.and_then(|which| self.claimed(which));
                let replay = match one {
                    Some(claim) => Replay::One(claim.delivery.id),
                    None => Replay::Of {
                        endpoint: endpoint(ENDPOINTS[*at]),
                        state: *state,
                        from: from.map(t),
                        to: to.map(t),
                    },
                };
                self.saw(store.replay(replay, t(now)).await);
            }
            Call::Disable { at, is_disabled } => {
                let status = is_disabled.then(|| EndpointStatus {
                    disabled_at: t(now),
                    reason: "410".to_owned(),
                    entry_fingerprint: "f".to_owned(),
                });
                self.saw(store.set_endpoint_status(&endpoint(ENDPOINTS[*at]), status).await);
            }
            Call::Name { session, name } => {
                self.saw(store.set_name(&SessionId::new(format!("s{session}")), name.clone()).await);
            }
            Call::Prune { keep_ms, is_full } => {
                let max_bytes = if *is_full { 0 } else { u64::MAX };
                let prune = Prune { now: t(now), keep_for: Duration::from_millis(*keep_ms), max_bytes };
                self.saw(store.prune(prune).await);
            }
            Call::Accept { run, key: by, max_queued, on } => {
                let n = u128::from(*run);
                let call = match on {
                    Some((subject, on_newer)) => accept_on(&subject.to_string(), *on_newer, n, now),
                    None => accept(n, now),
                };
                let call = Accept {
                    key: by.map(|k| key("hook", &k.to_string())),
                    key_ttl: Duration::from_millis(100),
                    max_queued: *max_queued,
                    ..call
                };
                self.saw(store.accept(call).await);
            }
            Call::Tell { key: by, n } => {
                let ttl = Duration::from_millis(100);
                let call = by.map(|k| Binding { key: key("hook", &k.to_string()), now: t(now), ttl });
                let told = told(*n, now, &ENDPOINTS[..1]).told.unwrap();
                self.saw(store.tell(told, call).await);
            }
            Call::Save { runs, value, n } => {
                let runs = runs.iter().map(|(n, state)| {
                    let mut run = run(u128::from(*n), now);
                    run.state = *state;
                    run.subject = (n % 2 == 0).then(|| "1".to_owned());
                    run.session_id =
                        (*state != RunState::Queued).then(|| SessionId::new(format!("r{}", n % 3)));
                    run.ended_at = (n % 2 == 0).then(|| t(now));
                    run.cost_usd = (n % 3 != 0).then_some(0.25);
                    run
                });
                let value = value.map(|is_set| ("budget".to_owned(), is_set.then(|| now.to_string())));
                let told = told(*n, now, &ENDPOINTS[..1]).told.into_iter().collect();
                let save = Save { runs: runs.collect(), values: value.into_iter().collect(), told };
                self.saw(store.save(save).await);
            }
            Call::PruneRuns { keep_ms, limit } => {
                self.saw(store.prune_runs(t(now - keep_ms), *limit).await);
            }
            Call::Wait { ms } => self.now += ms,
        }
    }

    async fn look(&mut self) {
        self.look_at_runs().await;
        let store = self.store;
        for name in ENDPOINTS.map(endpoint) {
            self.saw(store.endpoint_status(&name).await);
        }
        self.saw(store.sessions().await);
        self.saw(store.names().await);
        self.saw(store.pending_endpoints().await);
        self.saw(store.endpoint_counts().await);
        self.saw(store.totals().await);
        self.saw(store.transitions(&SessionId::new("s"), 3).await);
        let page = store.deliveries(DeliveryQuery::default()).await.unwrap();
        if let Some(row) = page.items.last() {
            self.saw(store.delivery(row.delivery.id).await);
        }
        self.saw(page);
        let dead = DeliveryQuery { state: Some(DeliveryState::Dead), limit: 2, ..DeliveryQuery::default() };
        self.saw(store.deliveries(dead).await);
    }

    async fn look_at_runs(&mut self) {
        let store = self.store;
        self.saw(store.queued(3).await);
        self.saw(store.queued_count().await);
        self.saw(store.first_queued_on("1").await);
        self.saw(store.unfinished().await);
        self.saw(store.run(run_id(3)).await);
        self.saw(store.run_of_session(&SessionId::new("r1")).await);
        self.saw(store.run_sessions(t(self.now - 50)).await);
        self.saw(store.cost_since(t(self.now - 50)).await);
        self.saw(store.values("b").await);
        let failed =
            RunQuery { state: Some(RunState::Failed), source: Some("ci".to_owned()), ..RunQuery::default() };
        self.saw(store.runs(failed).await);
        // The cursors of two engines may differ in their numbers, not in where they lead.
        let first = store.runs(RunQuery { limit: 2, ..RunQuery::default() }).await.unwrap();
        self.saw(&first.items);
        if first.next.is_some() {
            let rest = RunQuery { cursor: first.next, ..RunQuery::default() };
            self.saw(store.runs(rest).await.unwrap().items);
        }
    }
}

fn record(n: u64, mask: u8, now: i64) -> Entry {
    let to: Vec<&str> =
        ENDPOINTS.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, e)| *e).collect();
    let state = SessionState {
        session_id: event(n, "s").session_id,
        agent: Agent::Pi,
        activity: Activity::ALL[n as usize % Activity::ALL.len()],
        reason: None,
        since: t(now),
        sequence: n,
        last_event: None,
    };
    Entry { state: Some(state), ..told(n, now, &to) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_engines_answer_alike(calls in prop::collection::vec(call(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let on_disk = open(directory.path());
        let (memory, sqlite) = runtime.block_on(async {
            (Drive::run(&MemoryStore::new(), &calls).await, Drive::run(&on_disk, &calls).await)
        });
        for (memory, sqlite) in memory.iter().zip(&sqlite) {
            prop_assert_eq!(memory, sqlite);
        }
        prop_assert_eq!(memory.len(), sqlite.len());
    }
}
