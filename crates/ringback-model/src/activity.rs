//! The ten activities and the one function that decides between them.

use std::time::Duration;

use crate::ids::words;
use crate::session::{Facts, Live, LiveStatus, Turn};
use crate::time::Timestamp;
use crate::tool::ToolKind;

words! {
    /// What a session is doing.
    Activity, "activity" {
        /// Nothing is going on and nobody is expected to answer.
        Idle = "idle",
        /// The agent waits for the user.
        Waiting = "waiting",
        /// A model call is under way or about to be.
        Thinking = "thinking",
        /// The conversation is being compacted.
        Compacting = "compacting",
        /// A reading tool is open.
        Reading = "reading",
        /// A writing tool is open.
        Writing = "writing",
        /// A command, an MCP tool or an unknown tool is open.
        Running = "running",
        /// A searching tool is open.
        Searching = "searching",
        /// A web tool is open.
        Browsing = "browsing",
        /// Only sub-agents are at work.
        Spawning = "spawning",
    }
}

impl Activity {
    /// Whether the session is neither idle nor waiting.
    pub const fn is_active(self) -> bool {
        !matches!(self, Activity::Idle | Activity::Waiting)
    }
}

words! {
    /// Why a session is in its activity, where that says more than the activity.
    Reason, "reason" {
        /// The agent finished its turn.
        TurnEnd = "turn_end",
        /// A permission prompt is open.
        Permission = "permission",
        /// The agent asked the user a question.
        Question = "question",
        /// The turn died of an error.
        Error = "error",
        /// The turn died of a rate limit.
        RateLimit = "rate_limit",
        /// The user interrupted the turn.
        Interrupted = "interrupted",
        /// The agent's process ended.
        Exited = "exited",
        /// The session waited for longer than `waiting_timeout`.
        Timeout = "timeout",
        /// A turn or a tool call stayed open for longer than its timeout.
        Stuck = "stuck",
    }
}

/// The durations of the rules (`[activity]` in the configuration).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long an open tool call counts. Default 30 m.
    pub open_tool_timeout: Duration,
    /// How long an open spawning call counts. Default 20 m.
    pub spawning_timeout: Duration,
    /// How long an open turn counts without progress and without a live process. Default 10 m.
    pub open_turn_timeout: Duration,
    /// The same for agents that do not state the end of a turn. Default 30 s.
    pub activity_timeout: Duration,
    /// How long an inferred end of a turn is held back. Default 10 s.
    pub waiting_grace: Duration,
    /// After how long waiting becomes idle; zero = never. Default 2 m.
    pub waiting_timeout: Duration,
    /// How long a stated end is held back while the registry still says busy. Default 500 ms.
    pub settle: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            open_tool_timeout: Duration::from_secs(30 * 60),
            spawning_timeout: Duration::from_secs(20 * 60),
            open_turn_timeout: Duration::from_secs(10 * 60),
            activity_timeout: Duration::from_secs(30),
            waiting_grace: Duration::from_secs(10),
            waiting_timeout: Duration::from_secs(2 * 60),
            settle: Duration::from_millis(500),
        }
    }
}

/// The answer of [`judge`]: what the session does, why, and until when that holds if nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the session is doing.
    pub activity: Activity,
    /// Why, where it applies.
    pub reason: Option<Reason>,
    /// The instant at which time alone changes the answer; the timer to set. `None` = never.
    pub until: Option<Timestamp>,
}

impl Verdict {
    const fn steady(activity: Activity, reason: Option<Reason>) -> Self {
        Verdict { activity, reason, until: None }
    }
}

/// Decides the activity of a session from its facts at the instant `now`. The first rule that holds wins; the
/// numbers are the contract's (api-cli.md, "Activity").
pub fn judge(facts: &Facts, rules: &Rules, now: Timestamp) -> Verdict {
    // 1. The process is known to be gone.
    if facts.gone_at().is_some() {
        return Verdict::steady(Activity::Idle, Some(Reason::Exited));
    }
    let live = facts.live();

    // 2. Somebody has to answer. Time alone never ends this.
    if let Some(reason) = pending_answer(facts, live) {
        return Verdict::steady(Activity::Waiting, Some(reason));
    }

    // 3. Compaction.
    if let Some(since) = facts.compacting_since()
        && !live.is_some_and(|l| l.status == LiveStatus::Idle && l.status_at > since)
    {
        let until = since.plus(rules.open_turn_timeout);
        if is_held_open(live) {
            return Verdict::steady(Activity::Compacting, None);
        } else if now < until {
            return Verdict { activity: Activity::Compacting, reason: None, until: Some(until) };
        }
    }

    // 4. Open tool calls.
    if let Some(verdict) = open_tools(facts, live, rules, now) {
        return verdict;
    }

    // 5. An open turn. 6. An ended one.
    match turn_now(facts, live) {
        Turn::Open { progress_at } => open_turn(facts, live, rules, progress_at, now),
        Turn::Ended { at, reason, stated } => ended_turn(facts, live, rules, at, reason, stated, now),
        // 7. Nothing has ever been asked.
        Turn::Never => Verdict::steady(Activity::Idle, None),
    }
}

fn pending_answer(facts: &Facts, live: Option<&Live>) -> Option<Reason> {
    if let Some(Live { status: LiveStatus::Waiting(reason), .. }) = live {
        return Some(*reason);
    }
    // A registry `idle` does not close a question: Claude Code shows idle while its question is on the screen.
    facts.open_tools().iter().any(|t| t.kind == ToolKind::Question).then_some(Reason::Question)
}

/// A registry `idle` ends every call that was open when it was written.
fn open_tools(facts: &Facts, live: Option<&Live>, rules: &Rules, now: Timestamp) -> Option<Verdict> {
    let closed_at = match live {
        Some(l) if l.status == LiveStatus::Idle => l.status_at,
        _ => Timestamp::MIN,
    };
    let timeout = |kind| match kind {
        ToolKind::Spawning => rules.spawning_timeout,
        _ => rules.open_tool_timeout,
    };
    let open: Vec<(ToolKind, Timestamp)> = facts
        .open_tools()
        .iter()
        .filter(|t| t.since > closed_at)
        .map(|t| (t.kind, t.since.plus(timeout(t.kind))))
        .filter(|(_, until)| now < *until)
        .collect();
    let (kind, _) = open.iter().max_by_key(|(kind, _)| kind.rank())?;
    // The next timeout of any open call may change which one is shown.
    let until = open.iter().map(|(_, until)| *until).min();
    Some(Verdict { activity: kind.activity(), reason: None, until })
}

/// The turn as the transcript and the live registry tell it together: the registry's `idle` ends what was open
/// when it was written, and its `busy` opens a turn that the transcript has not shown yet.
fn turn_now(facts: &Facts, live: Option<&Live>) -> Turn {
    match (facts.turn(), live) {
        (Turn::Open { progress_at }, Some(l))
            if l.status == LiveStatus::Idle && l.status_at >= progress_at =>
        {
            Turn::Ended { at: l.status_at, reason: Reason::TurnEnd, stated: true }
        }
        (Turn::Ended { at, reason, .. }, Some(l)) if l.status == LiveStatus::Idle => {
            Turn::Ended { at, reason, stated: true }
        }
        (Turn::Ended { at, .. }, Some(l)) if l.status == LiveStatus::Busy && l.status_at > at => {
            Turn::Open { progress_at: l.status_at }
        }
        (Turn::Never, Some(l)) if l.status == LiveStatus::Busy => Turn::Open { progress_at: l.status_at },
        (turn, _) => turn,
    }
}

fn is_held_open(live: Option<&Live>) -> bool {
    // A live process whose registry says nothing of its status still shows that the turn has not died with it.
    live.is_some_and(|l| matches!(l.status, LiveStatus::Busy | LiveStatus::Unknown))
}

fn open_turn(
    facts: &Facts,
    live: Option<&Live>,
    rules: &Rules,
    progress_at: Timestamp,
    now: Timestamp,
) -> Verdict {
    if is_held_open(live) {
        return Verdict::steady(Activity::Thinking, None);
    }
    let timeout = if facts.states_turn_end() { rules.open_turn_timeout } else { rules.activity_timeout };
    // A call that ran into its own timeout held the turn open until then.
    let until = progress_at.plus(timeout);
    if now < until {
        Verdict { activity: Activity::Thinking, reason: None, until: Some(until) }
    } else {
        Verdict::steady(Activity::Idle, Some(Reason::Stuck))
    }
}

fn ended_turn(
    facts: &Facts,
    live: Option<&Live>,
    rules: &Rules,
    at: Timestamp,
    reason: Reason,
    stated: bool,
    now: Timestamp,
) -> Verdict {
    let busy = live.is_some_and(|l| l.status == LiveStatus::Busy);
    if busy && let Some(since) = facts.background_since() {
        let until = since.plus(rules.spawning_timeout);
        if now < until {
            return Verdict { activity: Activity::Spawning, reason: None, until: Some(until) };
        }
    }
    let hold = match (stated, busy) {
        (true, true) => rules.settle,
        (true, false) => Duration::ZERO,
        (false, _) => rules.waiting_grace,
    };
    let shown_at = at.plus(hold);
    if now < shown_at {
        return Verdict { activity: Activity::Thinking, reason: None, until: Some(shown_at) };
    }
    if rules.waiting_timeout.is_zero() {
        return Verdict::steady(Activity::Waiting, Some(reason));
    }
    let until = at.plus(rules.waiting_timeout);
    if now < until {
        Verdict { activity: Activity::Waiting, reason: Some(reason), until: Some(until) }
    } else {
        Verdict::steady(Activity::Idle, Some(Reason::Timeout))
    }
}
