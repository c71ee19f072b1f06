//! What 500 sessions and 20 endpoints cost while nothing happens.

use std::time::{Duration, Instant};

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::json;

use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::Session;
use crate::sink::{Answer, Sink};
use crate::{daemon, process};

const ENDPOINTS: usize = 20;

struct Idle;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Idle))
}

impl Row for Idle {
    fn claims(&self) -> Vec<Claim> {
        let claim = |name, what, unit, bound| Claim {
            name,
            what,
            unit,
            better: Better::Lower,
            floor: Floor::Absolute(bound),
        };
        vec![
            claim("idle-rss", "500 resting sessions, 20 endpoints: memory", Unit::Mebibytes, 25.0),
            claim("idle-cpu", "500 resting sessions, 20 endpoints: share of a core", Unit::Percent, 0.2),
            claim("idle-wakeups", "500 resting sessions, 20 endpoints: wake-ups", Unit::PerSecond, 2.0),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        bench.runtime.block_on(async {
            let (home, sink) = (Home::new(), Sink::start().await?);
            let sessions = bench.pick(50, 500);
            for n in 0..sessions {
                Session::resting(&home, n)?;
            }
            let webhooks = daemon::endpoints(&sink, Answer::Takes, ENDPOINTS, &json!({}));
            let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
            daemon::wait_for(&daemon, "total_sessions", sessions).await?;
            // What a start leaves behind is no rest. Measured over two of the slow looks through everything.
            tokio::time::sleep(Duration::from_secs(bench.pick(0, 10))).await;
            let pid = daemon.pid();
            let (cpu, switches, began) = (process::cpu(pid)?, process::switches(pid)?, Instant::now());
            tokio::time::sleep(Duration::from_secs(bench.pick(1, 60))).await;
            let passed = began.elapsed().as_secs_f64();
            Ok(vec![
                process::resident(pid)?,
                (process::cpu(pid)? - cpu).as_secs_f64() * 100.0 / passed,
                process::switches(pid)?.since(&switches) as f64 / passed,
            ])
        })
    }
}
