//! Claude Code's registry of live sessions: `sessions/PID.json`, one file per running process.
//!
//! Owns: what the files say, which of them count, and when a process has to be looked at again. Files beside them
//! (`PID.HASH.key`) are secrets: they are never opened. Does not know: transcripts or rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::session::{TEXT_CHARS, cut};
use ringback_model::{Live, LiveStatus, Reason, SessionId, Timestamp};
use serde::Deserialize;

use crate::lenient::{Number, Text};
use crate::process::ProcessTable;

/// How often living processes are looked at.
const RECHECK: Duration = Duration::from_secs(1);
/// How soon one whose file was just removed is looked at: it is about to end.
const RECHECK_SOON: Duration = Duration::from_millis(100);
/// How long one whose file was removed may still end before it counts as living on without its session. Until then
/// the last thing it said holds: a session that ends must not look busy for a blink.
const LINGER: Duration = Duration::from_secs(1);
/// Processes watched after their file was removed.
const LEAVING: usize = 64;
/// Longest registry file read.
pub(crate) const FILE_BYTES: u64 = 64 * 1024;

/// Whether `name` is a registry file's: digits and `.json`.
pub(crate) fn is_registry_file(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
}

/// What one registry file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    pub(crate) start: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) session_id: SessionId,
    pub(crate) cwd: Option<String>,
    pub(crate) version: Option<String>,
    /// A name that the user gave; derived names are left out.
    pub(crate) name: Option<String>,
    pub(crate) interactive: Option<bool>,
    pub(crate) live: Live,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    pid: Number,
    #[serde(borrow, default, rename = "procStart")]
    start: Text<'a>,
    #[serde(borrow, default, rename = "pidDomain")]
    domain: Text<'a>,
    #[serde(borrow, default, rename = "sessionId")]
    session_id: Text<'a>,
    #[serde(borrow, default)]
    cwd: Text<'a>,
    #[serde(borrow, default)]
    version: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default, rename = "nameSource")]
    name_source: Text<'a>,
    #[serde(borrow, default)]
    entrypoint: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default, rename = "waitingFor")]
    waiting_for: Text<'a>,
    #[serde(default, rename = "statusUpdatedAt")]
    status_updated_at: Number,
    #[serde(default, rename = "updatedAt")]
    updated_at: Number,
    #[serde(default, rename = "startedAt")]
    started_at: Number,
}

impl Entry {
    /// Reads a file's content; `None` when it is half-written or no registry file.
    pub(crate) fn parse(content: &[u8]) -> Option<Entry> {
        let text = String::from_utf8_lossy(content);
        let file: File<'_> = serde_json::from_str(&text).ok()?;
        let owned = |field: &Text<'_>| field.some().map(|s| cut(s, TEXT_CHARS));
        let status = match file.status.as_str() {
            "idle" => LiveStatus::Idle,
            "busy" | "shell" => LiveStatus::Busy,
            "waiting" if file.waiting_for.as_str().contains("permission") => {
                LiveStatus::Waiting(Reason::Permission)
            }
            "waiting" => LiveStatus::Waiting(Reason::Question),
            _ => LiveStatus::Unknown,
        };
        let at = file.status_updated_at.millis().or(file.updated_at.millis()).or(file.started_at.millis());
        Some(Entry {
            pid: u32::try_from(file.pid.count()).ok().filter(|pid| *pid > 0)?,
            start: owned(&file.start),
            domain: owned(&file.domain),
            session_id: SessionId::new(cut(file.session_id.some()?, 128)),
            cwd: owned(&file.cwd),
            version: owned(&file.version),
            name: owned(&file.name).filter(|_| file.name_source.as_str() != "derived"),
            interactive: match file.entrypoint.as_str() {
                "cli" => Some(true),
                entry if entry.starts_with("sdk") => Some(false),
                _ => None,
            },
            live: Live { status, status_at: Timestamp::from_millis(at?) },
        })
    }

    fn is_alive(&self, processes: &dyn ProcessTable) -> bool {
        processes.is_alive(self.pid, self.start.as_deref(), self.domain.as_deref())
    }
}

/// The files that count, and the processes that are watched.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Of processes that were seen alive.
    files: BTreeMap<PathBuf, Entry>,
    /// Whose file was removed while they lived.
    leaving: Vec<Leaving>,
    recheck_at: Option<Timestamp>,
}

/// A process without its file.
#[derive(Debug)]
struct Leaving {
    entry: Entry,
    since: Timestamp,
    /// It was told that the registry says nothing of the session any more.
    is_told: bool,
}

/// What became of a session by a change of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The registry now says this of it; `None` = nothing.
    Live(SessionId, Option<Live>),
    /// Its last process ended.
    Gone(SessionId),
}

impl Registry {
    /// The entry that counts for a session: of several living ones the newest status.
    pub(crate) fn entry(&self, session: &SessionId) -> Option<&Entry> {
        self.files.values().filter(|e| e.session_id == *session).max_by_key(|e| e.live.status_at)
    }

    /// The registry files that count.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Takes in a file's new content.
    pub(crate) fn written(
        &mut self,
        path: &Path,
        entry: Entry,
        processes: &dyn ProcessTable,
        now: Timestamp,
    ) -> Vec<Change> {
        let before = self.files.get(path).cloned();
        if !entry.is_alive(processes) {
            // Never seen alive by us: a stale file, or one of another pid namespace. It proves nothing.
            return if before.is_some() { self.removed(path, processes, now) } else { Vec::new() };
        }
        self.leaving.retain(|l| l.entry.pid != entry.pid || l.entry.session_id != entry.session_id);
        let session = entry.session_id.clone();
        self.files.insert(path.to_owned(), entry);
        self.schedule(now.plus(RECHECK));
        let mut changes = Vec::new();
        if let Some(before) = before
            && before.session_id != session
        {
            changes.push(self.level(&before.session_id));
        }
        changes.push(self.level(&session));
        changes
    }

    /// Takes in that a file is no longer there.
    pub(crate) fn removed(
        &mut self,
        path: &Path,
        processes: &dyn ProcessTable,
        now: Timestamp,
    ) -> Vec<Change> {
        let Some(entry) = self.files.remove(path) else { return Vec::new() };
        let session = entry.session_id.clone();
        if self.entry(&session).is_some() {
            return vec![self.level(&session)];
        }
        if entry.is_alive(processes) {
            // It ends in a moment, or it lives on without the session; the next look tells.
            if self.leaving.len() == LEAVING {
                self.leaving.remove(0);
            }
            self.leaving.push(Leaving { entry, since: now, is_told: false });
            self.schedule(now.plus(RECHECK_SOON));
            return Vec::new();
        }
        vec![Change::Gone(session)]
    }

    /// Looks at every process again when it is time to.
    pub(crate) fn recheck(&mut self, processes: &dyn ProcessTable, now: Timestamp) -> Vec<Change> {
        if self.recheck_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let dead: Vec<PathBuf> =
            self.files.iter().filter(|(_, e)| !e.is_alive(processes)).map(|(path, _)| path.clone()).collect();
        let mut lost: BTreeSet<SessionId> =
            dead.iter().filter_map(|path| self.files.remove(path)).map(|e| e.session_id).collect();
        let (mut still, ended): (Vec<Leaving>, Vec<Leaving>) =
            std::mem::take(&mut self.leaving).into_iter().partition(|l| l.entry.is_alive(processes));
        lost.extend(ended.into_iter().map(|l| l.entry.session_id));
        let mut left = BTreeSet::new();
        for one in still.iter_mut().filter(|l| !l.is_told && now.since(l.since) >= LINGER) {
            one.is_told = true;
            left.insert(one.entry.session_id.clone());
        }
        let is_hurried = still.iter().any(|l| !l.is_told);
        self.leaving = still;
        let watching = !self.files.is_empty() || !self.leaving.is_empty();
        self.recheck_at = watching.then(|| now.plus(if is_hurried { RECHECK_SOON } else { RECHECK }));
        let gone = lost.into_iter().map(|session| match self.entry(&session) {
            Some(_) => self.level(&session),
            None => Change::Gone(session),
        });
        gone.chain(left.iter().map(|session| self.level(session))).collect()
    }

    /// When [`Registry::recheck`] has something to do.
    pub(crate) fn next_recheck(&self) -> Option<Timestamp> {
        self.recheck_at
    }

    fn schedule(&mut self, at: Timestamp) {
        self.recheck_at = Some(self.recheck_at.map_or(at, |known| known.min(at)));
    }

    fn level(&self, session: &SessionId) -> Change {
        Change::Live(session.clone(), self.entry(session).map(|e| e.live))
    }
}
