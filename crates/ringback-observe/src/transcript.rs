//! One session file as it is followed: cursor, adapter and sums.
//!
//! Owns: how a file is first looked at (a big one from its end, the sums of the rest later) and where what a line
//! says goes. Does not know: directories, watching or the registry.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::session::About;
use ringback_model::{Agent, Recorded, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::adapter::claude::{self, Claude};
use crate::adapter::codex::{self, Codex};
use crate::adapter::{Malformed, Said};
use crate::discover::{self, Kind};
use crate::ledger::{Ledger, Stretches};
use crate::session::{Look, Seen, Session};
use crate::tail::{CHUNK, Mark, Piece, Tail};

/// Files up to this size are read from their beginning at once.
const WHOLE: u64 = 1024 * 1024;
/// What is first read of the end of a bigger one, growing until a record in it tells something.
const ENDS: [u64; 3] = [256 * 1024, WHOLE, 4 * WHOLE];
/// A record may carry a time from shortly before its file was made.
const BIRTH_SLACK: Duration = Duration::from_secs(2);

/// The sessions that lines speak of, and where to put what changes.
pub(crate) struct Desk<'a> {
    pub(crate) sessions: &'a mut std::collections::HashMap<SessionId, Session>,
    pub(crate) look: Look<'a>,
    pub(crate) out: &'a mut Vec<Seen>,
    /// Lines that could not be read, over all files.
    pub(crate) unreadable: &'a mut u64,
}

/// A transcript or rollout that is followed.
#[derive(Debug)]
pub(crate) struct Transcript {
    path: PathBuf,
    tail: Tail,
    reader: Reader,
    /// The part before the first look, as long as its sums are missing.
    missing: Option<Missing>,
    /// Sums over the part before the first look, once they are known.
    earlier: Option<Ledger>,
    /// Size and time of the last write when it was last read, to notice a change without an event.
    pub(crate) stamp: (u64, Timestamp),
}

/// Sums that are missing.
#[derive(Debug)]
enum Missing {
    /// Nobody is at work on them.
    Waiting(Box<Backfill>),
    /// Somebody has borrowed them.
    Lent,
}

/// The part of a file before the first look, which only adds to the sums. It is worked on apart from the observer,
/// on any thread.
#[derive(Debug)]
pub struct Backfill {
    path: PathBuf,
    tail: Tail,
    end: u64,
    reader: Adapter,
    scratch: About,
    ledger: Ledger,
    is_ended: bool,
}

#[derive(Debug)]
struct Reader {
    adapter: Adapter,
    ledger: Ledger,
    session: Option<SessionId>,
    is_sub_agent: bool,
    announce_from: Timestamp,
    facts: Vec<Recorded>,
    /// Takes what a sub-agent's file shows: none of it is its parent's.
    scratch: Option<Box<About>>,
}

/// A file as it is left to the next observer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    path: String,
    mark: Mark,
    stamp: (u64, Timestamp),
    adapter: Adapter,
    session: SessionId,
    is_sub_agent: bool,
    announce_from: Timestamp,
    earlier: Option<Ledger>,
    ledger: Ledger,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Adapter {
    Claude(Claude),
    ClaudeSubAgent,
    Codex(Codex),
}

impl Transcript {
    /// A file seen for the first time, not read yet. `None`: it is not there, or its kind has no lines.
    pub(crate) fn open(kind: &Kind, path: &Path, now: Timestamp) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let (adapter, session, is_sub_agent) = match kind {
            Kind::ClaudeTranscript(id) => (Adapter::Claude(Claude::default()), Some(id.clone()), false),
            Kind::ClaudeSubAgent(parent) => (Adapter::ClaudeSubAgent, Some(parent.clone()), true),
            Kind::Rollout => (Adapter::Codex(Codex::default()), None, false),
            Kind::Registry | Kind::Sidecar => return None,
        };
        let born = metadata.created().map_or(now, discover::timestamp).min(now);
        let reader = Reader {
            adapter,
            ledger: Ledger::default(),
            session,
            is_sub_agent,
            announce_from: born.minus(BIRTH_SLACK),
            facts: Vec::new(),
            scratch: None,
        };
        let mut transcript = Transcript {
            path: path.to_owned(),
            tail: Tail::new(path),
            reader,
            missing: None,
            earlier: None,
            stamp: (0, Timestamp::MIN),
        };
        if metadata.len() > WHOLE && transcript.start_at_the_end(metadata.len()).is_err() {
            transcript.tail = Tail::new(path);
        }
        Some(transcript)
    }

    /// What the next observer needs to go on; `None` = it has to begin anew.
    pub(crate) fn remember(&self) -> Option<Kept> {
        Some(Kept {
            path: self.path.to_str().filter(|_| self.missing.is_none())?.to_owned(),
            mark: self.tail.mark()?,
            stamp: self.stamp,
            adapter: self.reader.adapter.clone(),
            session: self.reader.session.clone()?,
            is_sub_agent: self.reader.is_sub_agent,
            announce_from: self.reader.announce_from,
            earlier: self.earlier.clone(),
            ledger: self.reader.ledger.clone(),
        })
    }

    /// Goes on where another observer ended; `None` = the file is another one now, or gone.
    pub(crate) fn recall(kept: Kept) -> Option<Self> {
        let path = PathBuf::from(kept.path);
        Some(Transcript {
            tail: Tail::at(&path, kept.mark)?,
            path,
            reader: Reader {
                adapter: kept.adapter,
                ledger: kept.ledger,
                session: Some(kept.session),
                is_sub_agent: kept.is_sub_agent,
                announce_from: kept.announce_from,
                facts: Vec::new(),
                scratch: None,
            },
            missing: None,
            earlier: kept.earlier,
            stamp: kept.stamp,
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Records from `now` on are told, however late the file seems to have been made.
    pub(crate) fn announce_by(&mut self, now: Timestamp) {
        self.reader.announce_from = self.reader.announce_from.min(now);
    }

    /// The session that the file adds to, once it is known.
    pub(crate) fn session(&self) -> Option<&SessionId> {
        self.reader.session.as_ref()
    }

    /// Whether it is a sub-agent's file.
    pub(crate) fn is_sub_agent(&self) -> bool {
        self.reader.is_sub_agent
    }

    /// Sums over the part before the first look, and over everything else.
    pub(crate) fn stretches(&self) -> Stretches<'_> {
        (self.earlier.as_ref(), &self.reader.ledger)
    }

    /// Whether sums are missing that nobody is at work on.
    pub(crate) fn has_backfill(&self) -> bool {
        matches!(self.missing, Some(Missing::Waiting(_)))
    }

    /// Lends the part whose sums are missing to whoever makes them.
    pub(crate) fn lend_backfill(&mut self) -> Option<Box<Backfill>> {
        match self.missing.take() {
            Some(Missing::Waiting(mut backfill)) => {
                // A message may straddle the border; the reader knows by now what opens its own part.
                backfill.ledger.counted_elsewhere(&self.reader.ledger);
                self.missing = Some(Missing::Lent);
                Some(backfill)
            }
            other => {
                self.missing = other;
                None
            }
        }
    }

    /// Takes back what was lent, with its sums. Of a file that is another one by now they count for nothing.
    pub(crate) fn settle_backfill(&mut self, backfill: Backfill) {
        if matches!(self.missing, Some(Missing::Lent)) {
            self.missing = None;
            self.earlier = Some(backfill.ledger);
        }
    }

    /// Reads what was added.
    pub(crate) fn read(&mut self, buffer: &mut [u8], desk: &mut Desk<'_>) -> io::Result<()> {
        if let Ok(metadata) = fs::metadata(&self.path) {
            self.stamp = (metadata.len(), discover::modified(&metadata));
        }
        let Transcript { tail, reader, missing, earlier, .. } = self;
        tail.read(buffer, u64::MAX, |piece| match piece {
            Piece::Line(line) => {
                if reader.line(line, desk).is_err() {
                    *desk.unreadable += 1;
                }
            }
            Piece::Dropped => *desk.unreadable += 1,
            Piece::Restarted => {
                *missing = None;
                *earlier = None;
                reader.restart(desk);
            }
        })?;
        Ok(())
    }

    /// Places the cursor before the last records that tell something, and leaves the rest to the sums.
    fn start_at_the_end(&mut self, size: u64) -> io::Result<()> {
        let file = File::open(&self.path)?;
        let mut buffer = vec![0; CHUNK];
        self.read_head(&file, &mut buffer)?;
        for end in ENDS {
            let Some(start) = line_start(&file, size.saturating_sub(end), &mut buffer)? else { continue };
            let mut probe = self.reader.adapter.clone();
            let mut about = About::new(Agent::Claude, SessionId::new(""));
            let (mut facts, mut ledger) = (Vec::new(), Ledger::default());
            self.tail = Tail::from_offset(&self.path, start);
            Tail::from_offset(&self.path, start).read(&mut buffer, u64::MAX, |piece| {
                if let Piece::Line(line) = piece {
                    let _ =
                        probe.read(line, Said { facts: &mut facts, about: &mut about, ledger: &mut ledger });
                }
            })?;
            let mut scratch = About::new(Agent::Claude, SessionId::new(""));
            scratch.model.clone_from(&about.model);
            self.missing = Some(Missing::Waiting(Box::new(Backfill {
                path: self.path.clone(),
                tail: Tail::new(&self.path),
                end: start,
                reader: self.reader.adapter.fresh(),
                scratch,
                ledger: Ledger::default(),
                is_ended: start == 0,
            })));
            if !facts.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The first records tell whose file it is, where and since which version.
    fn read_head(&mut self, file: &File, buffer: &mut [u8]) -> io::Result<()> {
        let n = file.read_at(buffer, 0)?;
        let reader = &mut self.reader;
        let mut about = Box::new(About::new(Agent::Claude, SessionId::new("")));
        let mut ledger = Ledger::default();
        for line in buffer[..n].split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n")) {
            reader.take_head(line);
            reader.facts.clear();
            let said = Said { facts: &mut reader.facts, about: &mut about, ledger: &mut ledger };
            let _ = reader.adapter.read(line, said);
        }
        reader.facts.clear();
        reader.scratch = Some(about);
        Ok(())
    }
}

impl Backfill {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads at most `budget` bytes more. Says whether there is more to read. `buffer` as for [`Tail::read`].
    pub fn sum_up(&mut self, buffer: &mut [u8], budget: u64) -> bool {
        let Backfill { tail, end, reader, scratch, ledger, is_ended, .. } = self;
        let mut facts = Vec::new();
        let mut left = budget.min(end.saturating_sub(tail.offset()));
        while left > 0 && !*is_ended {
            // The part ends with a line, so that a read of exactly its rest splits none.
            let step = tail.read(buffer, left, |piece| match piece {
                Piece::Line(line) => {
                    facts.clear();
                    // What could not be read was no message either.
                    let _ = reader.read(line, Said { facts: &mut facts, about: scratch, ledger });
                }
                Piece::Dropped => {}
                Piece::Restarted => *is_ended = true,
            });
            match step {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => *is_ended = true,
            }
        }
        *is_ended |= tail.offset() >= *end;
        !*is_ended
    }
}

impl Adapter {
    fn read(&mut self, line: &[u8], said: Said<'_>) -> Result<Option<Timestamp>, Malformed> {
        match self {
            Adapter::Claude(claude) => claude.read(line, said),
            Adapter::ClaudeSubAgent => claude::read_sub_agent(line, said),
            Adapter::Codex(codex) => codex.read(line, said),
        }
    }

    /// The same format at the beginning of a file.
    fn fresh(&self) -> Adapter {
        match self {
            Adapter::Claude(_) => Adapter::Claude(Claude::default()),
            Adapter::ClaudeSubAgent => Adapter::ClaudeSubAgent,
            Adapter::Codex(_) => Adapter::Codex(Codex::default()),
        }
    }

    fn agent(&self) -> Agent {
        match self {
            Adapter::Claude(_) | Adapter::ClaudeSubAgent => Agent::Claude,
            Adapter::Codex(_) => Agent::Codex,
        }
    }
}

impl Reader {
    fn line(&mut self, line: &[u8], desk: &mut Desk<'_>) -> Result<(), Malformed> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        self.take_head(line);
        let Some(id) = self.session.clone() else { return Err(Malformed) };
        self.facts.clear();
        if self.is_sub_agent {
            let about =
                self.scratch.get_or_insert_with(|| Box::new(About::new(self.adapter.agent(), id.clone())));
            let said = Said { facts: &mut self.facts, about, ledger: &mut self.ledger };
            self.adapter.read(line, said)?;
            if let Some(parent) = desk.sessions.get_mut(&id) {
                parent.is_changed = true;
            }
            return Ok(());
        }
        let agent = self.adapter.agent();
        let session = desk.sessions.entry(id.clone()).or_insert_with(|| Session::new(agent, id.clone()));
        if let Some(head) = self.scratch.take() {
            describe_from_head(&mut session.about, *head);
        }
        let said = Said { facts: &mut self.facts, about: &mut session.about, ledger: &mut self.ledger };
        let at = self.adapter.read(line, said)?;
        session.note_record(at);
        let announce_from = self.announce_from.max(desk.look.since);
        for recorded in &self.facts {
            session.record(recorded, announce_from, desk.look, desk.out);
        }
        Ok(())
    }

    /// A rollout tells whose it is in its first record.
    fn take_head(&mut self, line: &[u8]) {
        if self.session.is_none()
            && let Some(head) = codex::head(line)
        {
            self.is_sub_agent = head.parent.is_some();
            self.session = Some(head.parent.unwrap_or(head.id));
        }
    }

    /// What is read from now on was read before, up to the newest record.
    fn restart(&mut self, desk: &mut Desk<'_>) {
        self.ledger = Ledger::default();
        self.scratch = None;
        self.adapter = self.adapter.fresh();
        if self.is_sub_agent {
            return;
        }
        if let Some(session) = self.session.as_ref().and_then(|id| desk.sessions.get_mut(id)) {
            if let Some(newest) = session.newest_record_at() {
                self.announce_from = self.announce_from.max(newest.plus(Duration::from_millis(1)));
            }
            session.restart(desk.look, desk.out);
        }
    }
}

fn describe_from_head(about: &mut About, head: About) {
    about.cwd = head.cwd;
    about.model = head.model;
    about.git_branch = head.git_branch;
    about.version = head.version;
    about.interactive = head.interactive;
    about.title = head.title.or(about.title.take());
    about.last_prompt_at = head.last_prompt_at;
}

/// Where the first line begins that begins at or after `from`; `None` when none does.
fn line_start(file: &File, from: u64, buffer: &mut [u8]) -> io::Result<Option<u64>> {
    let Some(mut at) = from.checked_sub(1) else { return Ok(Some(0)) };
    loop {
        let n = file.read_at(buffer, at)?;
        if n == 0 {
            return Ok(None);
        }
        if let Some(newline) = memchr::memchr(b'\n', &buffer[..n]) {
            return Ok(Some(at + newline as u64 + 1));
        }
        at += n as u64;
    }
}
