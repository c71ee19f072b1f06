//! From what a session is seen doing to the change that is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activity::{Activity, Reason};
use crate::ids::{Agent, SessionId};
use crate::time::Timestamp;

/// How long deduplication remembers an event, however long the window. It remembers one for each session.
pub const DEDUP_MEMORY: Duration = Duration::from_secs(300);

/// What the store keeps of a session between sightings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The session.
    pub session_id: SessionId,
    /// Its agent.
    pub agent: Agent,
    /// Last known activity.
    pub activity: Activity,
    /// Why.
    pub reason: Option<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Sequence number of the last event; 0 = none yet.
    pub sequence: u64,
    /// The last event.
    pub last_event: Option<LastEvent>,
}

/// What deduplication remembers of a session's last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Activity before.
    pub from: Activity,
    /// Activity after.
    pub to: Activity,
    /// When it happened.
    pub at: Timestamp,
}

/// One look at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What it does.
    pub activity: Activity,
    /// Why.
    pub reason: Option<Reason>,
    /// When that became so: the record's own time, or the instant a timer fired.
    pub at: Timestamp,
    /// Whether a change may be told. Copied history and records from before the observer looked are not.
    pub announce: bool,
}

/// The change that an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Activity before.
    pub from: Activity,
    /// Activity after.
    pub to: Activity,
    /// Why.
    pub reason: Option<Reason>,
    /// When, within (last event, now].
    pub at: Timestamp,
    /// How long the session was in `from`.
    pub spent: Duration,
    /// The session's new sequence number.
    pub sequence: u64,
}

/// Takes a known session one sighting further: the state to store and, if there is one, the change to tell.
///
/// A session that the store does not know yet has no change to tell: see [`first`]. A change equal to the last
/// event and within `dedup_window` of it was seen by two observers; it moves the state, takes no sequence number
/// and is not told. After [`DEDUP_MEMORY`] nothing is a repetition.
pub fn step(
    state: &SessionState,
    seen: Sighting,
    now: Timestamp,
    dedup_window: Duration,
) -> (SessionState, Option<Change>) {
    let mut next = state.clone();
    if seen.activity == state.activity {
        next.reason = seen.reason;
        return (next, None);
    }
    let at = match state.last_event {
        // A millisecond is the least that two times can differ by.
        Some(last) => seen.at.clamp_to(last.at.plus(Duration::from_millis(1)), now),
        None => seen.at.min(now),
    };
    next.activity = seen.activity;
    next.reason = seen.reason;
    next.since = at;
    let window = dedup_window.min(DEDUP_MEMORY);
    let repeated = state.last_event.is_some_and(|last| {
        last.from == state.activity && last.to == seen.activity && at.since(last.at) < window
    });
    if !seen.announce || repeated {
        return (next, None);
    }
    next.sequence = state.sequence + 1;
    next.last_event = Some(LastEvent { from: state.activity, to: seen.activity, at });
    let change = Change {
        from: state.activity,
        to: seen.activity,
        reason: seen.reason,
        at,
        spent: at.since(state.since),
        sequence: next.sequence,
    };
    (next, Some(change))
}

/// The state of a session seen for the first time.
pub fn first(session_id: SessionId, agent: Agent, seen: Sighting, now: Timestamp) -> SessionState {
    SessionState {
        session_id,
        agent,
        activity: seen.activity,
        reason: seen.reason,
        since: seen.at.min(now),
        sequence: 0,
        last_event: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(2);

    fn t(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn seen(activity: Activity, at: i64) -> Sighting {
        Sighting { activity, reason: None, at: t(at), announce: true }
    }

    fn idle() -> SessionState {
        first(SessionId::new("s"), Agent::Claude, seen(Activity::Idle, 0), t(0))
    }

    #[test]
    fn there_and_back_and_there_again_are_three_events() {
        let mut state = idle();
        let mut told = Vec::new();
        for (activity, at) in [(Activity::Thinking, 10), (Activity::Idle, 20), (Activity::Thinking, 30)] {
            let (next, change) = step(&state, seen(activity, at), t(1000), WINDOW);
            told.extend(change.map(|c| (c.from, c.to, c.sequence, c.at)));
            state = next;
        }
        assert_eq!(
            told,
            [
                (Activity::Idle, Activity::Thinking, 1, t(10)),
                (Activity::Thinking, Activity::Idle, 2, t(20)),
                (Activity::Idle, Activity::Thinking, 3, t(30)),
            ]
        );
    }

    #[test]
    fn the_same_change_within_the_window_is_told_once_and_takes_no_number() {
        let (state, change) = step(&idle(), seen(Activity::Waiting, 100), t(100), WINDOW);
        assert!(change.is_some());
        // Another observer's silent correction brings the state back without an event.
        let (state, none) =
            step(&state, Sighting { announce: false, ..seen(Activity::Idle, 150) }, t(150), WINDOW);
        assert_eq!(none, None);
        let (state, repeated) = step(&state, seen(Activity::Waiting, 2_099), t(2_099), WINDOW);
        assert_eq!((repeated, state.sequence, state.activity), (None, 1, Activity::Waiting));
        let (state, _) =
            step(&state, Sighting { announce: false, ..seen(Activity::Idle, 2_099) }, t(2_099), WINDOW);
        let (_, later) = step(&state, seen(Activity::Waiting, 2_100), t(2_100), WINDOW);
        assert_eq!(later.map(|c| c.sequence), Some(2));
    }

    #[test]
    fn what_is_remembered_of_an_event_goes_after_five_minutes_however_long_the_window() {
        let hour = Duration::from_secs(3600);
        let again_after = |ms: i64| {
            let (state, _) = step(&idle(), seen(Activity::Waiting, 0), t(1), hour);
            let back = Sighting { announce: false, ..seen(Activity::Idle, 1) };
            let (state, _) = step(&state, back, t(1), hour);
            let told_at = state.last_event.unwrap().at.as_millis();
            let (_, change) = step(&state, seen(Activity::Waiting, told_at + ms), t(told_at + ms), hour);
            change.is_some()
        };
        assert!(!again_after(299_999), "still remembered");
        assert!(again_after(300_000), "remembered for longer than five minutes");
    }

    #[test]
    fn the_time_of_a_change_lies_between_the_last_event_and_now() {
        let (state, _) = step(&idle(), seen(Activity::Thinking, 500), t(600), WINDOW);
        let (_, early) = step(&state, seen(Activity::Waiting, 100), t(700), WINDOW);
        assert_eq!(early.map(|c| c.at), Some(t(501)), "no two changes of a session share a time");
        let (_, late) = step(&state, seen(Activity::Waiting, 9_999), t(700), WINDOW);
        assert_eq!(late.map(|c| (c.at, c.spent)), Some((t(700), Duration::from_millis(200))));
    }

    #[test]
    fn a_silent_sighting_moves_the_state_without_an_event() {
        let (state, change) =
            step(&idle(), Sighting { announce: false, ..seen(Activity::Waiting, 5) }, t(5), WINDOW);
        assert_eq!((state.activity, state.sequence, change), (Activity::Waiting, 0, None));
    }

    #[test]
    fn another_reason_for_the_same_activity_is_no_event() {
        let permission = Sighting { reason: Some(Reason::Permission), ..seen(Activity::Waiting, 1) };
        let (state, _) = step(&idle(), permission, t(1), WINDOW);
        let (state, change) = step(
            &state,
            Sighting { reason: Some(Reason::TurnEnd), ..seen(Activity::Waiting, 2) },
            t(2),
            WINDOW,
        );
        assert_eq!((state.reason, change), (Some(Reason::TurnEnd), None));
    }
}
