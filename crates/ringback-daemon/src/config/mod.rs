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
pub(crate) mod units;

pub use inbound::{AgentEntry, Inbound, Runs, Workspace};
pub use notify::Notify;
pub use source::Source;
pub use units::duration;
mod webhooks;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::{Agent, Endpoint, Rules, Secret};
use ringback_webhook::guard::Network;
use ringback_webhook::proxy::Proxies;

use crate::env::Env;
use section::{Problems, Section};

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
    let root = if is_json(path, text) { node::from_json(text) } else { node::from_toml(text) }
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
    let agents = agents(&top);
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

    let endpoints = match top.list("webhooks", "a list of tables") {
        Some(entries) => webhooks::read(entries, env, &base, &backoff, &problems),
        None => Vec::new(),
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

fn agents(top: &Section<'_>) -> BTreeSet<Agent> {
    let mut agents: BTreeSet<Agent> = Agent::ALL.iter().copied().collect();
    for (name, on) in top.flags("agents") {
        match name.parse::<Agent>() {
            Ok(agent) if !on => {
                agents.remove(&agent);
            }
            Ok(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Env {
        Env::of(
            [("HOME", "/home/dev"), ("TOKEN", "sixteen-characters")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        )
    }

    fn parse(text: &str) -> Config {
        read(text, None, &env()).expect("the text is a good configuration")
    }

    fn invalid(text: &str) -> String {
        read(text, None, &env()).expect_err("the text is a bad configuration").to_string()
    }

    #[test]
    fn no_file_is_needed() {
        let c = parse("");
        assert_eq!(c.listen, Listen::Default);
        assert_eq!(c.claude_dirs, [PathBuf::from("/home/dev/.claude")]);
        assert_eq!(c.codex_homes, [PathBuf::from("/home/dev/.codex")]);
        assert!(c.delivery.durable && c.endpoints.is_empty() && c.warnings.is_empty());
    }

    #[test]
    fn toml_and_json_have_the_same_keys() {
        let toml = parse(
            "window_minutes = 10\n[[webhooks]]\nname = \"a\"\nurl = \"http://localhost:1/x\"\nevents = [\"Waiting\"]\n",
        );
        let json = parse(
            r#"{"window_minutes":10,"webhooks":[{"name":"a","url":"http://localhost:1/x","events":["Waiting"]}]}"#,
        );
        for c in [toml, json] {
            assert_eq!(c.window, Duration::from_secs(600));
            assert_eq!(c.endpoints.len(), 1, "{:?}", c.warnings);
            assert_eq!(c.endpoints[0].events.iter().map(|a| a.as_str()).collect::<Vec<_>>(), ["waiting"]);
            assert_eq!(c.endpoints[0].backoff, [1, 5, 30].map(Duration::from_secs));
        }
    }

    #[test]
    fn the_passphrase_comes_from_the_environment_before_the_file_and_is_no_short_one() {
        let with = |text: &str, variable: &str| {
            let mut env = env();
            env.add_missing([(PASSPHRASE_VARIABLE.to_owned(), variable.to_owned())]);
            read(text, None, &env).map(|c| (c.passphrase.map(|p| p.reveal().to_owned()), c.salt))
        };
        let file = "api_passphrase = \"twelve chars\"\napi_salt = \"salty\"\n";
        let (of_file, salt) = with(file, "").expect("twelve characters are enough");
        assert_eq!((of_file.as_deref(), salt.as_deref()), (Some("twelve chars"), Some("salty")));
        let (of_variable, _) = with(file, "from the environment").expect("it is long");
        assert_eq!(of_variable.as_deref(), Some("from the environment"));
        let empty = "api_passphrase = \"\"\napi_salt = \"\"\n";
        assert_eq!(with(empty, "").expect("empty counts as none"), (None, None));
        for (text, variable, place) in [
            ("api_passphrase = \"eleven char\"", "", "api_passphrase"),
            (file, "eleven char", "RINGBACK_API_PASSPHRASE"),
        ] {
            let refused = with(text, variable).expect_err("eleven characters").to_string();
            assert_eq!(refused, format!("the passphrase in {place} is shorter than 12 characters"));
        }
    }

    #[test]
    fn an_unknown_key_is_one_warning_with_the_nearest_known_key() {
        let c = parse("[delivery]\nretension = \"7d\"\n");
        assert_eq!(c.warnings, ["unknown key delivery.retension (line 2); did you mean `retention`?"]);
    }

    #[test]
    fn a_wrong_type_names_the_key_its_place_and_what_is_expected() {
        let message = invalid("# hello\n[delivery]\nretention = 7\n");
        assert!(message.contains("delivery.retention (line 3): expected a duration"), "{message}");
        assert!(message.contains("found a whole number"), "{message}");
    }

    #[test]
    fn a_bad_entry_is_skipped_with_one_warning_and_the_others_work() {
        let c = parse(
            r#"{"webhooks":[
                {"name":"good","url":"https://example.com/x"},
                {"name":"word","url":"https://example.com/x","events":["sleeping"]},
                {"name":"good","url":"https://example.com/y"},
                {"url":"https://example.com/y"},
                {"name":"scheme","url":"ftp://user:pw@example.com/y"},
                {"name":"later","url":"https://example.com/y","digest":"30m"},
                {"name":"pager","url":"https://events.pagerduty.com/v2/enqueue/xyz"},
                {"name":"env","url":"https://example.com/y","secret_env":"NOT_SET"},
                {"name":"two","url":"https://example.com/y","secret_env":"TOKEN","secret":"x"},
                "nonsense",
                {"name":"last","url":"https://example.com/z","secret_env":"TOKEN"}
            ]}"#,
        );
        assert_eq!(c.endpoints.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["good", "last"]);
        assert_eq!(c.warnings.len(), 9, "{:#?}", c.warnings);
        assert!(
            c.warnings[0].contains("\"word\"") && c.warnings[0].contains("valid: idle waiting"),
            "{}",
            c.warnings[0]
        );
        assert!(c.warnings.iter().all(|w| !w.contains("pw@") && !w.contains("xyz")), "{:#?}", c.warnings);
    }

    #[test]
    fn headers_take_variables_and_bad_ones_make_a_bad_entry_without_their_value() {
        let entry = |headers: &str| {
            parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"http://h/","headers":{headers}}}]}}"#))
        };
        let c = entry(r#"{"Authorization":"Bearer ${TOKEN}!","x-a":"${TOKEN}${HOME}"}"#);
        let shown: Vec<_> =
            c.endpoints[0].headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        let want = [("authorization", "Bearer sixteen-characters!"), ("x-a", "sixteen-characters/home/dev")];
        assert_eq!(shown, want);
        assert!(!format!("{c:?}").contains("sixteen-characters"));
        assert!(c.runs.never.contains("TOKEN"), "agents do not get it");
        for (headers, part) in [
            (r#"{"x":"a\nb-hunter2"}"#, "holds a character"),
            (r#"{"x":"\u0000hunter2"}"#, "holds a character"),
            (r#"{"x":"${NOT_SET} hunter2"}"#, "the variable \"NOT_SET\" is not set"),
            (r#"{"x":"hunter2 ${TOKEN"}"#, "has no \"}\""),
            (r#"{"Host":"hunter2"}"#, "\"host\" is ringback's own"),
            (r#"{"content-LENGTH":"hunter2"}"#, "is ringback's own"),
            (r#"{"Transfer-Encoding":"hunter2"}"#, "is ringback's own"),
            (r#"{"Content-Type":"hunter2"}"#, "is ringback's own"),
            (r#"{"Webhook-Id":"hunter2"}"#, "is ringback's own"),
            (r#"{"X-Lazyagent-Anything":"hunter2"}"#, "is ringback's own"),
            (r#"{"X-Ringback-Attempt":"hunter2"}"#, "is ringback's own"),
            (r#"{"a b":"hunter2"}"#, "is no header name"),
            (r#"{"x":"hunter2","X":"1"}"#, "is given twice"),
            (r#"{"x":7}"#, "expected a table of names and strings"),
            (r#"["hunter2"]"#, "expected a table of names and strings"),
        ] {
            let c = entry(headers);
            assert!(c.endpoints.is_empty(), "{headers}");
            assert_eq!(c.warnings.len(), 1, "{:?}", c.warnings);
            assert!(c.warnings[0].contains(part) && !c.warnings[0].contains("hunter2"), "{}", c.warnings[0]);
        }
    }

    #[test]
    fn order_rate_and_patience_are_read() {
        let c = parse(
            r#"{"delivery":{"disable_after":"2d"},
                "webhooks":[{"name":"a","url":"http://h/","ordered":true,"rate":"30/m"},
                            {"name":"b","url":"http://h/"},
                            {"name":"c","url":"http://h/","rate":"fast"}]}"#,
        );
        let read: Vec<_> = c.endpoints.iter().map(|e| (e.ordered, e.rate.map(|r| r.to_string()))).collect();
        assert_eq!(read, [(true, Some("30/m".to_owned())), (false, None)]);
        assert_eq!(c.delivery.disable_after, Duration::from_secs(2 * 86_400));
        assert!(
            c.warnings[0].contains("\"fast\"") && c.warnings[0].contains("\"30/m\""),
            "{}",
            c.warnings[0]
        );
        assert_eq!(parse("").delivery.disable_after, Duration::from_secs(5 * 86_400));
    }

    #[test]
    fn projects_without_a_wildcard_are_that_directory_and_all_below() {
        let c = parse(r#"{"webhooks":[{"name":"a","url":"http://h/","projects":["~/code","/srv/*/app"]}]}"#);
        let globs = c.endpoints[0].projects.as_ref().expect("the entry has projects");
        for (path, matches) in [
            ("/home/dev/code", true),
            ("/home/dev/code/site/sub", true),
            ("/home/dev/codex", false),
            ("/srv/x/app", true),
            ("/srv/app", false),
        ] {
            assert_eq!(globs.is_match(path), matches, "{path}");
        }
    }

    #[test]
    fn the_network_is_one_of_two_words() {
        assert_eq!(parse("").delivery.network, Network::Local);
        assert_eq!(parse("[delivery]\nnetwork = \"local\"\n").delivery.network, Network::Local);
        assert_eq!(parse("[delivery]\nnetwork = \"server\"\n").delivery.network, Network::Server);
        let message = invalid("[delivery]\nnetwork = \"lan\"\n");
        assert!(message.contains("delivery.network (line 2): expected \"local\" or \"server\""), "{message}");
    }

    #[test]
    fn proxies_of_the_environment_are_used_only_with_proxy_env() {
        let with = |value: &str, text: &str| {
            let env = [("HOME", "/home/dev"), ("HTTPS_PROXY", value)];
            read(text, None, &Env::of(env.map(|(k, v)| (k.to_owned(), v.to_owned()))))
        };
        let asked = "[delivery]\nproxy = \"env\"\n";
        let read = |value, text| with(value, text).map(|c| c.delivery.proxies.is_some());
        assert!(!read("http://p:1", "").expect("it is not looked at"));
        assert!(!read("nonsense hunter2", "").expect("it is not looked at"));
        assert!(read("http://p:1", asked).expect("it is a proxy"));
        assert!(!read("", asked).expect("an empty variable is none"));
        let error = with("socks5://hunter2", asked).expect_err("it cannot be used").to_string();
        assert!(error.contains("delivery.proxy (line 2): HTTPS_PROXY is not"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(invalid("[delivery]\nproxy = \"http://p:1\"\n").contains("expected \"env\""));
    }

    #[test]
    fn allow_takes_networks_and_addresses_and_nothing_that_could_have_no_effect() {
        let with = |allow: &str| {
            parse(&format!(r#"{{"webhooks":[{{"name":"a","url":"http://h/","allow":{allow}}}]}}"#))
        };
        let good = with(r#"["10.1.2.3/8", " 192.168.0.7 ", "fd00::/8"]"#);
        let nets: Vec<_> = good.endpoints[0].allow.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.168.0.7/32", "fd00::/8"]);
        for (allow, part) in [
            (r#"["10.0.0.0/33"]"#, "\"10.0.0.0/33\" is not an address or a network such as"),
            (r#"["example.com"]"#, "\"example.com\" is not an address or a network such as"),
            (r#"["10.0.0.0/8", "169.254.169.254"]"#, "\"169.254.169.254\" is never allowed: link-local"),
            (r#""10.0.0.0/8""#, "expected a list of strings"),
        ] {
            let bad = with(allow);
            assert!(bad.endpoints.is_empty(), "{allow}");
            assert!(bad.warnings.len() == 1 && bad.warnings[0].contains(part), "{:?}", bad.warnings);
        }
    }

    #[test]
    fn what_is_left_out_has_the_contract_s_default() {
        let c = parse(r#"{"webhooks":[{"name":"a","url":"http://h/"}]}"#);
        let e = &c.endpoints[0];
        assert!(e.secrets.is_empty() && e.headers.is_empty() && e.allow.is_empty() && e.projects.is_none());
        assert!(e.events.is_empty() && e.agents.is_empty() && e.reasons.is_empty());
        assert_eq!((e.runs, e.enabled, e.ordered, e.rate), (false, true, false, None));
        assert_eq!(e.format, ringback_model::Format::Json);
        assert_eq!((e.concurrency, e.timeout), (4, Duration::from_secs(10)));
        assert_eq!(e.backoff, [1, 5, 30].map(Duration::from_secs));
        let d = &c.delivery;
        assert!(d.durable && d.network == Network::Local && d.proxies.is_none());
        assert_eq!((d.dedup_window, d.catch_up), (Duration::from_secs(2), Duration::from_secs(600)));
        let days = |n: u64| Duration::from_secs(n * 86_400);
        assert_eq!((d.disable_after, d.retention, d.retention_size), (days(5), days(7), 1 << 30));
    }

    #[test]
    fn nothing_secret_is_shown_when_the_configuration_is_printed() {
        let c = parse(
            r#"{"webhooks":[{"name":"a","url":"https://u:hunter2@h/p?q=hunter2","secret":"hunter2hunter2hunter2"}]}"#,
        );
        assert!(!format!("{c:?}").contains("hunter2"));
        assert_eq!(c.endpoints[0].shown_url(), "https://h/***");
    }
}
