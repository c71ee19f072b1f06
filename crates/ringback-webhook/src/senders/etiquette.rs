//! What senders demand to hear.

use std::borrow::Cow;

use http::StatusCode;

use super::{Answer, body};

/// Whose habits an answer follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Etiquette {
    None,
    Slack,
    Discord,
    Twilio,
}

/// Discord's answer to a PING: PONG.
const PONG: &str = r#"{"type":1}"#;
/// Discord's "is thinking": a message that comes later.
const DEFERRED: &str = r#"{"type":5}"#;
/// Discord asks for suggestions at every key that is pressed; it gets none, and no run is started.
const NO_SUGGESTIONS: &str = r#"{"type":8,"data":{"choices":[]}}"#;

impl Etiquette {
    /// The answer to a question about the endpoint, when the body is one.
    pub(super) fn challenge(self, body: &[u8]) -> Option<Answer> {
        let kind = || body::text(body, &["type"]);
        match self {
            Etiquette::None | Etiquette::Twilio => None,
            Etiquette::Slack => {
                kind().filter(|kind| kind == "url_verification")?;
                body::text(body, &["challenge"]).map(|challenge| ok("text/plain", challenge))
            }
            Etiquette::Discord => match kind()?.as_str() {
                "1" => Some(ok("application/json", PONG)),
                "4" => Some(ok("application/json", NO_SUGGESTIONS)),
                _ => None,
            },
        }
    }

    /// The answer to an accepted call.
    pub(super) fn accepted(self) -> Option<Answer> {
        match self {
            Etiquette::None => None,
            Etiquette::Slack => {
                Some(Answer { status: StatusCode::OK, content_type: None, body: Cow::Borrowed("") })
            }
            Etiquette::Discord => Some(ok("application/json", DEFERRED)),
            Etiquette::Twilio => Some(ok("text/xml", "<Response/>")),
        }
    }
}

fn ok(content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Answer {
    Answer { status: StatusCode::OK, content_type: Some(content_type), body: body.into() }
}
