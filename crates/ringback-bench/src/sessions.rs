//! Sessions of an agent, as it writes them: the way in for events.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock;
use anyhow::{Context, Result};
use ringback_model::Timestamp;
use ringback_testkit::Home;
use serde_json::{Value, json};

/// Files in a directory.
const IN_A_DIRECTORY: usize = 500;

/// One session. After its first record each further one changes its activity, and so makes one event.
pub(crate) struct Session {
    file: File,
    id: String,
    cwd: String,
    /// Records after the first.
    written: usize,
}

impl Session {
    /// Number `n` of a home, with its first record: the session is known then, and that is no event.
    pub(crate) fn begin(home: &Home, n: usize) -> Result<Session> {
        let session = Session::create(home, n)?;
        session.prompt(clock::now())
    }

    /// The same, but its turn ended ten minutes ago: nothing happens in it any more.
    pub(crate) fn resting(home: &Home, n: usize) -> Result<()> {
        let session = Session::create(home, n)?;
        let ended_at = clock::now().minus(Duration::from_secs(600));
        let mut session = session.prompt(ended_at)?;
        let content = json!([{ "type": "text", "text": "done" }]);
        let end = session.line(assistant("end", content, "end_turn"), ended_at);
        session.file.write_all(end.as_bytes()).context("cannot write a session")
    }

    fn create(home: &Home, n: usize) -> Result<Session> {
        let id = id(n);
        let path = directory(home, n).join(format!("{id}.jsonl"));
        fs::create_dir_all(directory(home, n))?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Session { file, id, cwd: home.project().display().to_string(), written: 0 })
    }

    fn prompt(mut self, at: Timestamp) -> Result<Session> {
        let message = json!({ "role": "user", "content": "go" });
        let line = self.line(json!({ "type": "user", "promptSource": "typed", "message": message }), at);
        self.file.write_all(line.as_bytes())?;
        Ok(self)
    }

    /// Appends so many events in one write.
    pub(crate) fn append(&mut self, events: usize) -> Result<()> {
        let now = clock::now();
        let mut text = String::new();
        for _ in 0..events {
            text.push_str(&self.line(record(self.written), now));
            self.written += 1;
        }
        self.file.write_all(text.as_bytes()).context("cannot append to a session")
    }

    fn line(&self, mut record: Value, at: Timestamp) -> String {
        record["timestamp"] = json!(at);
        record["sessionId"] = json!(self.id);
        record["cwd"] = json!(self.cwd);
        format!("{record}\n")
    }
}

/// Appends single events at a steady pace, to the sessions in turns, and tells when each was written: by session, and
/// then by the event's number from 1.
pub(crate) fn append_at_a_pace(
    sessions: &mut [Session],
    events: usize,
    pause: Duration,
) -> Result<Vec<Vec<Instant>>> {
    let began = Instant::now();
    let mut written = vec![Vec::new(); sessions.len()];
    for n in 0..events {
        let due = began + pause * u32::try_from(n).unwrap_or(u32::MAX);
        // The load's pace: records come when they are due, however long the ones before took.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let turn = n % sessions.len();
        written[turn].push(Instant::now());
        sessions[turn].append(1)?;
    }
    Ok(written)
}

/// A session's id; its number is at the end.
pub(crate) fn id(n: usize) -> String {
    format!("s-bench-{n}")
}

fn directory(home: &Home, n: usize) -> PathBuf {
    home.path().join(format!(".claude/projects/-project-{}", n / IN_A_DIRECTORY))
}

/// A call, and the result of the call before, in turns.
fn record(n: usize) -> Value {
    let call = format!("t{}", n / 2);
    if n % 2 == 1 {
        let content = json!([{ "type": "tool_result", "tool_use_id": call, "content": "ok" }]);
        return json!({ "type": "user", "message": { "role": "user", "content": content } });
    }
    let content = json!([{ "type": "tool_use", "id": call, "name": "Bash", "input": {} }]);
    assistant(&n.to_string(), content, "tool_use")
}

fn assistant(id: &str, content: Value, stop: &str) -> Value {
    let message = json!({
        "id": format!("msg_{id}"), "role": "assistant", "model": "claude-sonnet-5-5",
        "content": content, "stop_reason": stop, "usage": { "input_tokens": 10, "output_tokens": 5 },
    });
    json!({ "type": "assistant", "message": message })
}
