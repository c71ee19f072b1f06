//! Formats: what a destination's own API wants to be sent (outbound.md, `format`).
//!
//! Owns: how an endpoint's URL is understood, how an event or a message becomes a request there, and what that API's
//! own words say about an attempt. Everything here is a pure function of its arguments; a destination is written once
//! and serves endpoints and notifiers alike.
//!
//! What is shown is a [`Card`] first: an event's is made in [`event`], a message's by its caller. Deliberately absent:
//! the network, the signature, and what an outcome leads to.

pub mod card;
pub mod discord;
pub mod event;
pub mod text;

mod cloudevents;
mod ntfy;
mod slack;
mod telegram;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use ringback_model::delivery::Answer;
use ringback_model::{Event, Format};
use serde::Deserialize;
use url::Url;

pub use card::{Card, Urgency};

/// The format that a URL's owner takes, where the entry names none; `None` = a host that says nothing about it.
pub fn of_host(url: &Url) -> Option<Format> {
    let host = url.host_str()?;
    let is = |name: &str| host == name || host.strip_suffix(name).is_some_and(|sub| sub.ends_with('.'));
    if is("hooks.slack.com") {
        return Some(Format::Slack);
    }
    if is("discord.com") || is("discordapp.com") {
        // Discord's second door takes Slack's format.
        return Some(if url.path().ends_with("/slack") { Format::Slack } else { Format::Discord });
    }
    match host {
        "ntfy.sh" => Some(Format::Ntfy),
        "api.telegram.org" => Some(Format::Telegram),
        _ => None,
    }
}

/// An endpoint's URL, understood as its format demands. `Debug` shows no URL.
pub struct Destination {
    /// Where requests go. A secret.
    url: Url,
    service: Service,
}

enum Service {
    /// The event as it is.
    Event,
    CloudEvents,
    Slack,
    Discord,
    Ntfy {
        topic: String,
    },
    Telegram(telegram::Chat),
}

/// A URL that does not fit its format. The texts hold nothing of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No URL at all.
    #[error("not a url")]
    Url,
    /// ntfy needs to know the topic.
    #[error("the format ntfy needs a url that ends in its topic, such as https://ntfy.sh/TOPIC")]
    Topic,
    /// Telegram needs to know the bot and the chat.
    #[error(
        "the format telegram needs a url such as \
         https://api.telegram.org/botTOKEN/sendMessage?chat_id=CHAT"
    )]
    Chat,
}

/// One request of a destination: a POST.
pub struct Request {
    /// Where to. A secret.
    pub url: Url,
    /// The body's media type.
    pub content_type: &'static str,
    /// The `User-Agent`, where the destination wants another one than ringback's.
    pub agent: Option<&'static str>,
    /// The exact bytes.
    pub body: Bytes,
}

impl Request {
    fn json(url: &Url, body: &impl serde::Serialize) -> Option<Request> {
        // Strings, numbers and lists: serialising cannot fail, and what did would be no request.
        let body = serde_json::to_vec(body).ok()?.into();
        Some(Request { url: url.clone(), content_type: "application/json", agent: None, body })
    }

    /// Sets the headers that depend on the format.
    pub fn dress(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(agent) = self.agent {
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        }
    }
}

impl Destination {
    /// Understands a URL.
    ///
    /// # Errors
    ///
    /// The URL does not say what the format needs to know.
    pub fn of(format: Format, url: &str) -> Result<Destination, Misfit> {
        let parsed = Url::parse(url).map_err(|_| Misfit::Url)?;
        let (url, service) = match format {
            Format::Json => (parsed, Service::Event),
            Format::CloudEvents => (parsed, Service::CloudEvents),
            Format::Slack => (parsed, Service::Slack),
            Format::Discord => (discord::execute_url(parsed), Service::Discord),
            Format::Ntfy => {
                let (root, topic) = ntfy::root_and_topic(parsed).ok_or(Misfit::Topic)?;
                (root, Service::Ntfy { topic })
            }
            Format::Telegram => {
                let (method, chat) = telegram::method_and_chat(parsed).ok_or(Misfit::Chat)?;
                (method, Service::Telegram(chat))
            }
        };
        Ok(Destination { url, service })
    }

    /// The request that tells a journaled event, given as its JSON; `None` = that is no event.
    pub fn tell(&self, event: &Bytes) -> Option<Request> {
        match &self.service {
            Service::Event => Some(Request {
                url: self.url.clone(),
                content_type: "application/json",
                agent: None,
                body: event.clone(),
            }),
            Service::CloudEvents => cloudevents::request(&self.url, event),
            _ => {
                let event: Event = serde_json::from_slice(event).ok()?;
                self.show(&event::card(&event), 1).into_iter().next()
            }
        }
    }

    /// The requests that show a card, in the order of sending, at most `most` of them: a text that is longer than one
    /// message goes on in the next, and ends with a mark in the last. None for a card that says nothing, or where
    /// cards are not shown.
    pub fn show(&self, card: &Card, most: usize) -> Vec<Request> {
        let url = &self.url;
        match &self.service {
            Service::Event | Service::CloudEvents => Vec::new(),
            Service::Slack => slack::request(url, card).into_iter().collect(),
            Service::Discord => discord::requests(url, card, most),
            Service::Ntfy { topic } => ntfy::request(url, topic, card).into_iter().collect(),
            Service::Telegram(chat) => telegram::requests(url, chat, card, most),
        }
    }

    /// Takes in what the destination's words say beyond the status: how long to wait, and that it is gone for good.
    /// Masks in the excerpt what of the URL went into the body, and comes back from there.
    /// `body` is the answer's beginning, 1 KiB of it at least.
    pub fn read(&self, answer: &mut Answer, body: &[u8]) {
        match &self.service {
            Service::Event | Service::CloudEvents => {}
            Service::Slack => slack::read(answer, body),
            Service::Discord => discord::read(answer, body),
            Service::Ntfy { topic } => ntfy::read(answer, topic),
            Service::Telegram(_) => telegram::read(answer, body),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = match &self.service {
            Service::Event => "json",
            Service::CloudEvents => "cloudevents",
            Service::Slack => "slack",
            Service::Discord => "discord",
            Service::Ntfy { .. } => "ntfy",
            Service::Telegram(_) => "telegram",
        };
        f.debug_tuple("Destination").field(&service).finish()
    }
}

/// The JSON value at the beginning of a body. What follows it does not matter: a line break, or the cut of an excerpt.
fn first_value<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(body).into_iter().next()?.ok()
}

/// A wait in the body of a 429 is more exact than the header's whole seconds.
fn wait(answer: &mut Answer, seconds: Option<f64>) {
    if answer.status == 429
        && let Some(wait) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    {
        answer.retry_after = Some(wait);
    }
}
