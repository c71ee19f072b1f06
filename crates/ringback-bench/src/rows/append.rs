//! From a record in a session file to the receiver, 100 events a second.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use notify::{EventKind, RecursiveMode, Watcher};
use ringback_testkit::Home;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::ceiling::Ceiling;
use crate::ceiling::sender::{Event, Sender};
use crate::daemon;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::{Session, append_at_a_pace};
use crate::sink::{Answer, Arrival, Sink};
use crate::statistics::percentile;

const PAUSE: Duration = Duration::from_millis(10);

struct Append;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Append))
}

impl Row for Append {
    fn claims(&self) -> Vec<Claim> {
        let within = |name, what, bound| Claim {
            name,
            what,
            unit: Unit::Millis,
            better: Better::Lower,
            floor: Floor::Absolute(bound),
        };
        vec![
            within("append-p50", "session file to receiver, 100 events/s, p50", 5.0),
            within("append-p99", "session file to receiver, 100 events/s, p99", 30.0),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        bench.runtime.block_on(async {
            let (home, sink) = (Home::new(), Sink::start().await?);
            let webhooks = daemon::endpoints(&sink, Answer::Takes, 1, &json!({}));
            let daemon = daemon::start(bench, &home, webhooks, json!({})).await;
            let mut sessions = vec![Session::begin(&home, 0)?];
            daemon::wait_for(&daemon, "total_sessions", 1).await?;
            let events = events(bench);
            let writing = move || append_at_a_pace(&mut sessions, events, PAUSE);
            let written = tokio::task::spawn_blocking(writing).await??;
            Ok(percentiles(&sink.wait_for(events).await?, &written))
        })
    }

    fn ceiling(&mut self, bench: &Bench) -> Result<Vec<Option<f64>>> {
        let ceiling = Ceiling::start()?;
        let journal = ceiling.journal.clone();
        let path = ceiling.path().join("session.jsonl");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let both = bench.runtime.block_on(async {
            let sink = Sink::start().await?;
            let (address, events) = (sink.address, events(bench));
            let sender = ceiling.runtime.spawn(async move { Sender::start(journal, address, 1, 4) }).await?;
            let (_watcher, mut lines) = follow(&path)?;
            ceiling.runtime.spawn(async move {
                while let Some(line) = lines.recv().await {
                    let record: Value = serde_json::from_slice(&line)?;
                    let n = record["n"].as_u64().and_then(|n| usize::try_from(n).ok());
                    sender.send(vec![Event::new(0, n.context("a record without a number")?)]).await?;
                }
                anyhow::Ok(())
            });
            let writing = move || {
                let (began, mut written) = (Instant::now(), Vec::new());
                for n in 0..events {
                    let due = began + PAUSE * u32::try_from(n)?;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    written.push(Instant::now());
                    file.write_all(format!("{}\n", json!({ "n": n + 1, "type": "assistant" })).as_bytes())?;
                }
                anyhow::Ok(written)
            };
            let written = tokio::task::spawn_blocking(writing).await??;
            anyhow::Ok(percentiles(&sink.wait_for(events).await?, &[written]))
        });
        Ok(both?.into_iter().map(Some).collect())
    }
}

/// The ceiling's way: told by the system, it reads on and hands over whole lines.
fn follow(path: &Path) -> Result<(impl Watcher + use<>, mpsc::UnboundedReceiver<Vec<u8>>)> {
    let (out, lines) = mpsc::unbounded_channel();
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            return;
        }
        while file.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) && line.ends_with(b"\n") {
            let _ = out.send(std::mem::take(&mut line));
        }
    })?;
    watcher.watch(path.parent().context("a file is in a directory")?, RecursiveMode::NonRecursive)?;
    Ok((watcher, lines))
}

fn events(bench: &Bench) -> usize {
    bench.pick(20, 1000)
}

/// Median and 99th percentile from the record to the receiver, in milliseconds.
pub(super) fn percentiles(arrived: &[Arrival], written: &[Vec<Instant>]) -> Vec<f64> {
    let took = |a: &Arrival| {
        let at = written.get(a.session)?.get(a.sequence.checked_sub(1)?)?;
        Some(a.at.saturating_duration_since(*at))
    };
    let mut times: Vec<Duration> = arrived.iter().filter_map(took).collect();
    vec![percentile(&mut times, 0.5), percentile(&mut times, 0.99)]
}
