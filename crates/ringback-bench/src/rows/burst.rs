//! Many events at once to one endpoint.

use std::time::Instant;

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::json;

use crate::ceiling::Ceiling;
use crate::ceiling::rows::Tables;
use crate::ceiling::sender::{Event, Sender};
use crate::daemon;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::Session;
use crate::sink::{self, Answer, Sink};

const CONCURRENCY: usize = 16;
const SESSIONS: usize = 20;

struct Burst;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Burst))
}

impl Row for Burst {
    fn claims(&self) -> Vec<Claim> {
        let claim =
            |name, what, floor| Claim { name, what, unit: Unit::PerSecond, better: Better::Higher, floor };
        vec![
            claim("burst", "deliveries a second of 20,000 events at once, none lost", Floor::OfCeiling(0.6)),
            claim("burst-rows", "the same beside a journal of rows", Floor::Shown),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        bench.runtime.block_on(async {
            let (home, sink) = (Home::new(), Sink::start().await?);
            let webhooks = daemon::endpoints(&sink, Answer::Takes, 1, &json!({ "concurrency": CONCURRENCY }));
            let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
            let mut sessions: Vec<Session> =
                (0..SESSIONS).map(|n| Session::begin(&home, n)).collect::<Result<_>>()?;
            daemon::wait_for(&daemon, "total_sessions", SESSIONS).await?;
            let began = Instant::now();
            for session in &mut sessions {
                session.append(events(bench) / SESSIONS)?;
            }
            let arrived = sink.wait_for(events(bench)).await?;
            let rate = rate(&arrived, began)?;
            Ok(vec![rate, rate])
        })
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        Ok(vec![
            Some(ceiling(bench, Ceiling::start()?)?),
            Some(ceiling(bench, Ceiling::of_rows(Tables::Deliveries)?)?),
        ])
    }
}

fn ceiling(bench: &Bench, ceiling: Ceiling) -> Result<f64> {
    let journal = ceiling.journal.clone();
    bench.runtime.block_on(async {
        let sink = Sink::start().await?;
        let address = sink.address;
        let each = events(bench) / SESSIONS;
        let events: Vec<Vec<Event>> = (0..SESSIONS)
            .map(|session| (1..=each).map(|sequence| Event::new(session, sequence)).collect())
            .collect();
        let count = events.iter().map(Vec::len).sum();
        let began = Instant::now();
        let sending = ceiling.runtime.spawn(async move {
            let sender = Sender::start(journal, address, 1, CONCURRENCY);
            for some in events {
                sender.send(some).await?;
            }
            anyhow::Ok(())
        });
        sending.await??;
        rate(&sink.wait_for(count).await?, began)
    })
}

fn events(bench: &Bench) -> usize {
    bench.pick(200, 20_000)
}

fn rate(arrived: &[sink::Arrival], began: Instant) -> Result<f64> {
    let all = sink::last(arrived)?.saturating_duration_since(began);
    Ok(arrived.len() as f64 / all.as_secs_f64())
}
