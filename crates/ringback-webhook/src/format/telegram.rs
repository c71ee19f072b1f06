//! Telegram's `sendMessage`.
//!
//! Formatting goes beside the text, as ranges of UTF-16 units, and not into it: no text can be markup, and none can
//! fail to parse. A text has at most 4,096 units.

use ringback_model::delivery::Answer;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::card::Card;
use super::text::{cut, on_one_line, split, units};
use super::{Request, first_value, wait};

const TEXT: usize = 4_096;
const LABEL: usize = 64;

/// Where a bot writes to.
pub(super) struct Chat {
    /// A number, or the `@name` of a channel.
    id: String,
    /// A topic of a forum.
    thread: Option<i64>,
}

/// The method's address and the chat in an address such as
/// `https://api.telegram.org/botTOKEN/sendMessage?chat_id=CHAT`; the method may be left out.
pub(super) fn method_and_chat(mut url: Url) -> Option<(Url, Chat)> {
    let mut id = None;
    let mut thread = None;
    let mut rest = Vec::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "chat_id" => id = Some(value.trim().to_owned()).filter(|id| !id.is_empty()),
            "message_thread_id" => thread = Some(value.trim().parse().ok()?),
            _ => rest.push((name.into_owned(), value.into_owned())),
        }
    }
    url.set_query(None);
    if !rest.is_empty() {
        url.query_pairs_mut().extend_pairs(rest);
    }
    let segments: Vec<&str> = url.path_segments()?.filter(|segment| !segment.is_empty()).collect();
    let path = match segments.last()? {
        // A token is an id, a colon and a secret; the method is a word.
        last if last.starts_with("bot") && last.contains(':') => {
            format!("/{}/sendMessage", segments.join("/"))
        }
        _ => format!("/{}", segments.join("/")),
    };
    url.set_path(&path);
    Some((url, Chat { id: id?, thread }))
}

pub(super) fn requests(url: &Url, chat: &Chat, card: &Card, most: usize) -> Vec<Request> {
    if card.is_blank() {
        return Vec::new();
    }
    if card.title.trim().is_empty() {
        let parts = split(&card.lines().join("\n"), TEXT, most).into_iter();
        return parts.filter_map(|text| Request::json(url, &body(chat, text, Vec::new()))).collect();
    }
    let rich = rich(card);
    let text = cut(&rich.text, TEXT);
    let entities = rich.entities_within(units(&text));
    let mut body = body(chat, text, entities);
    let rows: Vec<Value> = card
        .buttons()
        .map(|link| json!([{ "text": cut(&on_one_line(&link.label), LABEL), "url": link.url }]))
        .collect();
    if !rows.is_empty() {
        body["reply_markup"] = json!({ "inline_keyboard": rows });
    }
    Request::json(url, &body).into_iter().collect()
}

/// What is read of Telegram's answers.
#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    retry_after: Option<f64>,
}

/// Reads the wait of a 429. 401 is a token that was taken back: it never works again.
pub(super) fn read(answer: &mut Answer, body: &[u8]) {
    let said: Said = first_value(body).unwrap_or_default();
    wait(answer, said.parameters.retry_after);
    answer.disable |= answer.status == 401;
}

fn body(chat: &Chat, text: String, entities: Vec<Value>) -> Value {
    // A number where it is one: that is how Telegram writes it.
    let id = chat.id.parse::<i64>().map_or_else(|_| json!(chat.id), |id| json!(id));
    let mut body = json!({ "chat_id": id, "text": text, "link_preview_options": { "is_disabled": true } });
    if !entities.is_empty() {
        body["entities"] = json!(entities);
    }
    if let Some(thread) = chat.thread {
        body["message_thread_id"] = json!(thread);
    }
    body
}

/// A text and what stands out in it.
#[derive(Default)]
struct Rich {
    text: String,
    /// Kind, offset and length in UTF-16 units.
    ranges: Vec<(&'static str, usize, usize)>,
    /// The text's length.
    end: usize,
}

fn rich(card: &Card) -> Rich {
    let mut rich = Rich::default();
    rich.push(&on_one_line(&card.title), Some("bold"));
    if !card.text.trim().is_empty() {
        rich.push("\n", None);
        rich.push(card.text.trim(), None);
    }
    for field in &card.fields {
        rich.push("\n", None);
        rich.push(&format!("{}:", field.name), Some("bold"));
        rich.push(&format!(" {}", field.value), None);
    }
    if let Some(command) = &card.command {
        rich.push("\n", None);
        rich.push(command, Some("code"));
    }
    for link in card.plain_links() {
        rich.push(&format!("\n{}: {}", link.label, link.url), None);
    }
    if !card.footer.is_empty() {
        rich.push("\n", None);
        rich.push(&card.footer, Some("italic"));
    }
    rich
}

impl Rich {
    fn push(&mut self, text: &str, kind: Option<&'static str>) {
        let length = units(text);
        if let Some(kind) = kind
            && length > 0
        {
            self.ranges.push((kind, self.end, length));
        }
        self.text.push_str(text);
        self.end += length;
    }

    /// The ranges in a text that was cut to `end` units.
    fn entities_within(&self, end: usize) -> Vec<Value> {
        let inside = self.ranges.iter().filter(|(_, offset, _)| *offset < end);
        inside
            .map(|(kind, offset, length)| {
                json!({ "type": kind, "offset": offset, "length": length.min(&(end - offset)) })
            })
            .collect()
    }
}
