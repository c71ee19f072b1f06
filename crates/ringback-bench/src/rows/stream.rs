//! 200 clients of the event stream, ten events a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringback_testkit::Home;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::sessions::{Session, append_at_a_pace};
use crate::{daemon, process};

const SESSIONS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

struct Stream;

pub(super) fn make(_: &Bench) -> Result<Box<dyn Row>> {
    Ok(Box::new(Stream))
}

/// What all clients together have read.
#[derive(Default)]
struct Read {
    /// Snapshots of the sessions.
    updates: AtomicUsize,
    /// Changes of activity.
    transitions: AtomicUsize,
}

impl Row for Stream {
    fn claims(&self) -> Vec<Claim> {
        vec![Claim {
            name: "stream-cpu",
            what: "200 clients of the event stream, 10 events/s: share of a core",
            unit: Unit::Percent,
            better: Better::Lower,
            floor: Floor::Absolute(5.0),
        }]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        bench.runtime.block_on(async {
            let home = Home::new();
            let daemon = daemon::start(bench, &home, Vec::new(), json!({})).await;
            let mut sessions: Vec<Session> =
                (0..SESSIONS).map(|n| Session::begin(&home, n)).collect::<Result<_>>()?;
            daemon::wait_for(&daemon, "total_sessions", SESSIONS).await?;
            let (clients, events) = (bench.pick(10, 200), bench.pick(5, 200));
            let read = Arc::new(Read::default());
            for _ in 0..clients {
                let mut stream = TcpStream::connect(daemon.api()).await?;
                let request = format!(
                    "GET /api/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
                    daemon.api(),
                    daemon.token()
                );
                stream.write_all(request.as_bytes()).await?;
                tokio::spawn(follow(stream, Arc::clone(&read)));
            }
            wait_for(&read.updates, clients).await.context("not every client got its snapshot")?;
            let (before, began) = (process::cpu(daemon.pid())?, Instant::now());
            let writing = move || append_at_a_pace(&mut sessions, events, PAUSE);
            tokio::task::spawn_blocking(writing).await??;
            wait_for(&read.transitions, clients * events)
                .await
                .context("not every client got every event")?;
            let cpu = process::cpu(daemon.pid())? - before;
            Ok(vec![cpu.as_secs_f64() * 100.0 / began.elapsed().as_secs_f64()])
        })
    }
}

async fn follow(stream: TcpStream, read: Arc<Read>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let count = match line.as_str() {
            "event: update" => &read.updates,
            "event: transition" => &read.transitions,
            _ => continue,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn wait_for(count: &AtomicUsize, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while count.load(Ordering::Relaxed) < wanted {
        ensure!(Instant::now() < give_up, "{} of {wanted} arrived", count.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
