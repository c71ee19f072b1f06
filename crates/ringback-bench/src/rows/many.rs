//! What an event costs beside 10, 1,000 and 10,000 sessions, of which 20 are at work.

use std::time::Duration;

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::json;

use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::{Session, append_at_a_pace};
use crate::sink::{Answer, Sink};
use crate::{daemon, process};

const ACTIVE: usize = 20;
/// Session files that come up at once.
const AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(5);

struct Many;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Many))
}

impl Row for Many {
    fn claims(&self) -> Vec<Claim> {
        let cost =
            |name, what| Claim { name, what, unit: Unit::Micros, better: Better::Lower, floor: Floor::Shown };
        vec![
            cost("many-10", "CPU time of an event, 10 sessions, all active"),
            cost("many-1000", "CPU time of an event, 1,000 sessions, 20 active"),
            cost("many-10000", "CPU time of an event, 10,000 sessions, 20 active"),
            Claim {
                name: "many-flat",
                what: "CPU time of an event at 10,000 sessions over that at 10",
                unit: Unit::Times,
                better: Better::Lower,
                floor: Floor::Absolute(1.5),
            },
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        let sizes = bench.pick([10, 30, 60], [10, 1000, 10_000]);
        let one = |sessions: &usize| bench.runtime.block_on(cost(bench, *sessions));
        let mut costs: Vec<f64> = sizes.iter().map(one).collect::<Result<_>>()?;
        costs.push(costs[2] / costs[0]);
        Ok(costs)
    }
}

async fn cost(bench: &Bench, count: usize) -> Result<f64> {
    let (home, sink) = (Home::new(), Sink::start().await?);
    let webhooks = daemon::endpoints(&sink, Answer::Takes, 1, &json!({}));
    let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
    let active = ACTIVE.min(count);
    let mut sessions: Vec<Session> = (0..active).map(|n| Session::begin(&home, n)).collect::<Result<_>>()?;
    daemon::wait_for(&daemon, "total_sessions", active).await?;
    let mut known = active;
    while known < count {
        let more = AT_ONCE.min(count - known);
        for n in known..known + more {
            Session::resting(&home, n)?;
        }
        known += more;
        daemon::wait_for(&daemon, "total_sessions", known).await?;
    }
    let events = bench.pick(200, 4000);
    let before = process::cpu(daemon.pid())?;
    let writing = move || append_at_a_pace(&mut sessions, events, PAUSE);
    tokio::task::spawn_blocking(writing).await??;
    sink.wait_for(events).await?;
    let cpu = process::cpu(daemon.pid())? - before;
    Ok(cpu.as_secs_f64() * 1_000_000.0 / events as f64)
}
