//! A message in Discord's JSON, within Discord's limits.
//!
//! Owns: what of a message goes into which part, and every limit on texts. Does not know routes, tokens or answers.
//! A card is one part; a text is up to [`MOST_PARTS`].

use ringback_model::ping::Embed;
use ringback_model::ping::embed::{self, Button, Color, Field};
use serde::Serialize;
use url::Url;

use super::Message;
use super::split::{cut, split, units};

/// Units of one message's content.
const CONTENT: usize = 2_000;
/// Messages that one text becomes at most.
const MOST_PARTS: usize = 5;
/// Units of all texts of an embed together.
const EMBED_TOTAL: usize = 6_000;
/// Units kept free for the footer: the source and a word about what is left out.
const FOOTER: usize = 120;

/// The body of "create message" and of "execute webhook".
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Part {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embeds: Vec<Card>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Row>,
    allowed_mentions: AllowedMentions,
    /// Same nonce, same message; at most 25 characters. Not for webhooks.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
}

impl Part {
    /// The part with a nonce that Discord compares with those of the last minutes.
    pub(super) fn with_nonce(self, nonce: String) -> Part {
        Part { nonce: Some(Nonce { nonce, enforce_nonce: true }), ..self }
    }

    /// Whether the part has buttons.
    pub(super) fn has_components(&self) -> bool {
        !self.components.is_empty()
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
struct Card {
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

/// The message in parts, in the order of sending; none for a message that says nothing.
pub(super) fn parts(message: &Message) -> Vec<Part> {
    match &message.embed {
        Some(embed) => vec![Part {
            embeds: vec![card(embed, message.source.as_deref())],
            components: rows(&embed.buttons),
            ..Part::default()
        }],
        None => split(&message.text, CONTENT, MOST_PARTS)
            .into_iter()
            .map(|content| Part { content: Some(content), ..Part::default() })
            .collect(),
    }
}

/// The embed within Discord's limits. Texts that are too long end with a mark; fields for which there is no room are
/// counted in the footer.
fn card(embed: &Embed, source: Option<&str>) -> Card {
    let mut room = EMBED_TOTAL - FOOTER;
    let mut take = |text: &str, limit: usize| {
        let text = cut(text, limit.min(room));
        room -= units(&text);
        text
    };
    let title = take(&embed.title, embed::TITLE_CHARS);
    let description = take(&embed.description, embed::DESCRIPTION_CHARS);
    let mut fields: Vec<Field> = Vec::new();
    for field in embed.fields.iter().take(embed::MAX_FIELDS) {
        let name = take(&field.name, embed::TITLE_CHARS);
        let value = take(&field.value, embed::VALUE_CHARS);
        if name.is_empty() || value.is_empty() {
            break;
        }
        fields.push(Field { name, value, inline: field.inline });
    }
    let footer = footer(source, embed.fields.len() - fields.len());
    Card { title, description, color: rgb(embed.color), fields, footer }
}

fn footer(source: Option<&str>, left_out: usize) -> Footer {
    let mut text = "bg".to_owned();
    if let Some(source) = source {
        text.push_str(&format!(" \u{b7} {}", cut(source, 64)));
    }
    if left_out > 0 {
        text.push_str(&format!(" \u{b7} {left_out} more fields \u{2026}"));
    }
    Footer { text }
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

/// One row of links. A button whose link is not https or none at all is left out: Discord would refuse the message.
fn rows(buttons: &[Button]) -> Vec<Row> {
    let links: Vec<Link> = buttons
        .iter()
        .filter(|button| Url::parse(&button.url).is_ok_and(|url| url.scheme() == "https"))
        .filter(|button| units(&button.url) <= embed::URL_BYTES)
        .take(embed::MAX_BUTTONS)
        .map(|button| Link {
            r#type: 2,
            style: 5,
            label: cut(&button.label, embed::LABEL_CHARS),
            url: button.url.clone(),
        })
        .collect();
    if links.is_empty() { Vec::new() } else { vec![Row { r#type: 1, components: links }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wire(message: &Message) -> Value {
        serde_json::to_value(parts(message)).unwrap()
    }

    fn embed(fields: usize, chars: usize) -> Embed {
        let field = Field { name: "n".repeat(chars), value: "v".repeat(chars), inline: true };
        Embed {
            title: "t".repeat(chars),
            description: "d".repeat(chars),
            color: Color::Red,
            fields: vec![field; fields],
            buttons: Vec::new(),
        }
    }

    fn of(embed: Embed) -> Message {
        Message { embed: Some(embed), source: Some("ci".to_owned()), ..Message::of_text("as text") }
    }

    fn total(card: &Value) -> usize {
        let fields = card["fields"].as_array().into_iter().flatten();
        [&card["title"], &card["description"], &card["footer"]["text"]]
            .into_iter()
            .chain(fields.flat_map(|field| [&field["name"], &field["value"]]))
            .filter_map(Value::as_str)
            .map(units)
            .sum()
    }

    #[test]
    fn a_text_is_content_that_can_mention_nobody() {
        assert_eq!(
            wire(&Message::of_text("@everyone")),
            json!([{"content": "@everyone", "allowed_mentions": {"parse": []}}])
        );
    }

    #[test]
    fn a_part_with_a_nonce_asks_discord_to_enforce_it() {
        let part = parts(&Message::of_text("x")).remove(0).with_nonce("n".to_owned());
        assert_eq!(
            serde_json::to_value(part).unwrap(),
            json!({"content": "x", "allowed_mentions": {"parse": []}, "nonce": "n", "enforce_nonce": true})
        );
    }

    #[test]
    fn a_long_text_is_five_parts_at_most() {
        let parts = wire(&Message::of_text("word ".repeat(10_000)));
        let contents: Vec<&str> =
            parts.as_array().unwrap().iter().map(|part| part["content"].as_str().unwrap()).collect();
        assert_eq!(contents.len(), 5);
        assert!(contents.iter().all(|content| units(content) <= 2_000));
        assert!(contents[4].ends_with('\u{2026}'));
    }

    #[test]
    fn an_embed_is_a_card_with_its_source_in_the_footer_and_links_as_buttons() {
        let mut embed = embed(1, 1);
        embed.buttons = vec![
            Button { label: "Log".to_owned(), url: "https://ci.example.com/1".to_owned() },
            Button { label: "not https".to_owned(), url: "http://ci.example.com/1".to_owned() },
            Button { label: "no link".to_owned(), url: "https://ci.example.com:port/".to_owned() },
        ];
        assert_eq!(
            wire(&of(embed)),
            json!([{
                "embeds": [{
                    "title": "t", "description": "d", "color": 0xe7_4c_3c,
                    "fields": [{"name": "n", "value": "v", "inline": true}],
                    "footer": {"text": "bg \u{b7} ci"},
                }],
                "components": [{"type": 1, "components": [
                    {"type": 2, "style": 5, "label": "Log", "url": "https://ci.example.com/1"},
                ]}],
                "allowed_mentions": {"parse": []},
            }])
        );
    }

    #[test]
    fn each_text_of_an_embed_is_cut_with_a_mark_at_discords_limit() {
        let card = wire(&of(embed(1, 5_000)))[0]["embeds"][0].clone();
        for (text, limit) in [
            (&card["title"], 256),
            (&card["description"], 4_096),
            (&card["fields"][0]["name"], 256),
            (&card["fields"][0]["value"], 1_024),
        ] {
            let text = text.as_str().unwrap();
            assert!(text.ends_with('\u{2026}'), "{text}");
            assert_eq!(units(text), limit);
        }
    }

    #[test]
    fn an_embed_holds_six_thousand_characters_and_says_which_fields_it_leaves_out() {
        let card = wire(&of(embed(25, 250)))[0]["embeds"][0].clone();
        let kept = card["fields"].as_array().unwrap().len();
        assert!(total(&card) <= 6_000 && kept < 25, "{} in {kept} fields", total(&card));
        assert!(card["fields"][kept - 1]["value"].as_str().unwrap().ends_with('\u{2026}'));
        assert_eq!(
            card["footer"]["text"].as_str().unwrap(),
            format!("bg \u{b7} ci \u{b7} {} more fields \u{2026}", 25 - kept)
        );

        let mut wide = embed(25, 1);
        wide.description = "\u{1f600}".repeat(4_096);
        let card = wire(&of(wide))[0]["embeds"][0].clone();
        assert!(units(card["description"].as_str().unwrap()) <= 4_096);
        assert_eq!(card["fields"].as_array().unwrap().len(), 25);
    }

    #[test]
    fn a_footer_always_fits_into_the_room_that_is_kept_for_it() {
        assert!(units(&footer(Some(&"s".repeat(200)), 25).text) <= FOOTER);
    }
}
