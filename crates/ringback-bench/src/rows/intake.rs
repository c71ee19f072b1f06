//! `POST /hook/agent`: how many calls a second, and how long one takes beside running agents.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use ringback_testkit::{Daemon, Home};
use serde_json::json;
use tokio::task::JoinSet;

use crate::ceiling::rows::Tables;
use crate::ceiling::{Ceiling, door};
use crate::daemon;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::statistics::percentile;
use crate::wire::Connection;

const SECRET: &str = "the-hook-listeners-own-secret";
/// Agents at work while calls come at a pace.
const AGENTS: usize = 4;

struct Intake;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Intake))
}

/// One load: so many connections, so many calls; at a pace, or each connection's next call when it has its answer.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    calls: usize,
    pause: Option<Duration>,
}

impl Load {
    fn all(bench: &Bench) -> [Load; 3] {
        let calls = bench.pick(256, 20_000);
        let pause = Duration::from_secs(1) / bench.pick(200, 2000);
        let paced = bench.pick(50, 10_000);
        [
            Load { connections: 32, calls, pause: None },
            Load { connections: bench.pick(64, 256), calls, pause: None },
            Load { connections: 32, calls: paced, pause: Some(pause) },
        ]
    }

    /// Calls a second; of a paced load the 99th percentile in milliseconds, from when each call was due.
    fn value(self, taken: Taken) -> f64 {
        let Taken { mut times, all } = taken;
        match self.pause {
            None => self.calls as f64 / all.as_secs_f64(),
            Some(_) => percentile(&mut times, 0.99),
        }
    }
}

struct Taken {
    times: Vec<Duration>,
    all: Duration,
}

impl Row for Intake {
    fn claims(&self) -> Vec<Claim> {
        let rate =
            |name, what, floor| Claim { name, what, unit: Unit::PerSecond, better: Better::Higher, floor };
        vec![
            rate("intake-32", "hook calls a second, 32 connections", Floor::OfCeiling(0.7)),
            rate("intake-256", "hook calls a second, 256 connections", Floor::OfCeiling(0.7)),
            Claim {
                name: "intake-paced-p99",
                what: "p99 of hook calls at 2,000/s beside 4 runs",
                unit: Unit::Millis,
                better: Better::Lower,
                floor: Floor::Absolute(10.0),
            },
            rate("intake-32-rows", "32 connections beside a journal of rows", Floor::Shown),
            rate("intake-256-rows", "256 connections beside a journal of rows", Floor::Shown),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        let one = |load| bench.runtime.block_on(ours(bench, load));
        let mut values = Load::all(bench).into_iter().map(one).collect::<Result<Vec<_>>>()?;
        values.extend_from_within(..2);
        Ok(values)
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        let one = |load: Load, ceiling: Ceiling| {
            let address = ceiling.runtime.block_on(door::hooks(ceiling.journal.clone(), SECRET))?;
            Ok(Some(load.value(bench.runtime.block_on(put(load, address))?)))
        };
        let all = Load::all(bench);
        let file = all.into_iter().map(|load| one(load, Ceiling::start()?));
        let rows = all.into_iter().take(2).map(|load| one(load, Ceiling::of_rows(Tables::Runs)?));
        file.chain(rows).collect()
    }
}

async fn ours(bench: &Bench, load: Load) -> Result<f64> {
    let mut home = Home::new();
    let port = ringback_testkit::free_port();
    home.set_env("WEBHOOK_PORT", &port.to_string());
    home.set_env("WEBHOOK_SECRET", SECRET);
    // It never ends by itself, so that nothing is started while calls come: they stay in the queue.
    let agent = home.write("agent.sh", "#!/bin/sh\nwhile [ -d \"$HOME\" ]; do echo at work; sleep 1; done\n");
    std::fs::set_permissions(&agent, PermissionsExt::from_mode(0o755))?;
    let agents = if load.pause.is_some() { AGENTS } else { 1 };
    let more = json!({
        "workspaces": { "default": { "path": home.project() } },
        "runs": {
            "agent": "fake", "max_concurrent": agents, "max_queued": 1_000_000,
            "max_cost_usd": 0.0, "daily_cost_usd": 0.0,
            "agents": { "fake": { "adapter": "command", "command": [agent] } },
        },
    });
    let daemon = daemon::start(bench, &home, Vec::new(), more).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    put(Load { connections: 1, calls: agents, pause: None }, address).await?;
    wait_for_runs(&daemon, agents).await?;
    let taken = put(load, address).await;
    // Stopped as it should be: killed, it would leave its agents behind.
    daemon.terminate().await;
    Ok(load.value(taken?))
}

/// Waits until so many agents are at work.
async fn wait_for_runs(daemon: &Daemon, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + ringback_testkit::DEADLINE;
    loop {
        let runs = daemon.api_get("/api/runs").await.json();
        let states = runs["items"].as_array().into_iter().flatten().map(|run| &run["state"]);
        if states.filter(|state| *state == "working").count() == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "{wanted} runs do not work: {runs}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Puts a load on a listener. Any answer but 202 voids the round.
async fn put(load: Load, to: SocketAddr) -> Result<Taken> {
    let mut open = Vec::new();
    for _ in 0..load.connections {
        open.push(Connection::open(to).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for mut connection in open {
        let next = Arc::clone(&next);
        callers.spawn(async move {
            let authorization = format!("Bearer {SECRET}");
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= load.calls {
                    return anyhow::Ok(times);
                }
                // From when the call was due: what waits for a free connection has waited.
                let mut from = Instant::now();
                if let Some(pause) = load.pause {
                    from = began + pause * u32::try_from(n)?;
                    tokio::time::sleep_until(from.into()).await;
                }
                let headers = [("authorization", authorization.as_str())];
                let status = connection.post("/hook/agent", &headers, call(n).into()).await?;
                ensure!(status == StatusCode::ACCEPTED, "call {n} was answered {status}");
                times.push(from.elapsed());
            }
        });
    }
    let mut times = Vec::new();
    while let Some(done) = callers.join_next().await {
        times.extend(done.context("a caller panicked")??);
    }
    Ok(Taken { times, all: began.elapsed() })
}

fn call(n: usize) -> String {
    let message = format!("The build {n} of octo/site failed on main: 3 of 214 tests. Have a look at it.");
    json!({ "message": message, "source": "ci", "isolated": true, "allow_ping": false,
            "update_main_session": "blocked" })
    .to_string()
}
