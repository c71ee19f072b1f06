//! Deliveries that wait: what they cost in memory, and how soon a start with them delivers.

use std::time::Instant;

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::json;

use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::Session;
use crate::sink::{Answer, Sink};
use crate::{daemon, process};

const ENDPOINTS: usize = 10;
const SESSIONS: usize = 10;
/// Events of one write to one session.
const AT_ONCE: usize = 1000;

struct Pending;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Pending))
}

impl Row for Pending {
    fn claims(&self) -> Vec<Claim> {
        let claim = |name, what, unit, bound| Claim {
            name,
            what,
            unit,
            better: Better::Lower,
            floor: Floor::Absolute(bound),
        };
        vec![
            claim("pending-100k-rss", "100,000 pending deliveries: added memory", Unit::Mebibytes, 32.0),
            claim("pending-100k-start", "100,000 pending: start to first delivery", Unit::Millis, 1000.0),
            claim("pending-1m-rss", "1,000,000 pending deliveries: memory", Unit::Mebibytes, 150.0),
            claim("pending-1m-start", "1,000,000 pending: start to first delivery", Unit::Millis, 1000.0),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        let few = bench.runtime.block_on(pend(bench, bench.pick(1000, 100_000)))?;
        let many = bench.runtime.block_on(pend(bench, bench.pick(2000, 1_000_000)))?;
        Ok(vec![few.resident - few.before, few.start_ms, many.resident, many.start_ms])
    }
}

struct Pended {
    /// Without any, in MiB.
    before: f64,
    /// With all, in MiB: after they were made, or after the start with them, whichever is more.
    resident: f64,
    start_ms: f64,
}

async fn pend(bench: &Bench, deliveries: usize) -> Result<Pended> {
    let (home, sink) = (Home::new(), Sink::start().await?);
    let webhooks = daemon::endpoints(&sink, Answer::Defers, ENDPOINTS, &json!({}));
    let daemon = daemon::start(bench, &home, webhooks.clone(), json!({})).await;
    let mut sessions: Vec<Session> =
        (0..SESSIONS).map(|n| Session::begin(&home, n)).collect::<Result<_>>()?;
    daemon::wait_for(&daemon, "total_sessions", SESSIONS).await?;
    let before = process::resident(daemon.pid())?;

    let mut made = 0;
    while made < deliveries {
        for session in &mut sessions {
            let events = AT_ONCE.min((deliveries - made) / ENDPOINTS);
            session.append(events)?;
            made += events * ENDPOINTS;
        }
        // No faster than they are journaled, as an agent is.
        daemon::wait_for(&daemon, "deliveries_pending", made).await?;
    }
    let with_all = process::resident(daemon.pid())?;
    daemon.terminate().await;

    // Another receiver: what arrives there comes of the second start.
    let sink = Sink::start().await?;
    let webhooks = daemon::endpoints(&sink, Answer::Defers, ENDPOINTS, &json!({}));
    let began = Instant::now();
    let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
    let arrived = sink.wait_for(1).await?;
    let first = arrived.iter().map(|a| a.at).min().unwrap_or(began);
    daemon::wait_for(&daemon, "deliveries_pending", deliveries).await?;
    let resident = with_all.max(process::resident(daemon.pid())?);
    let start_ms = first.saturating_duration_since(began).as_secs_f64() * 1000.0;
    Ok(Pended { before, resident, start_ms })
}
