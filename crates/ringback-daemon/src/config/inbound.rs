//! `[inbound]`, `[runs]`, `[workspaces]`, `[ping_budget]` and `[[notify]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::budget;
use ringback_model::{Secret, SessionId};

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
    /// Accepted calls per minute over all routes; `None` = no bound.
    pub rate_per_minute: Option<u32>,
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
    pub adapter: ringback_runs::Adapter,
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
}

/// One `[[notify]]`.
#[derive(Clone, Debug)]
pub enum Notify {
    /// A bot's direct messages or channel.
    DiscordBot {
        /// The bot's token.
        token: Secret,
        /// Whom it writes to: `Ok` = a user, `Err` = a channel.
        target: Result<String, String>,
        /// Scheme and host.
        api_base: String,
    },
    /// A channel's webhook.
    DiscordWebhook {
        /// Its URL, which is a secret.
        url: Secret,
        /// Scheme and host, where it is another one.
        api_base: Option<String>,
    },
    /// The daemon's standard output.
    Console,
}

impl Notify {
    /// The name of its queue: of where it leads, so that messages that wait are not led elsewhere when the list is
    /// reordered. Holds no secret.
    pub fn lane_name(&self) -> String {
        match self {
            Notify::DiscordBot { target: Ok(user), .. } => format!("notify:discord-user-{user}"),
            Notify::DiscordBot { target: Err(channel), .. } => format!("notify:discord-channel-{channel}"),
            Notify::DiscordWebhook { .. } => "notify:discord-webhook".to_owned(),
            Notify::Console => CONSOLE.to_owned(),
        }
    }
}

/// The queue of the console, which stands in where no notifier is configured.
pub const CONSOLE: &str = "notify:console";

pub(super) fn inbound(top: &Section<'_>, env: &Env, base: &Path, never: &mut BTreeSet<String>) -> Inbound {
    let section = top.table("inbound");
    let s = section.as_ref();
    let configured = s.and_then(|s| s.whole("port", 1, 65_535)).and_then(|p| u16::try_from(p).ok());
    let port = match env.get("WEBHOOK_PORT") {
        None => configured,
        Some(text) => match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
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
        None => env.get(&variable).map(Secret::new),
    };
    if port.is_some() && secret.is_none() {
        top.error(
            "inbound",
            &format!("the hook listener has a port but no secret: the variable {variable} is not set"),
        );
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
        rate_per_minute: s.and_then(rate),
        trusted_proxies,
    };
    super::finish(section);
    inbound
}

/// `"600/m"`, `"10/s"`, `"1000/h"`, as calls per minute, at least one.
fn rate(s: &Section<'_>) -> Option<u32> {
    let text = s.text("rate")?;
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let count: u32 = count.trim().parse().ok().filter(|c| *c > 0)?;
        match unit.trim() {
            "s" => count.checked_mul(60),
            "m" => Some(count),
            "h" => Some((count / 60).max(1)),
            _ => None,
        }
    });
    if parsed.is_none() {
        s.error("rate", "expected a rate such as \"600/m\"");
    }
    parsed
}

fn read_secret(s: &Section<'_>, key: &str, path: &Path) -> Option<Secret> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))).filter(|s| !s.reveal().is_empty()),
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
    let mut agents = BTreeMap::from([("claude".to_owned(), AgentEntry::claude())]);
    for (name, entry) in s.map(|s| s.tables("agents")).unwrap_or_default() {
        let known = agents.remove(&name);
        if let Some(agent) = agent(&entry, &name, known) {
            agents.insert(name, agent);
        }
        entry.finish();
    }
    let home = env.home().unwrap_or_else(|| PathBuf::from("/"));
    let mut workspaces =
        BTreeMap::from([("default".to_owned(), Workspace { path: home.clone(), main_session: None })]);
    for (name, entry) in top.tables("workspaces") {
        let path = entry.text("path").map_or_else(|| home.clone(), |p| env.expand(&p));
        if !path.is_absolute() {
            entry.error("path", "expected an absolute path, or one that starts with ~/");
        }
        let main_session = entry.text("main_session").filter(|m| m != "latest").map(SessionId::new);
        entry.later(&["worktree"]);
        workspaces.insert(name, Workspace { path, main_session });
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
        s.later(&["daily_cost_usd"]);
        s.finish();
    }
    runs
}

impl AgentEntry {
    /// The built-in entry.
    fn claude() -> Self {
        AgentEntry {
            adapter: ringback_runs::Adapter::Claude,
            command: vec!["claude".to_owned()],
            env: vec!["ANTHROPIC_API_KEY".to_owned(), "ANTHROPIC_BASE_URL".to_owned()],
            allowed_tools: ["Read", "Grep", "Glob"].map(str::to_owned).to_vec(),
            models: BTreeMap::new(),
        }
    }
}

fn agent(s: &Section<'_>, name: &str, known: Option<AgentEntry>) -> Option<AgentEntry> {
    let adapter = match s.text("adapter").as_deref() {
        Some("claude") => ringback_runs::Adapter::Claude,
        Some("command") => ringback_runs::Adapter::Command,
        Some("codex" | "acp") => {
            s.error("adapter", "this version does not have this adapter yet; valid: claude command");
            return None;
        }
        Some(_) => {
            s.error("adapter", "unknown adapter; valid: claude command");
            return None;
        }
        None => match &known {
            Some(known) => known.adapter,
            None => {
                s.error("adapter", &format!("the agent {name:?} needs an adapter; valid: claude command"));
                return None;
            }
        },
    };
    let known = known.unwrap_or_else(|| match adapter {
        ringback_runs::Adapter::Claude => AgentEntry::claude(),
        ringback_runs::Adapter::Command => AgentEntry {
            adapter,
            command: Vec::new(),
            env: Vec::new(),
            allowed_tools: Vec::new(),
            models: BTreeMap::new(),
        },
    });
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

pub(super) fn notify(top: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Vec<Notify> {
    let mut notifiers = Vec::new();
    for s in top.tables_of_list("notify") {
        notifiers.extend(notifier(&s, env, never));
        s.finish();
    }
    notifiers
}

fn notifier(s: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Option<Notify> {
    let mut secret = |key: &'static str| {
        let variable = s.text(key)?;
        never.insert(variable.clone());
        let value = env.get(&variable).map(Secret::new);
        if value.is_none() {
            s.error(key, &format!("the variable {variable:?} is not set"));
        }
        value
    };
    match s.text("type").as_deref() {
        Some("console") => Some(Notify::Console),
        Some("discord") => {
            let (token, url) = (secret("token_env"), secret("url_env"));
            let api_base = s.text("api_base");
            let (user, channel) = (s.text("user_id"), s.text("channel_id"));
            match (token, url, user, channel) {
                (Some(token), None, user, channel) if user.is_some() != channel.is_some() => {
                    let target = user.ok_or_else(|| channel.unwrap_or_default());
                    let api_base = api_base.unwrap_or_else(|| "https://discord.com".to_owned());
                    Some(Notify::DiscordBot { token, target, api_base })
                }
                (None, Some(url), None, None) => Some(Notify::DiscordWebhook { url, api_base }),
                _ => {
                    s.error(
                        "type",
                        "discord needs token_env with one of user_id and channel_id, or url_env alone",
                    );
                    None
                }
            }
        }
        Some("slack" | "ntfy" | "telegram" | "desktop") => {
            s.error("type", "this version does not have this notifier yet; valid: discord console");
            None
        }
        Some(_) => {
            s.error("type", "unknown notifier; valid: discord console");
            None
        }
        None => {
            s.error("type", "a type is required; valid: discord console");
            None
        }
    }
}
