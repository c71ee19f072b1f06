//! How each adapter speaks: what the agent is started with, what it is written, and what its lines mean.
//!
//! The one place that tells adapters apart for the runner. Pure text: knows no processes.

use ringback_model::SessionId;

use crate::outcome::{Progress, TurnResult};
use crate::spec::{Adapter, Spec};
use crate::{acp, claude, codex};

/// What a line of the agent asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// A fact is known.
    Tell(Progress),
    /// The agent gets these bytes.
    Send(Vec<u8>),
}

/// How another turn begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// With these bytes on standard input.
    Say(Vec<u8>),
    /// With a process of its own, once this one has ended.
    Start(Vec<String>),
}

/// The conversation with one agent.
#[derive(Debug)]
pub(crate) enum Dialect {
    Command,
    Claude,
    Codex,
    Acp(Box<acp::Client>),
}

impl Dialect {
    pub(crate) fn of(spec: &Spec) -> Dialect {
        match spec.adapter {
            Adapter::Command => Dialect::Command,
            Adapter::Claude => Dialect::Claude,
            Adapter::Codex => Dialect::Codex,
            Adapter::Acp => Dialect::Acp(Box::new(acp::Client::new(spec))),
        }
    }

    /// The arguments after the program itself.
    pub(crate) fn argv(&self, spec: &Spec) -> Vec<String> {
        match self {
            Dialect::Command | Dialect::Acp(_) => spec.command[1..].to_vec(),
            Dialect::Claude => claude::claude_argv(spec),
            Dialect::Codex => codex::codex_argv(spec),
        }
    }

    /// Variables beside those that every run has.
    pub(crate) fn variables(&self, spec: &Spec) -> Vec<(&'static str, &'static str)> {
        match self {
            Dialect::Claude => claude::switches(spec),
            Dialect::Command | Dialect::Codex | Dialect::Acp(_) => Vec::new(),
        }
    }

    /// Whether what it writes are lines that mean something.
    pub(crate) fn has_lines(&self) -> bool {
        !matches!(self, Dialect::Command)
    }

    /// Whether its input stays open for more than the prompt.
    pub(crate) fn has_dialogue(&self) -> bool {
        matches!(self, Dialect::Claude | Dialect::Acp(_))
    }

    /// Whether it may stay although its input has ended and its turn is over.
    pub(crate) fn may_linger(&self) -> bool {
        matches!(self, Dialect::Acp(_))
    }

    /// What the agent is told first.
    pub(crate) fn first_input(&mut self, spec: &Spec) -> Vec<u8> {
        match self {
            Dialect::Command | Dialect::Codex => spec.prompt.clone().into_bytes(),
            Dialect::Claude => claude::user_line(&spec.prompt),
            Dialect::Acp(client) => client.hello(),
        }
    }

    /// Reads a line of standard output.
    pub(crate) fn read(&mut self, line: &[u8]) -> Vec<Step> {
        let fact = match self {
            Dialect::Command => None,
            Dialect::Claude => claude::read_line(line),
            Dialect::Codex => codex::read_line(line),
            Dialect::Acp(client) => return client.read(line),
        };
        fact.map(Step::Tell).into_iter().collect()
    }

    /// How a turn with this prompt begins in the session that the agent has named; `None` = there is no way.
    pub(crate) fn another_turn(
        &mut self,
        spec: &Spec,
        session: Option<&SessionId>,
        prompt: &str,
    ) -> Option<Next> {
        match self {
            Dialect::Command => None,
            Dialect::Claude => Some(Next::Say(claude::user_line(prompt))),
            Dialect::Codex => codex::resume_argv(spec, session?).map(Next::Start),
            Dialect::Acp(client) => client.another_turn(prompt).map(Next::Say),
        }
    }

    /// How it is asked to end its turn, where that is more than a signal.
    pub(crate) fn cancel(&mut self) -> Option<Vec<u8>> {
        match self {
            Dialect::Acp(client) => client.cancel(),
            Dialect::Command | Dialect::Claude | Dialect::Codex => None,
        }
    }

    /// A turn that was asked to end has not ended yet.
    pub(crate) fn is_at_work(&self) -> bool {
        matches!(self, Dialect::Acp(client) if client.is_at_work())
    }
}

/// Why a turn ended badly, for a reader; without the agent's name.
pub(crate) fn failure(adapter: Adapter, turn: &TurnResult) -> String {
    match adapter {
        Adapter::Command => String::new(),
        Adapter::Claude => claude::failure(turn),
        Adapter::Codex => codex::failure(turn),
        Adapter::Acp => acp::failure(turn),
    }
}
