//! A notifier that is one address: Slack's and Discord's webhooks, an ntfy topic, a Telegram chat. Their formats are
//! those of endpoints (`ringback_webhook::format`).
//!
//! These have no nonces: a part whose answer was lost repeats, and so do the parts of an unfinished message when
//! ringback was started anew in between.

use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use ringback_model::delivery::{Answer, Reply};
use ringback_model::{Format, Secret, Timestamp};
use ringback_webhook::client::Client;
use ringback_webhook::format::{Card, Destination, Misfit};
use ringback_webhook::request;
use tokio::time::Instant;
use uuid::Uuid;

use super::progress::Progress;
use super::{MOST_PARTS, is_success};

/// One `[[notify]]` entry with an address. `Debug` shows neither it nor the token.
#[derive(Debug)]
pub struct Hook {
    client: Client,
    destination: Destination,
    /// Marked as sensitive.
    authorization: Option<HeaderValue>,
    progress: Progress,
}

/// Why an entry cannot be used. The texts never hold its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The address is none of its kind.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// Not fit for a header.
    #[error("the token holds characters that no token has")]
    Token,
}

impl Hook {
    /// A notifier that writes to an address in a format; `token` goes into an `Authorization` header.
    ///
    /// # Errors
    /// The address does not fit the format; the token is none.
    pub fn new(
        client: Client,
        format: Format,
        url: &Secret,
        token: Option<&Secret>,
    ) -> Result<Self, Invalid> {
        let destination = Destination::of(format, url.reveal())?;
        let bearer = |token: &Secret| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal().trim()))
                .map_err(|_| Invalid::Token)?;
            value.set_sensitive(true);
            Ok::<_, Invalid>(value)
        };
        let authorization = token.map(bearer).transpose()?;
        Ok(Hook { client, destination, authorization, progress: Progress::default() })
    }

    /// Sends what of the message was not sent before. The first part that fails ends the attempt with its reply.
    pub(super) async fn send(&self, card: &Card, nonce: Uuid, timeout: Duration, now: Timestamp) -> Reply {
        let began = Instant::now();
        let mut last = Answer { status: 200, ..Answer::default() };
        let requests = self.destination.show(card, MOST_PARTS);
        for (number, request) in requests.into_iter().enumerate().skip(self.progress.of(nonce)) {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_static(request::AGENT));
            request.dress(&mut headers);
            headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
            let (left, at) = (timeout.saturating_sub(began.elapsed()), now.plus(began.elapsed()));
            let (mut answer, body) =
                self.client.exchange(&request.url, headers, request.body, left, at).await?;
            self.destination.read(&mut answer, &body);
            // Each message to the user ends by itself, in the destination's words, and gives its ping back.
            answer.disable = false;
            last = answer;
            if !is_success(&last) {
                return Ok(last);
            }
            self.progress.note(nonce, number + 1);
        }
        self.progress.forget(nonce);
        Ok(last)
    }
}

#[cfg(test)]
mod tests;
