//! What is known of one session: the facts that decide its activity, and what there is to show about it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::activity::Reason;
use crate::ids::{Agent, SessionId};
use crate::time::Timestamp;
use crate::tool::ToolKind;

/// One thing that an agent's own record tells about its activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A prompt reached the session: from the user, or from the agent itself (a finished background task).
    /// Closes calls that were left open.
    Prompt {
        /// Typed by a person.
        human: bool,
    },
    /// The turn goes on: a model call starts, is retried, or answered with more to come.
    Progress,
    /// A tool call opened.
    ToolCall {
        /// The agent's id of the call.
        id: String,
        /// The tool's name, to show.
        name: String,
        /// What the call does.
        kind: ToolKind,
    },
    /// A tool call returned. A result of a call that is not open is progress.
    ToolResult {
        /// The agent's id of the call.
        id: String,
    },
    /// The turn ended. Closes every open call.
    TurnEnd {
        /// Why.
        reason: Reason,
        /// The record says so; false = inferred from its shape, and held back by `waiting_grace`.
        stated: bool,
    },
    /// Compaction began.
    CompactionStart,
    /// Compaction is done; the turn goes on if one was open.
    CompactionEnd,
    /// A sub-agent started that works beside the main turn.
    BackgroundStart {
        /// The sub-agent's id.
        id: String,
    },
    /// That sub-agent ended.
    BackgroundEnd {
        /// The sub-agent's id.
        id: String,
    },
}

/// A [`Fact`] with the time that its record carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The record's own time; `None` when it carries none.
    pub at: Option<Timestamp>,
    /// What it says.
    pub fact: Fact,
}

/// State of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Turn {
    /// No prompt has been seen.
    #[default]
    Never,
    /// A prompt, tool result or model call, and no end.
    Open {
        /// When it last went on.
        progress_at: Timestamp,
    },
    /// The turn is over.
    Ended {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Reason,
        /// Whether the agent stated it.
        stated: bool,
    },
}

/// An open tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTool {
    /// The agent's id of the call.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// What it does.
    pub kind: ToolKind,
    /// When it opened.
    pub since: Timestamp,
}

/// What an agent's live registry says of the session, for a process that we have seen alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Level, not edge.
    pub status: LiveStatus,
    /// Since when, by the agent's clock.
    pub status_at: Timestamp,
}

/// The registry's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiveStatus {
    /// The process lives; its status is not told.
    Unknown,
    /// At its prompt.
    Idle,
    /// At work.
    Busy,
    /// Blocked on the user: [`Reason::Permission`] or [`Reason::Question`].
    Waiting(Reason),
}

/// Calls kept open at once; a file that opens more without closing any is not an agent's.
const MAX_OPEN: usize = 256;

/// The facts of one session that [`judge`](crate::activity::judge) decides from. Bounded in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    turn: Turn,
    open_tools: Vec<OpenTool>,
    background: Vec<(String, Timestamp)>,
    compacting_since: Option<Timestamp>,
    ended_compacting: bool,
    live: Option<Live>,
    gone_at: Option<Timestamp>,
    states_turn_end: bool,
}

impl Facts {
    /// Facts of a session of which nothing is known. `states_turn_end`: the agent writes a record when a turn
    /// ends (else an open turn counts only for `activity_timeout`).
    pub fn new(states_turn_end: bool) -> Self {
        Facts {
            turn: Turn::Never,
            open_tools: Vec::new(),
            background: Vec::new(),
            compacting_since: None,
            ended_compacting: false,
            live: None,
            gone_at: None,
            states_turn_end,
        }
    }

    /// Takes in one record at the instant `at`.
    pub fn apply(&mut self, fact: &Fact, at: Timestamp) {
        // Whatever goes on after the process was gone is the work of another one. A process that is told to stop
        // still writes results and the end of its turn, sometimes after its registry file is gone.
        let goes_on = matches!(
            fact,
            Fact::Prompt { .. } | Fact::Progress | Fact::ToolCall { .. } | Fact::CompactionStart
        );
        if goes_on && self.gone_at.is_some_and(|gone| at > gone) {
            self.gone_at = None;
        }
        match fact {
            Fact::Prompt { .. } => {
                self.open_tools.clear();
                self.go_on(at);
            }
            Fact::Progress => self.go_on(at),
            Fact::ToolCall { id, name, kind } => {
                self.open_tools.retain(|t| t.id != *id);
                if self.open_tools.len() == MAX_OPEN {
                    self.open_tools.remove(0);
                }
                self.open_tools.push(OpenTool { id: id.clone(), name: name.clone(), kind: *kind, since: at });
                self.go_on(at);
            }
            Fact::ToolResult { id } => {
                let was_open = self.open_tools.iter().any(|t| t.id == *id);
                self.open_tools.retain(|t| t.id != *id);
                // A late result of a call that an interrupt already closed must not reopen the turn.
                if was_open || !matches!(self.turn, Turn::Ended { .. }) {
                    self.go_on(at);
                }
            }
            Fact::TurnEnd { reason, stated } => {
                self.open_tools.clear();
                self.ended_compacting = self.compacting_since.take().is_some();
                self.turn = Turn::Ended { at, reason: *reason, stated: *stated };
            }
            Fact::CompactionStart => self.compacting_since = Some(at),
            Fact::CompactionEnd => {
                self.compacting_since = None;
                if let Turn::Open { progress_at } = &mut self.turn {
                    *progress_at = at.max(*progress_at);
                }
            }
            Fact::BackgroundStart { id } => {
                self.background.retain(|(known, _)| known != id);
                if self.background.len() == MAX_OPEN {
                    self.background.remove(0);
                }
                self.background.push((id.clone(), at));
            }
            Fact::BackgroundEnd { id } => self.background.retain(|(known, _)| known != id),
        }
    }

    fn go_on(&mut self, at: Timestamp) {
        let progress_at = match self.turn {
            Turn::Open { progress_at } => progress_at.max(at),
            _ => at,
        };
        self.turn = Turn::Open { progress_at };
    }

    /// Takes in what the live registry says; `None` = it says nothing (any more).
    pub fn set_live(&mut self, live: Option<Live>) {
        // What an `idle` has ended stays ended when the registry falls silent.
        if live.is_none()
            && let Some(Live { status: LiveStatus::Idle, status_at }) = self.live
        {
            self.open_tools.retain(|t| t.since > status_at || t.kind == ToolKind::Question);
            if let Turn::Open { progress_at } = self.turn
                && progress_at <= status_at
            {
                self.turn = Turn::Ended { at: status_at, reason: Reason::TurnEnd, stated: true };
            }
        }
        self.live = live;
        if live.is_some() {
            self.gone_at = None;
        }
    }

    /// Takes in that the session's process, seen alive before, has ended.
    pub fn set_gone(&mut self, at: Timestamp) {
        self.live = None;
        self.gone_at = Some(at);
        self.open_tools.clear();
        self.background.clear();
        self.compacting_since = None;
        if let Turn::Open { .. } = self.turn {
            self.turn = Turn::Ended { at, reason: Reason::Exited, stated: true };
        }
    }

    /// The turn, by the transcript alone.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// The open tool calls, oldest first.
    pub fn open_tools(&self) -> &[OpenTool] {
        &self.open_tools
    }

    /// Since when the newest background sub-agent works; `None` when none does.
    pub fn background_since(&self) -> Option<Timestamp> {
        self.background.iter().map(|(_, at)| *at).max()
    }

    /// When a compaction began that is not done.
    pub fn compacting_since(&self) -> Option<Timestamp> {
        self.compacting_since
    }

    /// Whether the turn that ended was a compaction.
    pub fn ended_compacting(&self) -> bool {
        self.ended_compacting
    }

    /// The open call that decides what is shown, when a tool call does.
    pub fn current_tool(&self) -> Option<&OpenTool> {
        self.open_tools.iter().max_by_key(|t| t.kind.rank())
    }

    /// What the live registry says.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// When the process was found gone.
    pub fn gone_at(&self) -> Option<Timestamp> {
        self.gone_at
    }

    /// Whether this agent writes a record when a turn ends.
    pub fn states_turn_end(&self) -> bool {
        self.states_turn_end
    }
}

/// Tool calls kept in [`About::recent_tools`].
pub const RECENT_TOOLS: usize = 20;
/// Messages kept in [`About::recent_messages`].
pub const RECENT_MESSAGES: usize = 10;
/// Characters kept of one message.
pub const MESSAGE_CHARS: usize = 300;
/// Characters kept of any other text from a session file.
pub const TEXT_CHARS: usize = 1024;

/// What there is to show about a session; none of it decides its activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The agent's id of the session.
    pub session_id: SessionId,
    /// Which agent.
    pub agent: Agent,
    /// Working directory, absolute; empty while unknown.
    pub cwd: String,
    /// Title that the agent or its desktop sidecar gave.
    pub title: Option<String>,
    /// Model of the newest answer.
    pub model: Option<String>,
    /// Git branch.
    pub git_branch: Option<String>,
    /// The agent's version.
    pub version: Option<String>,
    /// The working directory is a linked git worktree.
    pub is_worktree: bool,
    /// The repository that worktree belongs to.
    pub main_repo: Option<String>,
    /// Started by a person at a terminal (not headless): may be a main session.
    pub interactive: Option<bool>,
    /// When the newest record was written.
    pub last_activity: Option<Timestamp>,
    /// When a person last prompted.
    pub last_prompt_at: Option<Timestamp>,
    /// Last file a writing tool named.
    pub last_file_write: Option<String>,
    /// When that was.
    pub last_file_write_at: Option<Timestamp>,
    /// The newest tool calls, oldest first; at most [`RECENT_TOOLS`].
    pub recent_tools: VecDeque<RecentTool>,
    /// The newest messages, oldest first; at most [`RECENT_MESSAGES`] of [`MESSAGE_CHARS`] characters.
    pub recent_messages: VecDeque<RecentMessage>,
    /// Sums over the whole history, sub-agents included.
    pub totals: Totals,
}

/// A tool call to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentTool {
    /// The tool's name.
    pub name: String,
    /// When it was called.
    pub at: Option<Timestamp>,
}

/// A message to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentMessage {
    /// `user` or `assistant`.
    pub role: String,
    /// The text, cut at [`MESSAGE_CHARS`].
    pub text: String,
    /// When it was written.
    pub at: Option<Timestamp>,
}

/// Sums over a session's history; each model message is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Messages typed by a person.
    pub user_messages: u64,
    /// Answers of the model.
    pub assistant_messages: u64,
    /// Uncached input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Tokens written to the cache.
    pub cache_creation_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_tokens: u64,
    /// US dollars: recorded by the agent where it does, else by the price table.
    pub cost_usd: f64,
}

impl About {
    /// Nothing known but the name.
    pub fn new(agent: Agent, session_id: SessionId) -> Self {
        About {
            session_id,
            agent,
            cwd: String::new(),
            title: None,
            model: None,
            git_branch: None,
            version: None,
            is_worktree: false,
            main_repo: None,
            interactive: None,
            last_activity: None,
            last_prompt_at: None,
            last_file_write: None,
            last_file_write_at: None,
            recent_tools: VecDeque::new(),
            recent_messages: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    /// Notes a tool call.
    pub fn push_tool(&mut self, name: &str, at: Option<Timestamp>) {
        if self.recent_tools.len() == RECENT_TOOLS {
            self.recent_tools.pop_front();
        }
        self.recent_tools.push_back(RecentTool { name: cut(name, TEXT_CHARS), at });
    }

    /// Notes a message; empty text is none.
    pub fn push_message(&mut self, role: &str, text: &str, at: Option<Timestamp>) {
        if text.trim().is_empty() {
            return;
        }
        if self.recent_messages.len() == RECENT_MESSAGES {
            self.recent_messages.pop_front();
        }
        self.recent_messages.push_back(RecentMessage {
            role: role.to_owned(),
            text: cut(text.trim(), MESSAGE_CHARS),
            at,
        });
    }

    /// The name to show: the title, else the last part of the working directory, else the id's first eight
    /// characters.
    pub fn short_name(&self) -> String {
        if let Some(title) = self.title.as_deref().filter(|t| !t.trim().is_empty()) {
            return title.to_owned();
        }
        match self.cwd.trim_end_matches('/').rsplit('/').next() {
            Some(last) if !last.is_empty() => last.to_owned(),
            _ => self.session_id.as_str().chars().take(8).collect(),
        }
    }
}

/// The first `chars` characters of `text`.
pub fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
