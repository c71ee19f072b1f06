//! Slack's incoming webhooks: a text, or blocks with a text for where blocks are not shown.
//!
//! `&`, `<` and `>` are escaped everywhere, which is all that Slack asks for and leaves no mention and no link of
//! anybody's making. Limits: a text 40,000 characters, a heading 150, a section 3,000, one of its ten fields 2,000, a
//! button 75; fifty blocks.

use ringback_model::delivery::Answer;
use serde_json::{Value, json};
use url::Url;

use super::Request;
use super::card::Card;
use super::text::{cut_escaped, on_one_line};

const TEXT: usize = 40_000;
/// What stands in for the blocks.
const FALLBACK: usize = 3_000;
const HEADER: usize = 150;
const SECTION: usize = 3_000;
const FIELD: usize = 2_000;
const FIELDS: usize = 10;
const LABEL: usize = 75;
/// What Slack answers when the webhook, or what it belongs to, is gone.
const GONE: &[&str] = &["no_service", "no_service_id", "no_active_hooks", "no_team"];

pub(super) fn request(url: &Url, card: &Card) -> Option<Request> {
    if card.is_blank() {
        return None;
    }
    let body = if card.title.trim().is_empty() {
        json!({ "text": escaped(&card.lines().join("\n"), TEXT) })
    } else {
        let summary = format!("{}\n{}", card.title.trim(), card.lines().join("\n"));
        json!({ "text": escaped(summary.trim(), FALLBACK), "blocks": blocks(card) })
    };
    Request::json(url, &body)
}

/// Reads `no_service` and its like, which come as 404 and mean that nobody will ever answer there again.
pub(super) fn read(answer: &mut Answer, body: &[u8]) {
    let word = String::from_utf8_lossy(body);
    answer.disable |= matches!(answer.status, 403 | 404) && GONE.contains(&word.trim());
}

fn blocks(card: &Card) -> Vec<Value> {
    let mut blocks = vec![json!({ "type": "header", "text": plain(&on_one_line(&card.title), HEADER) })];
    if !card.text.trim().is_empty() {
        blocks.push(json!({ "type": "section", "text": said(card, card.text.trim(), SECTION) }));
    }
    for fields in card.fields.chunks(FIELDS) {
        let shown: Vec<Value> = fields
            .iter()
            .map(|field| said(card, &format!("{}\n{}", field.name, field.value), FIELD))
            .collect();
        blocks.push(json!({ "type": "section", "fields": shown }));
    }
    if let Some(command) = &card.command {
        blocks.push(json!({ "type": "section", "text": code(command) }));
    }
    let links: Vec<String> = card.plain_links().map(|link| linked(&link.label, &link.url)).collect();
    // A link that does not fit is left out whole.
    if !links.is_empty() && links.join("\n").len() <= SECTION {
        blocks.push(json!({ "type": "section", "text": marked_up(links.join("\n")) }));
    }
    let buttons: Vec<Value> = card
        .buttons()
        .map(|link| json!({ "type": "button", "text": plain(&on_one_line(&link.label), LABEL), "url": link.url }))
        .collect();
    if !buttons.is_empty() {
        blocks.push(json!({ "type": "actions", "elements": buttons }));
    }
    if !card.footer.is_empty() {
        blocks.push(json!({ "type": "context", "elements": [plain(&card.footer, FIELD)] }));
    }
    blocks
}

/// What an agent wrote may have Slack's stars and lines; what an event says is shown as it is.
fn said(card: &Card, text: &str, limit: usize) -> Value {
    if card.is_literal { plain(text, limit) } else { marked_up(escaped(text, limit)) }
}

fn plain(text: &str, limit: usize) -> Value {
    json!({ "type": "plain_text", "text": escaped(text, limit), "emoji": false })
}

/// `verbatim`: names of channels and people in it stay text.
fn marked_up(text: String) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

/// A command that holds a back quote cannot be code, and is shown as it is.
fn code(command: &str) -> Value {
    if command.contains('`') {
        return plain(&format!("Resume: {command}"), SECTION);
    }
    marked_up(format!("Resume: `{}`", escaped(command, SECTION - 20)))
}

/// Slack's own form of a link, in which `|` and `>` are the end of the address.
fn linked(label: &str, url: &str) -> String {
    let url = url.replace('|', "%7C").replace('<', "%3C").replace('>', "%3E").replace('&', "&amp;");
    format!("<{url}|{}>", escaped(&label.replace('|', "/"), LABEL))
}

fn escaped(text: &str, limit: usize) -> String {
    cut_escaped(text, limit, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}
