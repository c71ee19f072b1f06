//! `[inbound]`, `[runs]`, `[workspaces]` and `[ping_budget]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::budget;
use ringback_model::inbound::bounds::{Bound, Bounds, Caller};
use ringback_model::inbound::is_source;
use ringback_model::{Rate, Secret, SessionId};
use ringback_runs::Adapter;

use super::section::Section;
use crate::env::Env;

/// The listener for `/hook/*`.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where it listens; `None` = not at all.
    pub port: Option<u16>,
    /// Address it binds.
    pub bind: IpAddr,
    /// What callers of `/hook/agent` must know.
    pub secret: Option<Secret>,
    /// Longest body of `/hook/agent`, in bytes.
    pub max_body: usize,
    /// Accepted calls over all routes; `None` = no bound.
    pub rate: Option<Rate>,
    /// Bounds of single callers.
    pub bounds: Bounds,
    /// Hooks may have `auth: none`.
    pub allow_unsigned: bool,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
}

/// How agents are run.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Agent of a call that names none.
    pub agent: String,
    /// Workspace of a call that names none.
    pub workspace: String,
    /// Time limit of one run.
    pub timeout: Duration,
    /// Runs at once.
    pub max_concurrent: usize,
    /// Runs that may wait.
    pub max_queued: u64,
    /// Turns of the model in one run; 0 = no bound.
    pub max_turns: u32,
    /// US dollars of one run; 0 = no bound.
    pub max_cost_usd: f64,
    /// US dollars of all runs together until local midnight; 0 = no bound.
    pub daily_cost_usd: f64,
    /// Run once more what was interrupted by the end of ringback.
    pub retry: bool,
    /// By name.
    pub agents: BTreeMap<String, AgentEntry>,
    /// By name.
    pub workspaces: BTreeMap<String, Workspace>,
    /// Variables that no agent sees, even if its list names them: they hold ringback's own secrets.
    pub never: BTreeSet<String>,
}

/// One `[runs.agents.NAME]`.
#[derive(Clone, Debug)]
pub struct AgentEntry {
    /// How it is spoken to.
    pub adapter: Adapter,
    /// Its argv.
    pub command: Vec<String>,
    /// Variables it gets beside the common ones.
    pub env: Vec<String>,
    /// Its tools that a run may use.
    pub allowed_tools: Vec<String>,
    /// Model ids by alias.
    pub models: BTreeMap<String, String>,
}

/// One `[workspaces.NAME]`.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its directory.
    pub path: PathBuf,
    /// The pinned main session; `None` = the latest.
    pub main_session: Option<SessionId>,
    /// Isolated runs get a fresh git worktree of it.
    pub worktree: bool,
}

pub(super) fn inbound(top: &Section<'_>, env: &Env, base: &Path, never: &mut BTreeSet<String>) -> Inbound {
    let section = top.table("inbound");
    let s = section.as_ref();
    let configured = s.and_then(|s| s.whole("port", 1, 65_535)).and_then(|p| u16::try_from(p).ok());
    let port = match env.get("WEBHOOK_PORT") {
        None => configured,
        Some(text) => match text.trim().parse::<u16>() {
            Ok(port) if port > 0 && !text.contains('+') => Some(port),
            _ => {
                top.error("inbound", "WEBHOOK_PORT must be a port number from 1 to 65535");
                None
            }
        },
    };
    let bind = s.and_then(|s| s.text("bind")).unwrap_or_else(|| "127.0.0.1".to_owned());
    let bind = bind.parse().unwrap_or_else(|_| {
        top.error("inbound", "bind must be an IP address such as \"127.0.0.1\"");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    });
    let variable = s.and_then(|s| s.text("secret_env")).unwrap_or_else(|| "WEBHOOK_SECRET".to_owned());
    let file = s.and_then(|s| s.text("secret_file"));
    let secret = match file {
        Some(file) => read_secret(top, "inbound", &base.join(env.expand(&file))),
        None => {
            let secret = env.get(&variable).map(Secret::new);
            if port.is_some() && secret.is_none() {
                let what = format!("the variable {variable} is not set");
                top.error("inbound", &format!("the hook listener has a port but no secret: {what}"));
            }
            secret
        }
    };
    let is_sendable = |secret: &Secret| secret.reveal().bytes().all(|b| matches!(b, b' '..=b'~'));
    if port.is_some() && secret.as_ref().is_some_and(|secret| !is_sendable(secret)) {
        top.error("inbound", "the hook listener's secret must be printable ASCII: no caller could send it");
    }
    never.insert(variable);
    never.insert("WEBHOOK_SECRET".to_owned());
    let trusted_proxies = s.and_then(|s| s.texts("trusted_proxies")).unwrap_or_default();
    let trusted_proxies = trusted_proxies
        .iter()
        .filter_map(|text| {
            let net =
                text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from));
            if net.is_err() {
                top.error("inbound", "trusted_proxies must be addresses or networks such as \"10.0.0.0/8\"");
            }
            net.ok()
        })
        .collect();
    let inbound = Inbound {
        port,
        bind,
        secret,
        max_body: s
            .and_then(|s| s.size("max_body"))
            .and_then(|b| usize::try_from(b).ok())
            .unwrap_or(10 * 1024)
            .clamp(1, 25 << 20),
        rate: s.and_then(rate),
        bounds: s.map(bounds).unwrap_or_default(),
        allow_unsigned: s.and_then(|s| s.flag("allow_unsigned")).unwrap_or(false),
        trusted_proxies,
    };
    super::finish(section);
    inbound
}

fn rate(s: &Section<'_>) -> Option<Rate> {
    let parsed = s.text("rate")?.parse::<Rate>();
    if let Err(error) = &parsed {
        s.error("rate", &error.to_string());
    }
    parsed.ok()
}

/// `[inbound.sources.NAME]`.
fn bounds(s: &Section<'_>) -> Bounds {
    let mut bounds = Bounds::new();
    for (name, entry) in s.tables("sources") {
        let concurrency = entry.whole("concurrency", 1, 256).and_then(|n| u32::try_from(n).ok());
        let bound = Bound { rate: rate(&entry), concurrency };
        if !is_source(&name) {
            s.error("sources", "the name of a source has 1 to 64 characters of A-Z a-z 0-9 . _ -");
        }
        bounds.insert(Caller::Source(name), bound);
        entry.finish();
    }
    bounds
}

fn read_secret(s: &Section<'_>, key: &str, path: &Path) -> Option<Secret> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
            s.error(key, &format!("the secret file {} is empty", path.display()));
            None
        }
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Err(e) => {
            s.error(key, &format!("cannot read the secret file {}: {}", path.display(), e.kind()));
            None
        }
    }
}

pub(super) fn runs(top: &Section<'_>, env: &Env, never: BTreeSet<String>) -> Runs {
    let section = top.table("runs");
    let s = section.as_ref();
    let text = |key, default: &str| s.and_then(|s| s.text(key)).unwrap_or_else(|| default.to_owned());
    let whole = |key, from, to, default| s.and_then(|s| s.whole(key, from, to)).unwrap_or(default);
    let mut agents = BTreeMap::from([
        ("claude".to_owned(), AgentEntry::of(Adapter::Claude)),
        ("codex".to_owned(), AgentEntry::of(Adapter::Codex)),
    ]);
    for (name, entry) in s.map(|s| s.tables("agents")).unwrap_or_default() {
        let known = agents.remove(&name);
        if let Some(agent) = agent(&entry, &name, known) {
            agents.insert(name, agent);
        }
        entry.finish();
    }
    let home = env.home().unwrap_or_else(|| PathBuf::from("/"));
    let mut workspaces = BTreeMap::from([(
        "default".to_owned(),
        Workspace { path: home.clone(), main_session: None, worktree: false },
    )]);
    for (name, entry) in top.tables("workspaces") {
        let path = entry.text("path").map_or_else(|| home.clone(), |p| env.expand(&p));
        if !path.is_absolute() {
            entry.error("path", "expected an absolute path, or one that starts with ~/");
        }
        let main_session = entry.text("main_session").filter(|m| m != "latest").map(SessionId::new);
        let worktree = entry.flag("worktree").unwrap_or(false);
        workspaces.insert(name, Workspace { path, main_session, worktree });
        entry.finish();
    }
    let runs = Runs {
        agent: text("agent", "claude"),
        workspace: text("workspace", "default"),
        timeout: s.and_then(|s| s.duration("timeout")).unwrap_or(Duration::from_secs(30 * 60)),
        max_concurrent: usize::try_from(whole("max_concurrent", 1, 256, 4)).unwrap_or(4),
        max_queued: u64::try_from(whole("max_queued", 0, 1_000_000, 1000)).unwrap_or(1000),
        max_turns: u32::try_from(whole("max_turns", 0, 1_000_000, 50)).unwrap_or(50),
        max_cost_usd: s.and_then(|s| s.amount("max_cost_usd")).unwrap_or(2.0),
        daily_cost_usd: s.and_then(|s| s.amount("daily_cost_usd")).unwrap_or(20.0),
        retry: s.and_then(|s| s.flag("retry")).unwrap_or(false),
        agents,
        workspaces,
        never,
    };
    if let Some(s) = section {
        if !runs.agents.contains_key(&runs.agent) {
            s.error("agent", "no agent of this name is configured below runs.agents");
        }
        if !runs.workspaces.contains_key(&runs.workspace) {
            s.error("workspace", "no workspace of this name is configured");
        }
        s.finish();
    }
    runs
}

/// Names that calls may use for models. Claude Code knows them itself.
const ALIASES: [&str; 3] = ["haiku", "sonnet", "opus"];

impl AgentEntry {
    /// The id of the model that a call names.
    ///
    /// # Errors
    /// It is an alias that means nothing to this agent; the text is the contract's.
    pub fn model(&self, name: &str) -> Result<String, String> {
        let knows_aliases = matches!(self.adapter, Adapter::Claude | Adapter::Command);
        match self.models.get(name) {
            Some(id) => Ok(id.clone()),
            None if knows_aliases || !ALIASES.contains(&name) => Ok(name.to_owned()),
            None => Err(format!("invalid model: {name}")),
        }
    }

    /// What holds where the configuration says nothing.
    fn of(adapter: Adapter) -> Self {
        let (program, env, tools): (&str, &[&str], &[&str]) = match adapter {
            Adapter::Claude => {
                ("claude", &["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"], &["Read", "Grep", "Glob"])
            }
            Adapter::Codex => ("codex", &["OPENAI_API_KEY", "CODEX_API_KEY"], &["Read", "Grep", "Glob"]),
            Adapter::Acp => ("", &[], &["Read", "Grep", "Glob"]),
            Adapter::Command => ("", &[], &[]),
        };
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        AgentEntry {
            adapter,
            command: vec![program.to_owned()],
            env: owned(env),
            allowed_tools: owned(tools),
            models: BTreeMap::new(),
        }
    }
}

fn agent(s: &Section<'_>, name: &str, known: Option<AgentEntry>) -> Option<AgentEntry> {
    const VALID: &str = "valid: claude codex acp command";
    let adapter = match s.text("adapter").as_deref() {
        Some("claude") => Adapter::Claude,
        Some("codex") => Adapter::Codex,
        Some("command") => Adapter::Command,
        Some("acp") => Adapter::Acp,
        Some(_) => {
            s.error("adapter", &format!("unknown adapter; {VALID}"));
            return None;
        }
        None => match &known {
            Some(known) => known.adapter,
            None => {
                s.error("adapter", &format!("the agent {name:?} needs an adapter; {VALID}"));
                return None;
            }
        },
    };
    let known = known.filter(|k| k.adapter == adapter).unwrap_or_else(|| AgentEntry::of(adapter));
    let command = s.texts("command").unwrap_or(known.command);
    if command.first().is_none_or(String::is_empty) {
        s.error("command", "expected the program and its arguments, such as [\"/usr/bin/my-agent\"]");
        return None;
    }
    Some(AgentEntry {
        adapter,
        command,
        env: s.texts("env").unwrap_or(known.env),
        allowed_tools: s.texts("allowed_tools").unwrap_or(known.allowed_tools),
        models: s.pairs("models"),
    })
}

pub(super) fn ping_budget(top: &Section<'_>) -> budget::Limits {
    let Some(s) = top.table("ping_budget") else { return budget::Limits::default() };
    let default = budget::Limits::default();
    let whole =
        |key, default: u32| s.whole(key, 0, 1_000_000).and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let limits = budget::Limits {
        capacity: whole("capacity", default.capacity),
        refill_minutes: whole("refill_minutes", default.refill_minutes),
    };
    s.finish();
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, read};

    fn parse(text: &str) -> Result<Config, String> {
        let env = Env::of([("HOME".to_owned(), "/home/dev".to_owned())]);
        read(text, None, &env).map_err(|e| e.to_string())
    }

    #[test]
    fn limits_are_read_and_have_the_contracts_defaults() {
        let c = parse("").unwrap();
        assert_eq!((c.runs.max_turns, c.runs.max_cost_usd, c.runs.daily_cost_usd), (50, 2.0, 20.0));
        assert!(!c.runs.retry && !c.runs.workspaces["default"].worktree && c.inbound.bounds.is_empty());
        let c = parse(
            "[runs]\ndaily_cost_usd = 0\nretry = true\n[workspaces.default]\nworktree = true\n\
             [inbound]\nrate = \"10/s\"\n[inbound.sources.ci]\nrate = \"30/m\"\nconcurrency = 1\n",
        )
        .unwrap();
        assert!(c.runs.daily_cost_usd == 0.0 && c.runs.retry && c.runs.workspaces["default"].worktree);
        let bound = Bound { rate: "30/m".parse().ok(), concurrency: Some(1) };
        assert_eq!(c.inbound.bounds, Bounds::from([(Caller::Source("ci".to_owned()), bound)]));
        assert_eq!((c.inbound.rate, c.warnings.len()), ("10/s".parse().ok(), 0), "{:?}", c.warnings);
    }

    #[test]
    fn a_limit_that_is_none_names_its_key_and_what_is_expected() {
        for (text, parts) in [
            ("[runs]\ndaily_cost_usd = -1", ["runs.daily_cost_usd", "zero or more"]),
            ("[inbound]\nrate = \"fast\"", ["inbound.rate", "such as \"30/m\""]),
            ("[inbound.sources.ci]\nrate = 5", ["inbound.sources.ci.rate", "expected a string"]),
            ("[inbound.sources.ci]\nconcurrency = 0", ["inbound.sources.ci.concurrency", "from 1 to 256"]),
            ("[inbound.sources.\"a b\"]\nconcurrency = 1", ["inbound.sources", "A-Z a-z 0-9 . _ -"]),
            ("[workspaces.default]\nworktree = \"yes\"", ["workspaces.default.worktree", "true or false"]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
