//! After a crash of ringback. Another program starts the run here, so that nobody waits for its processes.

#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use ringback_runs::{Leader, recover};
use uuid::Uuid;

use crate::kit::{Bench, is_alive, wait_for};

const SHORT: Duration = Duration::from_millis(200);

/// What a killed ringback leaves: a leader with this run's id in a group of its own.
struct Left {
    run_id: Uuid,
    leader: Leader,
    child: Child,
}

impl Left {
    fn start(bench: &Bench) -> Left {
        let run_id = Uuid::new_v4();
        #[expect(clippy::disallowed_methods, reason = "a run that the runner under test has not started")]
        let mut command = Command::new(&bench.spec.command[0]);
        command
            .arg(&bench.spec.command[1])
            .current_dir(&bench.spec.cwd)
            .env("RINGBACK_RUN", run_id.to_string())
            .process_group(0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The 22nd field, counted after the program's name, which is the second.
        let started = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        Left { run_id, leader: Leader { pid, started: Some(started) }, child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        // Not waited for unless the test did, so the number is still the leader's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(self.leader.pid), Signal::SIGKILL);
        }
    }
}

#[tokio::test]
async fn what_is_left_of_a_runs_process_group_is_ended() {
    let bench = Bench::script(
        "env -i sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 0.05; done' &\n\
         echo $$ > leader; wait",
    );
    let mut left = Left::start(&bench);
    let (stubborn, leader) = (bench.wait_for("stubborn").await, bench.wait_for("leader").await);
    let ended = recover(left.run_id, left.leader, SHORT).await;
    assert!(ended >= 2, "{ended}");
    assert!(!is_alive(&stubborn) && !is_alive(&leader));
    left.child.wait().unwrap();
    assert_eq!(recover(left.run_id, left.leader, SHORT).await, 0);
}

#[tokio::test]
async fn a_stranger_with_the_same_number_is_left_alone() {
    let bench = Bench::script("env -i sh -c 'echo $$ > child; exec sleep 1000' &\necho $$ > leader; wait");
    let mut stranger = Left::start(&bench);
    let child = bench.wait_for("child").await;
    let other = Leader { started: stranger.leader.started.map(|t| t - 1), ..stranger.leader };
    for leader in [other, Leader { started: None, ..other }] {
        assert_eq!(recover(Uuid::new_v4(), leader, SHORT).await, 0);
    }
    assert!(is_alive(&child) && is_alive(&stranger.leader.pid.to_string()));
    recover(stranger.run_id, stranger.leader, SHORT).await;
    stranger.child.wait().unwrap();
}

#[tokio::test]
async fn when_the_leader_is_dead_only_processes_that_name_the_run_are_ended() {
    let bench = Bench::script(
        "sh -c 'echo $$ > ours; exec sleep 1000' &\n\
         setsid sh -c 'echo $$ > ours-elsewhere; exec sleep 1000' &\n\
         env -i sh -c 'echo $$ > nameless; exec sleep 1000' &\nwait",
    );
    let mut left = Left::start(&bench);
    let mut pids = Vec::new();
    for name in ["ours", "ours-elsewhere", "nameless"] {
        pids.push(wait_for(&bench.path(name)).await);
    }
    left.kill();
    assert_eq!(recover(Uuid::new_v4(), left.leader, SHORT).await, 0);
    assert_eq!(recover(left.run_id, left.leader, SHORT).await, 2);
    assert_eq!(pids.iter().map(|pid| is_alive(pid)).collect::<Vec<_>>(), [false, false, true]);
    kill(Pid::from_raw(pids[2].trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}
