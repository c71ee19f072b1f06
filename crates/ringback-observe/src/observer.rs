//! The observer: from changed files and passing time to what is seen, in order.
//!
//! Owns: every session and file that is followed. Everything happens inside a call, at the instant that the caller
//! names; there is no thread, no clock and no watcher here ([`watch`](crate::watch) brings them). Files are read,
//! never written.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::session::{TEXT_CHARS, Totals, cut};
use ringback_model::{Agent, Rules, SessionId, Timestamp};
use serde::Deserialize;

use crate::discover::{Found, Kind, Roots};
use crate::ledger::{Ledger, totals};
use crate::lenient::Text;
use crate::process::ProcessTable;
use crate::registry::{Change, Entry, FILE_BYTES, Registry};
use crate::session::{Look, Seen, Session, Sighted, Snapshot};
use crate::tail::CHUNK;
use crate::transcript::{Backfill, Desk, Transcript};
use crate::worktree;

/// Files that one scan takes up anew; of more the newest.
const NEW_FILES: usize = 1000;
/// Titles and directories remembered.
const REMEMBERED: usize = 10_000;
/// Longest sidecar read.
const SIDECAR_BYTES: u64 = 256 * 1024;

/// What to observe.
#[derive(Clone, Debug)]
pub struct Config {
    /// Claude Code's configuration directories; none = Claude Code is not observed.
    pub claude_dirs: Vec<PathBuf>,
    /// Codex's home directories; none = Codex is not observed.
    pub codex_homes: Vec<PathBuf>,
    /// Where Claude Desktop keeps the titles of its sessions.
    pub desktop_dirs: Vec<PathBuf>,
    /// The durations of the activity rules.
    pub rules: Rules,
    /// Sessions whose working directory contains one of these are not shown.
    pub exclude_cwd_substrings: Vec<String>,
    /// A scan takes up files that were written within this; older ones wait until they are written again.
    pub window: Duration,
}

/// Follows the sessions of the agents on this machine.
pub struct Observer {
    pub(crate) config: Config,
    roots: Roots,
    processes: Box<dyn ProcessTable>,
    registry: Registry,
    pub(crate) sessions: HashMap<SessionId, Session>,
    pub(crate) transcripts: HashMap<PathBuf, Transcript>,
    /// The files that add to each session's sums.
    pub(crate) files_of: HashMap<SessionId, BTreeSet<PathBuf>>,
    /// Titles from sidecars, by session.
    titles: HashMap<SessionId, String>,
    /// Main repository by working directory.
    worktrees: HashMap<String, Option<String>>,
    /// Sessions that time alone will change, and when: nothing that happens often looks at all sessions.
    timers: Timers,
    /// Files with sums that wait to be made, by the time of their last write.
    waiting: BTreeSet<(Timestamp, PathBuf)>,
    /// Sessions touched by the call under way.
    pub(crate) touched: BTreeSet<SessionId>,
    pub(crate) since: Timestamp,
    unreadable: u64,
    has_warned: bool,
    buffer: Vec<u8>,
}

impl Observer {
    /// An observer that has seen nothing. What is older than `now` is history to it.
    pub fn new(config: Config, processes: Box<dyn ProcessTable>, now: Timestamp) -> Self {
        Observer {
            roots: Roots::new(&config.claude_dirs, &config.codex_homes, &config.desktop_dirs),
            config,
            processes,
            registry: Registry::default(),
            sessions: HashMap::new(),
            transcripts: HashMap::new(),
            files_of: HashMap::new(),
            titles: HashMap::new(),
            worktrees: HashMap::new(),
            timers: Timers::default(),
            waiting: BTreeSet::new(),
            touched: BTreeSet::new(),
            since: now,
            unreadable: 0,
            has_warned: false,
            buffer: vec![0; CHUNK],
        }
    }

    /// The directories whose changes matter, whether they exist or not.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.roots.watched()
    }

    /// Looks through all directories for what changed since the last look, by modification time and size.
    pub fn scan(&mut self, now: Timestamp) -> Vec<Seen> {
        let mut found = Vec::new();
        for dir in self.roots.watched() {
            self.roots.walk(&dir, &mut found);
        }
        let present: BTreeSet<&Path> = found.iter().map(|f| f.path.as_path()).collect();
        let gone: Vec<PathBuf> =
            self.registry.paths().filter(|path| !present.contains(path)).map(Path::to_owned).collect();

        let oldest = now.minus(self.config.window);
        self.forget_old(oldest);
        let (mut changed, mut new): (Vec<Found>, Vec<Found>) = found
            .into_iter()
            .filter(|f| match self.transcripts.get(&f.path) {
                Some(known) => known.stamp != (f.size, f.modified),
                None => matches!(f.kind, Kind::Registry | Kind::Sidecar) || f.modified >= oldest,
            })
            .partition(|f| self.transcripts.contains_key(&f.path));
        new.sort_by_key(|f| (f.kind != Kind::Registry, std::cmp::Reverse(f.modified)));
        new.truncate(NEW_FILES);
        changed.append(&mut new);
        let changes = changed.into_iter().map(|f| (f.kind, f.path)).collect();
        self.take_in(changes, gone, now)
    }

    /// Takes in that the files or directories at `paths` were made, written, replaced or removed.
    pub fn changed(&mut self, paths: &[PathBuf], now: Timestamp) -> Vec<Seen> {
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        for path in paths {
            if path.is_dir() {
                let mut found = Vec::new();
                self.roots.walk(path, &mut found);
                changes.extend(found.into_iter().map(|f| (f.kind, f.path)));
            } else if let Some(kind) = self.roots.classify(path) {
                match path.metadata() {
                    Ok(file) if file.is_file() => changes.push((kind, path.clone())),
                    // A pipe in its place would be read for ever.
                    Ok(_) => {}
                    // A transcript that is removed says nothing; one that comes back is read on, or again.
                    Err(_) if kind == Kind::Registry => gone.push(path.clone()),
                    Err(_) => {}
                }
            }
        }
        self.take_in(changes, gone, now)
    }

    /// Fires what is due by time alone.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Seen> {
        let mut out = Vec::new();
        let changes = self.registry.recheck(&*self.processes, now);
        self.apply_registry(changes, now, &mut out);
        self.touched.extend(self.timers.due(now).cloned());
        self.finish(now, out)
    }

    /// When [`Observer::tick`] has something to do; `None` = not before something else changes.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next().into_iter().chain(self.registry.next_recheck()).min()
    }

    /// The machine slept, or its clock jumped: what was written up to `now` is history, told as it stands.
    pub fn resumed(&mut self, now: Timestamp) -> Vec<Seen> {
        self.since = now;
        // By a clock that was ahead everything was seen later than it will be now.
        self.sessions.values_mut().for_each(|session| session.seen_by(now));
        self.transcripts.values_mut().for_each(|transcript| transcript.announce_by(now));
        let mut seen = self.scan(now);
        seen.extend(self.tick(now));
        seen
    }

    /// Lends the next old part of a big file whose sums are missing, of the file written last first; `None` = nobody is
    /// needed. To be read to its end and given to [`Observer::take_sums`].
    pub fn lend_backfill(&mut self) -> Option<Box<Backfill>> {
        while let Some((_, path)) = self.waiting.pop_last() {
            if let Some(backfill) = self.transcripts.get_mut(&path).and_then(Transcript::lend_backfill) {
                return Some(backfill);
            }
        }
        None
    }

    /// Takes in the sums over an old part of a big file.
    pub fn take_sums(&mut self, backfill: Backfill, now: Timestamp) -> Vec<Seen> {
        if let Some(transcript) = self.transcripts.get_mut(backfill.path()) {
            transcript.settle_backfill(backfill);
            if let Some(id) = transcript.session() {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.is_changed = true;
                }
                self.touched.insert(id.clone());
            }
        }
        self.finish(now, Vec::new())
    }

    /// A session as it is now.
    pub fn session(&mut self, id: &SessionId) -> Option<Snapshot> {
        let session = self.sessions.get_mut(id)?;
        (!is_excluded(&self.config, &session.about.cwd)).then(|| session.snapshot())
    }

    /// All sessions that are followed, in no order.
    pub fn sessions(&mut self) -> Vec<Snapshot> {
        let shown = self.sessions.values_mut().filter(|s| !is_excluded(&self.config, &s.about.cwd));
        shown.map(Session::snapshot).collect()
    }

    /// Lines that could not be read since the start: no JSON, or too long.
    pub fn unreadable_lines(&self) -> u64 {
        self.unreadable
    }

    fn take_in(
        &mut self,
        mut changes: Vec<(Kind, PathBuf)>,
        gone: Vec<PathBuf>,
        now: Timestamp,
    ) -> Vec<Seen> {
        let mut out = Vec::new();
        // The registry is written before the transcripts, and it tells more.
        changes.sort();
        changes.dedup();
        for path in gone {
            let changes = self.registry.removed(&path, &*self.processes, now);
            self.apply_registry(changes, now, &mut out);
        }
        for (kind, path) in changes {
            match kind {
                Kind::Registry => self.read_registry(&path, now, &mut out),
                Kind::Sidecar => self.read_sidecar(&path),
                _ => self.read_transcript(&kind, &path, now, &mut out),
            }
        }
        self.finish(now, out)
    }

    fn read_registry(&mut self, path: &Path, now: Timestamp, out: &mut Vec<Seen>) {
        let Some(entry) = read_short(path, FILE_BYTES).and_then(|content| Entry::parse(&content)) else {
            return;
        };
        let changes = self.registry.written(path, entry, &*self.processes, now);
        self.apply_registry(changes, now, out);
    }

    fn apply_registry(&mut self, changes: Vec<Change>, now: Timestamp, out: &mut Vec<Seen>) {
        let look = Look { rules: &self.config.rules, now, since: self.since };
        for change in changes {
            let id = match &change {
                Change::Live(id, _) | Change::Gone(id) => id.clone(),
            };
            let is_known = self.sessions.contains_key(&id);
            let session =
                self.sessions.entry(id.clone()).or_insert_with(|| Session::new(Agent::Claude, id.clone()));
            if let Some(entry) = self.registry.entry(&id) {
                describe_from_registry(session, entry, is_known);
            }
            match change {
                Change::Live(_, live) => session.set_live(live, look, out),
                Change::Gone(_) => session.set_gone(look, out),
            }
            self.touched.insert(id);
        }
    }

    fn read_sidecar(&mut self, path: &Path) {
        let Some(content) = read_short(path, SIDECAR_BYTES) else { return };
        let Some((id, title)) = sidecar_title(&content) else { return };
        if self.titles.len() < REMEMBERED || self.titles.contains_key(&id) {
            self.touched.insert(id.clone());
            self.titles.insert(id, title);
        }
    }

    fn read_transcript(&mut self, kind: &Kind, path: &Path, now: Timestamp, out: &mut Vec<Seen>) {
        let mut transcript = match self.transcripts.remove(path) {
            Some(known) => known,
            None => match Transcript::open(kind, path, now) {
                Some(new) => new,
                None => return,
            },
        };
        let mut desk = Desk {
            sessions: &mut self.sessions,
            look: Look { rules: &self.config.rules, now, since: self.since },
            out,
            unreadable: &mut self.unreadable,
        };
        if let Err(error) = transcript.read(&mut self.buffer, &mut desk) {
            tracing::debug!(path = %path.display(), %error, "cannot read a session file");
        }
        if self.unreadable > 0 && !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(path = %path.display(), "lines that are no JSON, or too long, are left out");
        }
        if let Some(id) = transcript.session() {
            self.touched.insert(id.clone());
            self.files_of.entry(id.clone()).or_default().insert(path.to_owned());
        }
        if transcript.has_backfill() {
            self.waiting.insert((transcript.stamp.1, path.to_owned()));
        }
        self.transcripts.insert(path.to_owned(), transcript);
    }

    /// Lets go of sessions that rest and whose files are older than the window. A new record brings them back.
    fn forget_old(&mut self, oldest: Timestamp) {
        let files_of = &self.files_of;
        let transcripts = &self.transcripts;
        let registry = &self.registry;
        let old: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(id, session)| {
                let files = files_of.get(*id);
                let is_old = |path: &PathBuf| transcripts.get(path).is_none_or(|t| t.stamp.1 < oldest);
                session.rests_since(oldest)
                    && registry.entry(id).is_none()
                    && files.is_none_or(|files| files.iter().all(is_old))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in old {
            self.sessions.remove(&id);
            self.timers.set(&id, None);
            for path in self.files_of.remove(&id).unwrap_or_default() {
                self.transcripts.remove(&path);
            }
        }
    }

    /// Ends a call: due timers, what was read in silence, sums and changes of what there is to show.
    fn finish(&mut self, now: Timestamp, mut out: Vec<Seen>) -> Vec<Seen> {
        let look = Look { rules: &self.config.rules, now, since: self.since };
        for id in std::mem::take(&mut self.touched) {
            let files = self.files_of.get(&id);
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if let Some(title) = self.titles.get(&id)
                && session.about.title.as_ref() != Some(title)
            {
                session.about.title = Some(title.clone());
                session.is_changed = true;
            }
            let repo = main_repo(&mut self.worktrees, &session.about.cwd);
            if session.about.main_repo != repo {
                session.about.is_worktree = repo.is_some();
                session.about.main_repo = repo;
                session.is_changed = true;
            }
            // The sums are made once a call, not once a record: the sightings above went out with the old ones.
            let totals = sum(files, &self.transcripts);
            if session.about.totals != totals {
                session.about.totals = totals;
                session.is_changed = true;
            }
            session.settle(look, &mut out);
            session.tell_about(&mut out);
            self.timers.set(&id, session.timer());
        }
        if !self.config.exclude_cwd_substrings.is_empty() {
            out.retain(|seen| {
                let (Seen::About(snapshot) | Seen::Sighting(Sighted { snapshot, .. })) = seen;
                !is_excluded(&self.config, &snapshot.about.cwd)
            });
        }
        out
    }
}

/// The next timer of each session.
#[derive(Default)]
struct Timers {
    at: HashMap<SessionId, Timestamp>,
    order: BTreeSet<(Timestamp, SessionId)>,
}

impl Timers {
    fn set(&mut self, id: &SessionId, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.at.insert(id.clone(), at),
            None => self.at.remove(id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, id.clone()));
        }
        self.order.extend(at.map(|at| (at, id.clone())));
    }

    fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Timestamp) -> impl Iterator<Item = &SessionId> {
        self.order.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| id)
    }
}

fn sum(files: Option<&BTreeSet<PathBuf>>, transcripts: &HashMap<PathBuf, Transcript>) -> Totals {
    let followed = || files.into_iter().flatten().filter_map(|path| transcripts.get(path));
    let nothing = Ledger::default();
    let own = followed().find(|t| !t.is_sub_agent()).map_or((None, &nothing), Transcript::stretches);
    totals(own, followed().filter(|t| t.is_sub_agent()).map(Transcript::stretches))
}

fn describe_from_registry(session: &mut Session, entry: &Entry, is_known: bool) {
    let about = &mut session.about;
    if about.cwd.is_empty()
        && let Some(cwd) = &entry.cwd
    {
        about.cwd.clone_from(cwd);
        session.is_changed = true;
    }
    let about = &mut session.about;
    if !is_known {
        about.version.clone_from(&entry.version);
        about.interactive = entry.interactive;
    }
    if entry.name.is_some() && about.title != entry.name {
        about.title.clone_from(&entry.name);
        session.is_changed = true;
    }
}

fn is_excluded(config: &Config, cwd: &str) -> bool {
    config.exclude_cwd_substrings.iter().any(|part| !part.is_empty() && cwd.contains(part.as_str()))
}

/// Git is asked once for each directory.
fn main_repo(known: &mut HashMap<String, Option<String>>, cwd: &str) -> Option<String> {
    if cwd.is_empty() {
        return None;
    }
    if let Some(repo) = known.get(cwd) {
        return repo.clone();
    }
    if known.len() >= REMEMBERED {
        known.clear();
    }
    let repo = worktree::main_repo(Path::new(cwd));
    known.insert(cwd.to_owned(), repo.clone());
    repo
}

fn read_short(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path).ok()?.take(limit + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= limit).then_some(content)
}

/// Claude Desktop's own note of a session: an object with its id and title.
fn sidecar_title(content: &[u8]) -> Option<(SessionId, String)> {
    #[derive(Deserialize)]
    struct Sidecar<'a> {
        #[serde(borrow, default, rename = "cliSessionId")]
        cli_session_id: Text<'a>,
        #[serde(borrow, default, rename = "sessionId")]
        session_id: Text<'a>,
        #[serde(borrow, default)]
        title: Text<'a>,
    }
    let text = String::from_utf8_lossy(content);
    let sidecar: Sidecar<'_> = serde_json::from_str(&text).ok()?;
    let id = sidecar.cli_session_id.some().or(sidecar.session_id.some())?;
    Some((SessionId::new(cut(id, 128)), cut(sidecar.title.some()?, TEXT_CHARS)))
}
