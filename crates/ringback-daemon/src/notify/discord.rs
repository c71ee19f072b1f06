//! Discord over its REST API: a bot's direct message or channel message. A channel's webhook is a [`Hook`](super::Hook).
//!
//! Owns: the two routes, the direct message channel that is made once and kept, and how Discord's answers become a
//! [`Reply`]. Does not know configuration or retries, and never waits: a rate limit is an answer of 429 like any
//! other, with Discord's `retry_after`.
//!
//! Plain HTTP through the process's one client. A full API library would add a second client with its own TLS, retries
//! of its own inside an attempt, and no `enforce_nonce`.
//!
//! No part of a message is sent twice: how far a message came is remembered, and parts carry a nonce that Discord
//! compares with those of the last minutes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use ringback_model::delivery::{Answer, Failure, Reply};
use ringback_model::endpoint::Secret;
use ringback_model::{Timestamp, escape};
use ringback_webhook::client::{Client, EXCERPT_LIMIT};
use ringback_webhook::format::Card;
use ringback_webhook::format::discord::{AGENT, Part, Said, is_id, parts, read_wait};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::progress::Progress;
use super::{MOST_PARTS, is_success};

/// Discord's codes for a channel that is not there, or not for this bot.
const NO_CHANNEL: [u64; 2] = [10_003, 50_001];

/// One `[[notify]]` entry of type discord with a bot's token. `Debug` shows no token.
#[derive(Debug)]
pub struct Discord {
    client: Client,
    /// Scheme, host and `/api/v10`, without a slash at the end.
    api: String,
    /// The token with its prefix, marked as sensitive.
    authorization: HeaderValue,
    /// What no answer may repeat into the journal.
    token: Secret,
    target: Target,
    progress: Progress,
}

#[derive(Debug)]
enum Target {
    User(DirectMessages),
    Channel { id: String },
}

/// The way to a user.
#[derive(Debug)]
struct DirectMessages {
    user: String,
    /// The channel; `None` = to be made. Not held across an await.
    channel: Mutex<Option<String>>,
    /// Held while the channel is made, so that it is made once.
    making: tokio::sync::Mutex<()>,
}

/// Why an entry cannot be used. The texts name keys and never hold their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not http or https, or with more than a host and a path.
    #[error("api_base must be an http or https address without user, query or fragment")]
    ApiBase,
    /// A user's or a channel's id is digits.
    #[error("{0} must be a Discord id: digits only")]
    Id(&'static str),
    /// Empty, or not fit for a header.
    #[error("the bot token is empty or holds characters that no token has")]
    Token,
}

impl Discord {
    /// A bot that writes to a user. `remembered` is the direct message channel that an earlier process made, see
    /// [`Discord::remembered`]; `api_base` is Discord's scheme and host.
    pub fn to_user(
        client: Client,
        api_base: &str,
        token: &Secret,
        user_id: &str,
        remembered: Option<String>,
    ) -> Result<Self, Invalid> {
        let target = Target::User(DirectMessages {
            user: checked_id("user_id", user_id)?,
            channel: Mutex::new(remembered.filter(|id| is_id(id))),
            making: tokio::sync::Mutex::default(),
        });
        Discord::bot(client, api_base, token, target)
    }

    /// A bot that writes to a channel.
    pub fn to_channel(
        client: Client,
        api_base: &str,
        token: &Secret,
        channel_id: &str,
    ) -> Result<Self, Invalid> {
        let target = Target::Channel { id: checked_id("channel_id", channel_id)? };
        Discord::bot(client, api_base, token, target)
    }

    fn bot(client: Client, api_base: &str, token: &Secret, target: Target) -> Result<Self, Invalid> {
        let api = api_of(api_base)?;
        let token = token.reveal().trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Invalid::Token);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bot {token}")).map_err(|_| Invalid::Token)?;
        authorization.set_sensitive(true);
        let token = Secret::new(token);
        Ok(Discord { client, api, authorization, token, target, progress: Progress::default() })
    }

    /// The direct message channel, once it is made: to be kept for this bot and user, and handed to
    /// [`Discord::to_user`] by the next process. `None` for channels.
    pub fn remembered(&self) -> Option<String> {
        match &self.target {
            Target::User(direct) => direct.kept(),
            Target::Channel { .. } => None,
        }
    }

    /// Sends what of the message was not sent before. The first part that fails ends the attempt with its reply.
    pub(super) async fn send(&self, card: &Card, nonce: Uuid, timeout: Duration, now: Timestamp) -> Reply {
        let attempt = Attempt { now, timeout, began: Instant::now() };
        let mut last = Answer { status: 200, ..Answer::default() };
        let sent = self.progress.of(nonce);
        for (number, part) in parts(card, MOST_PARTS).into_iter().enumerate().skip(sent) {
            let part = part.with_nonce(part_nonce(nonce, number));
            last = match &self.target {
                Target::User(direct) => self.send_to_user(direct, &part, &attempt).await?,
                Target::Channel { id } => self.post(&messages_of(id), &part, &attempt).await?.0,
            };
            if !is_success(&last) {
                return Ok(last);
            }
            self.progress.note(nonce, number + 1);
        }
        self.progress.forget(nonce);
        Ok(last)
    }

    /// A kept channel may belong to another bot, or be gone: then one is made anew, once.
    async fn send_to_user(&self, direct: &DirectMessages, part: &Part, attempt: &Attempt) -> Reply {
        if let Some(channel) = direct.kept() {
            let (answer, said) = self.post(&messages_of(&channel), part, attempt).await?;
            if is_success(&answer) || !said.code.is_some_and(|code| NO_CHANNEL.contains(&code)) {
                return Ok(answer);
            }
            direct.forget(&channel);
        }
        match self.direct_channel(direct, attempt).await? {
            Ok(channel) => Ok(self.post(&messages_of(&channel), part, attempt).await?.0),
            Err(answer) => Ok(answer),
        }
    }

    /// The user's channel, made if there is none; or Discord's answer, if it makes none.
    async fn direct_channel(
        &self,
        direct: &DirectMessages,
        attempt: &Attempt,
    ) -> Result<Result<String, Answer>, Failure> {
        let made_once = tokio::time::timeout(attempt.time_left(), direct.making.lock()).await;
        let _made_once = made_once.map_err(|_elapsed| Failure::Timeout)?;
        if let Some(channel) = direct.kept() {
            return Ok(Ok(channel));
        }
        let body = CreateDirectMessages { recipient_id: &direct.user };
        let (answer, said) = self.post("/users/@me/channels", &body, attempt).await?;
        if !is_success(&answer) {
            return Ok(Err(answer));
        }
        let Some(channel) = said.id.filter(|id| is_id(id)) else {
            return Err(Failure::Broken("Discord named no channel for direct messages".to_owned()));
        };
        *lock(&direct.channel) = Some(channel.clone());
        Ok(Ok(channel))
    }

    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        attempt: &Attempt,
    ) -> Result<(Answer, Said), Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Broken(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(AUTHORIZATION, self.authorization.clone());
        let url = format!("{}{path}", self.api)
            .parse()
            .map_err(|error: url::ParseError| Failure::Broken(error.to_string()))?;
        let (answer, body) = self
            .client
            .exchange(&url, headers, Bytes::from(body), attempt.time_left(), attempt.instant())
            .await?;
        Ok(self.read(answer, &body))
    }

    /// Discord's words instead of the client's excerpt, which has the words of the path masked ("messages" is one),
    /// and its exact wait instead of the header's whole seconds.
    fn read(&self, mut answer: Answer, body: &[u8]) -> (Answer, Said) {
        answer.excerpt = self.excerpt(body);
        let said = read_wait(&mut answer, body);
        (answer, said)
    }

    fn excerpt(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body).replace(self.token.reveal(), "***");
        let mut text = escape::escaped_and_cut(&text, EXCERPT_LIMIT);
        text.truncate(text.floor_char_boundary(EXCERPT_LIMIT));
        text
    }
}

impl DirectMessages {
    fn kept(&self) -> Option<String> {
        lock(&self.channel).clone()
    }

    /// Only if it is still that one: another attempt may have made a new one meanwhile.
    fn forget(&self, channel: &str) {
        lock(&self.channel).take_if(|kept| kept == channel);
    }
}

/// The time of one attempt, which all its requests share.
struct Attempt {
    now: Timestamp,
    timeout: Duration,
    began: Instant,
}

impl Attempt {
    fn time_left(&self) -> Duration {
        self.timeout.saturating_sub(self.began.elapsed())
    }

    fn instant(&self) -> Timestamp {
        self.now.plus(self.began.elapsed())
    }
}

#[derive(Serialize)]
struct CreateDirectMessages<'a> {
    recipient_id: &'a str,
}

/// 24 characters of the 25 that are allowed: the event's id and the number of the part.
fn part_nonce(event: Uuid, number: usize) -> String {
    format!("{}-{number}", URL_SAFE_NO_PAD.encode(event.as_bytes()))
}

fn messages_of(channel: &str) -> String {
    format!("/channels/{channel}/messages")
}

fn checked_id(key: &'static str, id: &str) -> Result<String, Invalid> {
    let id = id.trim();
    if is_id(id) { Ok(id.to_owned()) } else { Err(Invalid::Id(key)) }
}

fn api_of(base: &str) -> Result<String, Invalid> {
    let url = Url::parse(base.trim()).map_err(|_| Invalid::ApiBase)?;
    let is_plain = url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_plain {
        return Err(Invalid::ApiBase);
    }
    Ok(format!("{}/api/v10", url.as_str().trim_end_matches('/')))
}

/// The values behind these locks are whole at every moment, so that a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
