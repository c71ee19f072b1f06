//! Telegram's `sendMessage`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Service, is_json, parse, units};
use crate::receiver::Received;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendMessage {
    chat_id: Option<Value>,
    text: String,
    #[serde(default)]
    entities: Vec<Entity>,
    #[serde(rename = "message_thread_id")]
    _thread: Option<i64>,
    reply_markup: Option<Keyboard>,
    #[serde(rename = "link_preview_options")]
    _previews: Option<Previews>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Previews {
    #[serde(rename = "is_disabled")]
    _is_disabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    r#type: String,
    offset: usize,
    length: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyboard {
    inline_keyboard: Vec<Vec<Button>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Button {
    text: String,
    url: String,
}

pub(super) fn judge(request: &Received) -> Result<(), (u16, String)> {
    let (path, _) = Service::Telegram.path().split_once('?').unwrap_or_default();
    if request.path != path {
        let is_method = request.path.ends_with("/sendMessage");
        let (status, why) = if is_method { (401, "Unauthorized") } else { (404, "Not Found") };
        return Err((status, json!({"ok": false, "error_code": status, "description": why}).to_string()));
    }
    if !is_json(request) {
        return Err(refused("message text is empty"));
    }
    check(&request.message.body)
}

pub(super) fn check(body: &[u8]) -> Result<(), (u16, String)> {
    let message: SendMessage =
        parse(body).map_err(|why| refused(&format!("can't parse request JSON object: {why}")))?;
    match &message.chat_id {
        None => return Err(refused("chat_id is empty")),
        Some(id) if *id != json!(-1_000_002) => return Err(refused("chat not found")),
        Some(_) => {}
    }
    if message.text.trim().is_empty() {
        return Err(refused("message text is empty"));
    }
    if units(&message.text) > 4_096 {
        return Err(refused("message is too long"));
    }
    if message.text.starts_with(char::is_whitespace) && !message.entities.is_empty() {
        return Err(refused("can't parse entities: white space before the text is cut off and moves them"));
    }
    let ends: Vec<usize> = message
        .text
        .chars()
        .scan(0, |end, c| {
            *end += c.len_utf16();
            Some(*end)
        })
        .collect();
    let is_border = |at: usize| at == 0 || ends.binary_search(&at).is_ok();
    for Entity { r#type, offset, length } in &message.entities {
        let is_known = ["bold", "italic", "code"].contains(&r#type.as_str());
        if !is_known || *length == 0 || !is_border(*offset) || !is_border(offset + length) {
            return Err(refused(&format!("can't parse entities: {type} at {offset}, {length} long")));
        }
    }
    for button in message.reply_markup.iter().flat_map(|keyboard| keyboard.inline_keyboard.iter().flatten()) {
        let host = button.url.strip_prefix("https://").unwrap_or_default();
        if button.text.trim().is_empty()
            || !host.split(['/', '?', '#', ':']).next().is_some_and(|h| h.contains('.'))
        {
            return Err(refused(&format!(
                "inline keyboard button URL '{}' is invalid: Wrong HTTP URL",
                button.url
            )));
        }
    }
    Ok(())
}

fn refused(why: &str) -> (u16, String) {
    let description = format!("Bad Request: {why}");
    (400, json!({ "ok": false, "error_code": 400, "description": description }).to_string())
}
