//! The ten activities and the one function that decides between them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    // A call that waited for the user's permission runs from the answer on.
    let resumed_at = match live {
        Some(l) if l.status == LiveStatus::Busy => l.status_at,
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
        .map(|t| (t.kind, t.since.max(resumed_at).plus(timeout(t.kind))))
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
        // What is held back is the end: the session stays in what it was doing.
        let activity = if facts.ended_compacting() { Activity::Compacting } else { Activity::Thinking };
        return Verdict { activity, reason: None, until: Some(shown_at) };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Fact;

    fn t(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn facts(records: &[(i64, Fact)]) -> Facts {
        let mut facts = Facts::new(true);
        for (at, fact) in records {
            facts.apply(fact, t(*at));
        }
        facts
    }

    fn live(mut facts: Facts, status: LiveStatus, at: i64) -> Facts {
        facts.set_live(Some(Live { status, status_at: t(at) }));
        facts
    }

    fn prompt() -> Fact {
        Fact::Prompt { human: true }
    }

    fn call(id: &str, kind: ToolKind) -> Fact {
        Fact::ToolCall { id: id.into(), name: id.into(), kind }
    }

    fn result(id: &str) -> Fact {
        Fact::ToolResult { id: id.into() }
    }

    fn end(reason: Reason) -> Fact {
        Fact::TurnEnd { reason, stated: true }
    }

    /// What is shown at each instant.
    fn check(facts: &Facts, expected: &[(i64, Activity, Option<Reason>)]) {
        for (at, activity, reason) in expected {
            let verdict = judge(facts, &Rules::default(), t(*at));
            assert_eq!((verdict.activity, verdict.reason), (*activity, *reason), "at {at} s");
        }
    }

    /// The instant named as the next change is the first at which the answer differs.
    fn check_timer(facts: &Facts, now: i64, until: i64) {
        let before = judge(facts, &Rules::default(), t(now));
        assert_eq!(before.until, Some(t(until)));
        let shown = |at: Timestamp| {
            let v = judge(facts, &Rules::default(), at);
            (v.activity, v.reason)
        };
        assert_eq!(shown(t(until).minus(Duration::from_millis(1))), (before.activity, before.reason));
        assert_ne!(shown(t(until)), (before.activity, before.reason));
    }

    #[test]
    fn rule_1_a_process_known_to_be_gone_is_idle_with_reason_exited() {
        let mut gone = live(facts(&[(1, prompt()), (2, call("a", ToolKind::Running))]), LiveStatus::Busy, 1);
        gone.set_gone(t(3));
        check(
            &gone,
            &[(3, Activity::Idle, Some(Reason::Exited)), (9999, Activity::Idle, Some(Reason::Exited))],
        );
        // What a dying process still writes does not revive it; what another one writes does.
        gone.apply(&result("a"), t(4));
        gone.apply(&end(Reason::Interrupted), t(4));
        check(&gone, &[(4, Activity::Idle, Some(Reason::Exited))]);
        gone.apply(&prompt(), t(5));
        check(&gone, &[(5, Activity::Thinking, None)]);
    }

    #[test]
    fn rule_2_a_pending_permission_or_question_waits_until_answered_and_time_alone_never_ends_it() {
        let open = facts(&[(1, prompt()), (2, call("a", ToolKind::Running))]);
        let asked = live(open, LiveStatus::Waiting(Reason::Permission), 3);
        check(
            &asked,
            &[
                (3, Activity::Waiting, Some(Reason::Permission)),
                (999_999, Activity::Waiting, Some(Reason::Permission)),
            ],
        );
        assert_eq!(judge(&asked, &Rules::default(), t(3)).until, None);
        // The call runs from the answer on.
        check(&live(asked, LiveStatus::Busy, 50_000), &[(50_001, Activity::Running, None)]);

        let question = facts(&[(1, prompt()), (2, call("q", ToolKind::Question))]);
        check(&question, &[(999_999, Activity::Waiting, Some(Reason::Question))]);
        check(&live(question, LiveStatus::Idle, 3), &[(4, Activity::Waiting, Some(Reason::Question))]);
    }

    #[test]
    fn rule_3_a_compaction_in_progress_is_compacting() {
        let compacting =
            facts(&[(1, prompt()), (2, call("a", ToolKind::Running)), (3, Fact::CompactionStart)]);
        check(&compacting, &[(3, Activity::Compacting, None), (602, Activity::Compacting, None)]);
        let done = facts(&[(1, prompt()), (3, Fact::CompactionStart), (9, Fact::CompactionEnd)]);
        check(&done, &[(9, Activity::Thinking, None)]);
        // A compaction that ends the turn is shown until the end is.
        let last = facts(&[(1, end(Reason::TurnEnd)), (3, Fact::CompactionStart), (9, end(Reason::TurnEnd))]);
        let last = live(last, LiveStatus::Busy, 2);
        check(&last, &[(9, Activity::Compacting, None), (10, Activity::Waiting, Some(Reason::TurnEnd))]);
    }

    #[test]
    fn rule_4_an_open_tool_call_is_its_kind_until_its_result() {
        for (kind, activity) in [
            (ToolKind::Reading, Activity::Reading),
            (ToolKind::Writing, Activity::Writing),
            (ToolKind::Running, Activity::Running),
            (ToolKind::Searching, Activity::Searching),
            (ToolKind::Browsing, Activity::Browsing),
            (ToolKind::Spawning, Activity::Spawning),
        ] {
            let mut open = facts(&[(1, prompt()), (2, call("a", kind))]);
            check(&open, &[(3, activity, None)]);
            open.apply(&result("a"), t(4));
            check(&open, &[(4, Activity::Thinking, None)]);
        }
        let open = facts(&[(1, prompt()), (2, call("a", ToolKind::Running))]);
        check_timer(&open, 3, 2 + 30 * 60);
        check_timer(&facts(&[(1, prompt()), (2, call("a", ToolKind::Spawning))]), 3, 2 + 20 * 60);
    }

    #[test]
    fn rule_4_of_several_open_calls_running_is_shown_before_writing_browsing_searching_reading_and_spawning()
    {
        let order = [
            ToolKind::Running,
            ToolKind::Writing,
            ToolKind::Browsing,
            ToolKind::Searching,
            ToolKind::Reading,
            ToolKind::Spawning,
        ];
        let calls = order.iter().enumerate().map(|(i, kind)| (2, call(&i.to_string(), *kind)));
        let mut open = facts(&calls.collect::<Vec<_>>());
        for (i, kind) in order.iter().enumerate() {
            check(&open, &[(3, kind.activity(), None)]);
            assert_eq!(open.current_tool().map(|tool| tool.kind), Some(*kind));
            open.apply(&result(&i.to_string()), t(3));
        }
    }

    #[test]
    fn rule_5_an_open_turn_is_thinking_while_the_process_lives_else_until_open_turn_timeout() {
        let open = facts(&[(1, prompt())]);
        check_timer(&open, 2, 1 + 600);
        check(&open, &[(602, Activity::Idle, Some(Reason::Stuck))]);
        check(&live(open.clone(), LiveStatus::Busy, 1), &[(999_999, Activity::Thinking, None)]);
        check(&live(open, LiveStatus::Unknown, 1), &[(999_999, Activity::Thinking, None)]);
        let mut unstated = Facts::new(false);
        unstated.apply(&prompt(), t(1));
        check_timer(&unstated, 2, 1 + 30);
    }

    #[test]
    fn rule_6_a_stated_end_waits_at_once_and_an_inferred_one_after_waiting_grace() {
        for reason in [Reason::TurnEnd, Reason::Error, Reason::RateLimit, Reason::Interrupted] {
            let ended = facts(&[(1, prompt()), (5, end(reason))]);
            check(&ended, &[(5, Activity::Waiting, Some(reason))]);
            check_timer(&ended, 5, 5 + 120);
            check(&ended, &[(125, Activity::Idle, Some(Reason::Timeout))]);
        }
        let inferred = Fact::TurnEnd { reason: Reason::TurnEnd, stated: false };
        let inferred = facts(&[(1, prompt()), (5, inferred)]);
        check(&inferred, &[(5, Activity::Thinking, None), (15, Activity::Waiting, Some(Reason::TurnEnd))]);
        check(&live(inferred, LiveStatus::Idle, 5), &[(5, Activity::Waiting, Some(Reason::TurnEnd))]);
    }

    #[test]
    fn rule_6_while_the_registry_says_busy_the_end_is_held_back_or_background_agents_are_spawning() {
        let ended = facts(&[(1, prompt()), (5, end(Reason::TurnEnd))]);
        let busy = live(ended, LiveStatus::Busy, 1);
        check(&busy, &[(5, Activity::Thinking, None), (6, Activity::Waiting, Some(Reason::TurnEnd))]);
        let background = Fact::BackgroundStart { id: "b".into() };
        let mut spawned =
            live(facts(&[(1, prompt()), (4, background), (5, end(Reason::TurnEnd))]), LiveStatus::Busy, 1);
        check(&spawned, &[(6, Activity::Spawning, None)]);
        spawned.apply(&Fact::BackgroundEnd { id: "b".into() }, t(7));
        check(&spawned, &[(7, Activity::Waiting, Some(Reason::TurnEnd))]);
    }

    #[test]
    fn rule_6_a_waiting_timeout_of_zero_waits_for_ever() {
        let rules = Rules { waiting_timeout: Duration::ZERO, ..Rules::default() };
        let ended = facts(&[(1, prompt()), (5, end(Reason::TurnEnd))]);
        assert_eq!(judge(&ended, &rules, t(999_999)).activity, Activity::Waiting);
        assert_eq!(judge(&ended, &rules, t(5)).until, None);
    }

    #[test]
    fn rule_7_else_idle() {
        check(&facts(&[]), &[(0, Activity::Idle, None)]);
        check(&live(facts(&[]), LiveStatus::Idle, 5), &[(6, Activity::Idle, None)]);
    }

    #[test]
    fn registry_idle_ends_the_turn_and_its_open_calls() {
        let open = facts(&[(1, prompt()), (2, call("a", ToolKind::Running))]);
        check(&live(open.clone(), LiveStatus::Idle, 9), &[(9, Activity::Waiting, Some(Reason::TurnEnd))]);
        // An older `idle` was written before the turn and says nothing of it.
        check(&live(open, LiveStatus::Idle, 1), &[(9, Activity::Running, None)]);
    }

    #[test]
    fn a_late_result_does_not_reopen_an_ended_turn() {
        let late = facts(&[
            (1, prompt()),
            (2, call("a", ToolKind::Running)),
            (3, end(Reason::Interrupted)),
            (4, result("a")),
        ]);
        check(&late, &[(4, Activity::Waiting, Some(Reason::Interrupted))]);
    }
}
