//! An event in hand, each 100 ms: from the call of the API that makes it to the receiver.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use axum::http::StatusCode;
use ringback_testkit::Home;
use serde_json::json;

use crate::ceiling::sender::Sender;
use crate::ceiling::{Ceiling, door};
use crate::daemon;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sink::{Answer, Sink};
use crate::statistics::percentile;
use crate::wire::Connection;

const EVERY: Duration = Duration::from_millis(100);

struct InHand;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(InHand))
}

impl Row for InHand {
    fn claims(&self) -> Vec<Claim> {
        let within = |name, what| Claim {
            name,
            what,
            unit: Unit::Millis,
            better: Better::Lower,
            floor: Floor::OfCeiling(3.0),
        };
        vec![
            within("in-hand-p50", "event in hand to receiver, one each 100 ms, p50"),
            within("in-hand-p99", "event in hand to receiver, one each 100 ms, p99"),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        bench.runtime.block_on(async {
            let (home, sink) = (Home::new(), Sink::start().await?);
            let webhooks = daemon::endpoints(&sink, Answer::Takes, 1, &json!({}));
            let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
            let bearer = format!("Bearer {}", daemon.token());
            let api = Connection::open(daemon.api()).await?;
            let call = |_| ("/api/webhooks/e0/test", String::new());
            measure(bench, api, &bearer, call, &sink).await
        })
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        let ceiling = Ceiling::start()?;
        let journal = ceiling.journal.clone();
        let both = bench.runtime.block_on(async {
            let sink = Sink::start().await?;
            let address = sink.address;
            let starting = ceiling
                .runtime
                .spawn(async move { door::events(Sender::start(journal, address, 1, 4)).await });
            let api = Connection::open(starting.await??).await?;
            measure(bench, api, "", |n| ("/event", n.to_string()), &sink).await
        });
        Ok(both?.into_iter().map(Some).collect())
    }
}

/// Makes events one by one. Both percentiles, in milliseconds.
async fn measure(
    bench: &Bench,
    mut api: Connection,
    bearer: &str,
    call: impl Fn(usize) -> (&'static str, String),
    sink: &Sink,
) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    // The first opens the connection to the receiver; it is not counted.
    for n in 0..=bench.pick(5, 150) {
        let (path, body) = call(n);
        let began = Instant::now();
        let status = api.post(path, &[("authorization", bearer)], body.into()).await?;
        ensure!(status == StatusCode::ACCEPTED, "event {n} was answered {status}");
        let arrivals = sink.wait_for(n + 1).await?;
        let at = crate::sink::last(&arrivals)?;
        if n > 0 {
            times.push(at.saturating_duration_since(began));
        }
        tokio::time::sleep_until((began + EVERY).into()).await;
    }
    Ok(vec![percentile(&mut times, 0.5), percentile(&mut times, 0.99)])
}
