//! A home directory, an observer on it, and a clock that the test moves.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ringback_model::{Activity, Timestamp};
use ringback_observe::replay::config_for_home;
use ringback_observe::tail::CHUNK;
use ringback_observe::{Observer, ProcessTable, Seen, Sighted};
use tempfile::TempDir;

pub(crate) const T0: i64 = 1_795_000_000_000;
pub(crate) const SESSION: &str = "11111111-2222-3333-4444-555555555555";

#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<BTreeSet<u32>>>);

impl Processes {
    pub(crate) fn start(&self, pid: u32) {
        self.0.lock().unwrap().insert(pid);
    }

    pub(crate) fn kill(&self, pid: u32) {
        self.0.lock().unwrap().remove(&pid);
    }
}

impl ProcessTable for Processes {
    fn is_alive(&self, pid: u32, _start: Option<&str>, _domain: Option<&str>) -> bool {
        self.0.lock().unwrap().contains(&pid)
    }
}

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) observer: Observer,
    pub(crate) processes: Processes,
}

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(T0 + ms)
}

/// A time as Claude Code writes it.
pub(crate) fn time(ms: i64) -> String {
    at(ms).to_string()
}

impl World {
    pub(crate) fn new() -> Self {
        World::at_home(tempfile::tempdir().unwrap(), 0)
    }

    pub(crate) fn at_home(home: TempDir, start_ms: i64) -> Self {
        let processes = Processes::default();
        let config = config_for_home(home.path());
        let observer = Observer::new(config, Box::new(processes.clone()), at(start_ms));
        World { home, observer, processes }
    }

    pub(crate) fn transcript(&self, session: &str) -> PathBuf {
        self.home.path().join(format!(".claude/projects/-home-dev-proj/{session}.jsonl"))
    }

    /// Adds lines to a transcript and shows it to the observer.
    pub(crate) fn add(&mut self, path: &Path, lines: &[String], now: i64) -> Vec<Sighted> {
        append(path, lines);
        self.look(path, now)
    }

    pub(crate) fn look(&mut self, path: &Path, now: i64) -> Vec<Sighted> {
        sightings(self.observer.changed(&[path.to_owned()], at(now)))
    }

    pub(crate) fn tick(&mut self, now: i64) -> Vec<Sighted> {
        sightings(self.observer.tick(at(now)))
    }

    /// Makes the sums that are missing, so many bytes at a time. Returns how often it took.
    pub(crate) fn sum_up(&mut self, slice: u64, now: i64) -> usize {
        let (mut buffer, mut slices) = (vec![0; CHUNK], 0);
        while let Some(mut backfill) = self.observer.lend_backfill() {
            slices += 1;
            while backfill.sum_up(&mut buffer, slice) {
                slices += 1;
            }
            self.observer.take_sums(*backfill, at(now));
        }
        slices
    }

    pub(crate) fn registry(&self, pid: u32) -> PathBuf {
        self.home.path().join(format!(".claude/sessions/{pid}.json"))
    }

    pub(crate) fn register(&mut self, pid: u32, session: &str, status: &str, now: i64) -> Vec<Sighted> {
        let path = self.registry(pid);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let entry = format!(
            r#"{{"pid":{pid},"sessionId":"{session}","cwd":"/home/dev/proj","procStart":"7","status":{status},"statusUpdatedAt":{}}}"#,
            T0 + now
        );
        fs::write(&path, entry).unwrap();
        self.look(&path, now)
    }
}

pub(crate) fn append(path: &Path, lines: &[String]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
}

pub(crate) fn sightings(seen: Vec<Seen>) -> Vec<Sighted> {
    seen.into_iter()
        .filter_map(|s| match s {
            Seen::Sighting(sighted) => Some(sighted),
            Seen::About(_) => None,
        })
        .collect()
}

/// What was seen, and whether it may be announced.
pub(crate) fn brief(sighted: &[Sighted]) -> Vec<(Activity, bool)> {
    sighted.iter().map(|s| (s.sighting.activity, s.sighting.announce)).collect()
}

pub(crate) fn prompt(ms: i64) -> String {
    format!(
        r#"{{"type":"user","promptSource":"typed","entrypoint":"cli","cwd":"/home/dev/proj","timestamp":"{}","message":{{"role":"user","content":"do it"}}}}"#,
        time(ms)
    )
}

pub(crate) fn tool_use(ms: i64, id: &str, name: &str) -> String {
    format!(
        r#"{{"type":"assistant","timestamp":"{}","message":{{"id":"m{ms}","model":"claude-sonnet-5-5","stop_reason":"tool_use","usage":{{"input_tokens":10,"output_tokens":1}},"content":[{{"type":"tool_use","id":"{id}","name":"{name}","input":{{"file_path":"/home/dev/proj/a.rs"}}}}]}}}}"#,
        time(ms)
    )
}

pub(crate) fn tool_result(ms: i64, id: &str) -> String {
    format!(
        r#"{{"type":"user","timestamp":"{}","message":{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}","content":"ok"}}]}}}}"#,
        time(ms)
    )
}

pub(crate) fn answer(ms: i64) -> String {
    format!(
        r#"{{"type":"assistant","timestamp":"{}","message":{{"id":"m{ms}","model":"claude-sonnet-5-5","stop_reason":"end_turn","usage":{{"input_tokens":10,"output_tokens":1}},"content":[{{"type":"text","text":"done"}}]}}}}"#,
        time(ms)
    )
}
