//! What dead endpoints cost the healthy ones beside them.
//!
//! The same load twice: with some endpoints dead, and, in the place of a ceiling, with every endpoint healthy.
//! Measured at those that are healthy in both.

use std::time::Duration;

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::append::percentiles;
use crate::daemon;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::{Session, append_at_a_pace};
use crate::sink::{Answer, Sink};

/// How an endpoint is dead.
#[derive(Clone, Copy)]
enum Dead {
    Refused,
    Hanging,
    Broken,
}

/// One comparison.
struct Case {
    name: &'static str,
    what: &'static str,
    endpoints: usize,
    /// How the first endpoints are dead; the others are healthy.
    dead: Vec<Dead>,
    /// Events a second.
    pace: u32,
    /// What is allowed over the same load all healthy, in milliseconds.
    slack: f64,
}

struct Isolation(Vec<Case>);

pub(super) fn make(bench: &Bench) -> Result<Box<dyn Row>> {
    let pair = |name, what, dead| Case { name, what, endpoints: 2, dead: vec![dead], pace: 250, slack: 5.0 };
    let third = bench.pick(3, 30);
    Ok(Box::new(Isolation(vec![
        pair("beside-refused", "p99 at a healthy endpoint beside one that refuses", Dead::Refused),
        pair("beside-hanging", "p99 at a healthy endpoint beside one that hangs", Dead::Hanging),
        pair("beside-broken", "p99 at a healthy endpoint beside one that answers 500", Dead::Broken),
        Case {
            name: "beside-90",
            what: "p99 at 10 healthy endpoints beside 90 dead ones",
            endpoints: third * 3 + 10,
            dead: [Dead::Refused, Dead::Hanging, Dead::Broken].repeat(third),
            pace: 40,
            slack: 20.0,
        },
    ])))
}

impl Row for Isolation {
    fn claims(&self) -> Vec<Claim> {
        let claim = |case: &Case| Claim {
            name: case.name,
            what: case.what,
            unit: Unit::Millis,
            better: Better::Lower,
            floor: Floor::Beside { times: 1.2, slack: case.slack },
        };
        self.0.iter().map(claim).collect()
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        self.0.iter().map(|case| bench.runtime.block_on(case.measure(bench, &case.dead))).collect()
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        self.0.iter().map(|case| bench.runtime.block_on(case.measure(bench, &[])).map(Some)).collect()
    }
}

impl Case {
    async fn measure(&self, bench: &Bench, dead: &[Dead]) -> Result<f64> {
        let sink = Sink::start().await?;
        // Bound and let go of: the port is free and nobody answers.
        let refused = format!("http://{}/", TcpListener::bind("127.0.0.1:0").await?.local_addr()?);
        let url = |n: usize| match dead.get(n) {
            Some(Dead::Refused) => refused.clone(),
            Some(Dead::Hanging) => sink.url(Answer::Hangs, n),
            Some(Dead::Broken) => sink.url(Answer::Breaks, n),
            None => sink.url(Answer::Takes, n),
        };
        let webhooks: Vec<Value> =
            (0..self.endpoints).map(|n| json!({ "name": format!("e{n}"), "url": url(n) })).collect();
        let home = Home::new();
        let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
        let mut sessions = vec![Session::begin(&home, 0)?];
        daemon::wait_for(&daemon, "total_sessions", 1).await?;

        let healthy = self.endpoints - self.dead.len();
        let events = bench.pick(20, 3000);
        let pause = Duration::from_secs(1) / bench.pick(self.pace.max(50), self.pace);
        let writing = move || append_at_a_pace(&mut sessions, events, pause);
        let written = tokio::task::spawn_blocking(writing).await??;
        let arrived =
            sink.wait_for_those(events * healthy, |arrival| arrival.endpoint >= self.dead.len()).await?;
        daemon.terminate().await;
        Ok(percentiles(&arrived, &written)[1])
    }
}
