//! What is shown to a person, before any destination's format.

use ringback_model::ping::Embed;
use ringback_model::ping::embed::{Button, Color, Field, MAX_BUTTONS, URL_BYTES};
use url::Url;

/// A message with a heading, or a plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Heading; empty = a plain text, and then nothing but the text and links counts.
    pub title: String,
    /// What is said below it.
    pub text: String,
    /// Names and values.
    pub fields: Vec<Field>,
    /// A shell command to copy.
    pub command: Option<String>,
    /// Where to go from here.
    pub links: Vec<Button>,
    /// Colour of the edge.
    pub color: Color,
    /// How loudly it is told.
    pub urgency: Urgency,
    /// Small print.
    pub footer: String,
    /// The texts are no markup: a star in them is a star. Off for what an agent wrote to be read by the user.
    pub is_literal: bool,
}

/// How loudly a card is told, where there are degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Makes no sound.
    Low,
    /// As any message.
    #[default]
    Normal,
    /// Wants an answer.
    High,
}

impl Card {
    /// A plain text.
    pub fn of_text(text: impl Into<String>) -> Card {
        Card { text: text.into(), ..Card::default() }
    }

    /// An agent's embed; the footer names its source.
    pub fn of_embed(embed: &Embed, source: Option<&str>) -> Card {
        Card {
            title: embed.title.clone(),
            text: embed.description.clone(),
            fields: embed.fields.clone(),
            links: embed.buttons.clone(),
            color: embed.color,
            footer: source.map_or_else(|| "bg".to_owned(), |source| format!("bg \u{b7} {source}")),
            ..Card::default()
        }
    }

    /// Whether there is nothing to show.
    pub fn is_blank(&self) -> bool {
        self.title.trim().is_empty() && self.text.trim().is_empty()
    }

    /// The links that can be buttons: destinations refuse a whole message for a button that leads to a machine's own
    /// address, so that other links are part of the text.
    pub(super) fn buttons(&self) -> impl Iterator<Item = &Button> {
        self.links.iter().filter(|link| can_be_button(link)).take(MAX_BUTTONS)
    }

    /// The links that [`Card::buttons`] leaves out.
    pub(super) fn plain_links(&self) -> impl Iterator<Item = &Button> {
        self.links.iter().filter(|link| !can_be_button(link) && is_web(&link.url))
    }

    /// Everything below the heading on lines of its own, without buttons.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        lines.extend((!self.text.trim().is_empty()).then(|| self.text.trim().to_owned()));
        lines.extend(self.fields.iter().map(|field| format!("{}: {}", field.name, field.value)));
        lines.extend(self.command.iter().map(|command| format!("Resume: {command}")));
        lines.extend(self.plain_links().map(|link| format!("{}: {}", link.label, link.url)));
        lines
    }
}

fn can_be_button(link: &Button) -> bool {
    let Ok(url) = Url::parse(&link.url) else { return false };
    link.url.len() <= URL_BYTES
        && !link.label.trim().is_empty()
        && url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.host_str().is_some_and(|host| host.contains('.') && host != "127.0.0.1")
}

/// Whether a link may be shown at all.
fn is_web(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}
