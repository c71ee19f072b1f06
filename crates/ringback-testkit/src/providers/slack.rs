//! Slack's incoming webhooks. Refusals are Slack's words; what follows a colon is the fake's own explanation.

use serde_json::Value;

use super::{Service, is_json, parse, units};
use crate::receiver::Received;

pub(super) fn judge(request: &Received) -> Result<(), (u16, String)> {
    if request.method != "POST" {
        return Err((405, "method_not_allowed".to_owned()));
    }
    if request.path != Service::Slack.path() {
        return Err((404, "no_service".to_owned()));
    }
    if !is_json(request) {
        return Err((400, "invalid_payload".to_owned()));
    }
    check(&request.message.body)
}

pub(super) fn check(body: &[u8]) -> Result<(), (u16, String)> {
    let refused = |why: String| (400, why);
    let body: Value = parse(body).map_err(|_| refused("invalid_payload".to_owned()))?;
    let Some(body) = body.as_object() else { return Err(refused("invalid_payload".to_owned())) };
    let text = body.get("text").and_then(Value::as_str).unwrap_or_default();
    if text.trim().is_empty() {
        return Err(refused("no_text".to_owned()));
    }
    if let Some(unknown) = body.keys().find(|key| !["text", "blocks"].contains(&key.as_str())) {
        return Err(refused(format!("invalid_payload: {unknown}")));
    }
    if units(text) > 40_000 {
        return Err(refused("msg_too_long".to_owned()));
    }
    is_escaped(text, false).map_err(refused)?;
    let Some(blocks) = body.get("blocks") else { return Ok(()) };
    let invalid = |why: String| refused(format!("invalid_blocks: {why}"));
    let blocks = blocks.as_array().ok_or_else(|| invalid("no list".to_owned()))?;
    if blocks.is_empty() || blocks.len() > 50 {
        return Err(invalid(format!("{} blocks", blocks.len())));
    }
    blocks.iter().try_for_each(block).map_err(invalid)
}

fn block(block: &Value) -> Result<(), String> {
    match block["type"].as_str() {
        Some("header") => text(&block["text"], 150, &["plain_text"]),
        Some("section") => {
            if block["text"].is_null() && block["fields"].is_null() {
                return Err("section: neither text nor fields".to_owned());
            }
            if !block["text"].is_null() {
                text(&block["text"], 3_000, &["plain_text", "mrkdwn"])?;
            }
            let fields = block["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
            if fields.len() > 10 || (fields.is_empty() && !block["fields"].is_null()) {
                return Err(format!("{} fields", fields.len()));
            }
            fields.iter().try_for_each(|field| text(field, 2_000, &["plain_text", "mrkdwn"]))
        }
        Some("context") => {
            let elements = block["elements"].as_array().ok_or("context: no elements")?;
            if !(1..=10).contains(&elements.len()) {
                return Err(format!("context: {} elements", elements.len()));
            }
            elements.iter().try_for_each(|element| text(element, 2_000, &["plain_text", "mrkdwn"]))
        }
        Some("actions") => {
            let elements = block["elements"].as_array().ok_or("actions: no elements")?;
            if !(1..=25).contains(&elements.len()) {
                return Err(format!("actions: {} elements", elements.len()));
            }
            elements.iter().try_for_each(button)
        }
        other => Err(format!("unknown block {other:?}")),
    }
}

fn button(button: &Value) -> Result<(), String> {
    let url = button["url"].as_str().unwrap_or_default();
    if button["type"] != "button" || !url.starts_with("https://") || units(url) > 3_000 {
        return Err("a button needs a url".to_owned());
    }
    text(&button["text"], 75, &["plain_text"])
}

fn text(object: &Value, limit: usize, kinds: &[&str]) -> Result<(), String> {
    let kind = object["type"].as_str().unwrap_or_default();
    let text = object["text"].as_str().unwrap_or_default();
    if !kinds.contains(&kind) || text.trim().is_empty() || units(text) > limit {
        return Err(format!("{kind:?} text of {} characters; at most {limit}", units(text)));
    }
    if kind == "mrkdwn" && object["verbatim"] != true && text.contains('@') {
        return Err("names in it would become mentions".to_owned());
    }
    is_escaped(text, kind == "mrkdwn")
}

/// `&`, `<` and `>` only as entities, but for links in markup.
fn is_escaped(text: &str, may_link: bool) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>']) {
        rest = &rest[at..];
        let known = ["&amp;", "&lt;", "&gt;"].into_iter().find(|entity| rest.starts_with(entity));
        rest = match known {
            Some(entity) => &rest[entity.len()..],
            None if rest.starts_with("<!") || rest.starts_with("<@") || rest.starts_with("<#") => {
                return Err("invalid_payload: a mention".to_owned());
            }
            None if may_link && (rest.starts_with("<http://") || rest.starts_with("<https://")) => {
                let Some((link, after)) = rest[1..].split_once('>') else {
                    return Err("invalid_payload: a link without an end".to_owned());
                };
                is_escaped(link, false)?;
                after
            }
            None => return Err("invalid_payload: not escaped".to_owned()),
        };
    }
    Ok(())
}
