//! The tokens of the runs that are alive.
//!
//! Owns: which token opens which tools of which run. Keeps hashes only, in memory: after a restart no run is alive, so
//! no token is either.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_model::Secret;
use ringback_model::run::RunId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The live tokens; clones share them.
#[derive(Clone, Default)]
pub struct Tokens {
    /// Short: one entry for every run at work. A std lock, because nothing is awaited while it is held.
    live: Arc<RwLock<Vec<Live>>>,
}

struct Live {
    hash: [u8; 32],
    grant: Grant,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) run: RunId,
    pub(super) tools: ToolSet,
}

/// The tools of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolSet {
    /// `ping_user` and `discord_embed`.
    pub ping: bool,
    /// `report_updates`.
    pub report: bool,
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomBytes;

impl Tokens {
    /// A new token for `run`: 32 random bytes, base64url without padding. One that the run had before is revoked.
    pub fn issue(&self, run: RunId, tools: ToolSet) -> Result<Secret, NoRandomBytes> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| NoRandomBytes)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let entry = Live { hash: hash(&token), grant: Grant { run, tools } };
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|entry| entry.grant.run != run);
        live.push(entry);
        Ok(Secret::new(token))
    }

    /// Ends the token of `run`, if it has one: the next request with it is refused.
    pub fn revoke(&self, run: RunId) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|entry| entry.grant.run != run);
    }

    /// What `token` opens. Every entry is compared, whichever matches, so that the time tells nothing.
    pub(super) fn look_up(&self, token: &str) -> Option<Grant> {
        let given = hash(token);
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.iter().fold(
            None,
            |found, entry| {
                if entry.hash.ct_eq(&given).into() { Some(entry.grant) } else { found }
            },
        )
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const BOTH: ToolSet = ToolSet { ping: true, report: true };

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    #[test]
    fn a_token_is_32_random_bytes_and_opens_its_own_run_only() {
        let tokens = Tokens::default();
        let (a, b) = (tokens.issue(run(1), BOTH).unwrap(), tokens.issue(run(2), BOTH).unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(a.reveal()).map(|bytes| bytes.len()), Ok(32));
        assert_ne!(a, b);
        assert_eq!(tokens.look_up(a.reveal()).map(|grant| grant.run), Some(run(1)));
        assert_eq!(tokens.clone().look_up(b.reveal()).map(|grant| grant.run), Some(run(2)));
        for wrong in ["", "x", &a.reveal()[1..], &a.reveal().to_lowercase()] {
            assert_eq!(tokens.look_up(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_lives_until_it_is_revoked_or_replaced() {
        let tokens = Tokens::default();
        let (a, b) = (tokens.issue(run(1), BOTH).unwrap(), tokens.issue(run(2), BOTH).unwrap());
        tokens.revoke(run(1));
        tokens.revoke(run(3));
        assert_eq!(tokens.look_up(a.reveal()), None);
        let again = tokens.issue(run(2), ToolSet { ping: false, report: true }).unwrap();
        assert_eq!(tokens.look_up(b.reveal()), None);
        assert_eq!(tokens.look_up(again.reveal()).map(|grant| grant.tools.ping), Some(false));
    }

    #[test]
    fn only_hashes_are_kept() {
        let tokens = Tokens::default();
        let token = tokens.issue(run(1), BOTH).unwrap();
        let live = tokens.live.read().unwrap();
        assert_eq!(live[0].hash, hash(token.reveal()));
        assert_ne!(URL_SAFE_NO_PAD.encode(live[0].hash), token.reveal());
    }
}
