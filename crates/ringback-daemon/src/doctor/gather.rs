//! Looks at the machine: files, ports, programs. Changes nothing, and asks nobody beyond this machine.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use ringback_runs::{Environment, find_program, version};
use serde_json::Value;

use super::facts::{
    AgentProgram, Connection, Directory, EndpointSeen, Entry, Facts, Listener, Port, StateDirectory,
    StateFound, StoreFile, StoreFound,
};
use super::watches;
use crate::client::Client;
use crate::config::{self, Config};
use crate::connect::{self, Change, HandOver};
use crate::env::Env;
use crate::filesystem;
use crate::hook::declared;
use crate::state_dir::{self, Holder};
use crate::supervise;

/// How long a listener on this machine may take to accept.
const ACCEPT: Duration = Duration::from_secs(2);
/// The agents that are looked for whether they are configured or not.
const AGENTS: [&str; 2] = ["claude", "codex"];

/// Looks at everything. `given` is `--config`; `state` the state directory's path; `binary` this program's own path.
pub async fn gather(given: Option<&Path>, env: &Env, state: &Path, binary: &Path) -> Facts {
    let daemon = state_dir::running(state);
    let mut facts = Facts {
        config_error: None,
        config_path: config::find(given, env),
        warnings: Vec::new(),
        state: StateDirectory { path: state.to_owned(), found: state_directory(state) },
        store: store(state).await,
        listeners: Vec::new(),
        agents: Vec::new(),
        directories: Vec::new(),
        watches: None,
        adapters: Vec::new(),
        connection: None,
        endpoints: Vec::new(),
        hooks: 0,
        hook_problems: Vec::new(),
        daemon,
    };
    let config = match config::load(given, env) {
        Ok(config) => config,
        Err(error) => {
            facts.agents = agents(None, env).await;
            facts.config_error = Some(error);
            return facts;
        }
    };
    let (api, rows) = api(&config, state, facts.daemon.as_ref()).await;
    facts.listeners = vec![api, hooks(&config, facts.daemon.is_some())];
    facts.endpoints = endpoints(&config, &rows);
    facts.agents = agents(Some(&config), env).await;
    let roots = supervise::watched(&config);
    facts.watches = watches::look(&roots, facts.daemon.is_some());
    facts.directories = roots.into_iter().map(directory).collect();
    facts.adapters = config.runs.agents.iter().map(|(name, entry)| (name.clone(), entry.adapter)).collect();
    facts.connection = connection(&config, binary);
    let hooks = declared::look_once(&config, env);
    facts.hooks = hooks.hooks.len();
    facts.hook_problems = hooks.problems.into_iter().chain(hooks.warnings).collect();
    facts.warnings = config.warnings;
    facts
}

fn state_directory(path: &Path) -> StateFound {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let above = path.ancestors().skip(1).find(|a| a.exists());
            return StateFound::Nothing { can_be_made: above.is_some_and(is_writable) };
        }
        Err(e) => return StateFound::Unreadable(e.kind()),
    };
    if meta.file_type().is_symlink() {
        StateFound::Link
    } else if !meta.is_dir() {
        StateFound::NoDirectory
    } else if meta.uid() != nix::unistd::geteuid().as_raw() {
        StateFound::OfAnotherUser
    } else {
        let (mode, remote) = (meta.mode() & 0o777, filesystem::remote(path));
        StateFound::Ours { mode, remote, is_writable: is_writable(path) }
    }
}

fn is_writable(dir: &Path) -> bool {
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

async fn store(state: &Path) -> StoreFile {
    let path = state.join("ringback.db");
    if !path.exists() {
        return StoreFile { path, found: StoreFound::Nothing };
    }
    let lock = state.join("lock");
    let look = path.clone();
    let looked = tokio::task::spawn_blocking(move || {
        // Without the file nobody has held it yet. Nothing is made here: a look changes nothing.
        let file = std::fs::File::open(&lock).ok();
        if file.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            return StoreFound::InUse;
        }
        match ringback_store::check(&look) {
            Ok(problems) if problems.is_empty() => StoreFound::Sound,
            Ok(problems) => StoreFound::Damaged(problems),
            Err(error) => StoreFound::Bad(error),
        }
    });
    let failed = |e: tokio::task::JoinError| StoreFound::Bad(ringback_store::Error::Io(e.to_string()));
    StoreFile { path, found: looked.await.unwrap_or_else(failed) }
}

/// The API's port, and what it says about endpoints.
async fn api(config: &Config, state: &Path, daemon: Option<&Holder>) -> (Listener, Vec<Value>) {
    let (found, rows) = match daemon {
        Some(Holder { api: None, .. }) => (Port::Off, Vec::new()),
        Some(Holder { api: Some(address), .. }) => match rows(state).await {
            Ok(rows) => (Port::Answers(address.clone()), rows),
            Err(error) => (Port::Silent { address: address.clone(), why: error.to_string() }, Vec::new()),
        },
        None => match supervise::bind(&config.listen).await {
            Ok(None) => (Port::Off, Vec::new()),
            Ok(Some(listener)) => {
                let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
                (Port::Free(address), Vec::new())
            }
            Err(supervise::Error::Listen { address, why }) => (Port::Taken { address, why }, Vec::new()),
            Err(error) => {
                (Port::Taken { address: "its address".to_owned(), why: error.to_string() }, Vec::new())
            }
        },
    };
    (Listener { check: "api", found }, rows)
}

async fn rows(state: &Path) -> Result<Vec<Value>, crate::client::Error> {
    let mut answer = Client::connect(state)?.list("/api/webhooks", &[]).await?;
    Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn hooks(config: &Config, has_daemon: bool) -> Listener {
    let found = match config.inbound.port {
        None => Port::Off,
        Some(port) => {
            let socket = SocketAddr::new(config.inbound.bind, port);
            let address = socket.to_string();
            let failed = |e: std::io::Error| e.kind().to_string();
            if has_daemon {
                match TcpStream::connect_timeout(&socket, ACCEPT) {
                    Ok(_) => Port::Answers(address),
                    Err(e) => Port::Silent { address, why: failed(e) },
                }
            } else {
                match TcpListener::bind(socket) {
                    Ok(_) => Port::Free(address),
                    Err(e) => Port::Taken { address, why: failed(e) },
                }
            }
        }
    };
    Listener { check: "hooks", found }
}

fn endpoints(config: &Config, rows: &[Value]) -> Vec<EndpointSeen> {
    let seen = |endpoint: &ringback_model::Endpoint| {
        let row = rows.iter().find(|row| row["name"] == endpoint.name.as_str());
        EndpointSeen {
            name: endpoint.name.as_str().to_owned(),
            is_enabled: endpoint.enabled,
            disabled: row.and_then(|row| Some(row["disabled_reason"].as_str()?.to_owned())),
        }
    };
    config.endpoints.iter().map(seen).collect()
}

async fn agents(config: Option<&Config>, env: &Env) -> Vec<AgentProgram> {
    let runs = config.map(|c| &c.runs);
    let needed = config
        .filter(|c| c.inbound.port.is_some())
        .and_then(|c| c.runs.agents.get(&c.runs.agent))
        .and_then(|entry| entry.command.first());
    let mut names: Vec<String> = AGENTS.map(str::to_owned).to_vec();
    for entry in runs.iter().flat_map(|r| r.agents.values()) {
        names.extend(entry.command.first().filter(|name| !names.contains(name)).cloned());
    }
    let no_secrets = runs.map(|r| r.never.clone()).unwrap_or_default();
    let environment = Environment::select(&env.all(), &[], &no_secrets);
    let mut found = Vec::new();
    for name in names {
        let program = find_program(&name, env.get("PATH"));
        // A program of the user's own may do anything when it is started.
        let is_agent = program.as_ref().filter(|p| AGENTS.iter().any(|a| p.ends_with(a)));
        let version = match is_agent {
            Some(program) => version(program, &environment).await,
            None => None,
        };
        let is_needed = needed == Some(&name);
        found.push(AgentProgram { name, program, version, is_needed });
    }
    found
}

fn directory(path: PathBuf) -> Directory {
    let exists = path.is_dir();
    Directory { exists, remote: filesystem::remote(&path), path }
}

/// What is in Claude Code's settings; `None` = it keeps no files here.
fn connection(config: &Config, binary: &Path) -> Option<Connection> {
    let dir = config.claude_dirs.first().filter(|dir| dir.is_dir())?;
    let settings = dir.join("settings.json");
    let path = config.path.as_ref().and_then(|p| std::path::absolute(p).ok());
    let command = HandOver { binary: binary.to_owned(), config: path };
    let found = match entry(&settings, &command) {
        Ok(entry) => entry,
        Err(error) => Entry::Bad(error.to_string()),
    };
    Some(Connection { settings, found })
}

fn entry(settings: &Path, command: &HandOver) -> Result<Entry, connect::Error> {
    let Some(found) = connect::file::read(settings)? else { return Ok(Entry::Absent) };
    let edited = connect::insert(&found.text, &command.shell_line()?)
        .map_err(|cause| connect::Error::Invalid { path: settings.to_owned(), cause })?;
    Ok(match edited.change {
        Change::None => Entry::Present,
        Change::Inserted { .. } => Entry::Absent,
        Change::Updated { .. } | Change::Merged => Entry::Other,
    })
}
