//! Discord's "execute webhook" and "create message", which take the same body.
//!
//! Owns: what of a card goes into which part, and Discord's limits on texts. Nobody is mentioned, whatever a text says.
//! A heading makes a card, which is one part; a text is as many parts as it needs.

use ringback_model::delivery::Answer;
use ringback_model::ping::Color;
use ringback_model::ping::embed::{self, Field};
use serde::{Deserialize, Serialize};
use url::Url;

use super::card::Card;
use super::text::{cut, cut_escaped, on_one_line, split, units};
use super::{Request, first_value, wait};

/// Discord asks for this form.
pub const AGENT: &str = concat!("DiscordBot (ringback, ", env!("CARGO_PKG_VERSION"), ")");
/// Units of one message's content.
const CONTENT: usize = 2_000;
/// Units of all texts of an embed together.
const EMBED_TOTAL: usize = 6_000;
/// Units kept free for the footer: its text and a word about what is left out.
const FOOTER: usize = 120;
/// Discord's codes for a webhook that is deleted, and for a token that it does not have any more.
const GONE: [u64; 2] = [10_015, 50_027];

/// The body of "create message" and of "execute webhook".
#[derive(Clone, Debug, Default, Serialize)]
pub struct Part {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embeds: Vec<Embed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Row>,
    allowed_mentions: AllowedMentions,
    /// Same nonce, same message; at most 25 characters. Not for webhooks.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
}

impl Part {
    /// The part with a nonce that Discord compares with those of the last minutes.
    pub fn with_nonce(self, nonce: String) -> Part {
        Part { nonce: Some(Nonce { nonce, enforce_nonce: true }), ..self }
    }
}

/// Nobody: `{"parse":[]}`.
#[derive(Clone, Debug, Default, Serialize)]
struct AllowedMentions {
    parse: [&'static str; 0],
}

#[derive(Clone, Debug, Serialize)]
struct Nonce {
    nonce: String,
    enforce_nonce: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Embed {
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    color: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field>,
    footer: Footer,
}

#[derive(Clone, Debug, Serialize)]
struct Footer {
    text: String,
}

/// Component type 1.
#[derive(Clone, Debug, Serialize)]
struct Row {
    r#type: u8,
    components: Vec<Link>,
}

/// Component type 2, a button, in style 5, a link.
#[derive(Clone, Debug, Serialize)]
struct Link {
    r#type: u8,
    style: u8,
    label: String,
    url: String,
}

/// What is read of Discord's answers; every field is missing in some.
#[derive(Debug, Default, Deserialize)]
pub struct Said {
    /// The id of what was made.
    #[serde(default)]
    pub id: Option<String>,
    /// The kind of error.
    #[serde(default)]
    pub code: Option<u64>,
    /// Seconds, with a fraction.
    #[serde(default)]
    retry_after: Option<f64>,
}

/// The address at which a webhook is executed. `wait` makes Discord answer only when the message is there, so that
/// what is wrong with it is heard. At Discord's own hosts the version of the API is named; elsewhere the path is
/// the operator's.
pub(super) fn execute_url(mut url: Url) -> Url {
    if let Some(path) = webhook_of(&url).map(|(id, token)| format!("/api/v10/webhooks/{id}/{token}"))
        && super::of_host(&url).is_some()
    {
        url.set_path(&path);
    }
    if !url.query_pairs().any(|(name, _)| name == "wait") {
        url.query_pairs_mut().append_pair("wait", "true");
    }
    url
}

/// Id and token of `https://HOST/api/webhooks/ID/TOKEN`, with or without a version after `api`.
pub fn webhook_of(url: &Url) -> Option<(&str, &str)> {
    let segments: Vec<&str> = url.path_segments()?.filter(|segment| !segment.is_empty()).collect();
    let (id, token) = match segments[..] {
        ["api", "webhooks", id, token] => (id, token),
        ["api", version, "webhooks", id, token] if version.starts_with('v') => (id, token),
        _ => return None,
    };
    let is_token = token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (is_id(id) && is_token).then_some((id, token))
}

/// Whether this is an id: a 64-bit number in decimal.
pub fn is_id(id: &str) -> bool {
    (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn requests(url: &Url, card: &Card, most: usize) -> Vec<Request> {
    let requests = parts(card, most).into_iter().filter_map(|part| {
        let mut url = url.clone();
        if !part.components.is_empty() {
            // Without it a webhook's buttons are left out.
            url.query_pairs_mut().append_pair("with_components", "true");
        }
        let request = Request::json(&url, &part)?;
        Some(Request { agent: Some(AGENT), ..request })
    });
    requests.collect()
}

/// Reads Discord's exact wait, and that a webhook is gone.
pub(super) fn read(answer: &mut Answer, body: &[u8]) {
    let said = read_wait(answer, body);
    answer.disable |=
        matches!(answer.status, 401 | 404) && said.code.is_some_and(|code| GONE.contains(&code));
}

/// Reads Discord's exact wait, and what else it says.
pub fn read_wait(answer: &mut Answer, body: &[u8]) -> Said {
    let said: Said = first_value(body).unwrap_or_default();
    wait(answer, said.retry_after);
    said
}

/// The card in parts, in the order of sending; none for one that says nothing.
pub fn parts(card: &Card, most: usize) -> Vec<Part> {
    if card.is_blank() {
        return Vec::new();
    }
    if card.title.trim().is_empty() {
        let contents = split(&card.lines().join("\n"), CONTENT, most).into_iter();
        return contents.map(|content| Part { content: Some(content), ..Part::default() }).collect();
    }
    vec![Part { embeds: vec![embed(card)], components: rows(card), ..Part::default() }]
}

/// The card within Discord's limits. Texts that are too long end with a mark; fields for which there is no room are
/// counted in the footer.
fn embed(card: &Card) -> Embed {
    let ours = own_fields(card);
    let mut room = EMBED_TOTAL - FOOTER;
    room -= ours.iter().map(|field| units(&field.name) + units(&field.value)).sum::<usize>();
    let mut take = |text: &str, limit: usize| {
        let escape = if card.is_literal { escape } else { as_it_is };
        let text = cut_escaped(text, limit.min(room), escape);
        room -= units(&text);
        text
    };
    let title = take(&on_one_line(&card.title), embed::TITLE_CHARS);
    let description = take(card.text.trim(), embed::DESCRIPTION_CHARS);
    let mut fields: Vec<Field> = Vec::new();
    for field in card.fields.iter().take(embed::MAX_FIELDS - ours.len()) {
        let name = take(&field.name, embed::TITLE_CHARS);
        let value = take(&field.value, embed::VALUE_CHARS);
        if name.is_empty() || value.is_empty() {
            break;
        }
        fields.push(Field { name, value, inline: field.inline });
    }
    let footer = footer(&card.footer, card.fields.len() - fields.len());
    fields.extend(ours);
    Embed { title, description, color: rgb(card.color), fields, footer }
}

/// The command and the links that are no buttons. One that is too long would be cut to something else, and is left
/// out.
fn own_fields(card: &Card) -> Vec<Field> {
    let command = card.command.iter().map(|command| {
        // A back quote ends code.
        let shown = if command.contains('`') {
            cut_escaped(command, usize::MAX, escape)
        } else {
            format!("`{command}`")
        };
        ("Resume".to_owned(), shown)
    });
    let links = card.plain_links().take(embed::MAX_BUTTONS);
    let links = links.map(|link| (cut_escaped(&link.label, embed::LABEL_CHARS, escape), link.url.clone()));
    command
        .chain(links)
        .filter(|(name, value)| !name.trim().is_empty() && units(value) <= embed::URL_BYTES)
        .map(|(name, value)| Field { name, value, inline: false })
        .collect()
}

fn footer(text: &str, left_out: usize) -> Footer {
    let mut text = cut(text, 70);
    if left_out > 0 {
        text.push_str(&format!(" \u{b7} {left_out} more fields \u{2026}"));
    }
    Footer { text }
}

fn as_it_is(_: char) -> Option<&'static str> {
    None
}

/// What Discord's markdown acts upon, with a backslash before it.
fn escape(c: char) -> Option<&'static str> {
    Some(match c {
        '\\' => "\\\\",
        '*' => "\\*",
        '_' => "\\_",
        '~' => "\\~",
        '`' => "\\`",
        '|' => "\\|",
        '>' => "\\>",
        '<' => "\\<",
        '#' => "\\#",
        '[' => "\\[",
        ']' => "\\]",
        '(' => "\\(",
        ')' => "\\)",
        _ => return None,
    })
}

fn rgb(color: Color) -> u32 {
    match color {
        Color::Blue => 0x34_98_db,
        Color::Green => 0x2e_cc_71,
        Color::Red => 0xe7_4c_3c,
        Color::Yellow => 0xf1_c4_0f,
        Color::Purple => 0x9b_59_b6,
    }
}

/// One row of links.
fn rows(card: &Card) -> Vec<Row> {
    let links: Vec<Link> = card
        .buttons()
        .map(|link| Link {
            r#type: 2,
            style: 5,
            label: cut(&link.label, embed::LABEL_CHARS),
            url: link.url.clone(),
        })
        .collect();
    if links.is_empty() { Vec::new() } else { vec![Row { r#type: 1, components: links }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wire(card: &Card) -> Value {
        serde_json::to_value(parts(card, 5)).unwrap()
    }

    fn card(fields: usize, chars: usize) -> Card {
        let field = Field { name: "n".repeat(chars), value: "v".repeat(chars), inline: true };
        Card {
            title: "t".repeat(chars),
            text: "d".repeat(chars),
            fields: vec![field; fields],
            color: Color::Red,
            footer: "bg \u{b7} ci".to_owned(),
            ..Card::default()
        }
    }

    fn total(embed: &Value) -> usize {
        let fields = embed["fields"].as_array().into_iter().flatten();
        [&embed["title"], &embed["description"], &embed["footer"]["text"]]
            .into_iter()
            .chain(fields.flat_map(|field| [&field["name"], &field["value"]]))
            .filter_map(Value::as_str)
            .map(units)
            .sum()
    }

    #[test]
    fn a_text_is_content_that_can_mention_nobody() {
        assert_eq!(
            wire(&Card::of_text("@everyone")),
            json!([{"content": "@everyone", "allowed_mentions": {"parse": []}}])
        );
    }

    #[test]
    fn a_part_with_a_nonce_asks_discord_to_enforce_it() {
        let part = parts(&Card::of_text("x"), 1).remove(0).with_nonce("n".to_owned());
        assert_eq!(
            serde_json::to_value(part).unwrap(),
            json!({"content": "x", "allowed_mentions": {"parse": []}, "nonce": "n", "enforce_nonce": true})
        );
    }

    #[test]
    fn a_long_text_is_as_many_parts_as_are_allowed_and_ends_with_a_mark() {
        let parts = wire(&Card::of_text("word ".repeat(10_000)));
        let contents: Vec<&str> =
            parts.as_array().unwrap().iter().map(|part| part["content"].as_str().unwrap()).collect();
        assert_eq!(contents.len(), 5);
        assert!(contents.iter().all(|content| units(content) <= 2_000));
        assert!(contents[4].ends_with('\u{2026}'));
    }

    #[test]
    fn each_text_of_an_embed_is_cut_with_a_mark_at_discords_limit() {
        let embed = wire(&card(1, 5_000))[0]["embeds"][0].clone();
        for (text, limit) in [
            (&embed["title"], 256),
            (&embed["description"], 4_096),
            (&embed["fields"][0]["name"], 256),
            (&embed["fields"][0]["value"], 1_024),
        ] {
            let text = text.as_str().unwrap();
            assert!(text.ends_with('\u{2026}'), "{text}");
            assert_eq!(units(text), limit);
        }
    }

    #[test]
    fn an_embed_holds_six_thousand_characters_and_says_which_fields_it_leaves_out() {
        let embed = wire(&card(25, 250))[0]["embeds"][0].clone();
        let kept = embed["fields"].as_array().unwrap().len();
        assert!(total(&embed) <= 6_000 && kept < 25, "{} in {kept} fields", total(&embed));
        assert!(embed["fields"][kept - 1]["value"].as_str().unwrap().ends_with('\u{2026}'));
        assert_eq!(
            embed["footer"]["text"].as_str().unwrap(),
            format!("bg \u{b7} ci \u{b7} {} more fields \u{2026}", 25 - kept)
        );
    }

    #[test]
    fn the_command_and_the_links_have_room_however_long_the_rest_is() {
        let link = |url: &str| embed::Button { label: "l".to_owned(), url: url.to_owned() };
        let long = Card {
            command: Some("claude --resume x".to_owned()),
            links: vec![link("http://127.0.0.1/"), link("https://ci.example.com/")],
            ..card(25, 250)
        };
        let message = wire(&long)[0].clone();
        let fields = message["embeds"][0]["fields"].as_array().unwrap();
        let last: Vec<&Value> = fields.iter().rev().take(2).map(|field| &field["value"]).collect();
        assert_eq!(last, [&json!("http://127.0.0.1/"), &json!("`claude --resume x`")]);
        assert_eq!(
            message["components"],
            json!([{"type": 1, "components": [
                {"type": 2, "style": 5, "label": "l", "url": "https://ci.example.com/"},
            ]}])
        );
        assert!(total(&message["embeds"][0]) <= 6_000);
    }

    #[test]
    fn a_footer_always_fits_into_the_room_that_is_kept_for_it() {
        assert!(units(&footer(&"s".repeat(200), 25).text) <= FOOTER);
    }
}
