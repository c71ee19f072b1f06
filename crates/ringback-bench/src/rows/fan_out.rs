//! One stream of events to 10, 100 and 1,000 endpoints: what a delivery costs.

use std::time::Duration;

use anyhow::Result;
use ringback_testkit::Home;
use serde_json::json;

use crate::ceiling::Ceiling;
use crate::ceiling::sender::{Event, Sender};
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::Session;
use crate::sink::{Answer, Sink};
use crate::{daemon, process};

struct FanOut;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(FanOut))
}

impl Row for FanOut {
    fn claims(&self) -> Vec<Claim> {
        let cost =
            |name, what| Claim { name, what, unit: Unit::Micros, better: Better::Lower, floor: Floor::Shown };
        vec![
            cost("fan-out-10", "CPU time of a delivery, 10 endpoints"),
            cost("fan-out-100", "CPU time of a delivery, 100 endpoints"),
            cost("fan-out-1000", "CPU time of a delivery, 1,000 endpoints"),
            Claim {
                name: "fan-out-flat",
                what: "CPU time of a delivery at 1,000 endpoints over that at 10",
                unit: Unit::Times,
                better: Better::Lower,
                floor: Floor::Absolute(1.5),
            },
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        let one = |endpoints: &usize| bench.runtime.block_on(ours(bench, *endpoints));
        let mut costs: Vec<f64> = endpoints(bench).iter().map(one).collect::<Result<_>>()?;
        costs.push(costs[2] / costs[0]);
        Ok(costs)
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        let one = |endpoints: &usize| ceiling(bench, *endpoints).map(Some);
        let mut costs: Vec<Option<f64>> = endpoints(bench).iter().map(one).collect::<Result<_>>()?;
        // How ours grows is ours alone.
        costs.push(None);
        Ok(costs)
    }
}

async fn ours(bench: &Bench, endpoints: usize) -> Result<f64> {
    let (home, sink) = (Home::new(), Sink::start().await?);
    let webhooks = daemon::endpoints(&sink, Answer::Takes, endpoints, &json!({}));
    let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
    let mut session = Session::begin(&home, 0)?;
    daemon::wait_for(&daemon, "total_sessions", 1).await?;
    let (events, before) = (events(bench, endpoints), process::cpu(daemon.pid())?);
    session.append(events)?;
    sink.wait_for(events * endpoints).await?;
    daemon::wait_for(&daemon, "deliveries_pending", 0).await?;
    Ok(cost(process::cpu(daemon.pid())? - before, events * endpoints))
}

fn ceiling(bench: &Bench, endpoints: usize) -> Result<f64> {
    let ceiling = Ceiling::start()?;
    let journal = ceiling.journal.clone();
    bench.runtime.block_on(async {
        let sink = Sink::start().await?;
        let (address, count) = (sink.address, events(bench, endpoints));
        let sending = ceiling.runtime.spawn(async move {
            let sender = Sender::start(journal, address, endpoints, 1);
            sender.send((1..=count).map(|n| Event::new(0, n)).collect()).await?;
            anyhow::Ok(sender)
        });
        // Kept to the end: without it the slots are gone.
        let _sender = sending.await??;
        sink.wait_for(count * endpoints).await?;
        anyhow::Ok(cost(ceiling.cpu()?, count * endpoints))
    })
}

/// Of the three costs. Few in a quick round: not every machine allows thousands of connections.
fn endpoints(bench: &Bench) -> [usize; 3] {
    bench.pick([2, 10, 50], [10, 100, 1000])
}

/// The same number of deliveries, whatever the number of endpoints.
fn events(bench: &Bench, endpoints: usize) -> usize {
    bench.pick(1000, 20_000) / endpoints
}

fn cost(cpu: Duration, deliveries: usize) -> f64 {
    cpu.as_secs_f64() * 1_000_000.0 / deliveries as f64
}
