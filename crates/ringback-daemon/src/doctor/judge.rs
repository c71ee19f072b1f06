//! From what was seen to findings. No files, no sockets, no clock.

use super::facts::{
    AgentProgram, Connection, Directory, EndpointSeen, Entry, Facts, Listener, Port, StateDirectory,
    StateFound, StoreFile, StoreFound, Watches,
};
use super::{Finding, Mark};
use crate::state_dir::Holder;

const ANOTHER_STATE: &str = "name another directory with RINGBACK_STATE_DIR";
/// Enough for every agent directory that was seen so far.
const WATCHES: u64 = 524_288;
const INSTANCES: u64 = 1024;

/// Judges what was seen, in the order in which things depend on each other.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = config(facts);
    findings.push(state(&facts.state));
    findings.push(daemon(facts.daemon.as_ref()));
    findings.push(store(&facts.store));
    findings.extend(facts.listeners.iter().map(listener));
    findings.extend(agents(&facts.agents, &facts.directories));
    findings.extend(facts.directories.iter().filter(|d| d.exists).map(directory));
    findings.extend(facts.watches.map(watches));
    findings.extend(facts.connection.as_ref().map(connection));
    findings.extend(facts.adapters.iter().map(|(name, adapter)| limits(name, adapter.cannot_enforce())));
    findings.extend(facts.endpoints.iter().map(endpoint));
    findings.extend(hooks(facts));
    findings
}

fn config(facts: &Facts) -> Vec<Finding> {
    let mend = match &facts.config_path {
        Some(path) => format!("edit {}", path.display()),
        None => "`ringback init` writes a commented one".to_owned(),
    };
    if let Some(error) = &facts.config_error {
        return vec![Finding::broken("config", error.to_string(), mend)];
    }
    let mut findings = vec![match &facts.config_path {
        Some(path) => Finding::ok("config", path.display().to_string()),
        None => Finding::note("config", "no file; defaults are in force", mend.clone()),
    }];
    findings.extend(facts.warnings.iter().map(|warning| {
        // Where a warning ends with the command that mends it, that is the mend.
        let mend = warning.find("chmod ").map_or_else(|| mend.clone(), |at| warning[at..].to_owned());
        // An entry that is left out is a receiver that hears nothing; anything else has its default.
        let mark = if warning.contains(" is skipped: ") { Mark::Broken } else { Mark::Note };
        Finding { check: "config", mark, what: warning.clone(), mend: Some(mend) }
    }));
    findings
}

fn state(state: &StateDirectory) -> Finding {
    let path = state.path.display();
    let broken = |why: &str| Finding::broken("state", format!("{path} {why}"), ANOTHER_STATE);
    match state.found {
        StateFound::Nothing { can_be_made: true } => {
            Finding::note("state", format!("{path} is not there yet"), "`ringback up` makes it")
        }
        StateFound::Nothing { can_be_made: false } => broken("is not there and cannot be made"),
        StateFound::Link => broken("is a link"),
        StateFound::NoDirectory => broken("is no directory"),
        StateFound::OfAnotherUser => broken("belongs to another user"),
        StateFound::Unreadable(kind) => broken(&format!("cannot be read: {kind}")),
        StateFound::Ours { remote: Some(remote), .. } if remote.is_network() => {
            broken(&format!("is on {}, where locks and the journal are not safe", remote.name()))
        }
        StateFound::Ours { is_writable: false, .. } => broken("cannot be written"),
        StateFound::Ours { mode, .. } if mode & 0o077 != 0 => Finding::note(
            "state",
            format!("{path} can be entered by other users (mode {mode:03o})"),
            format!("chmod 700 {path}"),
        ),
        StateFound::Ours { .. } => Finding::ok("state", format!("{path}")),
    }
}

fn daemon(holder: Option<&Holder>) -> Finding {
    match holder {
        Some(holder) => Finding::ok("daemon", format!("runs as process {}", holder.pid)),
        None => Finding::note("daemon", "does not run; nothing is delivered", "ringback up"),
    }
}

fn store(store: &StoreFile) -> Finding {
    use ringback_store::Error;
    let path = store.path.display();
    let error = match &store.found {
        StoreFound::Nothing => return Finding::ok("store", "empty until the first start"),
        StoreFound::InUse => {
            return Finding::ok(
                "store",
                format!("{path} is in use; it is checked while ringback is stopped"),
            );
        }
        StoreFound::Sound => return Finding::ok("store", format!("{path} is sound")),
        StoreFound::Damaged(problems) => {
            return Finding::broken(
                "store",
                format!("{path} is damaged: {}", problems.join("; ")),
                "ringback doctor --repair",
            );
        }
        StoreFound::Bad(error) => error,
    };
    let mend = match error {
        Error::Corrupt(_) => "ringback doctor --repair".to_owned(),
        Error::NewerSchema { .. } => format!("run the newer ringback, or {ANOTHER_STATE}"),
        Error::Exposed { path, .. } => format!("chmod 600 {}; if it is a link, move it away", path.display()),
        Error::Full => "free space on that disk".to_owned(),
        Error::Locked => "end the other program that uses it".to_owned(),
        Error::ReadOnly | Error::Io(_) | Error::Refused(_) | Error::Closed => ANOTHER_STATE.to_owned(),
    };
    Finding::broken("store", format!("{path}: {error}"), mend)
}

fn listener(listener: &Listener) -> Finding {
    let check = listener.check;
    let (key, wanted) = match check {
        "hooks" => ("[inbound] port", "set [inbound] port and the variable WEBHOOK_SECRET"),
        _ => ("[server] listen", "set [server] listen to an address"),
    };
    match &listener.found {
        Port::Off => Finding::note(check, "off", wanted),
        Port::Free(address) => Finding::ok(check, format!("{address} is free")),
        Port::Answers(address) => Finding::ok(check, format!("answers at {address}")),
        Port::Taken { address, why } => Finding::broken(
            check,
            format!("cannot listen on {address}: {why}"),
            format!("end what listens there, or set {key} to another one"),
        ),
        Port::Silent { address, why } => Finding::broken(
            check,
            format!("the running ringback does not answer at {address}: {why}"),
            "look at its log, or start it again",
        ),
    }
}

/// Declared hooks. Without any there is nothing to say.
fn hooks(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.hooks > 0 {
        findings.push(Finding::ok("hooks", format!("{} declared", facts.hooks)));
    }
    let mend = "edit the file in the hooks directory, or set the variable that it names";
    findings.extend(facts.hook_problems.iter().map(|what| Finding::broken("hooks", what.clone(), mend)));
    findings
}

fn agents(agents: &[AgentProgram], directories: &[Directory]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = agents.iter().map(agent).collect();
    if !directories.is_empty() && directories.iter().all(|d| !d.exists) {
        let looked: Vec<String> = directories.iter().map(|d| d.path.display().to_string()).collect();
        findings.push(Finding::note(
            "sessions",
            format!("no agent directory found; looked at {}", looked.join(", ")),
            "use an agent once, or set claude_dirs, CLAUDE_CONFIG_DIR or CODEX_HOME",
        ));
    }
    findings
}

fn agent(agent: &AgentProgram) -> Finding {
    let name = &agent.name;
    match (&agent.program, &agent.version) {
        (Some(program), Some(version)) => {
            Finding::ok("agent", format!("{name} {version} ({})", program.display()))
        }
        (Some(program), None) => Finding::note(
            "agent",
            format!("{} does not tell its version", program.display()),
            format!("see what `{name} --version` says"),
        ),
        (None, _) if agent.is_needed => Finding::broken(
            "agent",
            format!("{name} is not found, and webhooks that come in start it"),
            format!("install {name}, or set [runs] agent or its command"),
        ),
        (None, _) => {
            Finding::note("agent", format!("{name} is not found"), format!("install {name} to use it"))
        }
    }
}

fn directory(directory: &Directory) -> Finding {
    let path = directory.path.display();
    match directory.remote {
        None => Finding::ok("sessions", format!("watching {path}")),
        Some(remote) => Finding::note(
            "sessions",
            format!(
                "{path} is on {}, which tells of no changes: it is looked through each second",
                remote.name()
            ),
            "move it to a disk of this machine",
        ),
    }
}

fn watches(w: Watches) -> Finding {
    let fits = w.used_watches + w.needed_watches <= w.max_watches;
    // One more instance, unless the daemon runs and has it.
    let wants_instance = u64::from(w.needed_watches > 0);
    if fits && w.used_instances + wants_instance <= w.max_instances {
        return Finding::ok(
            "watches",
            format!(
                "{} of {} file watches and {} of {} instances in use",
                w.used_watches, w.max_watches, w.used_instances, w.max_instances
            ),
        );
    }
    let raised = |max: u64, default: u64| if max < default { default } else { max * 2 };
    Finding::note(
        "watches",
        format!(
            "{} of {} file watches and {} of {} instances are in use, and {} more watches are needed: sessions are \
             looked through each second",
            w.used_watches, w.max_watches, w.used_instances, w.max_instances, w.needed_watches
        ),
        format!(
            "sudo sysctl fs.inotify.max_user_watches={} fs.inotify.max_user_instances={}",
            raised(w.max_watches, WATCHES),
            raised(w.max_instances, INSTANCES)
        ),
    )
}

fn connection(connection: &Connection) -> Finding {
    let path = connection.settings.display();
    let mend = "ringback connect claude";
    match &connection.found {
        Entry::Present => Finding::ok("connect", format!("claude hands updates over ({path})")),
        Entry::Absent => {
            Finding::note("connect", "claude: updates do not reach your main session by themselves", mend)
        }
        Entry::Other => Finding::broken(
            "connect",
            format!("the entry in {path} calls another ringback or another configuration"),
            mend,
        ),
        Entry::Bad(why) => Finding::broken("connect", why.clone(), format!("correct {path}")),
    }
}

fn limits(name: &str, cannot: &[&str]) -> Finding {
    if cannot.is_empty() {
        return Finding::ok("limits", format!("{name}: every limit of a run is enforced"));
    }
    Finding::note(
        "limits",
        format!("{name}: its adapter cannot enforce {}", cannot.join(", ")),
        "set these in the agent itself; timeout and environment always hold",
    )
}

fn endpoint(endpoint: &EndpointSeen) -> Finding {
    let name = &endpoint.name;
    match &endpoint.disabled {
        _ if !endpoint.is_enabled => {
            Finding::note("webhook", format!("{name}: enabled = false"), "set enabled = true in its entry")
        }
        None => Finding::ok("webhook", name.clone()),
        Some(why) => Finding::broken(
            "webhook",
            format!("{name} is disabled: {why}"),
            format!("ringback webhooks enable {name}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::Remote;
    use std::path::PathBuf;

    fn check(finding: Finding, mark: Mark, what: &str, mend: &str) {
        assert_eq!(finding.mark, mark, "{finding:?}");
        assert!(finding.what.contains(what), "{finding:?}");
        assert!(finding.mend.as_deref().unwrap_or_default().contains(mend), "{finding:?}");
        assert_eq!(finding.mend.is_some(), mark != Mark::Ok, "all but what is well says how to mend it");
    }

    #[test]
    fn a_state_directory_that_up_refuses_is_broken_and_another_s_eyes_are_a_note() {
        let ours = |mode, remote, is_writable| StateFound::Ours { mode, remote, is_writable };
        for (found, mark, what, mend) in [
            (ours(0o700, None, true), Mark::Ok, "/s", ""),
            (ours(0o755, None, true), Mark::Note, "mode 755", "chmod 700 /s"),
            (ours(0o700, None, false), Mark::Broken, "cannot be written", "RINGBACK_STATE_DIR"),
            (ours(0o700, Some(Remote::Nfs), true), Mark::Broken, "on NFS", "RINGBACK_STATE_DIR"),
            (ours(0o700, Some(Remote::Fuse), true), Mark::Ok, "/s", ""),
            (StateFound::Link, Mark::Broken, "is a link", "RINGBACK_STATE_DIR"),
            (StateFound::OfAnotherUser, Mark::Broken, "another user", "RINGBACK_STATE_DIR"),
            (StateFound::Nothing { can_be_made: true }, Mark::Note, "not there yet", "ringback up"),
            (
                StateFound::Nothing { can_be_made: false },
                Mark::Broken,
                "cannot be made",
                "RINGBACK_STATE_DIR",
            ),
        ] {
            check(state(&StateDirectory { path: PathBuf::from("/s"), found }), mark, what, mend);
        }
    }

    #[test]
    fn the_limits_of_watching_are_mended_with_a_sysctl_that_raises_them() {
        let roomy = Watches { max_watches: 100, max_instances: 2, used_instances: 1, ..Watches::default() };
        check(watches(Watches { needed_watches: 100, ..roomy }), Mark::Ok, "0 of 100", "");
        for full in [
            Watches { needed_watches: 101, ..roomy },
            Watches { needed_watches: 1, used_watches: 100, ..roomy },
            Watches { needed_watches: 1, used_instances: 2, ..roomy },
        ] {
            check(
                watches(full),
                Mark::Note,
                "each second",
                "sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
            );
        }
        let large =
            Watches { max_watches: 600_000, max_instances: 1, needed_watches: 1, used_instances: 1, ..roomy };
        check(watches(large), Mark::Note, "", "max_user_watches=1200000");
    }

    #[test]
    fn directories_elsewhere_are_looked_through_each_second() {
        for (remote, name) in
            [(Remote::Nfs, "NFS"), (Remote::Smb, "SMB"), (Remote::Fuse, "FUSE"), (Remote::Plan9, "9p")]
        {
            let seen = Directory { path: PathBuf::from("/d"), exists: true, remote: Some(remote) };
            check(directory(&seen), Mark::Note, &format!("on {name}"), "move it");
        }
    }

    #[test]
    fn a_missing_agent_is_broken_only_where_webhooks_start_it() {
        let claude =
            |is_needed| AgentProgram { name: "claude".into(), program: None, version: None, is_needed };
        check(agent(&claude(false)), Mark::Note, "claude is not found", "install claude");
        check(agent(&claude(true)), Mark::Broken, "webhooks that come in start it", "[runs] agent");
        let nowhere = [Directory { path: PathBuf::from("/h/.claude"), exists: false, remote: None }];
        check(agents(&[], &nowhere).remove(0), Mark::Note, "looked at /h/.claude", "claude_dirs");
    }

    #[test]
    fn what_is_wrong_with_the_store_says_what_to_do_about_it() {
        use ringback_store::Error;
        for (error, mend) in [
            (Error::NewerSchema { found: 9, known: 2 }, "run the newer ringback"),
            (
                Error::Exposed { path: "/s/ringback.db".into(), problem: "mode 644".into() },
                "chmod 600 /s/ringback.db",
            ),
            (Error::Full, "free space"),
        ] {
            let file = StoreFile { path: "/s/ringback.db".into(), found: StoreFound::Bad(error) };
            check(store(&file), Mark::Broken, "/s/ringback.db", mend);
        }
        let damaged = StoreFound::Damaged(vec!["page 3".into(), "page 4".into()]);
        let file = StoreFile { path: "/s/ringback.db".into(), found: damaged };
        check(store(&file), Mark::Broken, "page 3; page 4", "ringback doctor --repair");
    }

    #[test]
    fn a_disabled_endpoint_is_broken_unless_its_entry_says_so() {
        let seen = |is_enabled, disabled: Option<&str>| EndpointSeen {
            name: "phone".into(),
            is_enabled,
            disabled: disabled.map(str::to_owned),
        };
        check(endpoint(&seen(true, None)), Mark::Ok, "phone", "");
        check(endpoint(&seen(false, Some("enabled = false"))), Mark::Note, "enabled = false", "its entry");
        check(endpoint(&seen(true, Some("status 410"))), Mark::Broken, "status 410", "webhooks enable phone");
    }
}
