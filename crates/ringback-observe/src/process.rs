//! Whether a process lives: the one question that only the system can answer.

use std::fs;

/// Looks processes up. The real one is [`ProcFs`]; tests and replays bring their own.
pub trait ProcessTable: Send {
    /// Whether a process `pid` lives that began at `start` (the kernel's ticks since boot, as the agent wrote
    /// them) and is in our own pid namespace by `domain` (text with a `pid:[N]` part; `None` = not told).
    fn is_alive(&self, pid: u32, start: Option<&str>, domain: Option<&str>) -> bool;
}

/// `/proc`. Where there is none, no process is ever seen alive, and the rules do without.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcFs;

impl ProcessTable for ProcFs {
    fn is_alive(&self, pid: u32, start: Option<&str>, domain: Option<&str>) -> bool {
        if let Some(theirs) = domain.and_then(pid_namespace) {
            let ours = fs::read_link("/proc/self/ns/pid");
            if !ours.is_ok_and(|ours| ours.to_str().and_then(pid_namespace) == Some(theirs)) {
                return false;
            }
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        is_running(&stat, start)
    }
}

/// The `pid:[N]` part.
fn pid_namespace(text: &str) -> Option<&str> {
    let from = text.find("pid:[")?;
    let rest = &text[from..];
    Some(&rest[..=rest.find(']')?])
}

/// By `/proc/PID/stat`: field 3 is the state, field 22 the start. A dead process that nobody has waited for is
/// gone all the same.
fn is_running(stat: &str, start: Option<&str>) -> bool {
    // The second field is a name in parentheses that may itself hold spaces and parentheses.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let began = fields.nth(18);
    !matches!(state, None | Some("Z" | "X")) && start.is_none_or(|start| began == Some(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 9 0 105293 1000 200 rest";

    #[test]
    fn a_process_counts_only_with_the_start_time_that_the_agent_wrote() {
        assert!(is_running(STAT, Some("105293")));
        assert!(is_running(STAT, None));
        assert!(!is_running(STAT, Some("105294")));
        assert!(!is_running(&STAT.replace(") S ", ") Z "), Some("105293")));
        assert!(!is_running("", None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_of_another_pid_namespace_is_not_seen() {
        let me = std::process::id();
        assert!(ProcFs.is_alive(me, None, None));
        assert!(!ProcFs.is_alive(me, None, Some("linux:0:pid:[1]")));
        let ours = fs::read_link("/proc/self/ns/pid").unwrap();
        assert!(ProcFs.is_alive(me, None, Some(&format!("linux:0:{}", ours.display()))));
        assert!(!ProcFs.is_alive(me, Some("1"), None));
    }
}
