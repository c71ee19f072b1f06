//! One process of a run: its start in a group of its own, its pipes, and its end.
//!
//! Owns: the only place of this program that starts agents. When a [`Process`] is dropped its group is killed.

use std::collections::BTreeMap;
use std::future::pending;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::capture::{Kept, Tail, capture};
use crate::dialect::Dialect;
use crate::environment::{Environment, MCP_TOKEN, MCP_URL, RUN};
use crate::family::{Family, Leader};
use crate::outcome::Exit;
use crate::spec::{Spec, StartError};

/// How long the ends of the output are waited for once every process is gone. Only a process that has escaped from
/// its run can hold them open longer.
const DRAIN: Duration = Duration::from_secs(2);
/// Messages to the agent that may wait to be written. One that leaves more unread is not listening.
const INPUT: usize = 64;

/// Where the output of a process is kept.
pub(crate) struct Outputs {
    pub(crate) out: Kept,
    pub(crate) err: Kept,
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) leader: Leader,
    family: Family,
    /// Kills the group unless it was ended in order. Dropped before the child: after that somebody may wait for it.
    leash: Leash,
    pub(crate) child: Child,
    /// Standard input; the end of the sender is the end of the input.
    pub(crate) input: Option<mpsc::Sender<Vec<u8>>>,
    pub(crate) lines: mpsc::Receiver<Vec<u8>>,
    pub(crate) stderr: Tail,
    /// The writer of the input and the readers of both outputs.
    tasks: JoinSet<()>,
}

impl Process {
    /// Starts `program` and writes `first` to it. Must be called within a tokio runtime.
    pub(crate) fn start(
        spec: &Spec,
        program: &Path,
        dialect: &Dialect,
        argv: &[String],
        first: Vec<u8>,
        outputs: Outputs,
    ) -> Result<Process, StartError> {
        let failed = |source| StartError::Spawn { name: spec.command[0].clone(), source };
        let mut child = command(spec, program, dialect, argv).spawn().map_err(failed)?;
        let missing = || failed(std::io::Error::other("a new process without an id or a pipe"));
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(missing)?;
        let group = Pid::from_raw(pid);
        let leash = Leash { group, is_held: true };

        let mut tasks = JoinSet::new();
        let (to_lines, lines) = mpsc::channel(2);
        let (to_input, input) = mpsc::channel(INPUT);
        let stderr = Tail::default();
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        tasks.spawn(feed(stdin.ok_or_else(missing)?, first, input));
        let to_lines = dialect.has_lines().then_some(to_lines);
        tasks.spawn(capture(out.ok_or_else(missing)?, outputs.out, Tail::default(), to_lines));
        tasks.spawn(capture(err.ok_or_else(missing)?, outputs.err, stderr.clone(), None));
        Ok(Process {
            leader: Leader::of(pid),
            family: Family { run_id: spec.run_id, group: Some(group) },
            leash,
            child,
            input: dialect.has_dialogue().then_some(to_input),
            lines,
            stderr,
            tasks,
        })
    }

    /// Ends every process of the run. What is still said meanwhile goes to `hear`.
    pub(crate) async fn end(&mut self, kill_after: Duration, mut hear: impl FnMut(&[u8])) -> Exit {
        // The end of the input is the mildest way to tell an agent that it is over.
        self.input = None;
        let mut ending = std::pin::pin!(self.family.end(kill_after));
        loop {
            tokio::select! {
                _ = &mut ending => break,
                Some(line) = self.lines.recv() => hear(&line),
            }
        }
        let drained = timeout(DRAIN, async {
            while let Some(line) = self.lines.recv().await {
                hear(&line);
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
        Exit { code: status.and_then(|s| s.code()), signal: status.and_then(|s| s.signal()) }
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

fn command(spec: &Spec, program: &Path, dialect: &Dialect, argv: &[String]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts agents")]
    let mut command = std::process::Command::new(program);
    command.args(argv).current_dir(&spec.cwd).env_clear().envs(whole_environment(spec, dialect));
    let mut command = Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// What the run may see of ours, and what is ringback's own.
fn whole_environment(spec: &Spec, dialect: &Dialect) -> BTreeMap<String, String> {
    let mut env: Environment = spec.env.clone();
    env.set(RUN, spec.run_id.to_string());
    if let Some(mcp) = &spec.mcp {
        env.set(MCP_URL, mcp.url.as_str());
        env.set(MCP_TOKEN, mcp.token.reveal());
    }
    for (name, value) in dialect.variables(spec) {
        env.set(name, value);
    }
    env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
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
pub(crate) async fn until_exit(_child: &mut Child, pid: i32) {
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
pub(crate) async fn until_exit(child: &mut Child, _pid: i32) {
    let _ = child.wait().await;
}
