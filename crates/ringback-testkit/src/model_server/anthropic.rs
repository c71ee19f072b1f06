//! Anthropic Messages: `POST /v1/messages`, as a stream of events or as one JSON.

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use uuid::Uuid;

use super::script::{Input, Turn};
use super::{Asked, Connection, Events, Shared, answer_json, pieces, text_of, tokens};
use crate::http::Request;

pub(super) async fn answer(
    stream: &mut BufReader<TcpStream>,
    request: &Request,
    shared: &Shared,
) -> std::io::Result<Connection> {
    let Ok(body) = serde_json::from_slice::<Value>(&request.message.body) else {
        let error =
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no JSON"}});
        return answer_json(stream, 400, Some(&error)).await;
    };
    let asked = asked(&body);
    shared.log(request, asked);
    let turn = shared.turn(asked);
    let content = content(&turn, &body);
    let mut message = json!({
        "id": format!("msg_{}", Uuid::new_v4().simple()),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {
            "input_tokens": tokens(request.message.body.len()),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 1,
        },
    });
    let stop = if turn.tools.is_empty() { "end_turn" } else { "tool_use" };
    let output_tokens = tokens(content.iter().map(|c| c.to_string().len()).sum());

    if body["stream"] != json!(true) {
        tokio::time::sleep(turn.delay).await;
        message["usage"]["output_tokens"] = json!(output_tokens);
        message["content"] = Value::Array(content);
        message["stop_reason"] = json!(stop);
        shared.note_end_of(&turn, asked);
        return answer_json(stream, 200, Some(&message)).await;
    }

    let mut usage = message["usage"].clone();
    usage["output_tokens"] = json!(output_tokens);
    let mut events = Events::open(stream).await?;
    events.send(&json!({"type": "message_start", "message": message})).await?;
    events.think(turn.delay, &json!({"type": "ping"})).await?;
    for (index, block) in content.iter().enumerate() {
        send_block(&mut events, index, block).await?;
    }
    shared.note_end_of(&turn, asked);
    events
        .send(&json!({
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": usage,
        }))
        .await?;
    events.send(&json!({"type": "message_stop"})).await?;
    Ok(Connection::Used)
}

/// The turn is the number of the assistant's messages. A ping for the quota asks for one token; a title or a topic
/// is asked for without tools and with a short system prompt that says so.
fn asked(body: &Value) -> Asked {
    let system = text_of(&body["system"]).to_lowercase();
    let toolless = body["tools"].as_array().is_none_or(Vec::is_empty);
    let small = ["title", "topic", "summar"].iter().any(|word| system.contains(word)) && system.len() < 4000;
    if body["max_tokens"] == json!(1) || (toolless && small) {
        return Asked::Side;
    }
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    Asked::Turn(messages.iter().filter(|m| m["role"] == "assistant").count())
}

fn content(turn: &Turn, body: &Value) -> Vec<Value> {
    let mut content = Vec::new();
    let wants_thinking = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    if let Some(thinking) = turn.thinking.as_ref().filter(|_| wants_thinking) {
        content.push(json!({"type": "thinking", "thinking": thinking, "signature": "c2NyaXB0ZWQ="}));
    }
    if let Some(text) = &turn.text {
        content.push(json!({"type": "text", "text": text}));
    }
    for tool in &turn.tools {
        let input = match &tool.input {
            Input::Json(input) => input.clone(),
            Input::Freeform(text) => json!({"input": text}),
        };
        let id = format!("toolu_{}", Uuid::new_v4().simple());
        content.push(json!({"type": "tool_use", "id": id, "name": tool.name, "input": input}));
    }
    content
}

/// One block: an empty start, its content in pieces, its end.
async fn send_block(events: &mut Events<'_>, index: usize, block: &Value) -> std::io::Result<()> {
    let mut start = block.clone();
    let deltas: Vec<(&str, &str, String)> = match block["type"].as_str() {
        Some("tool_use") => {
            start["input"] = json!({});
            vec![("input_json_delta", "partial_json", block["input"].to_string())]
        }
        Some("thinking") => {
            start["thinking"] = json!("");
            start["signature"] = json!("");
            vec![
                ("thinking_delta", "thinking", text(block, "thinking")),
                ("signature_delta", "signature", text(block, "signature")),
            ]
        }
        _ => {
            start["text"] = json!("");
            vec![("text_delta", "text", text(block, "text"))]
        }
    };
    events.send(&json!({"type": "content_block_start", "index": index, "content_block": start})).await?;
    for (kind, key, whole) in deltas {
        for piece in pieces(&whole) {
            let delta = json!({"type": kind, key: piece});
            events.send(&json!({"type": "content_block_delta", "index": index, "delta": delta})).await?;
        }
    }
    events.send(&json!({"type": "content_block_stop", "index": index})).await
}

fn text(block: &Value, key: &str) -> String {
    block[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_is_the_number_of_assistant_messages_and_side_requests_take_none() {
        let messages = json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
            {"role": "user", "content": "go on"},
        ]);
        let tools = json!([{"name": "Read"}]);
        assert_eq!(asked(&json!({"messages": messages, "tools": tools})), Asked::Turn(1));
        assert_eq!(asked(&json!({"messages": [], "tools": tools})), Asked::Turn(0));
        assert_eq!(asked(&json!({"messages": messages, "tools": tools, "max_tokens": 1})), Asked::Side);
        let title = json!([{"type": "text", "text": "Write a short title for this conversation."}]);
        assert_eq!(asked(&json!({"messages": messages, "system": title})), Asked::Side);
        assert_eq!(asked(&json!({"messages": messages, "system": title, "tools": tools})), Asked::Turn(1));
    }
}
