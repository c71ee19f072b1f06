//! What the user configured, read once and checked.
//!
//! Precedence, highest first: environment, configuration file, defaults. The file is `--config`, else
//! `$RINGBACK_CONFIG`, else `$XDG_CONFIG_HOME/ringback/config.toml` or `config.json` there; no file is needed.
//! A `.env` file beside it adds variables that are not set, if only its owner can read it.

pub mod edit;
mod inbound;
pub(crate) mod node;
mod notify;
pub(crate) mod section;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod units;

pub use inbound::{AgentEntry, Inbound, Runs, Workspace};
pub use notify::Notify;
pub use source::Source;
pub use units::duration;
mod webhooks;
pub use webhooks::Skipped;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::{Agent, Endpoint, Rules, Secret};
use ringback_webhook::guard::Network;
use ringback_webhook::proxy::Proxies;

use crate::env::Env;
use section::{Problems, Section, short};
use webhooks::Around;

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` = defaults.
    pub path: Option<PathBuf>,
    /// Where the API listens.
    pub listen: Listen,
    /// What the API's token is derived from; `None` = the token is random.
    pub passphrase: Option<Secret>,
    /// The salt for it; `None` = the one in the state directory.
    pub salt: Option<String>,
    /// Host names that requests may carry, besides the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Where Claude Code keeps its files.
    pub claude_dirs: Vec<PathBuf>,
    /// Where Codex keeps its files.
    pub codex_homes: Vec<PathBuf>,
    /// Where Claude Desktop keeps the titles of its sessions.
    pub desktop_dirs: Vec<PathBuf>,
    /// Sessions whose directory holds one of these are not shown and not told.
    pub exclude_cwd_substrings: Vec<String>,
    /// Agents that are observed.
    pub agents: BTreeSet<Agent>,
    /// How long a session without activity is listed.
    pub window: Duration,
    /// The durations of the activity rules.
    pub rules: Rules,
    /// How events are delivered.
    pub delivery: Delivery,
    /// Good entries of `webhooks`, in file order.
    pub endpoints: Vec<Endpoint>,
    /// The other entries of `webhooks`.
    pub skipped: Skipped,
    /// The listener for `/hook/*`.
    pub inbound: Inbound,
    /// How agents are run.
    pub runs: Runs,
    /// How many times runs may interrupt the user.
    pub ping_budget: ringback_model::budget::Limits,
    /// How the user is told.
    pub notify: Vec<Notify>,
    /// What takes messages where no notifier is configured.
    pub stand_in: Notify,
    /// What should be said once at start.
    pub warnings: Vec<String>,
    /// Files beside the configuration that the endpoints' values came from.
    pub files: Vec<PathBuf>,
}

/// `[server] listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1:7421, or the next free port up to 7431.
    Default,
    /// This address or none.
    At(String),
    /// No API.
    Off,
}

/// `[delivery]`.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Events are on disk before they are sent.
    pub durable: bool,
    /// Which addresses endpoints and notifiers may have.
    pub network: Network,
    /// The environment's proxies, where they are asked for.
    pub proxies: Option<Proxies>,
    /// How long the same change of a session counts as one.
    pub dedup_window: Duration,
    /// How old a change that was missed may be and still be told.
    pub catch_up: Duration,
    /// An endpoint that accepted nothing for this long, awake time, is disabled.
    pub disable_after: Duration,
    /// How long finished history is kept.
    pub retention: Duration,
    /// How large the store may grow before finished history goes, in bytes.
    pub retention_size: u64,
}

/// Characters of a passphrase, at least.
const MIN_PASSPHRASE: usize = 12;
const PASSPHRASE_VARIABLE: &str = "RINGBACK_API_PASSPHRASE";

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {path}: {kind}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// The file was edited and holds nothing now.
    #[error("the configuration {path} is empty; a comment line says that this is meant")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The file is no TOML or JSON.
    #[error("the configuration {path} does not parse: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what, without the file's text.
        message: String,
    },
    /// Keys hold what they may not.
    #[error("the configuration {path} is wrong: {}", messages.join("; "))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// One per key: its name, its place, what is expected.
        messages: Vec<String>,
    },
    /// The passphrase can be guessed.
    #[error("the passphrase in {place} is shorter than {MIN_PASSPHRASE} characters")]
    ShortPassphrase {
        /// Which key or variable.
        place: &'static str,
    },
    /// There is no home directory to look in.
    #[error("HOME is not set; set it, or name the file with --config and the state with RINGBACK_STATE_DIR")]
    NoHome,
}

/// Finds the configuration file: `given` (from `--config`) must exist, the default ones need not.
pub fn find(given: Option<&Path>, env: &Env) -> Option<PathBuf> {
    if let Some(path) = given {
        return Some(path.to_owned());
    }
    if let Some(path) = env.get("RINGBACK_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let dir = directory(env)?;
    ["config.toml", "config.json"].iter().map(|name| dir.join(name)).find(|p| p.exists())
}

/// The directory of the default configuration file.
pub fn directory(env: &Env) -> Option<PathBuf> {
    let base = env.path("XDG_CONFIG_HOME").or_else(|| Some(env.home()?.join(".config")))?;
    Some(base.join("ringback"))
}

/// Reads the configuration.
///
/// # Errors
/// The file is missing though it was named, does not parse, or holds values of a wrong type.
pub fn load(given: Option<&Path>, env: &Env) -> Result<Config, Error> {
    let Some(path) = find(given, env) else {
        return read("", None, env);
    };
    load_text(&text_of(&path)?, &path, env)
}

fn text_of(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::Unreadable { path: path.to_owned(), kind: e.kind() })
}

/// Reads a text as if it stood in the file at `path`.
fn load_text(text: &str, path: &Path, env: &Env) -> Result<Config, Error> {
    let mut env = env.clone();
    let mut warnings = Vec::new();
    if let Some(dir) = path.parent() {
        dotenv(&dir.join(".env"), &mut env, &mut warnings);
    }
    let mut config = read(text, Some(path), &env)?;
    let holds_secret = text.contains("secret") && config.endpoints.iter().any(|e| !e.secrets.is_empty());
    if readable_by_others(path) && (holds_secret || text.contains("api_passphrase")) {
        warnings.push(format!(
            "{} can be read by other users; if it holds a secret: chmod 600 {}",
            path.display(),
            path.display()
        ));
    }
    warnings.append(&mut config.warnings);
    config.warnings = warnings;
    Ok(config)
}

/// Reads the text of a configuration; JSON when the file's name ends so or the text starts with a brace.
fn read(text: &str, path: Option<&Path>, env: &Env) -> Result<Config, Error> {
    let shown = path.map(Path::to_owned).unwrap_or_default();
    let is_json = is_json(path, text);
    let root = if is_json { node::from_json(text) } else { node::from_toml(text) }
        .map_err(|message| Error::Syntax { path: shown.clone(), message })?;
    let base = path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();

    let problems = RefCell::new(Problems::default());
    let top = Section::new("", &root, &problems);

    let server = top.table("server");
    let listen = server.as_ref().and_then(|s| s.text("listen"));
    let listen = match listen.as_deref().map(str::trim) {
        None => Listen::Default,
        Some(text) if text.eq_ignore_ascii_case("none") => Listen::Off,
        Some(text) => Listen::At(text.to_owned()),
    };
    let allowed_hosts = server.as_ref().and_then(|s| s.texts("allowed_hosts")).unwrap_or_default();
    finish(server);
    let passphrase = passphrase(&top, env)?;
    let salt = top.text("api_salt").filter(|salt| !salt.is_empty());

    let exclude_cwd_substrings = top.texts("exclude_cwd_substrings").unwrap_or_default();
    let agents = agents(&top, is_json, &problems);
    let (claude_dirs, codex_homes, desktop_dirs) = agent_dirs(&top, env)?;
    let rules = rules(&top);

    let sessions = top.table("sessions");
    let minutes = top.whole("window_minutes", 1, 525_600);
    let window = sessions
        .as_ref()
        .and_then(|s| s.duration("window"))
        .or_else(|| minutes.and_then(|m| u64::try_from(m).ok()).map(|m| Duration::from_secs(m * 60)))
        .unwrap_or(Duration::from_secs(30 * 60));
    finish(sessions);

    let section = top.table("delivery");
    let (delivery, backoff) = delivery(section.as_ref(), env);
    finish(section);

    let (endpoints, skipped) = match top.list("webhooks", "a list of tables") {
        Some(entries) => {
            let around = Around { env, base: &base, backoff: &backoff, is_json };
            webhooks::read(entries, &around, &problems)
        }
        None => Default::default(),
    };
    let mut never: BTreeSet<String> = [PASSPHRASE_VARIABLE.to_owned()].into();
    never.extend(webhooks::secret_variables(&root));
    let inbound = inbound::inbound(&top, env, &base, &mut never);
    let notify = notify::read(&top, env, &mut never);
    let runs = inbound::runs(&top, env, never);
    let ping_budget = inbound::ping_budget(&top);
    top.finish();

    let Problems { errors, warnings, files } = problems.into_inner();
    if !errors.is_empty() {
        return Err(Error::Invalid { path: shown, messages: errors });
    }
    Ok(Config {
        path: path.map(Path::to_owned),
        listen,
        passphrase,
        salt,
        allowed_hosts,
        claude_dirs,
        codex_homes,
        desktop_dirs,
        exclude_cwd_substrings,
        agents,
        window,
        rules,
        delivery,
        endpoints,
        skipped,
        inbound,
        runs,
        ping_budget,
        notify,
        stand_in: Notify::stand_in(env),
        warnings,
        files,
    })
}

fn is_json(path: Option<&Path>, text: &str) -> bool {
    path.and_then(Path::extension).is_some_and(|e| e == "json") || text.trim_start().starts_with('{')
}

/// The environment's passphrase over the file's. An empty one counts as none, as programs write it that list every
/// key.
fn passphrase(top: &Section<'_>, env: &Env) -> Result<Option<Secret>, Error> {
    let of_file = top.text("api_passphrase").filter(|text| !text.is_empty());
    let (place, text) = match (env.get(PASSPHRASE_VARIABLE), of_file) {
        (Some(text), _) => (PASSPHRASE_VARIABLE, text.to_owned()),
        (None, Some(text)) => ("api_passphrase", text),
        (None, None) => return Ok(None),
    };
    if text.chars().count() < MIN_PASSPHRASE {
        return Err(Error::ShortPassphrase { place });
    }
    Ok(Some(Secret::new(text)))
}

fn finish(section: Option<Section<'_>>) {
    if let Some(section) = section {
        section.finish();
    }
}

/// In JSON an agent that is not known here is passed over: lazyagent lists its own, and its `config.json` works as it is.
fn agents(top: &Section<'_>, is_json: bool, problems: &RefCell<Problems>) -> BTreeSet<Agent> {
    let mut agents: BTreeSet<Agent> = Agent::ALL.iter().copied().collect();
    for (name, on) in top.flags("agents") {
        match name.parse::<Agent>() {
            Ok(agent) if !on => {
                agents.remove(&agent);
            }
            Ok(_) => {}
            Err(e) if is_json => {
                let what = format!("agents: found {:?}, which is passed over: {e}", short(&name));
                problems.borrow_mut().warnings.push(what);
            }
            Err(e) => top.error("agents", &e.to_string()),
        }
    }
    agents
}

type AgentDirs = (Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>);

fn agent_dirs(top: &Section<'_>, env: &Env) -> Result<AgentDirs, Error> {
    let home = env.home();
    let in_home = |rest: &str| home.as_ref().map(|h| h.join(rest));
    let claude_dirs = match top.texts("claude_dirs").filter(|d| !d.is_empty()) {
        Some(dirs) => dirs.iter().map(|d| env.expand(d)).collect(),
        None => {
            // Claude Code itself accepts several directories in its variable, separated by commas.
            let mut dirs: Vec<PathBuf> = env
                .get("CLAUDE_CONFIG_DIR")
                .into_iter()
                .flat_map(|v| v.split(','))
                .map(|d| env.expand(d.trim()))
                .collect();
            dirs.extend(in_home(".claude"));
            dirs.dedup();
            dirs
        }
    };
    let codex_homes: Vec<PathBuf> =
        env.path("CODEX_HOME").or_else(|| in_home(".codex")).into_iter().collect();
    let desktop_dirs = [
        env.path("XDG_CONFIG_HOME")
            .or_else(|| in_home(".config"))
            .map(|d| d.join("Claude/claude-code-sessions")),
        in_home("Library/Application Support/Claude/claude-code-sessions"),
    ];
    if claude_dirs.is_empty() && codex_homes.is_empty() {
        return Err(Error::NoHome);
    }
    Ok((claude_dirs, codex_homes, desktop_dirs.into_iter().flatten().collect()))
}

fn rules(top: &Section<'_>) -> Rules {
    let mut rules = Rules::default();
    let Some(s) = top.table("activity") else { return rules };
    for (key, slot) in [
        ("open_tool_timeout", &mut rules.open_tool_timeout),
        ("spawning_timeout", &mut rules.spawning_timeout),
        ("open_turn_timeout", &mut rules.open_turn_timeout),
        ("activity_timeout", &mut rules.activity_timeout),
        ("waiting_grace", &mut rules.waiting_grace),
        ("waiting_timeout", &mut rules.waiting_timeout),
        ("settle", &mut rules.settle),
    ] {
        if let Some(duration) = s.duration(key) {
            *slot = duration;
        }
    }
    s.finish();
    rules
}

fn delivery(s: Option<&Section<'_>>, env: &Env) -> (Delivery, Vec<Duration>) {
    let durability = s.and_then(|s| s.text("durability"));
    let durable = match durability.as_deref() {
        None | Some("disk") => true,
        Some("memory") => false,
        Some(_) => {
            if let Some(s) = s {
                s.error("durability", "expected \"disk\" or \"memory\"");
            }
            true
        }
    };
    let network = s.and_then(|s| s.text("network"));
    let network = match network.as_deref() {
        None | Some("local") => Network::Local,
        Some("server") => Network::Server,
        Some(_) => {
            if let Some(s) = s {
                s.error("network", "expected \"local\" or \"server\"");
            }
            Network::Server
        }
    };
    let proxies = s.and_then(|s| proxies(s, env));
    let get = |key, default| s.and_then(|s| s.duration(key)).unwrap_or(default);
    let delivery = Delivery {
        durable,
        network,
        proxies,
        dedup_window: get("dedup_window", Duration::from_secs(2)),
        catch_up: get("catch_up", Duration::from_secs(600)),
        disable_after: get("disable_after", Duration::from_secs(5 * 86_400)),
        retention: get("retention", Duration::from_secs(7 * 86_400)),
        retention_size: s.and_then(|s| s.size("retention_size")).unwrap_or(1 << 30),
    };
    let backoff = s
        .and_then(|s| s.durations("backoff"))
        .unwrap_or_else(|| vec![Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)]);
    (delivery, backoff)
}

/// `proxy = "env"`: without it the environment's proxies are not looked at.
fn proxies(s: &Section<'_>, env: &Env) -> Option<Proxies> {
    if s.text("proxy")? != "env" {
        s.error("proxy", "expected \"env\", for the proxies that the environment names");
        return None;
    }
    Proxies::from_variables(|name| env.get(name)).unwrap_or_else(|bad| {
        s.error("proxy", &bad.to_string());
        None
    })
}

fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|m| m.mode() & 0o077 != 0)
}

impl Config {
    /// `env` with the variables of the `.env` file beside the configuration that it lacks: where secrets are read from.
    pub fn with_dotenv(&self, env: &Env) -> Env {
        let mut env = env.clone();
        if let Some(directory) = self.path.as_deref().and_then(Path::parent) {
            // What is odd about the file was said when the configuration was read.
            dotenv(&directory.join(".env"), &mut env, &mut Vec::new());
        }
        env
    }
}

/// `NAME=VALUE` lines; `#` starts a comment line, quotes around a value are taken off.
fn dotenv(path: &Path, env: &mut Env, warnings: &mut Vec<String>) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    if readable_by_others(path) {
        warnings.push(format!(
            "{} is ignored: other users can read it; chmod 600 {}",
            path.display(),
            path.display()
        ));
        return;
    }
    let pairs = text.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').filter(|(n, _)| !n.starts_with('#'))?;
        let value = value.trim();
        let quoted = |q| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
        Some((name.trim().to_owned(), quoted('"').or_else(|| quoted('\'')).unwrap_or(value).to_owned()))
    });
    env.add_missing(pairs);
}
