//! Notifiers: how a message reaches the user (inbound.md, "Notifiers").
//!
//! Owns: the body of a message's delivery, and for each kind of notifier the one attempt that sends it. A message is
//! journaled and delivered like a webhook: what an attempt comes to is a [`Reply`], and the deliverer decides from it
//! about retries.
//!
//! Deliberately absent: configuration, the journal, retries and waits, and whether the user may be pinged at all.

mod console;
mod desktop;
mod discord;
mod hook;
mod outlet;
mod progress;

use std::time::Duration;

use ringback_model::Timestamp;
use ringback_model::delivery::{Answer, Reply};
use ringback_model::ping::Embed;
use ringback_webhook::format::Card;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use desktop::Desktop;
pub use discord::Discord;
pub use hook::Hook;
pub use outlet::{Error, Outlet};

/// Messages that one text becomes at most.
const MOST_PARTS: usize = 5;

/// A message to the user, as it is journaled.
///
/// JSON: `{"event":"message","text":…,"embed":…,"run_id":…,"source":…}`; what is absent is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "message")]
pub struct Message {
    /// What is said, complete, for notifiers that know only text; blank = the embed as text.
    pub text: String,
    /// The same as a card, sent in place of the text where there are cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed: Option<Embed>,
    /// The run that says it; `None` = ringback itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
    /// What started the run: the caller's `source` or the hook's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Message {
    /// A message of plain text that belongs to no run.
    pub fn of_text(text: impl Into<String>) -> Self {
        Message { text: text.into(), embed: None, run_id: None, source: None }
    }

    /// The message as it is shown: the embed, or the text where there is none.
    fn card(&self) -> Card {
        match &self.embed {
            Some(embed) => Card::of_embed(embed, self.source.as_deref()),
            None => Card::of_text(self.text.trim()),
        }
    }
}

/// One `[[notify]]` entry.
#[derive(Debug)]
pub enum Notifier {
    /// A Discord bot.
    Discord(Box<Discord>),
    /// An address that takes messages.
    Hook(Box<Hook>),
    /// The desktop's notifications.
    Desktop(Desktop),
    /// The daemon's standard output.
    Console,
}

impl Notifier {
    /// Makes one attempt to send a journaled [`Message`], all its parts within `timeout`. `nonce` is the event's id,
    /// the same in every attempt; `now` is the time of the attempt.
    ///
    /// A body that holds no message comes back as an answer of 422, which is permanent: nothing was sent.
    pub async fn send(&self, body: &[u8], nonce: Uuid, timeout: Duration, now: Timestamp) -> Reply {
        let Ok(message) = serde_json::from_slice::<Message>(body) else {
            return Ok(not_sent("the journaled body is not a message"));
        };
        let card = message.card();
        if card.is_blank() {
            return Ok(not_sent("the message is empty"));
        }
        match self {
            Notifier::Discord(discord) => discord.send(&card, nonce, timeout, now).await,
            Notifier::Hook(hook) => hook.send(&card, nonce, timeout, now).await,
            Notifier::Desktop(desktop) => desktop.send(&card, timeout).await,
            Notifier::Console => console::print(&message),
        }
    }
}

fn is_success(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// The answer for what nobody can send.
pub(crate) fn not_sent(why: &str) -> Answer {
    Answer { status: 422, excerpt: format!("not sent: {why}"), ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringback_model::Outcome;
    use ringback_model::delivery;
    use ringback_model::ping::EmbedInput;
    use serde_json::json;

    #[test]
    fn a_message_is_journaled_with_its_kind_first() {
        let mut message = Message::of_text("[bg] hi");
        assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"event":"message","text":"[bg] hi"}"#);
        let input = EmbedInput { title: "t".to_owned(), ..EmbedInput::default() };
        message.embed = Some(Embed::from_input(&input).unwrap());
        message.run_id = Some(Uuid::nil());
        message.source = Some("github-ci".to_owned());
        let body = serde_json::to_string(&message).unwrap();
        assert!(body.starts_with(r#"{"event":"message","text":"#), "{body}");
        assert_eq!(serde_json::from_str::<Message>(&body).unwrap(), message);
    }

    #[tokio::test]
    async fn a_body_that_is_no_message_is_refused_for_good() {
        let transition = json!({"event": "state_transition", "id": Uuid::nil()}).to_string();
        let blank = serde_json::to_string(&Message::of_text(" \n")).unwrap();
        for body in [transition.as_str(), "", "[]", "{\"text\":1}", blank.as_str()] {
            let reply = Notifier::Console
                .send(body.as_bytes(), Uuid::nil(), Duration::from_secs(1), Timestamp::from_millis(0))
                .await;
            assert_eq!(delivery::outcome(&reply), Outcome::Rejected, "{body}");
        }
    }
}
