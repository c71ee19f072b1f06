//! Plays a recording of an agent's files back at an observer, and scores what it saw against what the agent did.
//!
//! A recording is a directory with `recording.jsonl`, one file operation a line, and `truth.json`. Time is virtual:
//! the observer's clock shows the time of the recording plus the time of the operation, so that the times inside
//! the records are right.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use ringback_model::{Activity, Reason, Rules, SessionId, Timestamp};
use serde::Deserialize;

use crate::observer::{Config, Observer};
use crate::process::ProcessTable;
use crate::registry::{Entry, is_registry_file};
use crate::session::Seen;

/// After each true change, what is shown is not scored for this long.
pub const TOLERANCE: Duration = Duration::from_millis(350);
/// The time after the last operation that still belongs to a recording.
const END: i64 = 1000;

/// A recording and what was true during it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// File operations in the order of time.
    pub operations: Vec<Operation>,
    /// What the agent did.
    pub truth: Truth,
}

/// One change of one file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Operation {
    /// Milliseconds since the recording began.
    pub t_ms: i64,
    /// Path below the home directory.
    pub file: PathBuf,
    /// What was done.
    pub op: Op,
    /// The bytes, as text.
    #[serde(default)]
    text: Option<String>,
    /// The bytes, when they are no text.
    #[serde(default)]
    base64: Option<String>,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Bytes were added; makes the file.
    Append,
    /// The content was replaced.
    Rewrite,
    /// The file was removed.
    Remove,
    /// Only its time changed.
    Touch,
}

/// What the agent did, by the clock of its model.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// When the recording began, milliseconds since the Unix epoch.
    pub t0_epoch_ms: i64,
    /// The end of the process.
    pub exit: Exit,
    /// The main session first.
    pub sessions: Vec<TrueSession>,
    /// Segments of the main session that its files do not tell.
    #[serde(default)]
    pub untold: Vec<Untold>,
}

/// The end of the process.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Exit {
    /// Milliseconds since the recording began.
    pub t_ms: i64,
}

/// One session of a recording.
#[derive(Clone, Debug, Deserialize)]
pub struct TrueSession {
    /// `main`, or `subagent`: those are no sessions of their own.
    pub role: String,
    /// The agent's id.
    pub session_id: SessionId,
    /// What it did, without gaps.
    pub segments: Vec<Segment>,
}

/// A stretch of one activity.
#[derive(Clone, Debug, Deserialize)]
pub struct Segment {
    /// Its begin, milliseconds since the recording began.
    pub from_ms: i64,
    /// Its end; `None` = the end of the recording.
    pub to_ms: Option<i64>,
    /// What the session did.
    pub activity: Activity,
    /// Other answers that are right as well.
    #[serde(default)]
    pub also: Vec<Activity>,
    /// The process ended at its begin: `idle` is right as well.
    #[serde(default)]
    pub exited: bool,
}

/// A segment that the files do not tell.
#[derive(Clone, Debug, Deserialize)]
pub struct Untold {
    /// Index into the main session's segments.
    pub segment: usize,
    /// Why.
    pub why: String,
}

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Milliseconds since the recording began, when it was seen.
    pub at_ms: i64,
    /// The activity from then on.
    pub activity: Activity,
    /// Why.
    pub reason: Option<Reason>,
    /// Whether it may be told as an event.
    pub announce: bool,
}

/// How well what was shown agrees with the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// Milliseconds in which the right activity was shown.
    pub agree_ms: i64,
    /// Milliseconds scored: without [`TOLERANCE`] after each change and without untold segments.
    pub total_ms: i64,
    /// Every true activity was shown, in order.
    pub order_ok: bool,
}

/// A recording cannot be read or replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A line or file is not in the format.
    #[error("{}: not a recording: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An operation names a file outside its home directory, or bytes that are no base64.
    #[error("operation at {t_ms} ms cannot be applied")]
    Operation {
        /// When.
        t_ms: i64,
    },
}

impl Recording {
    /// Reads the recording in `dir`.
    pub fn load(dir: &Path) -> Result<Recording, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path)
                .map(|text| (path.clone(), text))
                .map_err(|source| Error::Io { path, source })
        };
        let (path, text) = read("recording.jsonl")?;
        let operations = text
            .lines()
            .map(|line| {
                serde_json::from_str(line).map_err(|source| Error::Format { path: path.clone(), source })
            })
            .collect::<Result<_, _>>()?;
        let (path, text) = read("truth.json")?;
        let truth = serde_json::from_str(&text).map_err(|source| Error::Format { path, source })?;
        Ok(Recording { operations, truth })
    }

    /// The end, milliseconds since the recording began.
    pub fn end_ms(&self) -> i64 {
        let last = self.operations.last().map_or(0, |o| o.t_ms);
        last.max(self.truth.exit.t_ms) + END
    }
}

impl Operation {
    /// The bytes that it adds or puts in place.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let broken = Error::Operation { t_ms: self.t_ms };
        match (&self.text, &self.base64) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(bytes)) => {
                base64::engine::general_purpose::STANDARD.decode(bytes).map_err(|_| broken)
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Does it below `home`. Returns the file's path.
    pub fn apply(&self, home: &Path) -> Result<PathBuf, Error> {
        if self.file.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(Error::Operation { t_ms: self.t_ms });
        }
        let path = home.join(&self.file);
        let bytes = self.bytes()?;
        let done = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| match self.op {
            Op::Append => OpenOptions::new().append(true).create(true).open(&path)?.write_all(&bytes),
            Op::Rewrite => fs::write(&path, &bytes),
            Op::Remove => fs::remove_file(&path),
            Op::Touch => OpenOptions::new().append(true).create(true).open(&path).map(drop),
        });
        done.map(|()| path.clone()).map_err(|source| Error::Io { path, source })
    }
}

/// Where an agent keeps its files below a home directory.
pub fn config_for_home(home: &Path) -> Config {
    Config {
        claude_dirs: vec![home.join(".claude")],
        codex_homes: vec![home.join(".codex")],
        desktop_dirs: Vec::new(),
        rules: Rules::default(),
        exclude_cwd_substrings: Vec::new(),
        window: Duration::from_secs(24 * 3600),
    }
}

/// Plays `recording` back below `home`, an empty directory. Returns what was shown of each session.
pub fn replay(recording: &Recording, home: &Path) -> Result<BTreeMap<SessionId, Vec<Shown>>, Error> {
    let processes = Recorded::default();
    let t0 = recording.truth.t0_epoch_ms;
    let instant = |t_ms: i64| Timestamp::from_millis(t0 + t_ms);
    let mut observer = Observer::new(config_for_home(home), Box::new(processes.clone()), instant(0));
    let mut shown: BTreeMap<SessionId, Vec<Shown>> = BTreeMap::new();
    let mut note = |at_ms: i64, seen: Vec<Seen>| {
        for sighted in seen.into_iter().filter_map(|s| match s {
            Seen::Sighting(sighted) => Some(sighted),
            Seen::About(_) => None,
        }) {
            shown.entry(sighted.session_id).or_default().push(Shown {
                at_ms,
                activity: sighted.sighting.activity,
                reason: sighted.sighting.reason,
                announce: sighted.sighting.announce,
            });
        }
    };
    note(0, observer.scan(instant(0)));
    for operation in &recording.operations {
        run_timers(&mut observer, instant(operation.t_ms), |at, seen| note(at.as_millis() - t0, seen));
        processes.take_in(operation)?;
        let path = operation.apply(home)?;
        note(operation.t_ms, observer.changed(&[path], instant(operation.t_ms)));
    }
    run_timers(&mut observer, instant(recording.end_ms()), |at, seen| note(at.as_millis() - t0, seen));
    Ok(shown)
}

fn run_timers(observer: &mut Observer, until: Timestamp, mut note: impl FnMut(Timestamp, Vec<Seen>)) {
    while let Some(due) = observer.next_timer()
        && due <= until
    {
        note(due, observer.tick(due));
    }
}

/// Scores what was shown of the main session.
pub fn score(recording: &Recording, shown: &[Shown]) -> Score {
    let Some(main) = recording.truth.sessions.first() else {
        return Score { agree_ms: 0, total_ms: 0, order_ok: true };
    };
    let tolerance = i64::try_from(TOLERANCE.as_millis()).unwrap_or(0);
    let is_untold = |i: usize| recording.truth.untold.iter().any(|u| u.segment == i);
    let (mut agree_ms, mut total_ms) = (0, 0);
    let mut before = None;
    for (i, segment) in main.segments.iter().enumerate() {
        // Neighbours with the same activity are no change.
        let change = if before == Some(segment.activity) { 0 } else { tolerance };
        before = Some(segment.activity);
        if is_untold(i) {
            before = None;
            continue;
        }
        let (from, to) = (segment.from_ms + change, segment.to_ms.unwrap_or(recording.end_ms()));
        for (activity, ms) in pieces(shown, from, to) {
            total_ms += ms;
            if segment.allows(activity) {
                agree_ms += ms;
            }
        }
    }
    let mut rest = shown.iter();
    let mut last = None;
    let order_ok = main.segments.iter().enumerate().filter(|(i, _)| !is_untold(*i)).all(|(_, segment)| {
        last.is_some_and(|activity| segment.allows(activity))
            || rest.any(|s| {
                last = Some(s.activity);
                segment.allows(s.activity)
            })
    });
    Score { agree_ms, total_ms, order_ok }
}

impl Segment {
    fn allows(&self, activity: Activity) -> bool {
        activity == self.activity
            || self.also.contains(&activity)
            || self.exited && matches!(activity, Activity::Idle | Activity::Waiting)
    }
}

/// What was shown between two moments, with how long. Before the first sighting a session is idle.
fn pieces(shown: &[Shown], from: i64, to: i64) -> Vec<(Activity, i64)> {
    let mut pieces = Vec::new();
    let mut at = from;
    let mut activity = Activity::Idle;
    for next in shown {
        if next.at_ms > at && at < to {
            let end = next.at_ms.min(to);
            pieces.push((activity, end - at));
            at = end;
        }
        activity = next.activity;
    }
    if at < to {
        pieces.push((activity, to - at));
    }
    pieces
}

/// The processes of a recording: one lives from the making of its registry file to its removal.
#[derive(Clone, Debug, Default)]
struct Recorded(Arc<Mutex<BTreeMap<PathBuf, u32>>>);

impl Recorded {
    fn take_in(&self, operation: &Operation) -> Result<(), Error> {
        let name = operation.file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !is_registry_file(name) {
            return Ok(());
        }
        let mut living = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if operation.op == Op::Remove {
            living.remove(&operation.file);
        } else if let Some(entry) = Entry::parse(&operation.bytes()?) {
            living.insert(operation.file.clone(), entry.pid);
        }
        Ok(())
    }
}

impl ProcessTable for Recorded {
    fn is_alive(&self, pid: u32, _start: Option<&str>, _domain: Option<&str>) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().any(|living| *living == pid)
    }
}
