//! A child process whose output is read line by line while it runs.
//!
//! Signals go to the process, or to the process group that it leads, and to nothing that this kit has not started.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::DEADLINE;

/// How many lines of a program are shown when its test fails.
const LAST_LINES: usize = 40;

/// Which of a program's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that a program wrote.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where to.
    pub stream: Stream,
    /// Without its line end; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// When it was read.
    pub at: Instant,
}

/// How a program ended, and all that it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; `None` = ended by `signal`.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// Everything it wrote, in the order in which it was read.
    pub lines: Vec<Line>,
}

impl Ended {
    /// What it wrote to standard output, with line ends.
    pub fn stdout(&self) -> String {
        join(&self.lines, Stream::Out)
    }

    /// What it wrote to standard error, with line ends.
    pub fn stderr(&self) -> String {
        join(&self.lines, Stream::Err)
    }

    /// Panics with all output unless the exit code is 0.
    pub fn expect_success(self) -> Ended {
        assert_eq!(self.code, Some(0), "ended by {:?}:\n{}", self.signal, show(&self.lines));
        self
    }
}

/// A running program. Dropping it kills its process group.
pub struct Program {
    name: String,
    child: Child,
    pid: Pid,
    output: Arc<Output>,
    readers: JoinSet<()>,
    ended: Option<ExitStatus>,
}

#[derive(Default)]
struct Output {
    /// A std mutex: held for a push or a look, never across an await.
    lines: Mutex<Vec<Line>>,
    /// Raised at each line, and once more when both streams have ended.
    grew: watch::Sender<usize>,
    closed: Mutex<usize>,
}

impl Program {
    /// Starts the command as the leader of a process group of its own, without standard input.
    pub(crate) fn start(mut command: Command) -> Program {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).expect("a new child has an id");
        let output = Arc::new(Output::default());
        let mut readers = JoinSet::new();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        readers.spawn(read_lines(out.expect("piped above"), Stream::Out, output.clone()));
        readers.spawn(read_lines(err.expect("piped above"), Stream::Err, output.clone()));
        Program { name, child, pid: Pid::from_raw(pid), output, readers, ended: None }
    }

    /// What a test that failed would be asked for first.
    #[expect(clippy::print_stderr, reason = "the test's own output is where it is looked for")]
    fn show_last_lines(&self) {
        let lines = self.output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = lines.len().saturating_sub(LAST_LINES);
        eprintln!("the last lines of {}:\n{}", self.name, show(&lines[newest..]));
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// What it has written so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lines.lock().unwrap().clone()
    }

    /// Waits for a line that contains `part`, on either stream, those already written included. Panics with all
    /// output when the program ends first or the deadline passes.
    pub async fn wait_for_line(&self, part: &str, deadline: Duration) -> Line {
        let mut grew = self.output.grew.subscribe();
        let waited = tokio::time::timeout(deadline, async {
            loop {
                grew.borrow_and_update();
                let closed = *self.output.closed.lock().unwrap() == 2;
                if let Some(line) = self.lines().into_iter().find(|l| l.text.contains(part)) {
                    return Some(line);
                }
                if closed {
                    return None;
                }
                grew.changed().await.expect("the sender lives in self");
            }
        });
        match waited.await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("{} ended without a line {part:?}:\n{}", self.name, show(&self.lines())),
            Err(_) => {
                panic!("{} wrote no line {part:?} in {deadline:?}:\n{}", self.name, show(&self.lines()))
            }
        }
    }

    /// Whether it has ended already.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.is_some()
    }

    /// Waits for the end and for the last line. Panics with all output when the deadline passes first.
    pub async fn wait(mut self, deadline: Duration) -> Ended {
        let waited = tokio::time::timeout(deadline, async {
            let status = self.child.wait().await.expect("a child can be waited for");
            while self.readers.join_next().await.is_some() {}
            status
        });
        let Ok(status) = waited.await else {
            panic!("{} still runs after {deadline:?}:\n{}", self.name, show(&self.lines()))
        };
        self.ended = Some(status);
        Ended { code: status.code(), signal: status.signal(), lines: self.lines() }
    }

    /// Sends SIGTERM to the process and waits for its end.
    pub async fn terminate(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait(DEADLINE).await
    }

    /// Sends SIGKILL to the process and waits for its end.
    pub async fn kill9(self) -> Ended {
        self.signal(Signal::SIGKILL);
        self.wait(DEADLINE).await
    }

    /// Sends a signal to the process. It is the child's until it has been waited for, so the id is still its own.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended already", self.name);
        kill(self.pid, signal).unwrap_or_else(|e| panic!("cannot signal {}: {e}", self.name));
    }

    pub(crate) fn transcript(&self) -> String {
        show(&self.lines())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_last_lines();
        }
        // After the leader has been waited for, its id may belong to somebody else.
        if !self.has_ended() {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

async fn read_lines(from: impl AsyncRead + Unpin, stream: Stream, output: Arc<Output>) {
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes).await.is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        output.lines.lock().unwrap().push(Line { stream, text, at: Instant::now() });
        output.grew.send_modify(|n| *n += 1);
        bytes.clear();
    }
    *output.closed.lock().unwrap() += 1;
    output.grew.send_modify(|n| *n += 1);
}

fn join(lines: &[Line], stream: Stream) -> String {
    lines.iter().filter(|l| l.stream == stream).map(|l| format!("{}\n", l.text)).collect()
}

fn show(lines: &[Line]) -> String {
    let mark = |stream| if stream == Stream::Out { ' ' } else { '!' };
    lines.iter().map(|l| format!("{} {}\n", mark(l.stream), l.text)).collect()
}
