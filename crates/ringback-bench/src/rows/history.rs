//! A first look at 2 GB of session files, and a second start on the same files.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock;
use anyhow::{Context, Result, ensure};
use ringback_testkit::{Daemon, Home};
use serde_json::{Value, json};

use crate::ceiling;
use crate::row::{Bench, Better, Claim, Floor, Row, Unit};
use crate::{daemon, process, sessions};

/// Of the sessions so many are at work.
const ACTIVE: usize = 20;
/// Of one tool's result.
const RESULT_BYTES: usize = 6 * 1024;
const PATIENCE: Duration = Duration::from_secs(600);

/// The files, made once: they are the same in every round.
struct History {
    home: Home,
    paths: Vec<PathBuf>,
    /// Prompts and answers in all files.
    messages: usize,
}

pub(super) fn make(bench: &Bench) -> Result<Box<dyn Row>> {
    let (files, bytes) = bench.pick((24, 5 * 1024 * 1024 / 4), (400, 5 * 1024 * 1024));
    let home = Home::new();
    let dir = home.path().join(".claude/projects/-project");
    fs::create_dir_all(&dir)?;
    let mut history = History { home, paths: Vec::new(), messages: 0 };
    for n in 0..files {
        let path = dir.join(format!("{}.jsonl", sessions::id(n)));
        history.messages += write(&history, &path, n, bytes).with_context(|| path.display().to_string())?;
        history.paths.push(path);
    }
    Ok(Box::new(history))
}

impl Row for History {
    fn claims(&self) -> Vec<Claim> {
        let claim = |name, what, unit, floor| Claim { name, what, unit, better: Better::Lower, floor };
        vec![
            claim("scan-totals", "2 GB in 400 files: sums right", Unit::Millis, Floor::OfCeiling(1.5)),
            claim(
                "scan-active",
                "2 GB in 400 files: active sessions right",
                Unit::Millis,
                Floor::OfCeiling(0.5),
            ),
            // 66 million bytes.
            claim("scan-rss", "2 GB in 400 files: most memory", Unit::Mebibytes, Floor::Absolute(62.9)),
            claim("restart", "second start, sums and activities right", Unit::Millis, Floor::Absolute(50.0)),
        ]
    }

    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>> {
        let state = self.home.state_dir();
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        bench.runtime.block_on(async {
            let first = self.start(bench).await?;
            let rss = process::peak_resident(first.daemon.pid())?;
            first.daemon.terminate().await;
            let second = self.start(bench).await?;
            second.daemon.terminate().await;
            Ok(vec![first.sums_ms, first.active_ms, rss, second.sums_ms.max(second.active_ms)])
        })
    }

    fn ceiling(&mut self, _: &Bench) -> Result<Vec<Option<f64>>> {
        let began = Instant::now();
        let messages = ceiling::history::messages(&self.paths)?;
        let parsed = millis(began);
        ensure!(messages == self.messages, "{messages} of {} messages were counted", self.messages);
        let began = Instant::now();
        let mut bytes = 0;
        for path in &self.paths {
            bytes += fs::metadata(path)?.len();
        }
        let looked_at = millis(began);
        ensure!(bytes > 0, "the files are empty");
        Ok(vec![Some(parsed), Some(parsed), None, Some(looked_at)])
    }
}

/// A start, and when it showed what is true.
struct Started {
    daemon: Daemon,
    active_ms: f64,
    sums_ms: f64,
}

impl History {
    async fn start(&self, bench: &Bench) -> Result<Started> {
        // However long the rounds take, what is old when they end was young when they began.
        let more = json!({
            "window_minutes": 24 * 60,
            "activity": { "open_tool_timeout": "24h", "open_turn_timeout": "24h" },
        });
        let began = Instant::now();
        let daemon = daemon::start(bench, &self.home, Vec::new(), more).await;
        loop {
            let stats = daemon.api_get("/api/stats").await.json();
            if stats["active_sessions"] == ACTIVE && stats["total_sessions"] == self.paths.len() {
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "the active sessions are not right: {stats}");
            // Each look costs the program time that it could use for the files.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let active_ms = millis(began);
        loop {
            let listed = daemon.api_get("/api/sessions").await.json();
            let messages: u64 =
                listed.as_array().into_iter().flatten().filter_map(|s| s["total_messages"].as_u64()).sum();
            if messages == self.messages as u64 {
                return Ok(Started { daemon, active_ms, sums_ms: millis(began) });
            }
            ensure!(began.elapsed() < PATIENCE, "{messages} of {} messages", self.messages);
            // Longer than above: this look is the more costly one, and what is waited for takes seconds.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Turns of a prompt, calls with their results, and an answer. Returns the messages.
fn write(history: &History, path: &std::path::Path, n: usize, bytes: usize) -> Result<usize> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    let (cwd, id) = (history.home.project().display().to_string(), sessions::id(n));
    let result = "fn main() {\n    println!(\"a line of a file, \\\"quoted\\\"\");\n}\n";
    let result = result.repeat(RESULT_BYTES / result.len());
    let (mut written, mut messages) = (0, 0);
    let ended_at = clock::now().minus(Duration::from_secs(600));
    let mut put = |mut record: Value, at| -> Result<usize> {
        record["timestamp"] = json!(at);
        record["sessionId"] = json!(id);
        record["cwd"] = json!(cwd);
        record["version"] = json!("2.1.0");
        let line = format!("{record}\n");
        file.write_all(line.as_bytes())?;
        Ok(line.len())
    };
    let assistant = |id: usize, content: Value, stop: &str| {
        let usage = json!({ "input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 20_000 });
        let message = json!({ "id": format!("msg_{n}_{id}"), "role": "assistant", "stop_reason": stop,
                              "model": "claude-sonnet-5-5", "content": content, "usage": usage });
        json!({ "type": "assistant", "requestId": format!("req_{id}"), "message": message })
    };
    let prompt = json!({ "type": "user", "promptSource": "typed",
                         "message": { "role": "user", "content": "have a look at the next file" } });
    while written < bytes {
        written += put(prompt.clone(), ended_at)?;
        for _ in 0..10 {
            let call = json!([{ "type": "tool_use", "id": format!("t{messages}"), "name": "Read",
                                "input": { "file_path": "/tmp/project/src/main.rs" } }]);
            written += put(assistant(messages, call, "tool_use"), ended_at)?;
            let content =
                json!([{ "type": "tool_result", "tool_use_id": format!("t{messages}"), "content": result }]);
            let message = json!({ "role": "user", "content": content });
            written += put(json!({ "type": "user", "message": message }), ended_at)?;
            messages += 1;
        }
        let text = json!([{ "type": "text", "text": "It says hello." }]);
        written += put(assistant(messages, text, "end_turn"), ended_at)?;
        // The prompt and the last answer.
        messages += 2;
    }
    if n < ACTIVE {
        let call = json!([{ "type": "tool_use", "id": "open", "name": "Bash", "input": {} }]);
        put(prompt, clock::now())?;
        put(assistant(messages, call, "tool_use"), clock::now())?;
        messages += 2;
    }
    file.flush()?;
    Ok(messages)
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
