//! `ringback demo`: both loops with nothing installed.
//!
//! A recorded session of a real agent is written again, line by line at three times its speed, into a temporary
//! directory. A real daemon observes it and delivers to a receiver in this process, which checks every signature.
//! Then a webhook comes in, and a scripted agent runs in the background and pings the user.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use ringback_daemon::client::Client;
use ringback_daemon::env::Env;
use ringback_daemon::supervise::Daemon;
use ringback_daemon::{clock, config, state_dir};
use ringback_model::Secret;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::listen::{signature, summary};
use crate::exit_code::Error;
use crate::output;
use crate::receiver::{self, Manner, Received};

const RECORDING: &str = include_str!("../../../../fixtures/claude/multi/recording.jsonl");
const SPEED: u64 = 3;
/// How long the last webhook may take after the last line was written.
const PATIENCE: Duration = Duration::from_secs(20);

/// Show the whole loop with nothing installed: a session becomes signed webhooks, and a webhook starts an agent
///
/// Needs no configuration, touches no file of yours, and ends by itself.
///
/// Examples: ringback demo; ringback demo --keep
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// Stay after the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<(), Error> {
        // Before there is anything that a signal could leave behind.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let ended_by_hand = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let home = tempfile::tempdir()?;
        let secret = state_dir::random_token()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let hook_secret = state_dir::random_token()?;
        let (daemon, hooks) =
            daemon(home.path(), &format!("http://{address}/"), &secret, &hook_secret).await?;

        output::line("ringback demo: a recorded Claude Code session, played again three times as fast")?;
        output::line(&format!("receiver   http://{address}/ verifies every signature"))?;
        for line in &daemon.lines {
            output::line(line)?;
        }
        output::line("")?;

        let (out, mut received) = mpsc::channel(64);
        let manner = Manner { status: StatusCode::OK, delay: Duration::ZERO, hang: false, fault: None };
        let secrets = [Secret::new(secret)];
        let server = tokio::spawn(async move { receiver::serve(listener, &secrets, manner, out).await });
        tokio::pin!(ended_by_hand);
        let is_as_recorded = tokio::select! {
            shown = show(&daemon, home.path(), &mut received, &hooks, &hook_secret) => Some(shown),
            () = &mut ended_by_hand => None,
        };
        if self.keep && matches!(is_as_recorded, Some(Ok(_))) {
            output::line("still running; Ctrl-C ends")?;
            ended_by_hand.await;
        }
        daemon.run(std::future::ready(())).await;
        server.abort();
        match is_as_recorded.transpose()? {
            Some(true) => Ok(output::line("next: `ringback init`, then `ringback up`")?),
            Some(false) => Err(Error::failed("the demo did not end as recorded")
                .mend("run it again with RINGBACK_LOG=debug")),
            None => Err(Error::failed("the demo was ended before its end").mend("run it again")),
        }
    }
}

/// Plays everything; says whether it went as recorded.
async fn show(
    daemon: &Daemon,
    home: &Path,
    received: &mut mpsc::Receiver<Received>,
    hooks: &str,
    hook_secret: &str,
) -> Result<bool, Error> {
    let mut scanned = daemon.first_scan();
    let _ = scanned.wait_for(|done| *done).await;

    let mut tally = Tally::default();
    let player = play(home);
    tokio::pin!(player);
    loop {
        tokio::select! {
            played = &mut player => break played?,
            Some(request) = received.recv() => tally.take(&request)?,
        }
    }
    let until = Instant::now() + PATIENCE;
    while !tally.is_over {
        match tokio::time::timeout_at(until, received.recv()).await {
            Ok(Some(request)) => tally.take(&request)?,
            _ => break,
        }
    }
    output::line("")?;
    output::line(&format!("{} webhooks delivered, {} verified", tally.all, tally.verified))?;
    output::line("")?;
    let is_run_over = background_run(home, hooks, hook_secret).await?;
    Ok(tally.is_over && is_run_over && tally.verified == tally.all)
}

/// What was received so far.
#[derive(Default)]
struct Tally {
    all: usize,
    verified: usize,
    /// The recording's last change has arrived.
    is_over: bool,
}

impl Tally {
    fn take(&mut self, request: &Received) -> Result<(), Error> {
        let event: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let attempt = request.headers.get("x-ringback-attempt").and_then(|a| a.to_str().ok()).unwrap_or("-");
        output::line(&summary(&event, &signature(request), attempt))?;
        self.all += 1;
        self.verified += usize::from(request.verdict.as_ref().is_some_and(|v| v.is_authentic()));
        self.is_over = event["to"] == "waiting";
        Ok(())
    }
}

/// Posts to the hook listener as a build server would, and waits for the end of the run that it starts.
async fn background_run(home: &Path, hooks: &str, secret: &str) -> Result<bool, Error> {
    let failed =
        |e: reqwest::Error| Error::failed(format!("the hook listener does not answer: {}", e.without_url()));
    let call = serde_json::json!({ "message": "CI build failed for site#42", "source": "ci" });
    output::line(&format!("POST {hooks}  {call}"))?;
    #[expect(clippy::disallowed_methods, reason = "speaks to the demo's own listener only")]
    let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
    let request = client.post(hooks).bearer_auth(secret).body(call.to_string());
    let answer = request.send().await.map_err(failed)?;
    let run =
        answer.headers().get("x-ringback-run").and_then(|id| id.to_str().ok()).unwrap_or("-").to_owned();
    output::line(&format!("{}  run {run}", answer.status()))?;
    let client = Client::connect(&home.join("state"))?;
    let until = Instant::now() + PATIENCE;
    loop {
        let state = client.get(&format!("/api/runs/{run}"), &[]).await?;
        if !matches!(state["state"].as_str(), Some("queued" | "working")) {
            let (state, pinged) = (output::cell(&state["state"]), state["pinged"] == true);
            // The ping is on its way to the console, like every message to the user.
            while client.get("/api/stats", &[]).await?["deliveries_pending"] != 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            output::line(&format!("run {state}{}", if pinged { ", and it pinged you" } else { "" }))?;
            return Ok(state == "completed" && pinged);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A daemon with a home and a configuration of its own, and the address of its hooks.
async fn daemon(home: &Path, url: &str, secret: &str, hook_secret: &str) -> Result<(Daemon, String), Error> {
    let claude = home.join(".claude");
    std::fs::create_dir_all(claude.join("projects"))?;
    let path = home.join("demo.json");
    // Given back at once; nobody else was told of it.
    let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let agent = std::env::current_exe()?;
    let settings = serde_json::json!({
        "claude_dirs": [claude],
        "server": { "listen": "127.0.0.1:0" },
        "inbound": { "port": port },
        "runs": { "agent": "demo", "agents": { "demo": { "adapter": "command", "command": [agent, "demo-agent"] } } },
        "workspaces": { "default": { "path": home } },
        "webhooks": [{ "name": "demo", "url": url, "secret": secret, "concurrency": 1 }],
    });
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?
        .write_all(settings.to_string().as_bytes())?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let pairs = [("HOME", home.to_string_lossy().into_owned()), ("WEBHOOK_SECRET", hook_secret.to_owned())];
    let env = Env::of(pairs.map(|(name, value)| (name.to_owned(), value)));
    let config = config::load(Some(&path), &env)?;
    let daemon = Daemon::start(config, None, &env, &home.join("state")).await?;
    Ok((daemon, format!("http://127.0.0.1:{port}/hook/agent")))
}

/// Writes the recording's transcript as its agent did, with the times of now.
async fn play(home: &Path) -> Result<(), Error> {
    let broken = || Error::failed("the built-in recording does not parse");
    let began = Instant::now();
    for line in RECORDING.lines().filter(|l| !l.trim().is_empty()) {
        let operation: Value = serde_json::from_str(line).map_err(|_| broken())?;
        let file = operation["file"].as_str().ok_or_else(broken)?;
        // The registry names a process that does not live here.
        if operation["op"] != "append" || !file.starts_with(".claude/projects/") {
            continue;
        }
        let at = Duration::from_millis(operation["t_ms"].as_u64().ok_or_else(broken)? / SPEED);
        tokio::time::sleep_until(began + at).await;
        let path = home.join(file);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = with_times_of_now(operation["text"].as_str().ok_or_else(broken)?);
        std::fs::OpenOptions::new().append(true).create(true).open(&path)?.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn with_times_of_now(text: &str) -> String {
    let now = clock::now().to_string();
    let mut out = String::with_capacity(text.len());
    // A write may end in the middle of a line; such a half goes out as it is.
    for line in text.split_inclusive('\n') {
        match serde_json::from_str::<Value>(line) {
            Ok(mut record) if record.get("timestamp").is_some() => {
                record["timestamp"] = Value::String(now.clone());
                out.push_str(&record.to_string());
                out.push('\n');
            }
            _ => out.push_str(line),
        }
    }
    out
}
