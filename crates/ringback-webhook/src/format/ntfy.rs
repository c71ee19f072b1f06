//! ntfy: JSON to the server's root with the topic in it. JSON that is sent to the topic's own address would be shown
//! as it is.
//!
//! A message is plain text of at most 4,096 bytes; what is longer would become an attached file.

use percent_encoding::percent_decode_str;
use ringback_model::delivery::Answer;
use ringback_model::ping::Color;
use serde_json::{Value, json};
use url::Url;

use super::Request;
use super::card::{Card, Urgency};
use super::text::{cut, cut_bytes, on_one_line};

const MESSAGE_BYTES: usize = 4_096;
const TITLE: usize = 250;
const LABEL: usize = 80;
/// Buttons below one notification.
const ACTIONS: usize = 3;

/// The server's address and the topic in a topic's address. Further segments before the topic are where the server
/// lives; the query stays, since it can hold the authorization.
pub(super) fn root_and_topic(mut url: Url) -> Option<(Url, String)> {
    let segments: Vec<&str> = url.path_segments()?.filter(|segment| !segment.is_empty()).collect();
    let (topic, root) = segments.split_last()?;
    let topic = percent_decode_str(topic).decode_utf8().ok()?.into_owned();
    let is_topic =
        topic.len() <= 64 && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let root = match root {
        [] => "/".to_owned(),
        root => format!("/{}/", root.join("/")),
    };
    if !is_topic {
        return None;
    }
    url.set_path(&root);
    Some((url, topic))
}

pub(super) fn request(url: &Url, topic: &str, card: &Card) -> Option<Request> {
    if card.is_blank() {
        return None;
    }
    let title = on_one_line(&card.title);
    let mut message = card.lines().join("\n");
    if message.is_empty() {
        // Without one ntfy says "triggered".
        message.clone_from(&title);
    }
    let mut body = json!({
        "topic": topic,
        "message": cut_bytes(&message, MESSAGE_BYTES),
        "priority": match card.urgency {
            Urgency::Low => 2,
            Urgency::Normal => 3,
            Urgency::High => 4,
        },
        "tags": [tag(card.color)],
    });
    if !title.is_empty() {
        body["title"] = json!(cut(&title, TITLE));
    }
    if let Some(link) = card.buttons().chain(card.plain_links()).next() {
        body["click"] = json!(link.url);
    }
    let actions: Vec<Value> = card
        .buttons()
        .take(ACTIONS)
        .map(|link| json!({ "action": "view", "label": cut(&on_one_line(&link.label), LABEL), "url": link.url }))
        .collect();
    if !actions.is_empty() {
        body["actions"] = json!(actions);
    }
    Request::json(url, &body)
}

/// ntfy repeats the topic, which opens everything that is sent there. A shorter one can be guessed anyway, and hiding
/// it would spoil unrelated words.
pub(super) fn read(answer: &mut Answer, topic: &str) {
    if topic.len() >= 4 {
        answer.excerpt = answer.excerpt.replace(topic, "***");
    }
}

/// ntfy shows these words as emoji.
fn tag(color: Color) -> &'static str {
    match color {
        Color::Blue => "robot",
        Color::Green => "white_check_mark",
        Color::Red => "rotating_light",
        Color::Yellow => "bell",
        Color::Purple => "zzz",
    }
}
