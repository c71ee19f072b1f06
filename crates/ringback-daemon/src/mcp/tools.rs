//! The tools as an agent sees them: names, descriptions and schemas.
//!
//! Owns: what a model is told about a tool. The schemas say what is best to send; what is accepted besides is the
//! business of [`arguments`](super::arguments).

use ringback_model::ping::Color;
use ringback_model::ping::MESSAGE_CHARS;
use ringback_model::ping::embed::{
    DESCRIPTION_CHARS, LABEL_CHARS, MAX_BUTTONS, MAX_FIELDS, TITLE_CHARS, URL_BYTES, VALUE_CHARS,
};
use ringback_model::updates::UPDATE_CHARS;
use rmcp::model::{JsonObject, ToolAnnotations};
use serde_json::{Value, json};

use super::ToolSet;

/// One of the tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    PingUser,
    DiscordEmbed,
    ReportUpdates,
}

impl Tool {
    /// Every tool, in the order in which they are listed.
    pub(super) const ALL: [Tool; 3] = [Tool::PingUser, Tool::DiscordEmbed, Tool::ReportUpdates];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Tool::PingUser => "ping_user",
            Tool::DiscordEmbed => "discord_embed",
            Tool::ReportUpdates => "report_updates",
        }
    }

    pub(super) const fn is_in(self, tools: ToolSet) -> bool {
        match self {
            Tool::PingUser | Tool::DiscordEmbed => tools.ping,
            Tool::ReportUpdates => tools.report,
        }
    }

    /// The entry in a list of tools.
    pub(super) fn definition(self) -> rmcp::model::Tool {
        let (title, description, schema) = match self {
            Tool::PingUser => (
                "Ping the user",
                "Send the user a short message now, wherever they are. For what is worth an interruption; a run may \
                 send one ping or embed. The answer says whether it was sent and, if not, what to do instead.",
                object(
                    &["message"],
                    json!({
                        "message": text("What to tell the user. Plain text, the important part first.", MESSAGE_CHARS),
                        "critical": critical(),
                    }),
                ),
            ),
            Tool::DiscordEmbed => (
                "Send the user a card",
                "Send the user a card with title, fields and link buttons, under the same rules as ping_user and \
                 instead of it. Where cards cannot be shown it arrives as text.",
                embed(),
            ),
            Tool::ReportUpdates => (
                "Report to the main session",
                "Leave a message for the user's main session, which reads it with the user's next prompt. \
                 Interrupts nobody.",
                object(
                    &["message"],
                    json!({
                        "message": text("What the main session should know: what happened, what was done, what is \
                                         left.", UPDATE_CHARS),
                    }),
                ),
            ),
        };
        // Without these hints a tool counts as destructive and as one of an open world; codex 0.169 then wants an
        // approval for every call, which nobody can give in a headless run, and fails the call.
        let hints = ToolAnnotations::with_title(title).read_only(false).destructive(false).open_world(false);
        rmcp::model::Tool::new(self.name(), description, schema).with_annotations(hints)
    }
}

fn embed() -> JsonObject {
    let field = object(
        &["name", "value"],
        json!({
            "name": text("Heading of the field.", TITLE_CHARS),
            "value": text("Text of the field.", VALUE_CHARS),
            "inline": {"type": "boolean", "default": true, "description": "Beside its neighbours."},
        }),
    );
    let link = json!({
        "type": "string", "pattern": "^https://", "maxLength": URL_BYTES, "description": "An https link.",
    });
    let button =
        object(&["label", "url"], json!({"label": text("What the button says.", LABEL_CHARS), "url": link}));
    let colors: Vec<_> = Color::ALL.iter().map(|color| color.as_str()).collect();
    object(
        &["title"],
        json!({
            "title": text("Heading of the card.", TITLE_CHARS),
            "description": {
                "type": "string", "maxLength": DESCRIPTION_CHARS, "description": "Text below the heading.",
            },
            "color": {
                "type": "string", "enum": colors, "default": Color::default(),
                "description": "blue: for information, green: went well, red: went wrong, yellow: wants attention, \
                                purple: anything else.",
            },
            "fields": {"type": "array", "maxItems": MAX_FIELDS, "items": field},
            "buttons": {
                "type": "array", "maxItems": MAX_BUTTONS, "items": button, "description": "Links below the card.",
            },
            "critical": critical(),
        }),
    )
}

fn critical() -> Value {
    json!({
        "type": "boolean", "default": false,
        "description": "True only for what the user would be devastated to miss: it goes out even when the user is \
                        busy, the budget is empty or a ping was already sent.",
    })
}

fn text(description: &str, chars: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": chars, "description": description})
}

fn object(required: &[&str], properties: Value) -> JsonObject {
    JsonObject::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), properties),
        ("required".to_owned(), json!(required)),
        ("additionalProperties".to_owned(), json!(false)),
    ])
}
