//! How the calls of one hook meet: which are merged into one run, which run waits for which, and when a hook pauses.
//!
//! Owns: these rules. All that they need is in the runs themselves, so that what is gathered outlives the process that
//! gathered it. Does not know the journal: whoever keeps runs asks [`meet`] and writes down what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::escape;
use crate::ids::words;
use crate::run::{End, Run, RunState};
use crate::time::Timestamp;

words! {
    /// What a newer run means for those before it on the same subject.
    OnNewer, "on_newer" {
        /// They go first; the newer one waits.
        Queue = "queue",
        /// It takes the place of those that have not started, and waits for the one that works.
        Replace = "replace",
        /// The same, and the one that works is told to end.
        Cancel = "cancel",
    }
}

/// How long calls are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// A run starts when so long no call came.
    pub quiet: Duration,
    /// It starts so long after its first call, whatever still comes.
    pub max_wait: Duration,
}

impl Window {
    /// When a run may start whose first call came at `first`, and its last one `now`.
    pub fn ready_at(self, first: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.quiet).min(first.plus(self.max_wait))
    }
}

/// How a call meets those before it on the same [`Run::subject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None` = calls are not gathered.
    pub window: Option<Window>,
    /// For runs that no longer gather.
    pub on_newer: OnNewer,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Meeting {
    /// It is part of this run, which was queued before.
    Merged(Run),
    /// It is a run of its own.
    Queued {
        /// The run.
        run: Run,
        /// Runs that were queued and are superseded by it.
        superseded: Vec<Run>,
        /// Runs that work and are to be ended for it.
        ending: Vec<Run>,
    },
}

/// Decides what becomes of a new run. `queued` and `working` are the runs on its subject, in the order in which they
/// were accepted; of the queued ones [`OnNewer::Queue`] needs the last alone.
pub fn meet(rule: Rule, mut run: Run, mut queued: Vec<Run>, working: Vec<Run>, now: Timestamp) -> Meeting {
    if let Some(window) = rule.window {
        if let Some(last) = queued.pop_if(|last| last.ready_at.is_some_and(|at| at > now)) {
            return Meeting::Merged(last.with_call(run, window, now));
        }
        run.ready_at = Some(window.ready_at(run.created_at, now));
    }
    let (mut superseded, mut ending) = (Vec::new(), Vec::new());
    if rule.on_newer != OnNewer::Queue {
        for mut older in queued {
            if older.finish(End::plain(RunState::Superseded), false, now).is_ok() {
                run.merged = run.merged.saturating_add(older.merged).saturating_add(1);
                older.superseded_by = Some(run.id);
                superseded.push(older);
            }
        }
    }
    if rule.on_newer == OnNewer::Cancel {
        ending = working;
        ending.iter_mut().for_each(|older| older.superseded_by = Some(run.id));
    }
    Meeting::Queued { run, superseded, ending }
}

impl Run {
    /// This run with the state of a newer call.
    fn with_call(mut self, newer: Run, window: Window, now: Timestamp) -> Run {
        self.request = newer.request;
        self.merged = self.merged.saturating_add(1);
        self.ready_at = Some(window.ready_at(self.created_at, now));
        self
    }
}

/// Failed runs in a row with which a hook pauses.
pub const PAUSED_AFTER: u32 = 3;
/// Calls of one paused hook that wait at most, so that those of others have room.
pub const MAX_WAITING: usize = 100;
/// Characters kept of the cause of a failure.
const CAUSE_CHARS: usize = 300;

/// The failures of a hook's runs, as far as they matter. Kept as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// Runs that failed in a row.
    pub failed: u32,
    /// Since when the hook is paused; `None` = it is not.
    pub paused_at: Option<Timestamp>,
    /// What the last failure was about, on one line.
    pub cause: Option<String>,
    /// Tells the hook's file from an edited one.
    pub file: Option<String>,
}

impl Streak {
    /// What follows from the end of a run of the hook; `file` as it is now. `true`: the hook is paused from now on.
    pub fn ended(&mut self, run: &Run, file: Option<&str>, now: Timestamp) -> bool {
        match run.state {
            RunState::Completed if self.paused_at.is_none() => *self = Streak::default(),
            RunState::Failed | RunState::TimedOut => {
                self.failed = self.failed.saturating_add(1);
                let cause = run.error.as_deref().unwrap_or(run.state.as_str());
                self.cause = Some(escape::cut_with_mark(&escape::one_line(cause), CAUSE_CHARS));
                if self.failed >= PAUSED_AFTER && self.paused_at.is_none() {
                    self.paused_at = Some(now);
                    self.file = file.map(str::to_owned);
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// Whether the hook is paused and its file was edited since. One that is gone was not: nobody said that its runs
    /// may go on.
    pub fn is_outdated(&self, file: Option<&str>) -> bool {
        self.paused_at.is_some() && file.is_some() && self.file.as_deref() != file
    }

    /// Why the hook is paused; `None` = it is not.
    pub fn why(&self) -> Option<String> {
        self.paused_at?;
        let cause = self.cause.as_deref().unwrap_or_default();
        Some(format!("{PAUSED_AFTER} failed runs in a row; the last: {cause}"))
    }
}

/// What the user is told once about a hook that is paused.
pub fn told_of_pause(slug: &str) -> String {
    format!(
        "{slug} is paused after {PAUSED_AFTER} failed runs in a row; its calls are kept and wait. \
         They go on with `ringback hooks resume {slug}`, or when its file is edited."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Limits, Request, RunId};
    use crate::updates::UpdatePolicy;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn t(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }

    fn run(n: u128, at: i64) -> Run {
        let request = Request {
            source: "pr".to_owned(),
            hook: Some("pr".to_owned()),
            agent: "claude".to_owned(),
            workspace: "default".to_owned(),
            message: format!("push {n}"),
            isolated: true,
            model: None,
            thinking: true,
            allow_ping: true,
            update_main_session: UpdatePolicy::OnPing,
            allowed_tools: Vec::new(),
            limits: Limits { timeout_ms: 60_000, max_turns: 50, max_cost_usd: 1.0 },
            retry: false,
        };
        Run { subject: Some("pr:1".to_owned()), ..Run::queued(RunId(Uuid::from_u128(n)), request, t(at)) }
    }

    fn working(n: u128, at: i64) -> Run {
        let mut run = run(n, at);
        run.start(None, 0.0, t(at)).unwrap();
        run
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    const WINDOW: Window = Window { quiet: Duration::from_secs(30), max_wait: Duration::from_secs(300) };

    fn rule(window: Option<Window>, on_newer: OnNewer) -> Rule {
        Rule { window, on_newer }
    }

    #[test]
    fn twenty_calls_within_the_quiet_time_are_one_run_with_the_newest_state() {
        let mut queued = Vec::new();
        for n in 0..20 {
            let at = n * 29;
            let now = t(at.min(250));
            queued = match meet(rule(Some(WINDOW), OnNewer::Queue), run(n as u128, at), queued, vec![], now) {
                Meeting::Merged(run) | Meeting::Queued { run, .. } => vec![run],
            };
        }
        let one = &queued[0];
        assert_eq!((one.id, one.merged, &*one.request.message), (RunId(Uuid::nil()), 19, "push 19"));
        assert_eq!((one.created_at, one.ready_at), (t(0), Some(t(280))));
        // The last one came too late to make it wait longer than it may.
        let Meeting::Merged(one) =
            meet(rule(Some(WINDOW), OnNewer::Queue), run(99, 279), queued, vec![], t(279))
        else {
            panic!("merged")
        };
        assert_eq!(one.ready_at, Some(t(300)));
    }

    #[test]
    fn a_call_after_the_quiet_time_is_a_run_of_its_own() {
        let mut first = run(1, 0);
        first.ready_at = Some(t(30));
        let met = meet(rule(Some(WINDOW), OnNewer::Queue), run(2, 30), vec![first], vec![], t(30));
        let own = Run { ready_at: Some(t(60)), ..run(2, 30) };
        assert_eq!(met, Meeting::Queued { run: own, superseded: vec![], ending: vec![] });
    }

    #[test]
    fn on_newer_decides_what_becomes_of_those_before() {
        for (on_newer, superseded, ending, merged) in
            [(OnNewer::Queue, 0, 0, 0), (OnNewer::Replace, 2, 0, 6), (OnNewer::Cancel, 2, 1, 6)]
        {
            let queued = vec![Run { merged: 4, ..run(1, 0) }, run(2, 1)];
            let met = meet(rule(None, on_newer), run(3, 9), queued, vec![working(4, 0)], t(9));
            let Meeting::Queued { run, superseded: gone, ending: told } = met else { panic!("queued") };
            assert_eq!((gone.len(), told.len(), run.merged), (superseded, ending, merged), "{on_newer}");
            assert_eq!((run.state, run.ready_at), (RunState::Queued, None));
            assert!(gone.iter().all(|r| r.state == RunState::Superseded && r.ended_at == Some(t(9))));
            assert!(told.iter().all(|r| r.state == RunState::Working));
            assert!(gone.iter().chain(&told).all(|r| r.superseded_by == Some(run.id)));
        }
    }

    #[test]
    fn the_third_failure_in_a_row_pauses_once_and_what_completes_before_it_starts_anew() {
        let in_state = |state| Run { state, error: Some("claude:\nno money".to_owned()), ..run(1, 0) };
        let mut streak = Streak::default();
        let states = [
            (RunState::Failed, false),
            (RunState::TimedOut, false),
            (RunState::Completed, false),
            (RunState::Failed, false),
            (RunState::Interrupted, false),
            (RunState::Superseded, false),
            (RunState::TimedOut, false),
            (RunState::Cancelled, false),
            (RunState::Failed, true),
            (RunState::Failed, false),
            (RunState::Completed, false),
        ];
        for (n, (state, pauses)) in (0..).zip(states) {
            assert_eq!(streak.ended(&in_state(state), Some("f"), t(n)), pauses, "{n}");
        }
        assert_eq!(streak.paused_at, Some(t(8)), "one that completes meanwhile does not end the pause");
        assert_eq!(streak.why().as_deref(), Some("3 failed runs in a row; the last: claude: no money"));
        assert_eq!(serde_json::from_str::<Streak>(&serde_json::to_string(&streak).unwrap()).unwrap(), streak);
        let outdated = [Some("f"), Some("g"), None].map(|file| streak.is_outdated(file));
        assert_eq!(outdated, [false, true, false]);
        assert!(!Streak::default().is_outdated(Some("g")) && Streak::default().why().is_none());
    }

    proptest! {
        #[test]
        fn a_run_starts_when_it_is_quiet_and_never_later_than_max_wait(gaps in prop::collection::vec(0u64..90, 0..40)) {
            let rule = rule(Some(WINDOW), OnNewer::Queue);
            let (mut now, mut queued, mut calls) = (t(0), Vec::<Run>::new(), 0u32);
            for gap in gaps {
                now = now.plus(secs(gap));
                calls += 1;
                match meet(rule, Run { created_at: now, ..run(u128::from(calls), 0) }, queued.clone(), vec![], now) {
                    Meeting::Merged(run) => *queued.last_mut().unwrap() = run,
                    Meeting::Queued { run, .. } => queued.push(run),
                }
                let last = queued.last().unwrap();
                let ready = last.ready_at.unwrap();
                prop_assert!(ready > now || ready == last.created_at.plus(WINDOW.max_wait));
                prop_assert!(ready <= now.plus(WINDOW.quiet) && ready <= last.created_at.plus(WINDOW.max_wait));
                prop_assert_eq!(last.request.message.clone(), format!("push {calls}"));
            }
            prop_assert_eq!(queued.iter().map(|run| run.merged + 1).sum::<u32>(), calls, "no call is lost");
        }
    }
}
