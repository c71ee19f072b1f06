//! ntfy's publishing as JSON.

use serde::Deserialize;
use serde_json::json;

use super::{Service, is_json, parse};
use crate::receiver::Received;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    topic: String,
    message: Option<String>,
    title: Option<String>,
    priority: Option<i64>,
    #[serde(default)]
    tags: Vec<String>,
    click: Option<String>,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action: String,
    label: String,
    url: String,
}

pub(super) fn judge(request: &Received) -> Result<(), (u16, String)> {
    if request.path != "/" || !is_json(request) {
        return Err(refused(40_002, "JSON is published at the root; elsewhere it would be shown as it is"));
    }
    check(&request.message.body)
}

pub(super) fn check(body: &[u8]) -> Result<(), (u16, String)> {
    let publish: Publish = parse(body).map_err(|why| {
        refused(40_024, &format!("invalid request: request body must be valid JSON: {why}"))
    })?;
    let is_topic = (1..=64).contains(&publish.topic.len())
        && publish.topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_topic {
        return Err(refused(40_009, "invalid request: topic invalid"));
    }
    if publish.topic != Service::Ntfy.path().trim_start_matches('/') {
        return Err((403, json!({"code": 40_301, "http": 403, "error": "forbidden"}).to_string()));
    }
    let message = publish.message.unwrap_or_default();
    if message.is_empty() {
        return Err(refused(40_000, "an empty message is shown as \"triggered\""));
    }
    if message.len() > 4_096 {
        return Err(refused(40_000, "a message over 4096 bytes becomes an attachment"));
    }
    if publish.priority.is_some_and(|priority| !(1..=5).contains(&priority)) {
        return Err(refused(40_007, "invalid request: priority invalid"));
    }
    if publish.title.is_some_and(|title| title.trim().is_empty() || title.len() > 1_024)
        || publish.tags.iter().any(String::is_empty)
    {
        return Err(refused(40_000, "an empty or endless title, or an empty tag"));
    }
    let is_web = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if publish.click.is_some_and(|url| !is_web(&url)) {
        return Err(refused(40_000, "click must be a url"));
    }
    let is_action = |a: &Action| a.action == "view" && !a.label.trim().is_empty() && is_web(&a.url);
    if publish.actions.len() > 3 || !publish.actions.iter().all(is_action) {
        return Err(refused(40_018, "invalid request: actions invalid; only 3 actions allowed"));
    }
    Ok(())
}

fn refused(code: u64, error: &str) -> (u16, String) {
    (400, json!({ "code": code, "http": 400, "error": error }).to_string())
}
