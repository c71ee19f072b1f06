//! What was seen of the machine, as plain values.

use std::path::PathBuf;

use ringback_runs::Adapter;

use crate::config;
use crate::filesystem::Remote;
use crate::state_dir::Holder;

/// All of it. What depends on the configuration is empty when that cannot be used.
#[derive(Debug)]
pub struct Facts {
    /// Why the configuration cannot be used; `None` = it can.
    pub config_error: Option<config::Error>,
    /// The configuration file; `None` = defaults.
    pub(super) config_path: Option<PathBuf>,
    /// What would be said at start.
    pub(super) warnings: Vec<String>,
    pub(super) state: StateDirectory,
    /// The daemon that holds the lock.
    pub(super) daemon: Option<Holder>,
    pub(super) store: StoreFile,
    pub(super) listeners: Vec<Listener>,
    pub(super) agents: Vec<AgentProgram>,
    pub(super) directories: Vec<Directory>,
    /// `None` = no such limits here.
    pub(super) watches: Option<Watches>,
    /// Configured agents, by name.
    pub(super) adapters: Vec<(String, Adapter)>,
    pub(super) connection: Option<Connection>,
    pub(super) endpoints: Vec<EndpointSeen>,
    /// How many declared hooks there are.
    pub(super) hooks: usize,
    /// Hook files that cannot be used, and hooks without their secret.
    pub(super) hook_problems: Vec<String>,
}

/// The state directory.
#[derive(Debug)]
pub(super) struct StateDirectory {
    pub(super) path: PathBuf,
    pub(super) found: StateFound,
}

/// What is at the state directory's path.
#[derive(Clone, Copy, Debug)]
pub(super) enum StateFound {
    /// Nothing; it is made at the first start if that is allowed.
    Nothing {
        can_be_made: bool,
    },
    Link,
    NoDirectory,
    OfAnotherUser,
    Ours {
        mode: u32,
        remote: Option<Remote>,
        is_writable: bool,
    },
    Unreadable(std::io::ErrorKind),
}

/// The journal.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) path: PathBuf,
    pub(super) found: StoreFound,
}

/// What the journal is worth.
#[derive(Debug)]
pub(super) enum StoreFound {
    Nothing,
    /// The running daemon has it open; it is looked at only while nothing else does.
    InUse,
    Sound,
    /// What is wrong with it, a line each.
    Damaged(Vec<String>),
    Bad(ringback_store::Error),
}

/// A port of ringback's.
#[derive(Debug)]
pub(super) struct Listener {
    /// `api` or `hooks`.
    pub(super) check: &'static str,
    pub(super) found: Port,
}

#[derive(Debug)]
pub(super) enum Port {
    /// Not wanted.
    Off,
    /// No daemon runs, and one could listen there.
    Free(String),
    /// No daemon runs, and one could not.
    Taken { address: String, why: String },
    /// The daemon answers there.
    Answers(String),
    /// The daemon runs and does not answer there.
    Silent { address: String, why: String },
}

/// An agent's program.
#[derive(Debug)]
pub(super) struct AgentProgram {
    /// As it is called.
    pub(super) name: String,
    /// `None` = not in `PATH`.
    pub(super) program: Option<PathBuf>,
    /// First line of what it says to `--version`.
    pub(super) version: Option<String>,
    /// Webhooks are taken in and start this one when they name no other.
    pub(super) is_needed: bool,
}

/// A directory in which an agent keeps its sessions.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) exists: bool,
    pub(super) remote: Option<Remote>,
}

/// The kernel's limits on watching files, for this user.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watches {
    pub(super) max_watches: u64,
    pub(super) max_instances: u64,
    /// By all programs of this user that can be looked at.
    pub(super) used_watches: u64,
    pub(super) used_instances: u64,
    /// What a daemon would need beside these; zero while one runs.
    pub(super) needed_watches: u64,
}

/// ringback's entry in Claude Code's settings.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) settings: PathBuf,
    pub(super) found: Entry,
}

#[derive(Debug)]
pub(super) enum Entry {
    Absent,
    Present,
    /// It calls another program or configuration.
    Other,
    /// The settings cannot be read.
    Bad(String),
}

/// A good entry of `webhooks`.
#[derive(Debug)]
pub(super) struct EndpointSeen {
    pub(super) name: String,
    pub(super) is_enabled: bool,
    /// Why the daemon queues nothing for it; `None` = it does, or no daemon was there to ask.
    pub(super) disabled: Option<String>,
}
