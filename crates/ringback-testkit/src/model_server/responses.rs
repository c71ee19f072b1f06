//! OpenAI Responses: `POST /v1/responses`, as Codex uses it, always as a stream of events.

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::script::{Input, Turn};
use super::{Asked, Connection, Events, Shared, answer_json, pieces, tokens};
use crate::http::{Message, Request};

pub(super) async fn answer(
    stream: &mut BufReader<TcpStream>,
    request: &Request,
    shared: &Shared,
) -> std::io::Result<Connection> {
    let Ok(body) = serde_json::from_slice::<Value>(&request.message.body) else {
        let error = json!({"error": {"type": "invalid_request_error", "message": "no JSON"}});
        return answer_json(stream, 400, Some(&error)).await;
    };
    let asked = asked(&request.message, &body);
    shared.log(request, asked);
    let turn = shared.turn(asked);
    let response = json!({
        "id": format!("resp_{}", Uuid::new_v4().simple()),
        "object": "response",
        "created_at": 0,
        "model": body["model"],
        "output": [],
        "status": "in_progress",
    });
    let mut answer = Answering { events: Events::open(stream).await?, sent: 0 };
    answer.send(json!({"type": "response.created", "response": response})).await?;
    let beat = json!({"type": "response.in_progress", "sequence_number": 1, "response": response});
    answer.sent += 1;
    answer.events.think(turn.delay, &beat).await?;

    let items = items(&turn, asked);
    for (index, item) in items.iter().enumerate() {
        answer.send_item(index, item).await?;
    }
    let input_tokens = tokens(request.message.body.len());
    let output_tokens = tokens(items.iter().map(|i| i.to_string().len()).sum());
    let mut completed = response;
    completed["status"] = json!("completed");
    completed["output"] = Value::Array(items);
    completed["usage"] = json!({
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    });
    shared.note_end_of(&turn, asked);
    answer.send(json!({"type": "response.completed", "response": completed})).await?;
    Ok(Connection::Used)
}

/// Codex says in a header what a call is for; only `turn` belongs to the conversation.
fn asked(head: &Message, body: &Value) -> Asked {
    let meta = head.header("x-codex-turn-metadata").and_then(|m| serde_json::from_str::<Value>(m).ok());
    if let Some(meta) = meta {
        let kind = meta["request_kind"].as_str().unwrap_or_default();
        let source = meta["thread_source"].as_str().unwrap_or_default();
        if !matches!(kind, "" | "turn") || !matches!(source, "" | "user" | "subagent") {
            return Asked::Side;
        }
    }
    Asked::Turn(turns(body["input"].as_array().map_or(&[][..], Vec::as_slice)))
}

/// Counts the model's turns. A run of items that the model made is one turn; so are parallel calls with their
/// outputs in between, because a call id made here carries the turn's number.
fn turns(items: &[Value]) -> usize {
    let (mut turns, mut in_run, mut tag) = (0, false, None);
    for item in items {
        if !is_of_model(item) {
            in_run = false;
            continue;
        }
        let own = item["call_id"].as_str().and_then(turn_tag);
        if !in_run && (own.is_none() || own != tag) {
            turns += 1;
            tag = None;
        }
        tag = own.or(tag);
        in_run = true;
    }
    turns
}

fn is_of_model(item: &Value) -> bool {
    match item["type"].as_str() {
        Some("message") | None => item["role"] == "assistant",
        Some(kind) => matches!(
            kind,
            "function_call"
                | "custom_tool_call"
                | "local_shell_call"
                | "reasoning"
                | "web_search_call"
                | "tool_search_call"
        ),
    }
}

/// `3` of `call_t3_X`.
fn turn_tag(call_id: &str) -> Option<&str> {
    call_id.strip_prefix("call_t")?.split('_').next()
}

fn items(turn: &Turn, asked: Asked) -> Vec<Value> {
    let number = match asked {
        Asked::Turn(number) => number,
        Asked::Side => 0,
    };
    let id = |prefix: &str| format!("{prefix}_t{number}_{}", Uuid::new_v4().simple());
    let mut items = Vec::new();
    if let Some(thinking) = &turn.thinking {
        items.push(json!({
            "type": "reasoning",
            "id": id("rs"),
            "summary": [{"type": "summary_text", "text": thinking}],
            "content": null,
            "encrypted_content": "c2NyaXB0ZWQ=",
        }));
    }
    if let Some(text) = &turn.text {
        let phase = if turn.tools.is_empty() { "final_answer" } else { "commentary" };
        items.push(json!({
            "type": "message",
            "id": id("msg"),
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
            "phase": phase,
        }));
    }
    for tool in &turn.tools {
        let call_id = id("call");
        // What other agents call `mcp__SERVER__TOOL` is a tool in a namespace here.
        let (namespace, name) = match tool.name.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            Some((server, name)) => (Some(format!("mcp__{server}")), name),
            None => (None, tool.name.as_str()),
        };
        items.push(match &tool.input {
            Input::Json(input) => {
                let mut call = json!({
                    "type": "function_call",
                    "id": id("fc"),
                    "call_id": call_id,
                    "name": name,
                    "arguments": input.to_string(),
                    "status": "completed",
                });
                if let Some(namespace) = namespace {
                    call["namespace"] = json!(namespace);
                }
                call
            }
            Input::Freeform(text) => json!({
                "type": "custom_tool_call",
                "id": id("ctc"),
                "call_id": call_id,
                "name": tool.name,
                "input": text,
                "status": "completed",
            }),
        });
    }
    items
}

struct Answering<'a> {
    events: Events<'a>,
    sent: usize,
}

impl Answering<'_> {
    async fn send(&mut self, mut event: Value) -> std::io::Result<()> {
        event["sequence_number"] = json!(self.sent);
        self.sent += 1;
        self.events.send(&event).await
    }

    /// One item: an empty start, its text in pieces, the whole of it.
    async fn send_item(&mut self, index: usize, item: &Value) -> std::io::Result<()> {
        let mut start = item.clone();
        start["status"] = json!("in_progress");
        match item["type"].as_str() {
            Some("reasoning") => {
                start["summary"] = json!([]);
                self.send_start(index, start).await?;
                self.send_reasoning(index, item).await?;
            }
            Some("message") => {
                start["content"] = json!([]);
                self.send_start(index, start).await?;
                for piece in pieces(item["content"][0]["text"].as_str().unwrap_or_default()) {
                    self.send(json!({
                        "type": "response.output_text.delta",
                        "item_id": item["id"],
                        "output_index": index,
                        "content_index": 0,
                        "delta": piece,
                    }))
                    .await?;
                }
            }
            _ => self.send_start(index, start).await?,
        }
        self.send(json!({"type": "response.output_item.done", "output_index": index, "item": item})).await
    }

    async fn send_start(&mut self, index: usize, item: Value) -> std::io::Result<()> {
        self.send(json!({"type": "response.output_item.added", "output_index": index, "item": item})).await
    }

    async fn send_reasoning(&mut self, index: usize, item: &Value) -> std::io::Result<()> {
        let text = item["summary"][0]["text"].as_str().unwrap_or_default();
        let event = |kind: &str| {
            json!({
                "type": format!("response.reasoning_summary_{kind}"),
                "item_id": item["id"],
                "output_index": index,
                "summary_index": 0,
            })
        };
        let mut added = event("part.added");
        added["part"] = json!({"type": "summary_text", "text": ""});
        self.send(added).await?;
        for piece in pieces(text) {
            let mut delta = event("text.delta");
            delta["delta"] = json!(piece);
            self.send(delta).await?;
        }
        let mut done = event("text.done");
        done["text"] = json!(text);
        self.send(done).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_the_models_items_is_one_turn_and_so_are_parallel_calls() {
        let items = json!([
            {"type": "message", "role": "user"},
            {"type": "reasoning"},
            {"type": "message", "role": "assistant"},
            {"type": "function_call", "call_id": "call_t0_a"},
            {"type": "function_call_output", "call_id": "call_t0_a"},
            {"type": "function_call", "call_id": "call_t1_b"},
            {"type": "function_call_output", "call_id": "call_t1_b"},
            {"type": "function_call", "call_id": "call_t1_c"},
            {"type": "function_call_output", "call_id": "call_t1_c"},
        ]);
        assert_eq!(turns(items.as_array().unwrap()), 2);
        assert_eq!(turns(&[]), 0);
    }

    #[test]
    fn a_call_for_anything_but_a_turn_is_a_side_request() {
        let with = |meta: &str| Message {
            headers: vec![("X-Codex-Turn-Metadata".to_owned(), meta.to_owned())],
            body: Vec::new(),
        };
        let body = json!({"input": []});
        assert_eq!(asked(&with("{\"request_kind\": \"turn\"}"), &body), Asked::Turn(0));
        assert_eq!(asked(&Message::default(), &body), Asked::Turn(0));
        assert_eq!(asked(&with("{\"request_kind\": \"compact\"}"), &body), Asked::Side);
        assert_eq!(asked(&with("{\"thread_source\": \"thread_title\"}"), &body), Asked::Side);
    }
}
