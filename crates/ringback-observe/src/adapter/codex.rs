//! Codex rollouts (`sessions/YYYY/MM/DD/rollout-TIME-ID.jsonl`), as written by version 0.169 and, where they differ
//! only in names, older ones.

use ringback_model::session::{TEXT_CHARS, cut};
use ringback_model::{Fact, Reason, SessionId, Timestamp, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Malformed, Said, id, parse, set, set_some, text};
use crate::lenient::{Content, Keys, Number, Object, Text};
use crate::price::Usage;

/// What the records of one rollout leave behind for later ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Codex {
    /// Only the first head of a file is its own: older forks copied their parent's after it.
    has_head: bool,
    last_at: Option<Timestamp>,
}

/// Whose file a rollout is, told by its first record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The thread.
    pub(crate) id: SessionId,
    /// The session it works for, when it is a sub-agent.
    pub(crate) parent: Option<SessionId>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    r#type: Text<'a>,
    #[serde(borrow, default)]
    timestamp: Text<'a>,
    #[serde(borrow, default)]
    payload: Object<Payload<'a>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    r#type: Text<'a>,
    // session_meta, turn_context
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    session_id: Text<'a>,
    #[serde(borrow, default)]
    parent_thread_id: Text<'a>,
    #[serde(borrow, default)]
    cwd: Text<'a>,
    #[serde(borrow, default)]
    cli_version: Text<'a>,
    #[serde(borrow, default)]
    originator: Text<'a>,
    // A word, or an object for a sub-agent.
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    git: Object<Git<'a>>,
    #[serde(borrow, default)]
    model: Text<'a>,
    // response_item
    #[serde(borrow, default)]
    role: Text<'a>,
    #[serde(borrow, default)]
    call_id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    namespace: Text<'a>,
    #[serde(borrow, default)]
    input: Text<'a>,
    // event_msg
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(borrow, default)]
    item: Object<Item<'a>>,
    #[serde(default)]
    info: Object<Info>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Git<'a> {
    #[serde(borrow, default)]
    branch: Text<'a>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    r#type: Text<'a>,
    #[serde(borrow, default)]
    content: Content<'a, Part<'a>>,
    #[serde(default)]
    changes: Keys,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    total_token_usage: Object<Tokens>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    input_tokens: Number,
    #[serde(default)]
    cached_input_tokens: Number,
    #[serde(default)]
    cache_write_input_tokens: Number,
    #[serde(default)]
    output_tokens: Number,
}

#[derive(Deserialize)]
struct Spawn<'a> {
    #[serde(borrow, default)]
    subagent: Object<Subagent<'a>>,
}

#[derive(Deserialize)]
struct Subagent<'a> {
    #[serde(borrow, default)]
    thread_spawn: Object<Parent<'a>>,
}

#[derive(Deserialize)]
struct Parent<'a> {
    #[serde(borrow, default)]
    parent_thread_id: Text<'a>,
}

/// The head of a rollout, if `line` is one.
pub(crate) fn head(line: &[u8]) -> Option<Head> {
    let line = text(line);
    let record: Record<'_> = parse(&line).ok()?;
    if record.r#type.as_str() != "session_meta" {
        return None;
    }
    let payload = record.payload.0?;
    let own = SessionId::new(id(payload.id.some()?));
    let parent = payload
        .parent_thread_id
        .some()
        .map(str::to_owned)
        .or_else(|| {
            let spawn: Spawn<'_> = serde_json::from_str(payload.source?.get()).ok()?;
            spawn.subagent.0?.thread_spawn.0?.parent_thread_id.some().map(str::to_owned)
        })
        // The root thread's id, so that the sub-agents of sub-agents find the session.
        .map(|parent| {
            payload.session_id.some().filter(|root| *root != own.as_str()).map_or(parent, str::to_owned)
        })
        .map(|parent| SessionId::new(id(&parent)));
    Some(Head { id: own, parent })
}

impl Codex {
    /// Reads one line of a rollout. Returns the record's time, if it carries one.
    pub(crate) fn read(&mut self, line: &[u8], mut said: Said<'_>) -> Result<Option<Timestamp>, Malformed> {
        let line = text(line);
        let record: Record<'_> = parse(&line)?;
        let own = record.timestamp.some().and_then(|t| t.parse().ok());
        self.last_at = own.max(self.last_at);
        said.about.last_activity = own.max(said.about.last_activity);
        let at = own.or(self.last_at);
        let Some(payload) = &record.payload.0 else { return Ok(own) };
        match record.r#type.as_str() {
            "session_meta" if !std::mem::replace(&mut self.has_head, true) => {
                session_meta(payload, &mut said)
            }
            "turn_context" => {
                set(&mut said.about.cwd, payload.cwd.some());
                set_some(&mut said.about.model, payload.model.some());
            }
            "event_msg" => event(payload, &mut said, at),
            "response_item" => response_item(payload, &mut said, at),
            // Compaction is done; the turn goes on. Nothing marked its start.
            "compacted" => said.fact(at, Fact::Progress),
            _ => {}
        }
        Ok(own)
    }
}

fn session_meta(payload: &Payload<'_>, said: &mut Said<'_>) {
    set(&mut said.about.cwd, payload.cwd.some());
    set_some(&mut said.about.version, payload.cli_version.some());
    set_some(&mut said.about.git_branch, payload.git.0.as_ref().and_then(|git| git.branch.some()));
    said.about.interactive = match payload.source.map(RawValue::get) {
        Some("\"cli\"" | "\"vscode\"") => Some(true),
        Some("\"exec\"" | "\"mcp\"") => Some(false),
        _ if payload.originator.as_str() == "codex_exec" => Some(false),
        _ => None,
    };
}

fn event(payload: &Payload<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    match payload.r#type.as_str() {
        "task_started" | "turn_started" => said.fact(at, Fact::Prompt { human: false }),
        "task_complete" | "turn_complete" => {
            said.fact(at, Fact::TurnEnd { reason: end_reason(payload), stated: true });
        }
        "turn_aborted" => said.fact(at, Fact::TurnEnd { reason: Reason::Interrupted, stated: true }),
        "token_count" => token_count(payload, said),
        "item_completed" => item_completed(payload, said, at),
        // Older versions.
        "user_message" => user_message(payload.message.as_str(), said, at),
        "agent_message" => assistant_message(payload.message.as_str(), said, at),
        _ => {}
    }
}

fn end_reason(payload: &Payload<'_>) -> Reason {
    match payload.error.map(RawValue::get) {
        None | Some("null") => Reason::TurnEnd,
        Some(error) if error.contains("usage_limit") || error.contains("rate_limit") => Reason::RateLimit,
        Some(_) => Reason::Error,
    }
}

fn token_count(payload: &Payload<'_>, said: &mut Said<'_>) {
    let Some(total) = payload.info.0.as_ref().and_then(|info| info.total_token_usage.0.as_ref()) else {
        return;
    };
    // The input that Codex tells includes what came from the cache.
    let cached = total.cached_input_tokens.count();
    let written = total.cache_write_input_tokens.count();
    let usage = Usage {
        input: total.input_tokens.count().saturating_sub(cached).saturating_sub(written),
        output: total.output_tokens.count(),
        cache_write: written,
        cache_read: cached,
    };
    said.ledger.running_total(said.about.model.as_deref().unwrap_or("gpt-5"), usage);
}

fn item_completed(payload: &Payload<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    let Some(item) = &payload.item.0 else { return };
    let words = || match &item.content {
        Content::Text(text) => text.as_ref(),
        Content::List(parts) => parts.iter().find_map(|p| p.text.some()).unwrap_or_default(),
    };
    match item.r#type.as_str() {
        "UserMessage" => user_message(words(), said, at),
        "AgentMessage" => assistant_message(words(), said, at),
        "FileChange" => {
            if let Some(path) = item.changes.0.last() {
                said.about.last_file_write = Some(cut(path, TEXT_CHARS));
                said.about.last_file_write_at = at;
            }
        }
        // A command that outlived an interrupt completes after it and must not reopen the turn.
        _ => {}
    }
}

/// The turn itself began with its own record; a message may also steer a turn whose calls are open.
fn user_message(text: &str, said: &mut Said<'_>, at: Option<Timestamp>) {
    said.fact(at, Fact::Progress);
    said.ledger.user_message();
    said.about.push_message("user", text, at);
    if said.about.interactive != Some(false) {
        said.about.last_prompt_at = at.max(said.about.last_prompt_at);
    }
}

fn assistant_message(text: &str, said: &mut Said<'_>, at: Option<Timestamp>) {
    said.ledger.assistant_message();
    said.about.push_message("assistant", text, at);
}

fn response_item(payload: &Payload<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    match payload.r#type.as_str() {
        "function_call" | "custom_tool_call" | "local_shell_call" => {
            let Some(call) = payload.call_id.some() else { return };
            let name = payload.name.some().unwrap_or("local_shell");
            said.about.push_tool(name, at);
            let name = cut(name, TEXT_CHARS);
            said.fact(at, Fact::ToolCall { id: id(call), name, kind: kind(payload) });
        }
        "function_call_output" | "custom_tool_call_output" => {
            if let Some(call) = payload.call_id.some() {
                said.fact(at, Fact::ToolResult { id: id(call) });
            }
        }
        "reasoning" | "web_search_call" => said.fact(at, Fact::Progress),
        // Also the summary of a compaction, and what a turn says on its way: never its end.
        "message" if payload.role.as_str() == "assistant" => said.fact(at, Fact::Progress),
        _ => {}
    }
}

fn kind(payload: &Payload<'_>) -> ToolKind {
    if payload.namespace.as_str().starts_with("mcp__") {
        return ToolKind::Running;
    }
    match payload.name.as_str() {
        "exec" => kind_of_script(payload.input.as_str()),
        name => ToolKind::of_name(name),
    }
}

/// In code mode every tool is called by a script; what it calls tells what it does. The most telling wins, in the
/// order in which several open calls are shown.
fn kind_of_script(script: &str) -> ToolKind {
    let calls = [
        ("tools.exec_command", ToolKind::Running),
        ("tools.mcp__", ToolKind::Running),
        ("tools.apply_patch", ToolKind::Writing),
        ("tools.web_search", ToolKind::Browsing),
        ("tools.view_image", ToolKind::Reading),
        ("tools.collaboration", ToolKind::Spawning),
        ("tools.spawn_agent", ToolKind::Spawning),
        ("tools.wait_agent", ToolKind::Spawning),
    ];
    calls.iter().find(|(call, _)| script.contains(call)).map_or(ToolKind::Running, |(_, kind)| *kind)
}
