//! What a run is to be, and whether it can be started as asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringback_model::{Secret, SessionId};
use uuid::Uuid;

use crate::environment::Environment;

/// One run as asked for.
///
/// An adapter enforces what its agent can: `command` knows nothing of sessions, models, tools, turns and money.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Identity of the run; the agent finds it in `RINGBACK_RUN`.
    pub run_id: Uuid,
    /// How to speak to the agent.
    pub adapter: Adapter,
    /// The agent's argv, as configured: `["claude"]`. A path in it is absolute; a bare name is looked up in the
    /// run's `PATH`.
    pub command: Vec<String>,
    /// Where it runs. For a fork that is the directory of the forked session.
    pub cwd: PathBuf,
    /// What it is told, on standard input.
    pub prompt: String,
    /// What it is told instead, should a fork turn out to be impossible only when the agent runs.
    pub prompt_without_history: Option<String>,
    /// What it sees of our environment.
    pub env: Environment,
    /// How it reaches ringback's tools; `None` = not at all.
    pub mcp: Option<Mcp>,
    /// How long it may take, and how it is made to stop.
    pub limits: Limits,
    /// `runs/ID/`: made 0700, its files 0600.
    pub output_dir: PathBuf,
    /// Which conversation it belongs to.
    pub session: Session,
    /// An alias or an id (see [`is_model_id`]); `None` = the agent's own choice.
    pub model: Option<String>,
    /// Whether the model may think.
    pub thinking: bool,
    /// The names of the agent's tools that it may use, and no others (see [`is_tool_name`]).
    pub allowed_tools: Vec<String>,
    /// Absolute paths of directories, and of files, that it may neither read nor change.
    pub denied_dirs: Vec<PathBuf>,
    /// Most model calls; `None` = as many as it wants.
    pub max_turns: Option<u32>,
    /// Most money in US dollars; `None` = no limit.
    pub max_cost_usd: Option<f64>,
}

/// How to speak to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// Any program: the prompt on standard input, exit 0 = completed.
    Command,
    /// Claude Code, headless, JSON lines both ways.
    Claude,
    /// Codex: `exec`, a process per turn, JSON lines out.
    Codex,
    /// Any agent that speaks the Agent Client Protocol on its standard input and output.
    Acp,
}

/// The conversation of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// Without history, under this id.
    New {
        /// Id of the new session.
        id: Uuid,
    },
    /// With the history of another session, which stays as it is.
    Fork {
        /// The session to fork. The ids of Claude Code and Codex are UUIDs.
        of: SessionId,
        /// Id of the new session; `None` = the agent chooses one.
        id: Option<Uuid>,
    },
    /// Without history; the agent names the session itself, or has none.
    Unnamed,
}

/// The run's way to ringback's tools.
#[derive(Clone, Debug)]
pub struct Mcp {
    /// Streamable HTTP, on loopback.
    pub url: String,
    /// Good for this run only.
    pub token: Secret,
}

/// The times of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the start to the TERM that ends it.
    pub timeout: Duration,
    /// From TERM to KILL.
    pub kill_after: Duration,
    /// From [`Order::Interrupt`](crate::Order::Interrupt) to TERM: what is nearly done may end by itself.
    pub interrupt_after: Duration,
}

impl Limits {
    /// This timeout, with the contract's 5 s for the others.
    pub const fn new(timeout: Duration) -> Limits {
        Limits { timeout, kill_after: Duration::from_secs(5), interrupt_after: Duration::from_secs(5) }
    }
}

/// Why a run could not be started. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("agent not available: {name}")]
    NotFound {
        /// As configured.
        name: String,
    },
    /// The directory to run in is not there.
    #[error("no such directory: {}", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A value that must not reach the agent's command line.
    #[error("invalid {what}: {value:?}")]
    Invalid {
        /// Which one.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// The output cannot be kept.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// File or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused to start it.
    #[error("cannot start {name}: {source}")]
    Spawn {
        /// As configured.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Whether a text can name a model: `[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}` (inbound.md, the field `model`).
pub fn is_model_id(text: &str) -> bool {
    is_word(text, |c| matches!(c, '.' | '_' | ':' | '/' | '-'))
}

/// Whether a text can name a tool: `[A-Za-z0-9][A-Za-z0-9_-]{0,99}`.
///
/// A rule such as `Bash(git *)` is none: where the user's own settings allow all of Bash it would not hold, so that
/// the list would promise more than the agent keeps.
pub fn is_tool_name(text: &str) -> bool {
    is_word(text, |c| matches!(c, '_' | '-'))
}

fn is_word(text: &str, also: impl Fn(char) -> bool) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also(c))
}

impl Spec {
    /// Finds the first value that must not reach the agent's command line.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let invalid = |what, value: &str| Err(StartError::Invalid { what, value: value.to_owned() });
        if self.command.first().is_none_or(String::is_empty) {
            return invalid("command", "");
        }
        if let Some(model) = self.model.as_deref().filter(|m| !is_model_id(m)) {
            return invalid("model", model);
        }
        if let Some(tool) = self.allowed_tools.iter().find(|t| !is_tool_name(t)) {
            return invalid("tool", tool);
        }
        // The id was read from a file name: only a UUID is certain to be taken for an id and not for a flag or a
        // name to search for. Over the protocol it is no word of a command line.
        if let Session::Fork { of, .. } = &self.session
            && self.adapter != Adapter::Acp
            && of.as_str().parse::<Uuid>().is_err()
        {
            return invalid("session", of.as_str());
        }
        if let Some(cost) = self.max_cost_usd.filter(|c| !(c.is_finite() && *c > 0.0)) {
            return invalid("max_cost_usd", &cost.to_string());
        }
        match self.denied_dirs.iter().find(|d| !d.is_absolute() || d.to_str().is_none()) {
            Some(dir) => invalid("denied directory", &dir.to_string_lossy()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_tools_are_words_that_no_command_line_takes_for_a_flag() {
        for good in ["haiku", "claude-opus-5-5", "eu.anthropic/claude:1", &"a".repeat(100)] {
            assert!(is_model_id(good), "{good}");
        }
        for bad in ["", "-p", "--model", "a b", "a\nb", "\u{e9}", ".a", &"a".repeat(101)] {
            assert!(!is_model_id(bad), "{bad}");
            assert!(!is_tool_name(bad), "{bad}");
        }
        assert!(is_tool_name("mcp__ring-1__report"));
        for bad in ["Bash(git *)", "Read,Bash", "mcp__ringback__*", "a:b"] {
            assert!(!is_tool_name(bad), "{bad}");
        }
    }
}
