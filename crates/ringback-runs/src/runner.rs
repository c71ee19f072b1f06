//! One run: start, turns, limits, orders, end.
//!
//! Owns: what happens between the agent and whoever wants to know, until no process of the run is left. A turn is
//! another message to the same process, or another process in the same session; which it is, the dialect says.

use std::future::pending;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capture::{Kept, make_dir};
use crate::codex;
use crate::dialect::{Dialect, Next, Step};
use crate::family::Leader;
use crate::outcome::{End, Learned, Outcome, Progress, Stop, TurnResult, judge, presentable};
use crate::process::{Outputs, Process, until_exit};
use crate::program::find_program;
use crate::spec::{Adapter, Spec, StartError};

/// How long the rest of the output of an agent that has ended is waited for. Only what it has left running can hold
/// it open longer.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long an agent has to end its turn after it was asked to, before it gets TERM.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// How long an agent may stay after its last turn.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// What a run is told from outside. The latest one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing: go on.
    #[default]
    Proceed,
    /// End now; nobody wants the result.
    Cancel,
    /// ringback is shutting down: end by yourself, or be ended soon.
    Interrupt,
}

/// Who wants to know what a run does while it goes on. `()` does not.
pub trait Host {
    /// Is told each fact as it becomes known.
    fn learn(&mut self, fact: &Progress) {
        let _ = fact;
    }

    /// Is asked after each turn that ended well and may answer with the prompt of another one. Adapters that know
    /// no turns never ask.
    fn another_turn(&mut self, turn: &TurnResult) -> Option<String> {
        let _ = turn;
        None
    }
}

impl Host for () {}

/// A started agent.
#[derive(Debug)]
pub struct Running {
    talk: Talk,
    program: PathBuf,
    started_at: Instant,
    /// When its output directory was made ready, by the clock of its file system.
    since: SystemTime,
    process: Process,
}

/// The conversation, whichever process it goes on in.
#[derive(Debug)]
struct Talk {
    spec: Spec,
    dialect: Dialect,
    learned: Learned,
    /// A turn that gets a process of its own: the arguments, and the prompt.
    next: Option<(Vec<String>, String)>,
}

/// Starts the agent in a process group of its own. Must be called within a tokio runtime.
///
/// The output goes to `output.jsonl` (`stdout.log` for `command`) and to `stderr.log`, in the spec's directory: at
/// most 10 MiB each, with a mark where the rest was thrown away.
pub fn start(spec: &Spec) -> Result<Running, StartError> {
    spec.check()?;
    let name = &spec.command[0];
    let program = find_program(name, spec.env.get("PATH"))
        .ok_or_else(|| StartError::NotFound { name: name.clone() })?;
    // Both a missing directory and a missing program are "not found" to the system.
    if !spec.cwd.is_dir() {
        return Err(StartError::NoDirectory { path: spec.cwd.clone() });
    }
    make_dir(&spec.output_dir)?;
    let mut dialect = Dialect::of(spec);
    let outputs = outputs(spec, &dialect, Kept::create)?;
    let since = spec.output_dir.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let first = dialect.first_input(spec);
    let process = Process::start(spec, &program, &dialect, &dialect.argv(spec), first, outputs)?;
    let talk = Talk { spec: spec.clone(), dialect, learned: Learned::of(spec), next: None };
    Ok(Running { talk, program, started_at: Instant::now(), since, process })
}

const TEXT_MARK: &[u8] = b"\n[ringback: the rest of more than 10 MiB is not kept]\n";
const JSON_MARK: &[u8] = b"\n{\"type\":\"ringback\",\"note\":\"the rest of more than 10 MiB is not kept\"}\n";

fn outputs(
    spec: &Spec,
    dialect: &Dialect,
    open: fn(PathBuf, &'static [u8]) -> Result<Kept, StartError>,
) -> Result<Outputs, StartError> {
    let (name, mark) =
        if dialect.has_lines() { ("output.jsonl", JSON_MARK) } else { ("stdout.log", TEXT_MARK) };
    Ok(Outputs {
        out: open(spec.output_dir.join(name), mark)?,
        err: open(spec.output_dir.join("stderr.log"), TEXT_MARK)?,
    })
}

impl Running {
    /// What [`recover`](crate::recover) needs, should ringback be killed: to be journaled now. The processes of later
    /// turns are found by the run's variable.
    pub fn leader(&self) -> Leader {
        self.process.leader
    }

    /// Takes the run to its end, whichever comes first: its own, the time limit, or an order. Then no process of it
    /// is left.
    pub async fn wait(mut self, mut orders: watch::Receiver<Order>, host: &mut impl Host) -> Outcome {
        let kill_after = self.talk.spec.limits.kill_after;
        let (stop, exit) = loop {
            self.talk.learned.begin_turn();
            let stop = self.take_turns(&mut orders, host).await;
            // At a shutdown it had its time already.
            if matches!(stop, Some(Stop::Cancelled | Stop::TimedOut)) {
                self.ask_to_end(host).await;
            }
            let talk = &mut self.talk;
            let exit = self.process.end(kill_after, |line| talk.heed(line, &mut None, host, false)).await;
            let Some((argv, prompt)) = self.talk.next.take().filter(|_| stop.is_none()) else {
                break (stop, exit);
            };
            if let Err(error) = self.restart(&argv, prompt) {
                tracing::warn!(run_id = %self.talk.spec.run_id, %error, "a further turn cannot be started");
                break (stop, exit);
            }
        };
        self.reckon().await;
        let Talk { spec, learned, .. } = self.talk;
        let program = self.program.file_stem().unwrap_or_default().to_string_lossy();
        let end = match judge((spec.adapter, &program), stop, exit, &learned, &self.process.stderr.text()) {
            End::Failed(why) => {
                End::Failed(presentable(&why, spec.mcp.as_ref().map(|mcp| mcp.token.reveal())))
            }
            end => end,
        };
        Outcome {
            end,
            exit_code: exit.code,
            signal: exit.signal,
            cost_usd: learned.cost_usd(),
            tokens: learned.tokens(),
            turns: learned.turns.filter(|turns| *turns > 0),
            session_id: learned.session_id,
            duration: self.started_at.elapsed(),
        }
    }

    /// Lets the agent end its turn, so that it keeps what it has done.
    async fn ask_to_end(&mut self, host: &mut impl Host) {
        let Process { lines, input, .. } = &mut self.process;
        let Some(cancel) = self.talk.dialect.cancel() else { return };
        if input.as_ref().is_none_or(|to| to.try_send(cancel).is_err()) {
            return;
        }
        let ending = async {
            while self.talk.dialect.is_at_work()
                && let Some(line) = lines.recv().await
            {
                self.talk.heed(&line, input, host, false);
            }
        };
        let _ = timeout(CANCEL_PATIENCE, ending).await;
    }

    fn restart(&mut self, argv: &[String], prompt: String) -> Result<(), StartError> {
        let Talk { spec, dialect, .. } = &self.talk;
        let outputs = outputs(spec, dialect, Kept::reopen)?;
        self.process = Process::start(spec, &self.program, dialect, argv, prompt.into_bytes(), outputs)?;
        Ok(())
    }

    /// Goes on until the agent's process ends (`None`) or has to be ended.
    async fn take_turns(
        &mut self,
        orders: &mut watch::Receiver<Order>,
        host: &mut impl Host,
    ) -> Option<Stop> {
        let limits = self.talk.spec.limits;
        let Process { child, lines, input, leader, .. } = &mut self.process;
        let mut exited = std::pin::pin!(until_exit(child, leader.pid));
        let mut time_limit = std::pin::pin!(sleep(limits.timeout.saturating_sub(self.started_at.elapsed())));
        // An order that was given before anybody listened counts as well.
        orders.mark_changed();
        let (mut interrupt_at, mut leave_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            tokio::select! {
                () = &mut exited => break,
                () = &mut time_limit => return Some(Stop::TimedOut),
                () = reach(interrupt_at) => return Some(Stop::Interrupted),
                () = reach(leave_at) => return None,
                order = next_order(orders) => match order {
                    Order::Proceed => {}
                    Order::Cancel => return Some(Stop::Cancelled),
                    Order::Interrupt => {
                        interrupt_at.get_or_insert_with(|| Instant::now() + limits.interrupt_after);
                    }
                },
                Some(line) = lines.recv() => {
                    self.talk.heed(&line, input, host, interrupt_at.is_none());
                    if self.talk.learned.is_out_of_turns() {
                        return Some(Stop::OutOfTurns);
                    }
                    if input.is_none() && self.talk.dialect.may_linger() {
                        leave_at.get_or_insert_with(|| Instant::now() + LEAVE_PATIENCE);
                    }
                }
            }
        }
        if !self.talk.dialect.has_dialogue() {
            // What it said last may ask for a turn in another process.
            let last = async {
                while let Some(line) = lines.recv().await {
                    self.talk.heed(&line, input, host, interrupt_at.is_none());
                }
            };
            let _ = timeout(LAST_WORDS, last).await;
        }
        None
    }

    /// Adds what the agent does not say but keeps.
    async fn reckon(&mut self) {
        /// How far the clocks of two file systems may be apart.
        const SLACK: Duration = Duration::from_secs(2);
        let Talk { spec, learned, .. } = &mut self.talk;
        if spec.adapter != Adapter::Codex {
            return;
        }
        let env = |name| spec.env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = env("CODEX_HOME").or_else(|| Some(env("HOME")?.join(".codex")));
        let since = self.since.checked_sub(SLACK).unwrap_or(self.since);
        let account = match (home, learned.session_id.clone()) {
            (Some(home), Some(id)) => {
                // Files of any size: off the runtime's own threads.
                let read = move || codex::account(&home, id.as_str(), since);
                tokio::task::spawn_blocking(read).await.ok().flatten()
            }
            _ => None,
        };
        learned.reckon(account, spec.max_cost_usd);
    }
}

impl Talk {
    /// Takes in a line of the agent, and answers where there is something to answer. Without more input an agent
    /// finishes what it has under way and ends.
    fn heed(
        &mut self,
        line: &[u8],
        input: &mut Option<mpsc::Sender<Vec<u8>>>,
        host: &mut impl Host,
        may_go_on: bool,
    ) {
        for step in self.dialect.read(line) {
            let fact = match step {
                Step::Tell(fact) => fact,
                Step::Send(bytes) => {
                    // One that does not read what it is told cannot go on.
                    if input.as_ref().is_some_and(|to| to.try_send(bytes).is_err()) {
                        *input = None;
                    }
                    continue;
                }
            };
            self.learned.take(&fact);
            host.learn(&fact);
            let Progress::Turn(turn) = fact else { continue };
            let may_go_on = may_go_on && !turn.is_error && self.learned.may_go_on();
            let prompt = may_go_on.then(|| host.another_turn(&turn)).flatten();
            let session = self.learned.session_id.as_ref();
            let next = prompt
                .and_then(|prompt| Some((self.dialect.another_turn(&self.spec, session, &prompt)?, prompt)));
            let goes_on = match next {
                Some((Next::Say(bytes), _)) => input.as_ref().is_some_and(|to| to.try_send(bytes).is_ok()),
                Some((Next::Start(argv), prompt)) => {
                    self.next = Some((argv, prompt));
                    false
                }
                None => false,
            };
            if goes_on {
                self.learned.begin_turn();
            } else {
                *input = None;
            }
        }
    }
}

async fn reach(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// The next order; never comes once nobody can give one.
async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    if orders.changed().await.is_err() {
        return pending().await;
    }
    *orders.borrow_and_update()
}
