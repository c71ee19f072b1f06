//! One session as it is followed: facts in, sightings out, one for each change.
//!
//! Owns: in which order a change is told, at which instant, and whether it may be announced. Does not know: files,
//! record formats, or any clock but its argument.

use std::sync::Arc;

use ringback_model::activity::judge;
use ringback_model::session::{About, Facts};
use ringback_model::transition::Sighting;
use ringback_model::{Activity, Agent, Live, Reason, Recorded, Rules, SessionId, Timestamp, Verdict};
use serde::{Deserialize, Serialize};

/// What is known of a session at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What there is to show.
    pub about: Arc<About>,
    /// What it does.
    pub verdict: Verdict,
    /// Since when.
    pub since: Timestamp,
    /// Name of the open tool call that decides what is shown.
    pub current_tool: Option<String>,
    /// Time of the newest record read.
    pub newest_record_at: Option<Timestamp>,
}

/// One thing seen, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// What the session does, or why, changed.
    Sighting(Sighted),
    /// Something to show changed, and what the session does did not.
    About(Snapshot),
}

/// A change of what a session does.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighted {
    /// The session.
    pub session_id: SessionId,
    /// Its agent.
    pub agent: Agent,
    /// What it does now, since when, and whether that may be told as an event.
    pub sighting: Sighting,
    /// This ends a stretch of history that was read in silence: if the stored state differs and
    /// `snapshot.newest_record_at` is young enough, it makes one event (outbound.md, "The event").
    pub catch_up: bool,
    /// The session after the change.
    pub snapshot: Snapshot,
}

/// What a change is measured by: the rules and two instants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) rules: &'a Rules,
    /// The observer's present.
    pub(crate) now: Timestamp,
    /// Changes before this instant are history.
    pub(crate) since: Timestamp,
}

/// A session that is followed.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) about: About,
    /// `about` was changed since it was last told.
    pub(crate) is_changed: bool,
    shared: Option<Arc<About>>,
    facts: Facts,
    verdict: Verdict,
    since: Timestamp,
    /// The instant of the verdict; instants of a session never go back.
    judged_at: Timestamp,
    told: Option<(Activity, Option<Reason>)>,
    /// History was read that is not told yet.
    is_silent: bool,
    newest_record_at: Option<Timestamp>,
}

/// A session as it is left to the next observer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    about: About,
    facts: Facts,
    verdict: Verdict,
    since: Timestamp,
    judged_at: Timestamp,
    newest_record_at: Option<Timestamp>,
}

impl Kept {
    /// Whose it is.
    pub(crate) fn id(&self) -> &SessionId {
        &self.about.session_id
    }
}

impl Session {
    /// What the next observer needs to go on.
    pub(crate) fn remember(&self) -> Kept {
        Kept {
            about: self.about.clone(),
            facts: self.facts.clone(),
            verdict: self.verdict,
            since: self.since,
            judged_at: self.judged_at,
            newest_record_at: self.newest_record_at,
        }
    }

    /// Goes on where another observer ended. What was known is history; what the registry said then says nothing now.
    pub(crate) fn recall(kept: Kept, look: Look<'_>, out: &mut Vec<Seen>) -> Self {
        let mut session = Session {
            facts: kept.facts,
            verdict: kept.verdict,
            since: kept.since,
            judged_at: kept.judged_at.min(look.now),
            newest_record_at: kept.newest_record_at,
            ..Session::new(kept.about.agent, kept.about.session_id.clone())
        };
        session.about = kept.about;
        session.facts.set_live(None);
        session.judge(session.judged_at, false, look, out);
        session
    }

    pub(crate) fn new(agent: Agent, id: SessionId) -> Self {
        Session {
            about: About::new(agent, id),
            is_changed: true,
            shared: None,
            // Both agents write a record when a turn ends.
            facts: Facts::new(true),
            verdict: Verdict { activity: Activity::Idle, reason: None, until: None },
            since: Timestamp::MIN,
            judged_at: Timestamp::MIN,
            told: None,
            is_silent: false,
            newest_record_at: None,
        }
    }

    /// Takes in one record. `announce_from`: records older than this are copied or known history.
    pub(crate) fn record(
        &mut self,
        recorded: &Recorded,
        announce_from: Timestamp,
        look: Look<'_>,
        out: &mut Vec<Seen>,
    ) {
        let at = recorded.at.unwrap_or(look.now).min(look.now);
        let announce = recorded.at.is_none_or(|at| at >= announce_from);
        self.prepare(at, announce, look, out);
        self.facts.apply(&recorded.fact, at);
        self.judge(at, announce, look, out);
    }

    /// Notes the time of a record, whether or not it said something.
    pub(crate) fn note_record(&mut self, at: Option<Timestamp>) {
        self.is_changed = true;
        self.newest_record_at = at.max(self.newest_record_at);
    }

    pub(crate) fn newest_record_at(&self) -> Option<Timestamp> {
        self.newest_record_at
    }

    /// Takes in what the live registry says of the session.
    pub(crate) fn set_live(&mut self, live: Option<Live>, look: Look<'_>, out: &mut Vec<Seen>) {
        if self.facts.live().copied() == live && self.told.is_some() {
            return;
        }
        let at = live.map_or(look.now, |l| l.status_at).min(look.now);
        let announce = at >= look.since;
        self.prepare(at, announce, look, out);
        self.facts.set_live(live);
        self.judge(at, announce, look, out);
    }

    /// Takes in that the session's process, seen alive before, has ended.
    pub(crate) fn set_gone(&mut self, look: Look<'_>, out: &mut Vec<Seen>) {
        let announce = look.now >= look.since;
        self.prepare(look.now, announce, look, out);
        self.facts.set_gone(look.now);
        self.judge(look.now, announce, look, out);
    }

    /// Forgets what the transcript said: it is read again from its beginning.
    pub(crate) fn restart(&mut self, look: Look<'_>, out: &mut Vec<Seen>) {
        let live = self.facts.live().copied();
        self.facts = Facts::new(true);
        self.facts.set_live(live);
        self.about.recent_tools.clear();
        self.about.recent_messages.clear();
        self.is_changed = true;
        self.judge(look.now, false, look, out);
    }

    /// When time alone changes what the session does.
    pub(crate) fn timer(&self) -> Option<Timestamp> {
        self.verdict.until
    }

    /// Whether nothing has happened since `instant`, and nothing can without a new record.
    pub(crate) fn rests_since(&self, instant: Timestamp) -> bool {
        let is_at_rest = self.verdict.activity == Activity::Idle && self.verdict.until.is_none();
        is_at_rest && self.facts.live().is_none() && self.since < instant
    }

    /// Fires the timers that are due, and tells what was read in silence.
    pub(crate) fn settle(&mut self, look: Look<'_>, out: &mut Vec<Seen>) {
        self.advance(look.now, look, out);
        self.break_silence(out);
    }

    /// Tells a change of what there is to show, if none was told with a sighting.
    pub(crate) fn tell_about(&mut self, out: &mut Vec<Seen>) {
        if self.is_changed {
            let snapshot = self.snapshot();
            out.push(Seen::About(snapshot));
        }
    }

    /// The session now; what it shows counts as told.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        if std::mem::take(&mut self.is_changed) {
            self.shared = None;
        }
        let about = self.shared.get_or_insert_with(|| Arc::new(self.about.clone()));
        Snapshot {
            about: Arc::clone(about),
            verdict: self.verdict,
            since: self.since,
            current_tool: self.facts.current_tool().map(|t| t.name.clone()),
            newest_record_at: self.newest_record_at,
        }
    }

    /// Nothing of it was judged later than `now`, whatever the clock said then.
    pub(crate) fn seen_by(&mut self, now: Timestamp) {
        self.judged_at = self.judged_at.min(now);
        self.since = self.since.min(now);
    }

    /// Before the first change that may be told, what was read in silence is told as it stood then.
    fn prepare(&mut self, at: Timestamp, announce: bool, look: Look<'_>, out: &mut Vec<Seen>) {
        if announce && self.is_silent {
            self.advance(at, look, out);
            self.break_silence(out);
        }
    }

    fn advance(&mut self, until: Timestamp, look: Look<'_>, out: &mut Vec<Seen>) {
        while let Some(due) = self.verdict.until
            && due <= until
        {
            let announce = due >= look.since && !self.is_silent;
            self.judge(due, announce, look, out);
            // A rule that names an instant which changes nothing would fire for ever.
            if self.verdict.until.is_some_and(|next| next <= due) {
                break;
            }
        }
    }

    fn judge(&mut self, at: Timestamp, announce: bool, look: Look<'_>, out: &mut Vec<Seen>) {
        self.judged_at = self.judged_at.max(at);
        let verdict = judge(&self.facts, look.rules, self.judged_at);
        let before = (self.verdict.activity, self.verdict.reason);
        if before != (verdict.activity, verdict.reason) || self.since == Timestamp::MIN {
            self.since = self.judged_at;
        }
        self.verdict = verdict;
        if !announce {
            self.is_silent = true;
        } else if self.told != Some((verdict.activity, verdict.reason)) {
            self.tell(true, false, out);
        }
    }

    fn break_silence(&mut self, out: &mut Vec<Seen>) {
        let is = (self.verdict.activity, self.verdict.reason);
        if std::mem::take(&mut self.is_silent) && self.told != Some(is) {
            self.tell(false, true, out);
        }
    }

    fn tell(&mut self, announce: bool, catch_up: bool, out: &mut Vec<Seen>) {
        let Verdict { activity, reason, .. } = self.verdict;
        self.told = Some((activity, reason));
        out.push(Seen::Sighting(Sighted {
            session_id: self.about.session_id.clone(),
            agent: self.about.agent,
            sighting: Sighting { activity, reason, at: self.since, announce },
            catch_up,
            snapshot: self.snapshot(),
        }));
    }
}
