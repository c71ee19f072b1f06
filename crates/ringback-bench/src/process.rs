//! What a process costs, as Linux counts it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of the times in `/proc`: the same on every Linux, whatever its timer does.
const USER_HZ: u64 = 100;

/// Time on the processors since the start, of all threads, those that have ended too.
pub(crate) fn cpu(pid: i32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in front is in brackets, and may hold anything.
    let (_, rest) = text.rsplit_once(')').context("no times in a stat file")?;
    let mut numbers = rest.split_whitespace().skip(11).map_while(|word| word.parse::<u64>().ok());
    let ticks = numbers.next().unwrap_or_default() + numbers.next().unwrap_or_default();
    Ok(Duration::from_millis(ticks * 1000 / USER_HZ))
}

/// Time on the processors of our own living threads of that name.
pub(crate) fn cpu_of_threads(name: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in tasks("self")? {
        let comm = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            // Of a thread there is a finer count: nanoseconds.
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            let nanos = schedstat.split(' ').next().and_then(|n| n.parse().ok());
            sum += Duration::from_nanos(nanos.context("no time in a schedstat file")?);
        }
    }
    Ok(sum)
}

/// Resident memory now, in MiB.
pub(crate) fn resident(pid: i32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory since the start, in MiB.
pub(crate) fn peak_resident(pid: i32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

/// How often each thread of a process was switched to and from: each wake-up makes at least one.
pub(crate) struct Switches(HashMap<PathBuf, u64>);

/// Those of its living threads since each began.
pub(crate) fn switches(pid: i32) -> Result<Switches> {
    let of = |task: &Path| -> u64 {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let counts = status.lines().filter(|line| line.contains("voluntary_ctxt_switches:"));
        counts.filter_map(|line| line.rsplit('\t').next()?.trim().parse::<u64>().ok()).sum()
    };
    Ok(Switches(tasks(&pid.to_string())?.into_iter().map(|task| (task.clone(), of(&task))).collect()))
}

impl Switches {
    /// All of them since `before`. Those of a thread that has ended meanwhile are not known any more.
    pub(crate) fn since(&self, before: &Switches) -> u64 {
        let began_at = |task: &PathBuf| before.0.get(task).copied().unwrap_or_default();
        self.0.iter().map(|(task, count)| count.saturating_sub(began_at(task))).sum()
    }
}

fn tasks(process: &str) -> Result<Vec<PathBuf>> {
    let dir = format!("/proc/{process}/task");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {dir}"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn memory(pid: i32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no memory in a status file")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("no number of kB")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_or_begins_meanwhile_takes_nothing_from_the_others() {
        let switches = |counts: &[(&str, u64)]| {
            Switches(counts.iter().map(|(task, count)| (PathBuf::from(task), *count)).collect())
        };
        let before = switches(&[("stays", 10), ("ends", 1000)]);
        assert_eq!(switches(&[("stays", 15), ("begins", 2)]).since(&before), 7);
    }
}
