//! What a run says while it goes on, and how it ended.
//!
//! Owns: the facts of an agent's turns, their sums, and the one function that turns them and the exit into an end.
//! Pure: knows neither processes nor the form in which an agent says it.

use ringback_model::SessionId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::codex::{self, Account};
use crate::dialect;
use crate::spec::{Adapter, Spec};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What came of it.
    pub end: End,
    /// Exit code of the agent's process; `None` = ended by `signal`, or it could not be waited for.
    pub exit_code: Option<i32>,
    /// Number of the signal that ended the agent's process.
    pub signal: Option<i32>,
    /// The session that the agent named.
    pub session_id: Option<SessionId>,
    /// What the run cost, without what a forked session had cost before. `None` = not known, because the agent does
    /// not say or was stopped before it did: reckon with the run's maximum.
    pub cost_usd: Option<f64>,
    /// Tokens of the run's own model calls; `None` as for the cost.
    pub tokens: Option<Tokens>,
    /// Model calls of the finished turns, as the agent counts them.
    pub turns: Option<u32>,
    /// From the start to the end of the last process.
    pub duration: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent did what it was asked to do, as far as it says.
    Completed,
    /// It did not; the text says why, for a reader. At most 1,000 characters, no control characters but line ends.
    Failed(String),
    /// It took longer than its time limit.
    TimedOut,
    /// [`Order::Cancel`](crate::Order::Cancel).
    Cancelled,
    /// [`Order::Interrupt`](crate::Order::Interrupt).
    Interrupted,
}

/// Tokens of model calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read anew.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the cache.
    pub cache_read: u64,
    /// Written to the cache.
    pub cache_write: u64,
}

impl Tokens {
    /// The sum of both, kind by kind.
    pub fn plus(self, other: Tokens) -> Tokens {
        Tokens {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write: self.cache_write.saturating_add(other.cache_write),
        }
    }
}

/// A fact from the output of a running agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The agent named its session. Told again with each turn.
    Session(SessionId),
    /// The session that was to be forked could not be: the agent works without history.
    WithoutHistory,
    /// A part of a model's answer, with the answer's id; those of sub-agents are not told.
    Answer(String),
    /// A turn ended.
    Turn(TurnResult),
}

/// How an agent's turn ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TurnResult {
    /// Whether it ended badly. The only word on that: an API error has the subtype `success`.
    pub is_error: bool,
    /// The agent's word for the kind of result: `success`, `error_max_turns`.
    pub subtype: String,
    /// The agent's word for what ended it: `completed`, `max_turns`, `budget_exhausted`, `api_error`.
    pub terminal_reason: Option<String>,
    /// The last text, at most 64 KiB.
    pub text: Option<String>,
    /// What went wrong, in the agent's words.
    pub errors: Vec<String>,
    /// Model calls of this turn.
    pub turns: u32,
    /// Cost of this turn alone.
    pub cost_usd: Option<f64>,
    /// Cost of the session so far; in a fork that includes its parent's.
    pub session_cost_usd: Option<f64>,
    /// Tokens of this turn alone.
    pub tokens: Option<Tokens>,
    /// Names of the tools that were refused, one per refusal, at most 100.
    pub denied_tools: Vec<String>,
}

/// Why the runner ended a run that had not ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It took more turns of the model than it may.
    OutOfTurns,
    TimedOut,
    Cancelled,
    Interrupted,
}

/// How the agent's process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// The sum of what was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    pub(crate) session_id: Option<SessionId>,
    pub(crate) turns: Option<u32>,
    /// What the run may have at most.
    most: Most,
    /// Answers of the model over all turns; the id of the last one.
    answers: u32,
    answer: Option<String>,
    last: Option<TurnResult>,
    cost_usd: Option<f64>,
    tokens: Option<Tokens>,
    /// A turn has begun and not ended: what it costs is not known.
    open: bool,
    /// The run's own turn had ended well when another one was asked for.
    settled: bool,
}

/// The bounds of a run; `None` = no bound.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    turns: Option<u32>,
    cost_usd: Option<f64>,
}

impl Learned {
    pub(crate) fn of(spec: &Spec) -> Learned {
        let most = Most { turns: spec.max_turns, cost_usd: spec.max_cost_usd };
        Learned { most, ..Learned::default() }
    }

    /// Whether the model may be asked once more. An agent counts from one of our turns to its end; here all count.
    pub(crate) fn may_go_on(&self) -> bool {
        self.most.turns.is_none_or(|most| self.answers < most)
    }

    /// The model has answered more often than it may.
    pub(crate) fn is_out_of_turns(&self) -> bool {
        self.most.turns.is_some_and(|most| self.answers > most)
    }

    /// The bound that ended a turn, by its name in the configuration.
    fn reached(&self, turn: &TurnResult) -> Option<String> {
        match turn.terminal_reason.as_deref() {
            Some("max_turns") => self.most.turns.map(|n| format!("reached max_turns = {n}")),
            Some("budget_exhausted") => self.most.cost_usd.map(|c| format!("reached max_cost_usd = {c}")),
            _ => None,
        }
    }

    pub(crate) fn begin_turn(&mut self) {
        self.settled |= self.last.as_ref().is_some_and(|turn| !turn.is_error);
        self.open = true;
    }

    pub(crate) fn take(&mut self, fact: &Progress) {
        let turn = match fact {
            Progress::Session(id) => {
                self.session_id = Some(id.clone());
                return;
            }
            Progress::WithoutHistory => return,
            Progress::Answer(id) => {
                if self.answer.as_ref() != Some(id) {
                    self.answers = self.answers.saturating_add(1);
                    self.answer = Some(id.clone());
                }
                return;
            }
            Progress::Turn(turn) => turn,
        };
        self.open = false;
        self.turns = Some(self.turns.unwrap_or(0).saturating_add(turn.turns));
        self.cost_usd = match (turn.cost_usd, turn.session_cost_usd) {
            (Some(cost), _) => Some(self.cost_usd.unwrap_or(0.0) + cost),
            (None, Some(total)) => Some(self.cost_usd.unwrap_or(0.0).max(total)),
            (None, None) => self.cost_usd,
        };
        if let Some(tokens) = turn.tokens {
            self.tokens = Some(self.tokens.unwrap_or_default().plus(tokens));
        }
        self.last = Some(turn.clone());
    }

    /// Takes the sums from the agent's own books, where it keeps any. A model without a price counts as the `most`
    /// that the run may cost; an agent that never named a session has called no model.
    pub(crate) fn reckon(&mut self, account: Option<Account>, most: Option<f64>) {
        self.open = false;
        self.turns = account.map(|a| a.calls);
        self.tokens = account.map(|a| a.tokens);
        self.cost_usd = match (account, &self.session_id) {
            (None, None) => Some(0.0),
            (account, _) => account.and_then(|a| a.cost_usd).or(most),
        };
    }

    pub(crate) fn cost_usd(&self) -> Option<f64> {
        self.cost_usd.filter(|_| !self.open)
    }

    pub(crate) fn tokens(&self) -> Option<Tokens> {
        self.tokens.filter(|_| !self.open)
    }
}

/// Decides what came of a run. `stderr` is the end of what it wrote there.
///
/// `program` is what an agent is called that has no name of its own.
pub(crate) fn judge(
    (adapter, program): (Adapter, &str),
    stop: Option<Stop>,
    exit: Exit,
    learned: &Learned,
    stderr: &str,
) -> End {
    match stop {
        Some(Stop::TimedOut) => return End::TimedOut,
        Some(Stop::Cancelled) => return End::Cancelled,
        Some(Stop::Interrupted) => return End::Interrupted,
        Some(Stop::OutOfTurns) if learned.settled => return End::Completed,
        Some(Stop::OutOfTurns) => {
            let most = learned.most.turns.unwrap_or_default();
            return End::Failed(format!("reached max_turns = {most}"));
        }
        None => {}
    }
    let exited_well = exit.code == Some(0);
    let name = match adapter {
        Adapter::Command if exited_well => return End::Completed,
        Adapter::Command => return End::Failed(cause(exit, stderr)),
        Adapter::Claude => "claude",
        Adapter::Codex => "codex",
        Adapter::Acp => program,
    };
    // What became of the turn that was added does not undo the work that was asked for.
    if learned.settled {
        return End::Completed;
    }
    match &learned.last {
        Some(turn) if turn.is_error => {
            let why = learned.reached(turn).unwrap_or_else(|| dialect::failure(adapter, turn));
            End::Failed(format!("{name}: {why}"))
        }
        // An agent of this kind has nothing to say after its turn, and may have to be made to leave.
        Some(_) if exited_well || adapter == Adapter::Acp => End::Completed,
        None if exited_well => End::Failed(format!("{name}: ended without a result")),
        _ if adapter == Adapter::Codex => {
            End::Failed(format!("{name}: {}", cause(exit, &codex::reason(stderr))))
        }
        _ => End::Failed(format!("{name}: {}", cause(exit, stderr))),
    }
}

/// The last lines of standard error, or else the exit itself.
fn cause(exit: Exit, stderr: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    match (lines.is_empty(), exit.code, exit.signal) {
        (false, ..) => lines[lines.len().saturating_sub(LINES)..].join("\n"),
        (true, Some(code), _) => format!("exited with code {code}"),
        (true, None, Some(signal)) => format!("ended by signal {signal}"),
        (true, None, None) => "its end could not be seen".to_owned(),
    }
}

/// Makes a text of a foreign program fit to be shown and kept: no escape sequences, no control characters but line
/// ends, no secret, at most 1,000 characters. The end is what is kept: errors stand there.
pub(crate) fn presentable(text: &str, secret: Option<&str>) -> String {
    const MOST: usize = 1000;
    let mut shown = String::with_capacity(text.len().min(4 * MOST));
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // A control sequence: parameters, then one final letter.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\n' => shown.push('\n'),
            '\t' => shown.push(' '),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    if let Some(secret) = secret.filter(|s| !s.is_empty()) {
        shown = shown.replace(secret, "***");
    }
    let beyond = shown.chars().count().saturating_sub(MOST);
    shown.chars().skip(beyond).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Exit = Exit { code: Some(0), signal: None };
    const BAD: Exit = Exit { code: Some(1), signal: None };

    fn told(turns: impl IntoIterator<Item = TurnResult>) -> Learned {
        let mut learned = Learned::default();
        learned.begin_turn();
        for turn in turns {
            learned.take(&Progress::Turn(turn));
        }
        learned
    }

    fn failed(text: &str) -> End {
        End::Failed(text.to_owned())
    }

    #[test]
    fn a_command_completes_with_exit_0_and_fails_with_its_last_words() {
        let judge = |exit, stderr| judge((Adapter::Command, ""), None, exit, &Learned::default(), stderr);
        assert_eq!(judge(FINE, "a warning"), End::Completed);
        assert_eq!(judge(BAD, "1\n2\n\n3\n4\n5\n6  \n\n"), failed("2\n3\n4\n5\n6"));
        assert_eq!(judge(BAD, "\n"), failed("exited with code 1"));
        assert_eq!(judge(Exit { code: None, signal: Some(9) }, ""), failed("ended by signal 9"));
    }

    #[test]
    fn what_the_runner_did_counts_before_how_the_process_ended() {
        for (stop, end) in [
            (Stop::TimedOut, End::TimedOut),
            (Stop::Cancelled, End::Cancelled),
            (Stop::Interrupted, End::Interrupted),
        ] {
            assert_eq!(judge((Adapter::Command, ""), Some(stop), FINE, &Learned::default(), ""), end);
        }
    }

    #[test]
    fn claude_completes_with_a_good_result_and_exit_0() {
        let good = TurnResult::default();
        let bad = TurnResult { is_error: true, text: Some("API Error: 400".into()), ..TurnResult::default() };
        let judge =
            |exit, learned: &Learned, stderr| judge((Adapter::Claude, ""), None, exit, learned, stderr);
        assert_eq!(judge(FINE, &told([good.clone()]), ""), End::Completed);
        assert_eq!(judge(BAD, &told([good.clone()]), "oh"), failed("claude: oh"));
        assert_eq!(judge(BAD, &told([bad.clone()]), "oh"), failed("claude: API Error: 400"));
        assert_eq!(judge(FINE, &told([]), ""), failed("claude: ended without a result"));
        assert_eq!(judge(BAD, &told([]), "error: unknown option"), failed("claude: error: unknown option"));
        // The turn that was added for a report fails: the work was done before.
        let mut reported = told([good]);
        reported.begin_turn();
        reported.take(&Progress::Turn(bad));
        assert_eq!(judge(BAD, &reported, ""), End::Completed);
    }

    #[test]
    fn an_acp_agent_completes_with_its_turn_however_it_leaves_and_codex_only_with_exit_0() {
        let good = told([TurnResult::default()]);
        let killed = Exit { code: None, signal: Some(15) };
        let judge =
            |adapter, exit, learned: &Learned| judge((adapter, "kimi"), None, exit, learned, "error: oh");
        assert_eq!(judge(Adapter::Acp, killed, &good), End::Completed);
        assert_eq!(judge(Adapter::Acp, FINE, &told([])), failed("kimi: ended without a result"));
        assert_eq!(judge(Adapter::Codex, FINE, &good), End::Completed);
        assert_eq!(judge(Adapter::Codex, BAD, &good), failed("codex: error: oh"));
        assert_eq!(judge(Adapter::Codex, BAD, &told([])), failed("codex: error: oh"));
    }

    #[test]
    fn what_is_not_in_the_books_counts_as_the_most_that_the_run_may_cost() {
        let reckoned = |session: bool, account, most| {
            let mut learned = told([]);
            learned.session_id = session.then(|| SessionId::new("s"));
            learned.reckon(account, most);
            learned.cost_usd()
        };
        let account = |cost_usd| Some(Account { calls: 2, tokens: Tokens::default(), cost_usd });
        assert_eq!(reckoned(true, account(Some(0.5)), Some(2.0)), Some(0.5));
        assert_eq!(reckoned(true, account(None), Some(2.0)), Some(2.0));
        assert_eq!(reckoned(true, None, Some(2.0)), Some(2.0));
        assert_eq!(reckoned(true, None, None), None);
        assert_eq!(reckoned(false, None, Some(2.0)), Some(0.0));
    }

    #[test]
    fn cost_and_tokens_are_sums_over_the_runs_own_turns_and_unknown_while_one_is_open() {
        let tokens = Some(Tokens { input: 10, output: 1, cache_read: 100, cache_write: 5 });
        let turn = |cost_usd, total| TurnResult {
            cost_usd,
            session_cost_usd: Some(total),
            tokens,
            turns: 2,
            ..TurnResult::default()
        };
        let mut learned = told([turn(Some(0.25), 7.25), turn(Some(0.5), 7.75)]);
        assert_eq!((learned.cost_usd(), learned.turns), (Some(0.75), Some(4)));
        assert_eq!(learned.tokens().map(|t| (t.input, t.cache_read)), Some((20, 200)));
        assert_eq!(told([turn(None, 0.25), turn(None, 0.5)]).cost_usd(), Some(0.5));
        learned.begin_turn();
        assert_eq!((learned.cost_usd(), learned.tokens()), (None, None));
    }

    #[test]
    fn turns_are_counted_over_the_whole_run_and_one_too_many_ends_it() {
        let mut learned = Learned { most: Most { turns: Some(2), cost_usd: None }, ..Learned::default() };
        let answer = |learned: &mut Learned, id: &str| learned.take(&Progress::Answer(id.to_owned()));
        learned.begin_turn();
        // An answer comes in parts.
        for id in ["a", "a", "a"] {
            answer(&mut learned, id);
        }
        assert!(learned.may_go_on());
        answer(&mut learned, "b");
        assert!(!learned.may_go_on() && !learned.is_out_of_turns());
        answer(&mut learned, "c");
        assert!(learned.is_out_of_turns());
        let judge =
            |learned: &Learned| judge((Adapter::Claude, ""), Some(Stop::OutOfTurns), BAD, learned, "");
        assert_eq!(judge(&learned), failed("reached max_turns = 2"));
        // The turn that was added for a report is ended, and the work that was done before stands.
        learned.take(&Progress::Turn(TurnResult::default()));
        learned.begin_turn();
        assert_eq!(judge(&learned), End::Completed);
        assert!(!told([]).is_out_of_turns() && told([]).may_go_on(), "no bound");
    }

    #[test]
    fn a_foreign_text_is_shown_without_control_characters_and_without_the_runs_token() {
        let text = "\u{1b}[31;1mred\u{1b}[0m\tBearer s3cret\r\nnext\u{7}\u{1b}";
        assert_eq!(presentable(text, Some("s3cret")), "red Bearer ***\nnext");
        let long = format!("{}end", "\u{e9}".repeat(5000));
        let shown = presentable(&long, Some(""));
        assert!(shown.chars().count() == 1000 && shown.ends_with("end"));
    }
}
