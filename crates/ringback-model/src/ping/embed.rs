//! A card for the user: the arguments of `discord_embed`, checked, and the same as plain text.
//!
//! Owns: what an embed may hold. Does not know any notifier's wire format; the limits of a single text are Discord's,
//! the limit over a whole embed is kept by its notifier.

use serde::{Deserialize, Serialize};

use crate::escape;
use crate::ids::{UnknownWord, words};

words! {
    /// Colour of an embed's edge.
    #[derive(Default)]
    Color, "color" {
        /// For information.
        #[default]
        Blue = "blue",
        /// Went well.
        Green = "green",
        /// Went wrong.
        Red = "red",
        /// Wants attention.
        Yellow = "yellow",
        /// Anything else.
        Purple = "purple",
    }
}

/// Fields of one embed.
pub const MAX_FIELDS: usize = 25;
/// Buttons under one embed.
pub const MAX_BUTTONS: usize = 5;
/// Characters of a title and of a field's name.
pub const TITLE_CHARS: usize = 256;
/// Characters of a description.
pub const DESCRIPTION_CHARS: usize = 4_096;
/// Characters of a field's value.
pub const VALUE_CHARS: usize = 1_024;
/// Characters of a button's label.
pub const LABEL_CHARS: usize = 80;
/// Bytes of a button's link; a cut link would lead elsewhere, so a longer one is refused.
pub const URL_BYTES: usize = 512;

/// The arguments of `discord_embed`, as an agent sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EmbedInput {
    /// Heading.
    pub title: String,
    /// Text below it.
    #[serde(default)]
    pub description: Option<String>,
    /// One of [`Color`]; default blue.
    #[serde(default)]
    pub color: Option<String>,
    /// At most [`MAX_FIELDS`].
    #[serde(default)]
    pub fields: Vec<FieldInput>,
    /// At most [`MAX_BUTTONS`].
    #[serde(default)]
    pub buttons: Vec<Button>,
    /// See [`PingCheck::critical`](crate::ping::PingCheck::critical).
    #[serde(default)]
    pub critical: bool,
}

/// One field, as an agent sends it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FieldInput {
    /// Its heading.
    pub name: String,
    /// Its text.
    pub value: String,
    /// Beside its neighbours; default true.
    #[serde(default)]
    pub inline: Option<bool>,
}

/// An embed that can be sent. Texts over their limit were cut with a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embed {
    /// Heading; not empty.
    pub title: String,
    /// Text below it; may be empty.
    pub description: String,
    /// Colour of the edge.
    pub color: Color,
    /// At most [`MAX_FIELDS`].
    pub fields: Vec<Field>,
    /// At most [`MAX_BUTTONS`].
    pub buttons: Vec<Button>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its heading; not empty.
    pub name: String,
    /// Its text; not empty.
    pub value: String,
    /// Beside its neighbours.
    pub inline: bool,
}

/// A link below an embed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Button {
    /// What it says; not empty.
    pub label: String,
    /// An https link.
    pub url: String,
}

/// Why an embed is not sent; the text is the tool's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEmbed {
    /// A text that must say something does not.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// No such colour.
    #[error(transparent)]
    Color(#[from] UnknownWord),
    /// Over [`MAX_FIELDS`].
    #[error("{0} fields; at most {MAX_FIELDS} are possible")]
    TooManyFields(usize),
    /// Over [`MAX_BUTTONS`].
    #[error("{0} buttons; at most {MAX_BUTTONS} are possible")]
    TooManyButtons(usize),
    /// The link of the numbered button, from 1, is none, not https, or too long.
    #[error("button {0}: url must be an https link of at most {URL_BYTES} characters")]
    Link(usize),
}

impl Embed {
    /// Checks an agent's arguments.
    ///
    /// Agents often write a line break as backslash and n; in descriptions and values that becomes a line break.
    pub fn from_input(input: &EmbedInput) -> Result<Embed, InvalidEmbed> {
        if input.fields.len() > MAX_FIELDS {
            return Err(InvalidEmbed::TooManyFields(input.fields.len()));
        }
        if input.buttons.len() > MAX_BUTTONS {
            return Err(InvalidEmbed::TooManyButtons(input.buttons.len()));
        }
        let description = input.description.as_deref().unwrap_or_default().replace("\\n", "\n");
        Ok(Embed {
            title: text("title", &input.title, TITLE_CHARS)?,
            description: escape::cut_with_mark(description.trim(), DESCRIPTION_CHARS),
            color: input.color.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            fields: input.fields.iter().map(field).collect::<Result<_, _>>()?,
            buttons: (1..).zip(&input.buttons).map(|(n, b)| button(n, b)).collect::<Result<_, _>>()?,
        })
    }

    /// The embed for notifiers that know only text: `[bg] TITLE`, then the description, each field and each button
    /// on lines of their own.
    pub fn as_text(&self) -> String {
        let mut out = format!("[bg] {}", self.title);
        if !self.description.is_empty() {
            out.push_str(&format!("\n{}", self.description));
        }
        for field in &self.fields {
            out.push_str(&format!("\n{}: {}", field.name, field.value));
        }
        for button in &self.buttons {
            out.push_str(&format!("\n{}: {}", button.label, button.url));
        }
        out
    }
}

fn field(input: &FieldInput) -> Result<Field, InvalidEmbed> {
    Ok(Field {
        name: text("field name", &input.name, TITLE_CHARS)?,
        value: text("field value", &input.value.replace("\\n", "\n"), VALUE_CHARS)?,
        inline: input.inline.unwrap_or(true),
    })
}

fn button(number: usize, input: &Button) -> Result<Button, InvalidEmbed> {
    if !is_https_link(&input.url) {
        return Err(InvalidEmbed::Link(number));
    }
    Ok(Button { label: text("button label", &input.label, LABEL_CHARS)?, url: input.url.clone() })
}

fn text(what: &'static str, text: &str, chars: usize) -> Result<String, InvalidEmbed> {
    match text.trim() {
        "" => Err(InvalidEmbed::Empty(what)),
        text => Ok(escape::cut_with_mark(text, chars)),
    }
}

/// A link with a host and without credentials, white space, backslashes or hidden characters: what the user reads is
/// where it leads.
fn is_https_link(url: &str) -> bool {
    let Some(rest) = url.get(..8).filter(|s| s.eq_ignore_ascii_case("https://")).map(|_| &url[8..]) else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    url.len() <= URL_BYTES
        && !host.is_empty()
        && !host.starts_with(':')
        && !host.contains('@')
        && !url.chars().any(|c| c.is_whitespace() || c == '\\' || escape::is_hidden(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn input(value: serde_json::Value) -> EmbedInput {
        serde_json::from_value(value).unwrap()
    }

    fn check(value: serde_json::Value) -> Result<Embed, String> {
        Embed::from_input(&input(value)).map_err(|e| e.to_string())
    }

    #[test]
    fn an_embed_is_a_card_for_discord_and_text_for_the_others() {
        let embed = check(json!({
            "title": " Build failed ", "description": "main is red\\nsince 10:00", "color": "red",
            "fields": [{"name": "branch", "value": "main"}, {"name": "job", "value": "test", "inline": false}],
            "buttons": [{"label": "Log", "url": "https://ci.example.com/1?x=y"}],
        }))
        .unwrap();
        assert_eq!((embed.color, embed.fields[0].inline, embed.fields[1].inline), (Color::Red, true, false));
        assert_eq!(
            embed.as_text(),
            "[bg] Build failed\nmain is red\nsince 10:00\nbranch: main\njob: test\nLog: https://ci.example.com/1?x=y"
        );
        let small = check(json!({"title": "t"})).unwrap();
        assert_eq!((small.color, small.as_text().as_str()), (Color::Blue, "[bg] t"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_in_words_the_agent_can_act_on() {
        let field = json!({"name": "n", "value": "v"});
        let link = json!({"label": "l", "url": "https://e.com"});
        for (value, told) in [
            (json!({"title": " "}), "title is empty"),
            (json!({"title": "t", "color": "pink"}), "unknown color; valid: blue green red yellow purple"),
            (json!({"title": "t", "fields": vec![field.clone(); 26]}), "26 fields; at most 25 are possible"),
            (json!({"title": "t", "fields": [{"name": "n", "value": ""}]}), "field value is empty"),
            (json!({"title": "t", "fields": [{"name": "", "value": "v"}]}), "field name is empty"),
            (json!({"title": "t", "buttons": vec![link.clone(); 6]}), "6 buttons; at most 5 are possible"),
            (
                json!({"title": "t", "buttons": [{"label": "", "url": "https://e.com"}]}),
                "button label is empty",
            ),
            (
                json!({"title": "t", "buttons": [link, {"label": "l", "url": "http://e.com"}]}),
                "button 2: url must be an https link of at most 512 characters",
            ),
        ] {
            assert_eq!(check(value.clone()), Err(told.to_owned()), "{value}");
        }
        assert!(check(json!({"title": "t", "fields": vec![field; 25]})).is_ok());
    }

    #[test]
    fn buttons_take_https_links_only() {
        for url in ["https://e.com", "HTTPS://e.com/a?b#c", "https://e.com:8443/@user", "https://[::1]/"] {
            assert!(is_https_link(url), "{url}");
        }
        let long = format!("https://e.com/{}", "x".repeat(URL_BYTES));
        for url in [
            "",
            "https://",
            "http://e.com",
            "javascript:alert(1)",
            "//e.com",
            "https:///path",
            "https://:80/",
            "https://good.com@evil.com/",
            "https://e.com\\@evil.com",
            "https://e.com/a b",
            "https://e.com/\n",
            "https://e.com/\u{202e}",
            "htt\u{fc}s://e.com",
            &long,
        ] {
            assert!(!is_https_link(url), "{url}");
        }
    }

    #[test]
    fn long_texts_are_cut_with_a_mark() {
        let embed = check(json!({
            "title": "t".repeat(300), "description": "d".repeat(5_000),
            "fields": [{"name": "n".repeat(300), "value": "v".repeat(2_000)}],
            "buttons": [{"label": "l".repeat(100), "url": "https://e.com"}],
        }))
        .unwrap();
        for (text, chars) in [
            (&embed.title, TITLE_CHARS),
            (&embed.description, DESCRIPTION_CHARS),
            (&embed.fields[0].name, TITLE_CHARS),
            (&embed.fields[0].value, VALUE_CHARS),
            (&embed.buttons[0].label, LABEL_CHARS),
        ] {
            assert_eq!(text.chars().count(), chars);
            assert!(text.ends_with('\u{2026}'));
        }
    }
}
