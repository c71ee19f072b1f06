//! What dead endpoints cost the healthy ones beside them.
//!
//! The same load twice, in turns: with every endpoint healthy, and with some of them dead. A healthy endpoint must
//! miss nothing, and its 99th percentile must stay within the bound of the same load all healthy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::routing::post;
use ringback_daemon::clock;
use ringback_testkit::Home;
use serde_json::{Value, json};
use tokio::net::TcpListener;

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
    endpoints: usize,
    /// How the first endpoints are dead; the others are healthy.
    dead: Vec<Dead>,
    /// Events a second.
    pace: u32,
    /// What is allowed over the same load all healthy.
    slack: Duration,
}

/// How long after its record was written an event reached a healthy endpoint.
#[derive(Clone, Copy)]
struct Percentiles {
    p50: Duration,
    p99: Duration,
}

/// Runs every comparison. Fails when a healthy endpoint is slower than the bound.
pub(crate) fn run(binary: &Path, rounds: usize, deliveries: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ninety = [Dead::Refused, Dead::Hanging, Dead::Broken].repeat(30);
    let cases = [
        Case::pair("1 of 2 refused", Dead::Refused),
        Case::pair("1 of 2 hanging", Dead::Hanging),
        Case::pair("1 of 2 answering 500", Dead::Broken),
        Case {
            name: "90 of 100 dead",
            endpoints: 100,
            dead: ninety,
            pace: 10,
            slack: Duration::from_millis(20),
        },
    ];
    println!(
        "Time from the written record to a healthy endpoint: median / 99th percentile, each the median of"
    );
    println!("{rounds} rounds of {deliveries} measured deliveries. The two loads take turns.");
    println!(
        "{:<22} {:>17} {:>17} {:>8} {:>8}  within",
        "", "all healthy", "with the dead", "ratio", "bound"
    );
    let mut missed = Vec::new();
    for case in cases {
        let (mut healthy, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            healthy.push(runtime.block_on(case.measure(binary, case.events(deliveries), &[]))?);
            beside.push(runtime.block_on(case.measure(binary, case.events(deliveries), &case.dead))?);
        }
        let (before, after) = (median(&healthy), median(&beside));
        let bound = before.p99.mul_f64(1.2).max(before.p99 + case.slack);
        let is_within = after.p99 <= bound;
        println!(
            "{:<22} {:>17} {:>17} {:>7.2}x {:>8}  {}",
            case.name,
            shown(before),
            shown(after),
            after.p99.as_secs_f64() / before.p99.as_secs_f64(),
            millis(bound),
            if is_within { "yes" } else { "NO" },
        );
        println!("  p99 of each round: {}; {}", each(&healthy), each(&beside));
        if !is_within {
            missed.push(case.name);
        }
    }
    ensure!(missed.is_empty(), "beyond the bound: {}", missed.join(", "));
    Ok(())
}

impl Case {
    /// Two endpoints, one of which dies.
    fn pair(name: &'static str, dead: Dead) -> Case {
        Case { name, endpoints: 2, dead: vec![dead], pace: 250, slack: Duration::from_millis(5) }
    }

    /// Events of one round, so that so many deliveries are measured.
    fn events(&self, deliveries: usize) -> usize {
        deliveries.div_ceil(self.endpoints - self.dead.len())
    }

    /// One round: the same load, with these endpoints dead. Measures at those that are healthy in both kinds of round.
    async fn measure(&self, binary: &Path, events: usize, dead: &[Dead]) -> Result<Percentiles> {
        let receivers = Receivers::start().await?;
        let url = |n: usize| match dead.get(n) {
            Some(Dead::Refused) => receivers.refused.clone(),
            Some(Dead::Hanging) => format!("{}/hang/{n}", receivers.url),
            Some(Dead::Broken) => format!("{}/broken/{n}", receivers.url),
            None => format!("{}/sink/{n}", receivers.url),
        };
        let webhooks: Vec<Value> =
            (0..self.endpoints).map(|n| json!({ "name": format!("e{n}"), "url": url(n) })).collect();
        let home = Home::new();
        home.write_config(
            &json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks }).to_string(),
        );
        let daemon = home.up(binary).await;

        let writer = tokio::task::spawn_blocking({
            let transcript = Transcript::new(&home)?;
            let pause = Duration::from_secs(1) / self.pace;
            move || transcript.write(events, pause)
        });
        let written = writer.await.context("the writer ended early")??;

        let measured = self.dead.len()..self.endpoints;
        let give_up = Instant::now() + Duration::from_secs(120);
        while receivers.count(measured.clone()) < events * measured.len() {
            if Instant::now() > give_up {
                bail!(
                    "{}: {} of {} deliveries arrived at healthy endpoints",
                    self.name,
                    receivers.count(measured.clone()),
                    events * measured.len()
                );
            }
            // Looked at now and then, so that the looking takes no time from what is measured.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        daemon.terminate().await;
        let arrived = receivers.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<Duration> = measured
            .flat_map(|n| arrived.get(&n).into_iter().flatten())
            .filter_map(|(sequence, at)| Some(at.saturating_duration_since(*written.get(sequence - 1)?)))
            .collect();
        took.sort_unstable();
        let rank = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len() - 1)).copied();
        ensure!(!took.is_empty(), "{}: nothing was measured", self.name);
        Ok(Percentiles { p50: rank(0.5).unwrap_or_default(), p99: rank(0.99).unwrap_or_default() })
    }
}

type Arrived = Arc<Mutex<BTreeMap<usize, BTreeMap<usize, Instant>>>>;

/// Where events go. What arrived is kept as numbers alone.
struct Receivers {
    url: String,
    /// An address where nobody listens.
    refused: String,
    /// Per endpoint: the event's number within the session, and when it came first.
    arrived: Arrived,
}

impl Receivers {
    async fn start() -> Result<Receivers> {
        let arrived = Arrived::default();
        let sink = |Segment(n): Segment<usize>, State(arrived): State<Arrived>, body: Bytes| async move {
            let at = Instant::now();
            let sequence = serde_json::from_slice::<Value>(&body).ok().and_then(|e| e["sequence"].as_u64());
            let Some(sequence) = sequence.and_then(|s| usize::try_from(s).ok()) else {
                return StatusCode::BAD_REQUEST;
            };
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.entry(n).or_default().entry(sequence).or_insert(at);
            StatusCode::NO_CONTENT
        };
        let app = Router::new()
            .route("/sink/{n}", post(sink))
            .route("/broken/{n}", post(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
            .route("/hang/{n}", post(std::future::pending::<StatusCode>))
            .with_state(Arc::clone(&arrived));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        // Bound and let go of: the port is free and nobody answers.
        let refused = format!("http://{}/", TcpListener::bind("127.0.0.1:0").await?.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Receivers { url, refused, arrived })
    }

    fn count(&self, endpoints: std::ops::Range<usize>) -> usize {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.filter_map(|n| arrived.get(&n)).map(BTreeMap::len).sum()
    }
}

/// A session whose every record changes its activity.
struct Transcript {
    path: PathBuf,
    cwd: String,
}

impl Transcript {
    fn new(home: &Home) -> Result<Transcript> {
        let directory = home.path().join(".claude/projects/-project");
        std::fs::create_dir_all(&directory)?;
        Ok(Transcript { path: directory.join("s-bench.jsonl"), cwd: home.project().display().to_string() })
    }

    /// Writes at a steady pace. Returns when each record was written; the first of them makes event number 1.
    fn write(&self, events: usize, pause: Duration) -> Result<Vec<Instant>> {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        let text = json!({ "role": "user", "content": "go" });
        file.write_all(
            self.line(json!({ "type": "user", "promptSource": "typed", "message": text })).as_bytes(),
        )?;
        // The first record makes the session known; it is no event. A daemon that needs longer for it misses an event,
        // and the round fails.
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let mut written = Vec::with_capacity(events);
        for n in 0..events {
            let due = began + pause * u32::try_from(n).unwrap_or(u32::MAX);
            // The load's pace: records come when they are due, however long the ones before took.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let line = self.line(record(n));
            written.push(Instant::now());
            file.write_all(line.as_bytes())?;
        }
        Ok(written)
    }

    fn line(&self, mut record: Value) -> String {
        record["timestamp"] = json!(clock::now());
        record["sessionId"] = json!("s-bench");
        record["cwd"] = json!(self.cwd);
        format!("{record}\n")
    }
}

/// A call, and the result of the call before, in turns.
fn record(n: usize) -> Value {
    let call = format!("t{}", n / 2);
    if n % 2 == 1 {
        let content = json!([{ "type": "tool_result", "tool_use_id": call, "content": "ok" }]);
        return json!({ "type": "user", "message": { "role": "user", "content": content } });
    }
    let content = json!([{ "type": "tool_use", "id": call, "name": "Bash", "input": {} }]);
    let message = json!({
        "id": format!("msg_{n}"), "role": "assistant", "model": "claude-sonnet-5-5",
        "content": content, "stop_reason": "tool_use", "usage": { "input_tokens": 10, "output_tokens": 5 },
    });
    json!({ "type": "assistant", "message": message })
}

/// Of each percentile the median of the rounds.
fn median(rounds: &[Percentiles]) -> Percentiles {
    let middle = |get: fn(&Percentiles) -> Duration| {
        let mut values: Vec<Duration> = rounds.iter().map(get).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Percentiles { p50: middle(|p| p.p50), p99: middle(|p| p.p99) }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn shown(p: Percentiles) -> String {
    format!("{:.1} / {}", p.p50.as_secs_f64() * 1000.0, millis(p.p99))
}

fn each(rounds: &[Percentiles]) -> String {
    rounds.iter().map(|p| format!("{:.1}", p.p99.as_secs_f64() * 1000.0)).collect::<Vec<_>>().join(" ")
}
