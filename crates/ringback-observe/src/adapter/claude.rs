//! Claude Code transcripts (`projects/SLUG/ID.jsonl`), as written by versions 2.1.

use std::collections::VecDeque;

use ringback_model::session::{About, TEXT_CHARS, cut};
use ringback_model::{Fact, Reason, Timestamp, ToolKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Malformed, Said, id, parse, set, set_some, text};
use crate::lenient::{Content, Flag, Number, Object, Text};
use crate::price::Usage;

/// Queued prompts remembered.
const QUEUE: usize = 64;

/// What the records of one transcript leave behind for later ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claude {
    /// Prompts waiting in the queue, oldest first: whether each is a `/compact`.
    queue: VecDeque<bool>,
    /// The newest time in the file, for records without one.
    last_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    r#type: Text<'a>,
    #[serde(borrow, default)]
    subtype: Text<'a>,
    #[serde(borrow, default)]
    timestamp: Text<'a>,
    #[serde(borrow, default)]
    cwd: Text<'a>,
    #[serde(borrow, default, rename = "gitBranch")]
    git_branch: Text<'a>,
    #[serde(borrow, default)]
    version: Text<'a>,
    #[serde(borrow, default)]
    entrypoint: Text<'a>,
    #[serde(default, rename = "isSidechain")]
    is_sidechain: Flag,
    #[serde(default, rename = "isMeta")]
    is_meta: Flag,
    #[serde(default, rename = "isCompactSummary")]
    is_compact_summary: Flag,
    #[serde(default, rename = "isApiErrorMessage")]
    is_api_error: Flag,
    #[serde(default, rename = "apiErrorStatus")]
    api_error_status: Number,
    #[serde(borrow, default, rename = "promptSource")]
    prompt_source: Text<'a>,
    #[serde(borrow, default)]
    origin: Object<Origin<'a>>,
    #[serde(borrow, default, rename = "agentId")]
    agent_id: Text<'a>,
    #[serde(borrow, default, rename = "querySource")]
    query_source: Text<'a>,
    #[serde(borrow, default)]
    operation: Text<'a>,
    #[serde(borrow, default)]
    content: Text<'a>,
    #[serde(borrow, default, rename = "customTitle")]
    custom_title: Text<'a>,
    #[serde(default, rename = "totalCostUSD")]
    total_cost: Number,
    #[serde(borrow, default, rename = "compactMetadata")]
    compaction: Object<Compaction<'a>>,
    #[serde(borrow, default)]
    message: Object<Message<'a>>,
    // Often large and of any shape: looked into only for a tool that may have started a sub-agent.
    #[serde(borrow, default, rename = "toolUseResult")]
    tool_use_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Origin<'a> {
    #[serde(borrow, default)]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct Compaction<'a> {
    #[serde(borrow, default)]
    trigger: Text<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    model: Text<'a>,
    #[serde(borrow, default)]
    stop_reason: Text<'a>,
    #[serde(borrow, default)]
    content: Content<'a, Block<'a>>,
    #[serde(default)]
    usage: Object<Tokens>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    r#type: Text<'a>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    id: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    tool_use_id: Text<'a>,
    #[serde(borrow, default)]
    input: Object<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow, default)]
    file_path: Text<'a>,
    #[serde(borrow, default)]
    notebook_path: Text<'a>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    input_tokens: Number,
    #[serde(default)]
    output_tokens: Number,
    #[serde(default)]
    cache_creation_input_tokens: Number,
    #[serde(default)]
    cache_read_input_tokens: Number,
}

#[derive(Deserialize)]
struct Launch<'a> {
    #[serde(default, rename = "isAsync")]
    is_async: Flag,
    #[serde(borrow, default, rename = "agentId")]
    agent_id: Text<'a>,
}

impl Claude {
    /// Reads one line of a session's own transcript. Returns the record's time, if it carries one.
    pub(crate) fn read(&mut self, line: &[u8], mut said: Said<'_>) -> Result<Option<Timestamp>, Malformed> {
        let line = text(line);
        let record: Record<'_> = parse(&line)?;
        Ok(self.take(&record, &mut said))
    }

    fn take(&mut self, record: &Record<'_>, said: &mut Said<'_>) -> Option<Timestamp> {
        let own = record.timestamp.some().and_then(|t| t.parse().ok());
        self.last_at = own.max(self.last_at);
        let at = own.or(self.last_at);
        // Versions that kept sub-agents in the main file marked their records.
        if record.is_sidechain.0 {
            count_usage(record, said, at);
            return own;
        }
        describe(record, said.about, own);
        match record.r#type.as_str() {
            "user" => user(record, said, at),
            "assistant" => assistant(record, said, at),
            "system" => system(record, said, at),
            "api-request" if is_main_thread(record) => said.fact(at, Fact::Progress),
            "queue-operation" => self.queue_operation(record, said, at),
            "cost-state" => {
                if let Some(usd) = record.total_cost.0 {
                    said.ledger.stated_cost(usd, at);
                }
            }
            "custom-title" => {
                if let Some(title) = record.custom_title.some() {
                    said.about.title = Some(cut(title, TEXT_CHARS));
                }
            }
            _ => {}
        }
        own
    }

    /// A `/compact` leaves no other mark at its start; it starts when it leaves the queue.
    fn queue_operation(&mut self, record: &Record<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
        match record.operation.as_str() {
            "enqueue" => {
                if self.queue.len() == QUEUE {
                    self.queue.pop_front();
                }
                let prompt = record.content.as_str().trim();
                self.queue.push_back(prompt == "/compact" || prompt.starts_with("/compact "));
            }
            "dequeue" => {
                if self.queue.pop_front() == Some(true) {
                    said.fact(at, Fact::CompactionStart);
                }
            }
            _ => self.queue.clear(),
        }
    }
}

/// Reads one line of a sub-agent's transcript: only its sums count, for the parent.
pub(crate) fn read_sub_agent(line: &[u8], mut said: Said<'_>) -> Result<Option<Timestamp>, Malformed> {
    let line = text(line);
    let record: Record<'_> = parse(&line)?;
    let at = record.timestamp.some().and_then(|t| t.parse().ok());
    count_usage(&record, &mut said, at);
    Ok(at)
}

fn describe(record: &Record<'_>, about: &mut About, at: Option<Timestamp>) {
    set(&mut about.cwd, record.cwd.some());
    set_some(&mut about.git_branch, record.git_branch.some());
    set_some(&mut about.version, record.version.some());
    match record.entrypoint.as_str() {
        "cli" | "claude-vscode" | "claude-desktop" => about.interactive = Some(true),
        entry if entry.starts_with("sdk") => about.interactive = Some(false),
        _ => {}
    }
    about.last_activity = at.max(about.last_activity);
}

fn user(record: &Record<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    if record.is_meta.0 || record.is_compact_summary.0 {
        return;
    }
    let Some(message) = &record.message.0 else { return };
    match &message.content {
        Content::Text(text) => prompt(record, text, said, at),
        Content::List(blocks) => {
            let mut results = 0;
            for block in blocks {
                if block.r#type.as_str() == "tool_result" && block.tool_use_id.some().is_some() {
                    results += 1;
                    said.fact(at, Fact::ToolResult { id: id(block.tool_use_id.as_str()) });
                }
            }
            if results > 0 {
                if let Some(agent) = launched_in_background(record) {
                    said.fact(at, Fact::BackgroundStart { id: agent });
                }
            } else if let Some(text) = blocks.iter().find_map(|b| b.text.some()) {
                prompt(record, text, said, at);
            } else if blocks.iter().any(|b| b.r#type.as_str() == "image") {
                prompt(record, "[image]", said, at);
            }
        }
    }
}

fn prompt(record: &Record<'_>, text: &str, said: &mut Said<'_>, at: Option<Timestamp>) {
    if text.starts_with("[Request interrupted by user") {
        said.fact(at, Fact::TurnEnd { reason: Reason::Interrupted, stated: true });
        return;
    }
    let origin = record.origin.0.as_ref().map_or("", |o| o.kind.as_str());
    if origin == "task-notification" || text.starts_with("<task-notification>") {
        // In this order: the session does not wait between the task's end and the turn that it starts.
        said.fact(at, Fact::Prompt { human: false });
        if let Some(task) = between(text, "<task-id>", "</task-id>") {
            said.fact(at, Fact::BackgroundEnd { id: id(task.trim()) });
        }
        return;
    }
    // What the CLI notes about commands that it runs by itself.
    let by_the_cli = ["<local-command-", "<command-name>", "<command-message>", "<bash-"];
    if by_the_cli.iter().any(|mark| text.starts_with(mark)) {
        return;
    }
    let source = record.prompt_source.as_str();
    if source == "system" {
        said.fact(at, Fact::Prompt { human: false });
        return;
    }
    let human = source != "sdk";
    said.fact(at, Fact::Prompt { human });
    said.ledger.user_message();
    said.about.push_message("user", text, at);
    if human {
        said.about.last_prompt_at = at.max(said.about.last_prompt_at);
    }
}

fn assistant(record: &Record<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    let Some(message) = &record.message.0 else { return };
    if record.is_api_error.0 {
        let reason = if record.api_error_status.count() == 429 { Reason::RateLimit } else { Reason::Error };
        said.fact(at, Fact::TurnEnd { reason, stated: true });
        return;
    }
    // Written by the CLI, not by a model.
    if message.model.as_str() == "<synthetic>" {
        return;
    }
    set_some(&mut said.about.model, message.model.some());
    count_usage(record, said, at);
    let Content::List(blocks) = &message.content else { return };
    let (mut tools, mut has_text) = (0, false);
    for block in blocks {
        match block.r#type.as_str() {
            "tool_use" if block.id.some().is_some() => {
                tools += 1;
                tool_use(block, said, at);
            }
            "text" => {
                has_text = true;
                said.about.push_message("assistant", block.text.as_str(), at);
            }
            _ => {}
        }
    }
    if tools > 0 {
        return;
    }
    let ended = |stated| Fact::TurnEnd { reason: Reason::TurnEnd, stated };
    said.fact(
        at,
        match message.stop_reason.some() {
            Some("tool_use" | "pause_turn") => Fact::Progress,
            // The blocks of a message come one by one; that the message ends the turn is known when its text is.
            Some(_) => ended(has_text),
            // Versions that did not know yet how the message would end.
            None if has_text => ended(false),
            None => Fact::Progress,
        },
    );
}

fn tool_use(block: &Block<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    let kind = ToolKind::of_name(block.name.as_str());
    said.about.push_tool(block.name.as_str(), at);
    if kind == ToolKind::Writing
        && let Some(input) = &block.input.0
        && let Some(path) = input.file_path.some().or(input.notebook_path.some())
    {
        said.about.last_file_write = Some(cut(path, TEXT_CHARS));
        said.about.last_file_write_at = at;
    }
    let name = cut(block.name.as_str(), TEXT_CHARS);
    said.fact(at, Fact::ToolCall { id: id(block.id.as_str()), name, kind });
}

fn system(record: &Record<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    match record.subtype.as_str() {
        // A retry follows.
        "api_error" => said.fact(at, Fact::Progress),
        "compact_boundary" => {
            let trigger = record.compaction.0.as_ref().map_or("", |c| c.trigger.as_str());
            // After a /compact nothing is asked of the model; an automatic one interrupts a turn that goes on.
            said.fact(
                at,
                match trigger {
                    "manual" => Fact::TurnEnd { reason: Reason::TurnEnd, stated: true },
                    _ => Fact::CompactionEnd,
                },
            );
        }
        _ => {}
    }
}

fn count_usage(record: &Record<'_>, said: &mut Said<'_>, at: Option<Timestamp>) {
    if record.r#type.as_str() != "assistant" {
        return;
    }
    let Some(message) = &record.message.0 else { return };
    if message.model.as_str() == "<synthetic>" {
        return;
    }
    let usage = message.usage.0.as_ref().map_or(Usage::default(), |u| Usage {
        input: u.input_tokens.count(),
        output: u.output_tokens.count(),
        cache_write: u.cache_creation_input_tokens.count(),
        cache_read: u.cache_read_input_tokens.count(),
    });
    said.ledger.message(message.id.as_str(), message.model.as_str(), &usage, at);
}

fn is_main_thread(record: &Record<'_>) -> bool {
    let source = record.query_source.as_str();
    record.agent_id.some().is_none() && (source == "sdk" || source.starts_with("repl_main_thread"))
}

fn launched_in_background(record: &Record<'_>) -> Option<String> {
    let raw = record.tool_use_result?.get();
    if !raw.starts_with('{') || !raw.contains("\"isAsync\"") {
        return None;
    }
    let launch: Launch<'_> = serde_json::from_str(raw).ok()?;
    let agent = launch.agent_id.some()?;
    launch.is_async.0.then(|| id(agent))
}

fn between<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inside, _)| inside)
}
