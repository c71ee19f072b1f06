//! The processes of a run: which ones they are, and how all of them end.
//!
//! A run's processes are the group that its agent leads and, since agents start their tools in sessions of their
//! own, every process with the run's `RINGBACK_RUN` in its environment. The latter, and the recognition of a
//! leader after a crash, come from `/proc`: where there is none, a run is its process group and nothing can be
//! recovered.
//!
//! The number of a process group stays taken while one of its processes exists, waited for or not. That is why a
//! leader is waited for last.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::environment::RUN;

/// How long processes have to go after KILL. What is still there then hangs in the kernel.
const GONE_AFTER: Duration = Duration::from_secs(4);
/// The ends of processes that are not our children cannot be waited for, only looked for.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// The leader of a run's process group, as it can be recognised after a crash of ringback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its process id, which is also the number of the group.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did (`/proc/PID/stat`, field 22). `None` = not known on
    /// this system.
    pub started: Option<u64>,
}

/// Ends what a killed ringback left of a run: TERM, and KILL after `kill_after`; at most 4 s later it gives up.
/// Returns how many processes there were.
///
/// A number alone is never trusted. The group is the run's if its leader still exists and started when the journal
/// says; else only processes with this run's `RINGBACK_RUN` in their environment are touched.
pub async fn recover(run_id: Uuid, leader: Leader, kill_after: Duration) -> usize {
    let group = leader.is_there().then(|| Pid::from_raw(leader.pid));
    Family { run_id, group }.end(kill_after).await
}

impl Leader {
    /// The leader with this process id, which must not have been waited for yet.
    pub(crate) fn of(pid: i32) -> Leader {
        Leader { pid, started: Stat::read(pid).map(|stat| stat.started) }
    }

    fn is_there(self) -> bool {
        // 0 and below would mean our own group or every process.
        self.pid > 1 && self.started.is_some() && Stat::read(self.pid).map(|s| s.started) == self.started
    }
}

/// The processes of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) run_id: Uuid,
    /// The process group, where its number is certain to be the run's.
    pub(crate) group: Option<Pid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    pid: Pid,
    in_group: bool,
}

impl Family {
    /// Makes every process of the run end: TERM, KILL after `kill_after`. Returns how many there were; none is left
    /// but what hangs in the kernel.
    pub(crate) async fn end(self, kill_after: Duration) -> usize {
        let mut met = BTreeSet::new();
        for (signal, patience) in [(Signal::SIGTERM, kill_after), (Signal::SIGKILL, GONE_AFTER)] {
            let start = Instant::now();
            let mut told = BTreeSet::new();
            let mut pause = FIRST_LOOK;
            loop {
                let living = self.look().await;
                if living.is_empty() {
                    return met.len();
                }
                met.extend(living.iter().map(|member| member.pid));
                if start.elapsed() >= patience {
                    break;
                }
                self.signal(signal, &living, &mut told);
                sleep(pause.min(patience.saturating_sub(start.elapsed()))).await;
                pause = (pause * 2).min(LAST_LOOK);
            }
        }
        tracing::warn!(run_id = %self.run_id, "processes of the run are still there after SIGKILL");
        met.len()
    }

    /// Signals whoever was not told before: a second TERM makes some programs leave in a hurry. What the group starts
    /// after its TERM waits for KILL, which is told again and again.
    fn signal(self, signal: Signal, living: &[Member], told: &mut BTreeSet<Pid>) {
        let again = signal == Signal::SIGKILL;
        let in_group = living.iter().any(|member| member.in_group);
        if let Some(group) = self.group.filter(|g| in_group && (told.insert(*g) || again)) {
            // A process that has just gone is what was wanted.
            let _ = killpg(group, signal);
        }
        for member in living.iter().filter(|member| !member.in_group) {
            if told.insert(member.pid) || again {
                let _ = kill(member.pid, signal);
            }
        }
    }

    /// The members that have not ended. Reads hundreds of small files, hence off the runtime's own threads.
    async fn look(self) -> Vec<Member> {
        tokio::task::spawn_blocking(move || self.living()).await.unwrap_or_default()
    }

    fn living(self) -> Vec<Member> {
        if !cfg!(target_os = "linux") {
            let group = self.group.filter(|group| killpg(*group, None).is_ok());
            return group.map(|pid| Member { pid, in_group: true }).into_iter().collect();
        }
        let mark = format!("{RUN}={}", self.run_id).into_bytes();
        let own = Pid::this();
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let stat = Stat::read(pid).filter(|stat| !stat.ended)?;
            let in_group = self.group.is_some_and(|group| group.as_raw() == stat.group);
            let member = Member { pid: Pid::from_raw(pid), in_group };
            (member.pid != own && (in_group || has_variable(pid, &mark))).then_some(member)
        })
        .collect()
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    /// Gone, though perhaps not waited for.
    ended: bool,
    group: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    fn parse(line: &str) -> Option<Stat> {
        let (_, rest) = line.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        let group = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Stat { ended, group, started })
    }
}

/// Whether a process was started with `mark` (`NAME=value`) in its environment. That of other users cannot be read.
fn has_variable(pid: i32, mark: &[u8]) -> bool {
    const MOST: u64 = 4 << 20;
    let mut environment = Vec::new();
    fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MOST).read_to_end(&mut environment))
        .is_ok_and(|_| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "4711 (a) S 1 (b) S 1 4700 4700 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.ended, stat.group, stat.started), (false, 4700, 987_654));
        assert!(Stat::parse("4711 (sh) Z 1 4700 4700 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5").unwrap().ended);
        for broken in
            ["", "4711 (sh)", "4711 (sh) S 1", "4711 (sh) S 1 x 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"]
        {
            assert!(Stat::parse(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn no_number_that_means_many_processes_is_taken_for_a_leader() {
        for pid in [i32::MIN, -1, 0, 1] {
            assert!(!Leader { pid, started: Leader::of(pid).started.or(Some(0)) }.is_there(), "{pid}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_leader_is_recognised_by_its_number_and_its_start() {
        let own = Leader::of(Pid::this().as_raw());
        assert!(own.is_there());
        assert!(!Leader { started: own.started.map(|t| t + 1), ..own }.is_there());
        assert!(!Leader { started: None, ..own }.is_there());
    }
}
