//! The adapter of agents that speak the Agent Client Protocol, version 1: JSON-RPC, a message per line.
//!
//! Seen with `opencode acp` 1.18.33. Owns the client's side of one conversation as a machine without I/O: a line goes
//! in, facts and answers come out. What is asked is read leniently: agents differ in what they leave out, and only a
//! few of the protocol's words matter here. What the agent may do is decided in [`permission`].

mod permission;

use std::collections::HashMap;

use ringback_model::SessionId;
use serde_json::{Value, json};

use crate::dialect::Step;
use crate::outcome::{Progress, TurnResult};
use crate::spec::{Mcp, Session, Spec};
use permission::Permissions;

/// "Method not found", in JSON-RPC.
const NO_SUCH_METHOD: i64 = -32601;
/// "Authentication required", in the protocol.
const LOGIN_REQUIRED: i64 = -32000;
/// What an agent is told that takes no tools by HTTP.
const NO_TOOLS: &str = "Note: this agent takes no MCP servers by HTTP, so that you have none of ringback's tools \
                        (ping_user, discord_embed, report_updates) in this run, whatever is said below.";

/// What a request of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Initialize,
    NewSession,
    Fork,
    /// A choice of the session's that must be made before the prompt.
    Choice,
    Prompt,
}

/// The client's side of a conversation.
#[derive(Debug)]
pub(crate) struct Client {
    cwd: String,
    mcp: Option<Mcp>,
    /// The session to fork, until that was tried.
    fork: Option<SessionId>,
    model: Option<String>,
    thinking: bool,
    prompt: String,
    prompt_without_history: Option<String>,
    permissions: Permissions,

    asked: HashMap<u64, Asked>,
    last_id: u64,
    session: Option<String>,
    is_fork: bool,
    has_tools: bool,
    is_cancelled: bool,
    cost_usd: Option<f64>,
}

impl Client {
    pub(crate) fn new(spec: &Spec) -> Client {
        let fork = match &spec.session {
            Session::Fork { of, .. } => Some(of.clone()),
            Session::New { .. } | Session::Unnamed => None,
        };
        Client {
            cwd: spec.cwd.to_string_lossy().into_owned(),
            mcp: spec.mcp.clone(),
            fork,
            model: spec.model.clone(),
            thinking: spec.thinking,
            prompt: spec.prompt.clone(),
            prompt_without_history: spec.prompt_without_history.clone(),
            permissions: Permissions::new(&spec.allowed_tools),
            asked: HashMap::new(),
            last_id: 0,
            session: None,
            is_fork: false,
            has_tools: false,
            is_cancelled: false,
            cost_usd: None,
        }
    }

    /// The first message.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "ringback", "title": "ringback", "version": env!("CARGO_PKG_VERSION")},
        });
        self.ask(Asked::Initialize, "initialize", &params)
    }

    /// Another turn in the session that there is.
    pub(crate) fn another_turn(&mut self, prompt: &str) -> Option<Vec<u8>> {
        let session = self.session.clone()?;
        let params = json!({"sessionId": session, "prompt": [{"type": "text", "text": prompt}]});
        Some(self.ask(Asked::Prompt, "session/prompt", &params))
    }

    /// Asks the agent to end its turn; `None` = there is none.
    pub(crate) fn cancel(&mut self) -> Option<Vec<u8>> {
        let session = self.session.as_ref().filter(|_| self.is_at_work())?;
        self.is_cancelled = true;
        let notice = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}});
        Some(line(&notice))
    }

    /// A turn is going on.
    pub(crate) fn is_at_work(&self) -> bool {
        self.asked.values().any(|asked| *asked == Asked::Prompt)
    }

    /// Reads a line of the agent's. What is no message is nothing.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Step> {
        let Ok(message) = serde_json::from_slice::<Value>(bytes) else { return Vec::new() };
        match (message["method"].as_str(), message.get("id").filter(|id| !id.is_null())) {
            (Some(method), Some(id)) => vec![Step::Send(self.answer(method, id, &message["params"]))],
            (Some("session/update"), None) => {
                self.note(&message["params"]);
                Vec::new()
            }
            (Some(_), None) => Vec::new(),
            (None, id) => {
                let asked = id.and_then(Value::as_u64).and_then(|id| self.asked.remove(&id));
                asked.map(|asked| self.proceed(asked, &message)).unwrap_or_default()
            }
        }
    }

    fn ask(&mut self, asked: Asked, method: &str, params: &Value) -> Vec<u8> {
        self.last_id += 1;
        self.asked.insert(self.last_id, asked);
        line(&json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}))
    }

    /// Answers a request of the agent's.
    fn answer(&mut self, method: &str, id: &Value, params: &Value) -> Vec<u8> {
        let answer = if method == "session/request_permission" {
            let outcome = self.permissions.decide(params, self.is_cancelled);
            json!({"jsonrpc": "2.0", "id": id, "result": {"outcome": outcome}})
        } else {
            json!({"jsonrpc": "2.0", "id": id,
                   "error": {"code": NO_SUCH_METHOD, "message": "this client does not offer that"}})
        };
        line(&answer)
    }

    fn note(&mut self, params: &Value) {
        // What a forked session brings along is told before it has its name.
        if self.session.is_none() || params["sessionId"].as_str() != self.session.as_deref() {
            return;
        }
        let update = &params["update"];
        match update["sessionUpdate"].as_str() {
            Some("tool_call" | "tool_call_update") => self.permissions.note(update),
            Some("usage_update") if update["cost"]["currency"] == "USD" => {
                // Of the whole session. Nothing is what agents say of models whose price they do not know.
                let cost = update["cost"]["amount"].as_f64();
                self.cost_usd = cost.filter(|c| c.is_finite() && *c > 0.0).or(self.cost_usd);
            }
            _ => {}
        }
    }

    /// Goes on after an answer.
    fn proceed(&mut self, asked: Asked, message: &Value) -> Vec<Step> {
        let result = &message["result"];
        let error = message.get("error").filter(|error| !error.is_null());
        match (asked, error) {
            (Asked::Initialize, None) => self.open(result),
            // It offered to, and cannot: then without.
            (Asked::Fork, Some(_)) => vec![self.without_history(), Step::Send(self.new_session())],
            (Asked::NewSession | Asked::Fork, None) => self.begin(asked, result),
            (Asked::Choice, None) if self.asked.is_empty() => vec![Step::Send(self.first_prompt())],
            (Asked::Choice, None) => Vec::new(),
            (Asked::Prompt, None) => vec![self.turn(result)],
            (_, Some(error)) => vec![failed(words(error))],
        }
    }

    /// After the agent has said what it can.
    fn open(&mut self, result: &Value) -> Vec<Step> {
        if result["protocolVersion"].as_u64() != Some(1) {
            let version = &result["protocolVersion"];
            return vec![failed(format!("speaks version {version} of the protocol, and not 1"))];
        }
        let can = &result["agentCapabilities"];
        self.has_tools = self.mcp.is_some() && can["mcpCapabilities"]["http"] == true;
        if self.mcp.is_some() && !self.has_tools {
            tracing::warn!("the agent takes no MCP servers by HTTP: the run has none of ringback's tools");
        }
        match self.fork.take() {
            Some(of) if !can["sessionCapabilities"]["fork"].is_null() => {
                let mut params = self.session_params();
                params["sessionId"] = json!(of);
                self.is_fork = true;
                vec![Step::Send(self.ask(Asked::Fork, "session/fork", &params))]
            }
            Some(_) => vec![self.without_history(), Step::Send(self.new_session())],
            None => vec![Step::Send(self.new_session())],
        }
    }

    fn without_history(&mut self) -> Step {
        self.is_fork = false;
        if let Some(prompt) = self.prompt_without_history.take() {
            self.prompt = prompt;
        }
        Step::Tell(Progress::WithoutHistory)
    }

    fn new_session(&mut self) -> Vec<u8> {
        let params = self.session_params();
        self.ask(Asked::NewSession, "session/new", &params)
    }

    fn session_params(&self) -> Value {
        let servers: Vec<Value> = self
            .mcp
            .iter()
            .filter(|_| self.has_tools)
            .map(|mcp| {
                let bearer = format!("Bearer {}", mcp.token.reveal());
                json!({"type": "http", "name": "ringback", "url": mcp.url,
                       "headers": [{"name": "Authorization", "value": bearer}]})
            })
            .collect();
        json!({"cwd": self.cwd, "mcpServers": servers})
    }

    /// After the session is there: its choices, then the prompt.
    fn begin(&mut self, asked: Asked, result: &Value) -> Vec<Step> {
        let Some(id) = result["sessionId"].as_str().filter(|id| id.len() <= 200) else {
            return vec![failed("opened a session without a name".to_owned())];
        };
        self.is_fork = asked == Asked::Fork;
        self.session = Some(id.to_owned());
        let mut steps = vec![Step::Tell(Progress::Session(SessionId::new(id)))];
        let options = &result["configOptions"];
        if let Some(model) = self.model.clone() {
            let Some((option, value)) = choice(options, "model", &[&model]) else {
                steps.push(failed(format!("invalid model: {model}; the agent does not offer it")));
                return steps;
            };
            steps.push(self.choose(&option, &value));
        }
        if !self.thinking
            && let Some((option, value)) = choice(options, "thought_level", &["none", "off"])
        {
            steps.push(self.choose(&option, &value));
        }
        if self.asked.is_empty() {
            steps.push(Step::Send(self.first_prompt()));
        }
        steps
    }

    fn choose(&mut self, option: &str, value: &str) -> Step {
        let params = json!({"sessionId": self.session, "configId": option, "value": value});
        Step::Send(self.ask(Asked::Choice, "session/set_config_option", &params))
    }

    fn first_prompt(&mut self) -> Vec<u8> {
        let mut blocks = vec![json!({"type": "text", "text": self.prompt})];
        if self.mcp.is_some() && !self.has_tools {
            blocks.insert(0, json!({"type": "text", "text": NO_TOOLS}));
        }
        let params = json!({"sessionId": self.session, "prompt": blocks});
        self.ask(Asked::Prompt, "session/prompt", &params)
    }

    fn turn(&mut self, result: &Value) -> Step {
        let reason = result["stopReason"].as_str().unwrap_or("unknown");
        let reason = &reason[..reason.floor_char_boundary(100)];
        Step::Tell(Progress::Turn(TurnResult {
            is_error: reason != "end_turn",
            subtype: reason.to_owned(),
            terminal_reason: Some(reason.to_owned()),
            // In a fork the agent's sum begins with what the parent had cost.
            session_cost_usd: self.cost_usd.filter(|_| !self.is_fork),
            denied_tools: self.permissions.take_denied(),
            ..TurnResult::default()
        }))
    }
}

/// Why a turn ended badly, for a reader; without the agent's name.
pub(crate) fn failure(turn: &TurnResult) -> String {
    match (turn.errors.first(), turn.subtype.as_str()) {
        (Some(error), _) => error.clone(),
        (None, "max_turn_requests") => "out of turns".to_owned(),
        (None, "max_tokens") => "out of tokens".to_owned(),
        (None, "refusal") => "the model refused to go on".to_owned(),
        (None, "cancelled") => "the turn was cancelled".to_owned(),
        (None, reason) => format!("the turn ended with {reason}"),
    }
}

/// The option of a category, and the first of these values that it offers. Values may stand in groups.
fn choice(options: &Value, category: &str, wanted: &[&str]) -> Option<(String, String)> {
    let option = options.as_array()?.iter().find(|o| o["category"] == category || o["id"] == category)?;
    let offered = option["options"].as_array()?.iter().flat_map(|entry| match entry["options"].as_array() {
        Some(group) => group.iter().collect(),
        None => vec![entry],
    });
    let offered: Vec<&str> = offered.filter_map(|entry| entry["value"].as_str()).collect();
    let value = wanted.iter().find(|value| offered.contains(value))?;
    Some((option["id"].as_str()?.to_owned(), (*value).to_owned()))
}

fn failed(why: String) -> Step {
    Step::Tell(Progress::Turn(TurnResult {
        is_error: true,
        subtype: "error".to_owned(),
        errors: vec![why],
        ..TurnResult::default()
    }))
}

/// A JSON-RPC error in words, at most 4 KiB.
fn words(error: &Value) -> String {
    const MOST: usize = 4 << 10;
    let message = error["message"].as_str().unwrap_or("an error without words");
    let details = error["data"]["details"].as_str().or(error["data"]["message"].as_str());
    let said = match details {
        Some(details) => format!("{message}: {details}"),
        None => message.to_owned(),
    };
    let said = &said[..said.floor_char_boundary(MOST)];
    if error["code"] == LOGIN_REQUIRED {
        return format!("not logged in, log in with the agent's own program ({said})");
    }
    said.to_owned()
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
