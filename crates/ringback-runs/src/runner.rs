//! One run: start, turns, limits, orders, end.
//!
//! Owns: the agent's process from its start until it has been waited for, and the only place of this program that
//! starts processes. When a [`Running`] is dropped its process group is killed.

use std::collections::BTreeMap;
use std::future::pending;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use ringback_model::Secret;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::capture::{Kept, Tail, capture, make_dir};
use crate::claude;
use crate::environment::{Environment, MCP_TOKEN, MCP_URL, RUN};
use crate::family::{Family, Leader};
use crate::outcome::{End, Exit, Learned, Outcome, Progress, Stop, TurnResult, judge, presentable};
use crate::program::find_program;
use crate::spec::{Adapter, Limits, Spec, StartError};

/// How long the ends of the output are waited for once every process is gone. Only a process that has escaped from
/// its run can hold them open longer.
const DRAIN: Duration = Duration::from_secs(2);

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
    adapter: Adapter,
    limits: Limits,
    leader: Leader,
    family: Family,
    started_at: Instant,
    /// Cut out of what is shown.
    token: Option<Secret>,
    /// Kills the group unless it was ended in order. Dropped before the child: after that somebody may wait for it.
    leash: Leash,
    child: Child,
    /// Standard input; the end of the sender is the end of the input.
    input: Option<mpsc::Sender<Vec<u8>>>,
    lines: mpsc::Receiver<Vec<u8>>,
    stderr: Tail,
    /// The writer of the input and the readers of both outputs.
    tasks: JoinSet<()>,
}

/// Starts the agent in a process group of its own. Must be called within a tokio runtime.
///
/// The output goes to `output.jsonl` (claude) or `stdout.log`, and to `stderr.log`, in the spec's directory: at most
/// 10 MiB each, with a mark where the rest was thrown away.
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
    let (stdout_name, stdout_mark) = match spec.adapter {
        Adapter::Command => ("stdout.log", TEXT_MARK),
        Adapter::Claude => ("output.jsonl", JSON_MARK),
    };
    let stdout_kept = Kept::create(spec.output_dir.join(stdout_name), stdout_mark)?;
    let stderr_kept = Kept::create(spec.output_dir.join("stderr.log"), TEXT_MARK)?;

    let failed = |source| StartError::Spawn { name: name.clone(), source };
    let mut child = command(spec, &program).spawn().map_err(failed)?;
    let started_at = Instant::now();
    let missing = || failed(std::io::Error::other("a new process without an id or a pipe"));
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(missing)?;
    let group = Pid::from_raw(pid);
    let leash = Leash { group, is_held: true };

    let mut tasks = JoinSet::new();
    let (to_lines, lines) = mpsc::channel(2);
    let (to_input, input) = mpsc::channel(2);
    let stderr = Tail::default();
    let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let has_lines = spec.adapter == Adapter::Claude;
    tasks.spawn(feed(stdin.ok_or_else(missing)?, first_input(spec), input));
    let to_lines = has_lines.then_some(to_lines);
    tasks.spawn(capture(out.ok_or_else(missing)?, stdout_kept, Tail::default(), to_lines));
    tasks.spawn(capture(err.ok_or_else(missing)?, stderr_kept, stderr.clone(), None));

    Ok(Running {
        adapter: spec.adapter,
        limits: spec.limits,
        leader: Leader::of(pid),
        family: Family { run_id: spec.run_id, group: Some(group) },
        started_at,
        token: spec.mcp.as_ref().map(|mcp| mcp.token.clone()),
        child,
        leash,
        input: has_lines.then_some(to_input),
        lines,
        stderr,
        tasks,
    })
}

const TEXT_MARK: &[u8] = b"\n[ringback: the rest of more than 10 MiB is not kept]\n";
const JSON_MARK: &[u8] = b"\n{\"type\":\"ringback\",\"note\":\"the rest of more than 10 MiB is not kept\"}\n";

impl Running {
    /// What [`recover`](crate::recover) needs, should ringback be killed: to be journaled now.
    pub fn leader(&self) -> Leader {
        self.leader
    }

    /// Takes the run to its end, whichever comes first: its own, the time limit, or an order. Then no process of it
    /// is left.
    pub async fn wait(mut self, orders: watch::Receiver<Order>, host: &mut impl Host) -> Outcome {
        let mut learned = Learned::default();
        learned.begin_turn();
        let stop = self.take_turns(orders, host, &mut learned).await;

        // The end of the input is the mildest way to tell an agent that it is over.
        self.input = None;
        let mut ending = std::pin::pin!(self.family.end(self.limits.kill_after));
        loop {
            tokio::select! {
                _ = &mut ending => break,
                Some(line) = self.lines.recv() => learn(&line, &mut learned, host),
            }
        }
        let drained = timeout(DRAIN, async {
            while let Some(line) = self.lines.recv().await {
                learn(&line, &mut learned, host);
            }
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(run_id = %self.family.run_id, "something outside the run holds its output open");
        }

        let status = timeout(DRAIN, self.child.wait()).await.ok().and_then(Result::ok);
        if status.is_some() {
            self.leash.is_held = false;
        }
        let exit = Exit { code: status.and_then(|s| s.code()), signal: status.and_then(|s| s.signal()) };
        let end = match judge(self.adapter, stop, exit, &learned, &self.stderr.text()) {
            End::Failed(why) => End::Failed(presentable(&why, self.token.as_ref().map(Secret::reveal))),
            end => end,
        };
        Outcome {
            end,
            exit_code: exit.code,
            signal: exit.signal,
            cost_usd: learned.cost_usd(),
            tokens: learned.tokens(),
            turns: learned.turns,
            session_id: learned.session_id,
            duration: self.started_at.elapsed(),
        }
    }

    /// Goes on until the agent's process ends (`None`) or has to be ended.
    async fn take_turns(
        &mut self,
        mut orders: watch::Receiver<Order>,
        host: &mut impl Host,
        learned: &mut Learned,
    ) -> Option<Stop> {
        let mut exited = std::pin::pin!(until_exit(&mut self.child, self.leader.pid));
        let mut time_limit =
            std::pin::pin!(sleep(self.limits.timeout.saturating_sub(self.started_at.elapsed())));
        // An order that was given before anybody listened counts as well.
        orders.mark_changed();
        let mut interrupt_at: Option<Instant> = None;
        loop {
            tokio::select! {
                () = &mut exited => return None,
                () = &mut time_limit => return Some(Stop::TimedOut),
                () = reach(interrupt_at) => return Some(Stop::Interrupted),
                order = next_order(&mut orders) => match order {
                    Order::Proceed => {}
                    Order::Cancel => return Some(Stop::Cancelled),
                    Order::Interrupt => {
                        interrupt_at.get_or_insert_with(|| Instant::now() + self.limits.interrupt_after);
                    }
                },
                Some(line) = self.lines.recv() => {
                    let Some(fact) = claude::read_line(&line) else { continue };
                    learned.take(&fact);
                    host.learn(&fact);
                    let Progress::Turn(turn) = fact else { continue };
                    let wanted = self.input.is_some() && interrupt_at.is_none() && !turn.is_error;
                    let prompt = wanted.then(|| host.another_turn(&turn)).flatten();
                    let sent = self.input.as_ref().zip(prompt).is_some_and(|(input, prompt)| {
                        input.try_send(claude::user_line(&prompt)).is_ok()
                    });
                    if sent {
                        learned.begin_turn();
                    } else {
                        // Without more input the agent finishes what it has under way and ends.
                        self.input = None;
                    }
                }
            }
        }
    }
}

fn learn(line: &[u8], learned: &mut Learned, host: &mut impl Host) {
    if let Some(fact) = claude::read_line(line) {
        learned.take(&fact);
        host.learn(&fact);
    }
}

/// Kills a process group that nobody will end in order.
#[derive(Debug)]
struct Leash {
    group: Pid,
    /// The leader has not been waited for, so the number is still the run's.
    is_held: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.is_held {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

fn command(spec: &Spec, program: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts agents")]
    let mut command = std::process::Command::new(program);
    match spec.adapter {
        Adapter::Command => command.args(&spec.command[1..]),
        Adapter::Claude => command.args(claude::claude_argv(spec)),
    };
    command.current_dir(&spec.cwd).env_clear().envs(whole_environment(spec));
    let mut command = Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// What the run may see of ours, and what is ringback's own.
fn whole_environment(spec: &Spec) -> BTreeMap<String, String> {
    let mut env: Environment = spec.env.clone();
    env.set(RUN, spec.run_id.to_string());
    if let Some(mcp) = &spec.mcp {
        env.set(MCP_URL, mcp.url.as_str());
        env.set(MCP_TOKEN, mcp.token.reveal());
    }
    if spec.adapter == Adapter::Claude {
        for (name, value) in claude::switches(spec) {
            env.set(name, value);
        }
    }
    env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn first_input(spec: &Spec) -> Vec<u8> {
    match spec.adapter {
        Adapter::Command => spec.prompt.clone().into_bytes(),
        Adapter::Claude => claude::user_line(&spec.prompt),
    }
}

/// Writes the prompt and what follows; closes the input when nothing can follow any more.
async fn feed(mut stdin: ChildStdin, first: Vec<u8>, mut more: mpsc::Receiver<Vec<u8>>) {
    let mut next = Some(first);
    while let Some(bytes) = next {
        // A program is free not to read its input; whether it did its work is seen from how it ends.
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
        next = more.recv().await;
    }
}

/// Waits until the process has ended, and leaves it to be waited for: until then its number, which is that of its
/// group, is not given to anybody else.
#[cfg(target_os = "linux")]
async fn until_exit(_child: &mut Child, pid: i32) {
    use nix::errno::Errno;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    let (ended, wait) = tokio::sync::oneshot::channel();
    let watch = move || {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(Pid::from_raw(pid)), flags) == Err(Errno::EINTR) {}
        let _ = ended.send(());
    };
    // A thread of its own: it waits as long as the run, and a runtime that stops must not wait for it.
    match std::thread::Builder::new().name("ringback-run".to_owned()).spawn(watch) {
        Ok(_) => drop(wait.await),
        Err(error) => {
            tracing::warn!(%error, "no thread to watch the agent with; the run is ended by its time limit");
            pending().await
        }
    }
}

/// Waits until the process has ended. There is no way here to leave it to be waited for.
#[cfg(not(target_os = "linux"))]
async fn until_exit(child: &mut Child, _pid: i32) {
    let _ = child.wait().await;
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
