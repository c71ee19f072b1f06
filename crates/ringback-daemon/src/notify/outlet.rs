//! A configured notifier with what is kept of it between two starts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringback_model::Timestamp;
use ringback_model::delivery::Reply;
use ringback_store::{Ledger, Save};
use ringback_webhook::client::Client;
use uuid::Uuid;

use super::{Desktop, Discord, Hook, Notifier, discord, hook};
use crate::config;

/// One way to the user.
pub struct Outlet {
    notifier: Notifier,
    ledger: Arc<dyn Ledger>,
    /// Name of the value that holds the direct message channel.
    key: String,
    /// The channel as the ledger has it. Held for copies only.
    kept: Mutex<Option<String>>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("notifier", &self.notifier).finish_non_exhaustive()
    }
}

/// An entry that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it says of a bot is wrong.
    #[error(transparent)]
    Discord(#[from] discord::Invalid),
    /// What it says of an address is wrong.
    #[error(transparent)]
    Hook(#[from] hook::Invalid),
    /// What was kept of it cannot be read.
    #[error(transparent)]
    Store(#[from] ringback_store::Error),
}

impl Outlet {
    /// Opens a configured notifier.
    ///
    /// # Errors
    /// The entry names something that is no id, token or URL; the ledger cannot be read.
    pub async fn open(
        entry: &config::Notify,
        client: &Client,
        ledger: &Arc<dyn Ledger>,
    ) -> Result<Outlet, Error> {
        let mut key = String::new();
        let mut kept = None;
        let notifier = match entry {
            config::Notify::Console => Notifier::Console,
            config::Notify::Desktop { bus } => Notifier::Desktop(Desktop::new(bus.clone())),
            config::Notify::Hook { format, url, token, .. } => {
                Notifier::Hook(Box::new(Hook::new(client.clone(), *format, url, token.as_ref())?))
            }
            config::Notify::DiscordBot { token, target: Err(channel), api_base } => {
                Notifier::Discord(Box::new(Discord::to_channel(client.clone(), api_base, token, channel)?))
            }
            config::Notify::DiscordBot { token, target: Ok(user), api_base } => {
                key = format!("dm_channel:{user}");
                kept = ledger.value(&key).await?;
                let discord = Discord::to_user(client.clone(), api_base, token, user, kept.clone())?;
                Notifier::Discord(Box::new(discord))
            }
        };
        Ok(Outlet { notifier, ledger: Arc::clone(ledger), key, kept: Mutex::new(kept) })
    }

    /// One attempt, as [`Notifier::send`]; a direct message channel that was made is kept.
    pub async fn send(&self, body: &[u8], nonce: Uuid, timeout: Duration, now: Timestamp) -> Reply {
        let reply = self.notifier.send(body, nonce, timeout, now).await;
        let channel = match &self.notifier {
            Notifier::Discord(discord) => discord.remembered(),
            Notifier::Hook(_) | Notifier::Desktop(_) | Notifier::Console => None,
        };
        let is_new = *self.kept.lock().unwrap_or_else(PoisonError::into_inner) != channel;
        if is_new && !self.key.is_empty() {
            let save = Save { values: vec![(self.key.clone(), channel.clone())], ..Save::default() };
            match self.ledger.save(save).await {
                Ok(()) => *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = channel,
                // It is made anew after the next start, which costs one request.
                Err(error) => tracing::debug!(%error, "the direct message channel cannot be kept"),
            }
        }
        reply
    }
}
