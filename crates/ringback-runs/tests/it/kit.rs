//! A run in a temporary directory, and scripts that play the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use ringback_runs::{Adapter, Environment, Host, Limits, Order, Outcome, Running, Session, Spec, start};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long something that has to happen may take before a test says that it never did.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A directory with an agent in it, and what a run of that agent is to be.
pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) spec: Spec,
}

impl Bench {
    /// The agent is a shell script. Its own directory is the working directory.
    pub(crate) fn script(body: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let agent = path.join("agent");
        fs::write(
            &agent,
            format!(
                "{body}
"
            ),
        )
        .unwrap();
        let spec = Spec {
            run_id: Uuid::new_v4(),
            adapter: Adapter::Command,
            // Read by the shell, not started itself: another test's new process may still hold it open for writing.
            command: vec!["sh".to_owned(), agent.to_str().unwrap().to_owned()],
            cwd: path.clone(),
            prompt: "do it".to_owned(),
            prompt_without_history: None,
            env: environment(&[("PATH", "/usr/local/bin:/usr/bin:/bin")]),
            mcp: None,
            limits: Limits::new(DEADLINE),
            output_dir: path.join("runs/1"),
            session: Session::Unnamed,
            model: None,
            thinking: true,
            allowed_tools: vec![],
            denied_dirs: vec![],
            max_turns: None,
            max_cost_usd: None,
        };
        Bench { dir, spec }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A file of the working directory, as text.
    pub(crate) fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_else(|e| panic!("no {below}: {e}"))
    }

    pub(crate) fn output(&self, name: &str) -> String {
        self.read(&format!("runs/1/{name}"))
    }

    /// Runs it to its own end, or to its time limit.
    pub(crate) async fn run(&self) -> Outcome {
        finish(start(&self.spec).unwrap(), &mut ()).await
    }

    /// Waits until the agent has written a file and a line end in it, and gives its content.
    pub(crate) async fn wait_for(&self, below: &str) -> String {
        wait_for(&self.path(below)).await
    }
}

/// What a run may see, of these variables.
pub(crate) fn environment(variables: &[(&str, &str)]) -> Environment {
    let process: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let names: Vec<String> = process.keys().cloned().collect();
    Environment::select(&process, &names, &BTreeSet::new())
}

/// Waits for the end without giving an order.
pub(crate) async fn finish(running: Running, host: &mut impl Host) -> Outcome {
    let (_orders, listener) = watch::channel(Order::Proceed);
    let waited = timeout(DEADLINE * 2, running.wait(listener, host)).await;
    waited.expect("a run ends some time after its limit")
}

/// Looks until a file has a line end in it. Nothing else tells when another program has written.
pub(crate) async fn wait_for(path: &Path) -> String {
    let give_up = Instant::now() + DEADLINE;
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(Instant::now() < give_up, "nothing was written to {}", path.display()),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and has not ended.
pub(crate) fn is_alive(pid: &str) -> bool {
    let pid: i32 = pid.trim().parse().unwrap();
    if cfg!(target_os = "linux") {
        // One that nobody has waited for yet has ended all the same.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        return stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'));
    }
    kill(Pid::from_raw(pid), None).is_ok()
}
