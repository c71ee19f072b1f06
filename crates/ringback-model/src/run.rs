//! A run: one headless execution of a real agent, from the accepted call to its end.
//!
//! Owns: what is kept of a run, which states follow each other, and what the user is told when a run ends badly. Does
//! not know processes or adapters; pids and session ids are noted here and acted on elsewhere.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::escape;
use crate::ids::{SessionId, words};
use crate::money;
use crate::time::Timestamp;
use crate::updates::UpdatePolicy;

/// Identity of a [`Run`]: a random UUID (version 4), because callers see it and must not learn anything from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(RunId)
    }
}

words! {
    /// Where a run stands.
    RunState, "run state" {
        /// Accepted and in the journal; waits for its turn.
        Queued = "queued",
        /// Its agent runs, or is about to: journaled before the process starts.
        Working = "working",
        /// The agent came to its end.
        Completed = "completed",
        /// The agent could not be started, or ended with an error.
        Failed = "failed",
        /// Its time ran out.
        TimedOut = "timed_out",
        /// The user ended it.
        Cancelled = "cancelled",
        /// ringback or the machine stopped.
        Interrupted = "interrupted",
        /// Its data was found unsafe; it never ran.
        Screened = "screened",
        /// A newer run took its place.
        Superseded = "superseded",
    }
}

impl RunState {
    /// Whether a run stays in this state for good.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, RunState::Queued | RunState::Working)
    }

    /// Whether `next` can follow this state. What waits in the queue has no time limit and is not interrupted by a
    /// restart; what works is past screening.
    pub const fn may_become(self, next: RunState) -> bool {
        match (self, next) {
            (RunState::Queued, next) => matches!(
                next,
                RunState::Working
                    | RunState::Failed
                    | RunState::Cancelled
                    | RunState::Screened
                    | RunState::Superseded
            ),
            (RunState::Working, next) => matches!(
                next,
                RunState::Completed
                    | RunState::Failed
                    | RunState::TimedOut
                    | RunState::Cancelled
                    | RunState::Interrupted
                    | RunState::Superseded
            ),
            _ => false,
        }
    }
}

/// What a run is to do, complete: a call or a hook with the configured defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Who called: see [`Call::source`](crate::inbound::Call::source); the slug for a declared hook.
    pub source: String,
    /// Slug of the declared hook; `None` = `POST /hook/agent`.
    pub hook: Option<String>,
    /// Configured name of the agent.
    pub agent: String,
    /// Configured name of the workspace.
    pub workspace: String,
    /// What follows the preamble in the prompt.
    pub message: String,
    /// Run without the main session's history.
    pub isolated: bool,
    /// Alias or id of a model; `None` = the agent's own.
    pub model: Option<String>,
    /// Let the model think.
    pub thinking: bool,
    /// Give the run the tools that reach the user.
    pub allow_ping: bool,
    /// What the run owes the main session.
    pub update_main_session: UpdatePolicy,
    /// Tools of the agent that the run may use; ringback's own come on top.
    pub allowed_tools: Vec<String>,
    /// Bounds of the run.
    pub limits: Limits,
    /// Run once more after an interruption.
    pub retry: bool,
}

/// Bounds of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end, in milliseconds.
    pub timeout_ms: u64,
    /// Turns of the model; 0 = no bound.
    pub max_turns: u32,
    /// US dollars; 0 = no bound. Reserved from the day's money when the run starts.
    pub max_cost_usd: f64,
}

impl Limits {
    /// The time limit.
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// One run, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its identity.
    pub id: RunId,
    /// Where it stands.
    pub state: RunState,
    /// What it is to do.
    pub request: Request,
    /// The session that the agent opened for it; `None` until the agent tells.
    pub session_id: Option<SessionId>,
    /// The main session it was forked from; `None` = it started without history.
    pub forked_from: Option<SessionId>,
    /// When the call was accepted.
    pub created_at: Timestamp,
    /// When it left the queue to work.
    pub started_at: Option<Timestamp>,
    /// When it reached its last state.
    pub ended_at: Option<Timestamp>,
    /// The agent's process; `None` before it was started.
    pub process: Option<Process>,
    /// US dollars; `None` while unknown.
    pub cost_usd: Option<f64>,
    /// US dollars that it takes from the day's money: what it has reserved while it works, then what it counts for
    /// (see [`crate::money::charge`]); `None` before it started.
    #[serde(default)]
    pub charged_usd: Option<f64>,
    /// Tokens; `None` while unknown.
    pub tokens: Option<Tokens>,
    /// It called `report_updates`.
    pub reported: bool,
    /// It sent at least one ping or embed.
    pub pinged: bool,
    /// What went wrong, for a reader.
    pub error: Option<String>,
    /// The run whose request this one repeats.
    #[serde(default)]
    pub retry_of: Option<RunId>,
    /// The git worktree that was made for it.
    #[serde(default)]
    pub worktree: Option<Worktree>,
    /// What it is about: a hook's slug, and the key of its calls. Of the runs on one subject one works at a time;
    /// `None` = it stands alone. See [`crate::flow`].
    #[serde(default)]
    pub subject: Option<String>,
    /// It gathers calls until then, and does not start before; `None` = it gathers none.
    #[serde(default)]
    pub ready_at: Option<Timestamp>,
    /// Earlier calls that it stands for beside its own.
    #[serde(default)]
    pub merged: u32,
    /// The newer run that took its place, or that it is ended for.
    #[serde(default)]
    pub superseded_by: Option<RunId>,
}

/// The git worktree of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worktree {
    /// Its directory.
    pub path: String,
    /// Its branch.
    pub branch: String,
    /// It was kept after the run's end, because it has changes.
    pub is_kept: bool,
}

/// The process of a run, so that a later start of ringback can find what is left of it and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The agent's process id.
    pub pid: u32,
    /// Its process group; nothing outside the run is in it.
    pub pgid: u32,
    /// When the kernel says it started, with whatever tells this boot from others; only ever compared for equality,
    /// because pids are used again.
    pub started: String,
}

/// Tokens that a run used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Uncached input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Tokens written to the cache.
    pub cache_creation: u64,
    /// Tokens read from the cache.
    pub cache_read: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// A terminal state.
    pub state: RunState,
    /// What went wrong, for a reader.
    pub error: Option<String>,
    /// US dollars, where the adapter knows.
    pub cost_usd: Option<f64>,
    /// Tokens, where the adapter knows.
    pub tokens: Option<Tokens>,
}

impl End {
    /// An end of which nothing more is known.
    pub const fn plain(state: RunState) -> Self {
        End { state, error: None, cost_usd: None, tokens: None }
    }
}

/// A state was to follow one that it cannot follow; the run stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {from} run cannot become {to}")]
pub struct IllegalChange {
    /// The state the run is in.
    pub from: RunState,
    /// The state that was asked for.
    pub to: RunState,
}

impl Run {
    /// A run as it is accepted.
    pub fn queued(id: RunId, request: Request, now: Timestamp) -> Self {
        Run {
            id,
            state: RunState::Queued,
            request,
            session_id: None,
            forked_from: None,
            created_at: now,
            started_at: None,
            ended_at: None,
            process: None,
            cost_usd: None,
            charged_usd: None,
            tokens: None,
            reported: false,
            pinged: false,
            error: None,
            retry_of: None,
            worktree: None,
            subject: None,
            ready_at: None,
            merged: 0,
            superseded_by: None,
        }
    }

    /// The queue gives the run its turn, with what it may cost at most. Journaled before the process starts, so
    /// `process` is noted later.
    pub fn start(
        &mut self,
        forked_from: Option<SessionId>,
        reserved_usd: f64,
        now: Timestamp,
    ) -> Result<(), IllegalChange> {
        self.change(RunState::Working)?;
        self.forked_from = forked_from;
        self.charged_usd = Some(reserved_usd);
        self.started_at = Some(now);
        Ok(())
    }

    /// The run reaches its last state. `end.state` must be terminal; what the end does not know stays as noted.
    ///
    /// `is_metered`: see [`money::Want`]; what a metered run cost and does not tell is the most that it may have cost.
    pub fn finish(&mut self, end: End, is_metered: bool, now: Timestamp) -> Result<(), IllegalChange> {
        if !end.state.is_terminal() {
            return Err(IllegalChange { from: self.state, to: end.state });
        }
        // What was ended for a newer run did not fail.
        let is_superseded = self.superseded_by.is_some() && end.state != RunState::Completed;
        let (state, error) =
            if is_superseded { (RunState::Superseded, None) } else { (end.state, end.error) };
        self.change(state)?;
        self.ended_at = Some(now);
        self.error = error;
        self.cost_usd = end.cost_usd.or(self.cost_usd);
        self.charged_usd =
            self.charged_usd.map(|reserved| money::charge(reserved, self.cost_usd, is_metered));
        self.tokens = end.tokens.or(self.tokens);
        Ok(())
    }

    /// Whether the run still owes the main session a report.
    pub fn owes_report(&self) -> bool {
        !self.reported && self.request.update_main_session.demands_report(self.pinged)
    }

    /// The same request as a new run, which refers to this one. It does not ask for another retry: a run that takes
    /// the machine down with it does so once more, not for ever.
    pub fn again(&self, id: RunId, now: Timestamp) -> Run {
        let request = Request { retry: false, ..self.request.clone() };
        Run {
            retry_of: Some(self.id),
            subject: self.subject.clone(),
            merged: self.merged,
            ..Run::queued(id, request, now)
        }
    }

    /// What the notifiers tell the user about the end of this run, the cause on a second line; `None` when there is
    /// nothing to tell.
    pub fn told_at_end(&self) -> Option<String> {
        let source = &self.request.source;
        let what = match self.state {
            RunState::Failed | RunState::Interrupted => format!("{source} couldn't complete."),
            RunState::TimedOut => {
                let minutes = self.request.limits.timeout_ms.div_ceil(60_000);
                format!("{source} timed out after {minutes} minutes.")
            }
            RunState::Completed if self.owes_report() => {
                format!("{source} completed without a report to the main session.")
            }
            RunState::Completed
            | RunState::Queued
            | RunState::Working
            | RunState::Cancelled
            | RunState::Screened
            | RunState::Superseded => return None,
        };
        match self.error.as_deref().map(escape::one_line).filter(|cause| !cause.is_empty()) {
            Some(cause) => Some(format!("{what}\n{}", escape::cut_with_mark(&cause, CAUSE_CHARS))),
            None => Some(what),
        }
    }

    fn change(&mut self, to: RunState) -> Result<(), IllegalChange> {
        if !self.state.may_become(to) {
            return Err(IllegalChange { from: self.state, to });
        }
        self.state = to;
        Ok(())
    }
}

/// Characters told of a cause.
const CAUSE_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use RunState::*;

    fn t(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn queued() -> Run {
        let request = Request {
            source: "github-ci".into(),
            hook: None,
            agent: "claude".into(),
            workspace: "default".into(),
            message: "look at the build".into(),
            isolated: false,
            model: Some("haiku".into()),
            thinking: true,
            allow_ping: true,
            update_main_session: UpdatePolicy::OnPing,
            allowed_tools: vec!["Read".into()],
            limits: Limits { timeout_ms: 30 * 60_000, max_turns: 50, max_cost_usd: 2.0 },
            retry: true,
        };
        Run::queued(RunId(Uuid::nil()), request, t(1_000))
    }

    fn in_state(state: RunState) -> Run {
        Run { state, ..queued() }
    }

    #[test]
    fn every_state_is_followed_by_what_the_table_says_and_by_nothing_else() {
        let table = [
            (Queued, &[Working, Failed, Cancelled, Screened, Superseded][..]),
            (Working, &[Completed, Failed, TimedOut, Cancelled, Interrupted, Superseded]),
            (Completed, &[]),
            (Failed, &[]),
            (TimedOut, &[]),
            (Cancelled, &[]),
            (Interrupted, &[]),
            (Screened, &[]),
            (Superseded, &[]),
        ];
        assert_eq!(table.len(), RunState::ALL.len());
        for (from, followers) in table {
            assert_eq!(from.is_terminal(), followers.is_empty(), "{from}");
            for to in RunState::ALL.iter().copied() {
                let mut run = in_state(from);
                let changed = match to {
                    Working => run.start(None, 2.0, t(2_000)),
                    _ => run.finish(End::plain(to), true, t(2_000)),
                };
                if followers.contains(&to) {
                    assert_eq!((changed, run.state), (Ok(()), to));
                    assert_eq!(run.ended_at.is_some(), to.is_terminal());
                } else {
                    assert_eq!(changed, Err(IllegalChange { from, to }));
                    assert_eq!(run, in_state(from), "an illegal change leaves the run as it was");
                }
            }
        }
    }

    #[test]
    fn the_words_are_the_contracts() {
        let words: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(
            words.join(", "),
            "queued, working, completed, failed, timed_out, cancelled, interrupted, screened, superseded"
        );
    }

    #[test]
    fn a_run_notes_where_it_came_from_and_how_it_ended() {
        let mut run = queued();
        run.start(Some(SessionId::new("main")), 2.0, t(2_000)).unwrap();
        assert_eq!((run.started_at, run.forked_from.clone()), (Some(t(2_000)), Some(SessionId::new("main"))));
        run.process = Some(Process { pid: 7, pgid: 7, started: "b1:4711".into() });
        run.cost_usd = Some(0.25);
        let tokens = Tokens { input: 1, output: 2, cache_creation: 3, cache_read: 4 };
        run.finish(End { tokens: Some(tokens), ..End::plain(Completed) }, true, t(3_000)).unwrap();
        assert_eq!((run.ended_at, run.cost_usd, run.tokens), (Some(t(3_000)), Some(0.25), Some(tokens)));
        let stored = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<Run>(&stored).unwrap(), run);
    }

    #[test]
    fn a_run_reserves_its_maximum_at_its_start_and_its_cost_takes_the_place_at_its_end() {
        let charged = |end: End, is_metered| {
            let mut run = queued();
            run.start(None, 2.0, t(2_000)).unwrap();
            assert_eq!(run.charged_usd, Some(2.0));
            run.finish(end, is_metered, t(3_000)).unwrap();
            run.charged_usd
        };
        assert_eq!(charged(End { cost_usd: Some(0.25), ..End::plain(Failed) }, true), Some(0.25));
        assert_eq!(charged(End::plain(Interrupted), true), Some(2.0), "unknown is the maximum");
        assert_eq!(
            charged(End::plain(Completed), false),
            Some(0.0),
            "a plain program tells of no cost, ever"
        );
        let mut run = queued();
        run.finish(End::plain(Cancelled), true, t(2_000)).unwrap();
        assert_eq!(run.charged_usd, None, "it never started");
    }

    #[test]
    fn a_run_of_an_older_journal_is_read() {
        let mut stored = serde_json::to_value(queued()).unwrap();
        let later = ["charged_usd", "retry_of", "worktree", "subject", "ready_at", "merged", "superseded_by"];
        for key in later {
            assert!(stored.as_object_mut().unwrap().remove(key).is_some());
        }
        assert_eq!(serde_json::from_value::<Run>(stored).unwrap(), queued());
    }

    #[test]
    fn a_bad_end_is_told_with_its_cause_on_a_second_line() {
        let told = |state, error: Option<&str>| {
            Run { error: error.map(str::to_owned), ..in_state(state) }.told_at_end()
        };
        assert_eq!(told(Failed, None).as_deref(), Some("github-ci couldn't complete."));
        assert_eq!(
            told(Failed, Some("claude: not logged in,\nrun `claude` and /login\u{1b}")).as_deref(),
            Some("github-ci couldn't complete.\nclaude: not logged in, run `claude` and /login\\u001b")
        );
        assert_eq!(told(Interrupted, Some(" ")).as_deref(), Some("github-ci couldn't complete."));
        assert_eq!(told(TimedOut, None).as_deref(), Some("github-ci timed out after 30 minutes."));
        for state in [Queued, Working, Completed, Cancelled, Screened, Superseded] {
            assert_eq!(told(state, Some("x")), None, "{state}");
        }
    }

    #[test]
    fn a_run_that_completes_without_the_report_it_owes_is_told() {
        let told = |policy, pinged, reported| {
            let mut run = Run { pinged, reported, ..in_state(Completed) };
            run.request.update_main_session = policy;
            run.told_at_end().is_some()
        };
        for policy in UpdatePolicy::ALL.iter().copied() {
            for pinged in [false, true] {
                assert!(!told(policy, pinged, true), "{policy}");
                assert_eq!(told(policy, pinged, false), policy.demands_report(pinged), "{policy}");
            }
        }
    }

    #[test]
    fn what_is_ended_for_a_newer_run_is_superseded_however_it_ends_and_not_told() {
        for (state, after) in [
            (Cancelled, Superseded),
            (Failed, Superseded),
            (TimedOut, Superseded),
            (Interrupted, Superseded),
            (Completed, Completed),
        ] {
            let mut run = Run { superseded_by: Some(RunId(Uuid::max())), ..in_state(Working) };
            run.request.update_main_session = UpdatePolicy::Blocked;
            run.finish(End { error: Some("x".into()), ..End::plain(state) }, true, t(3_000)).unwrap();
            assert_eq!((run.state, run.told_at_end()), (after, None));
        }
    }

    #[test]
    fn a_retry_is_a_new_run_of_the_same_request_and_not_retried_again() {
        let again = in_state(Interrupted).again(RunId(Uuid::max()), t(9_000));
        assert_eq!((again.id, again.state, again.created_at), (RunId(Uuid::max()), Queued, t(9_000)));
        assert_eq!((again.retry_of, again.request.retry), (Some(queued().id), false));
        assert_eq!(Request { retry: true, ..again.request }, queued().request);
    }

    #[test]
    fn an_id_is_shown_and_parsed_as_a_uuid() {
        let text = "6f1d3c0e-8a52-4d0c-9d3c-0f7f1f1f2a3b";
        assert_eq!(text.parse::<RunId>().unwrap().to_string(), text);
        assert!("run-1".parse::<RunId>().is_err());
    }
}
