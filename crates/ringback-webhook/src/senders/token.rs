//! Senders that show the secret itself.

use base64::Engine;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use ringback_model::Secret;

use super::algorithm::is_one_of;
use super::prove::{Parts, base64};
use super::{Refused, Unusable, headers};
use crate::sign::LENIENT;

/// A secret in a header.
#[derive(Debug)]
pub(super) struct Token {
    header: HeaderName,
    written: Written,
    secrets: Vec<Secret>,
}

/// How the secret stands in the header.
#[derive(Clone, Copy, Debug)]
enum Written {
    Plain,
    Bearer,
    /// `USER:PASSWORD` in base64.
    Basic,
    BearerOrBasic,
}

impl Token {
    pub(super) fn header(header: HeaderName, secrets: Vec<Secret>) -> Self {
        Token { header, written: Written::Plain, secrets }
    }

    pub(super) fn bearer(secrets: Vec<Secret>) -> Self {
        Token { header: AUTHORIZATION, written: Written::Bearer, secrets }
    }

    pub(super) fn basic(secrets: Vec<Secret>) -> Result<Self, Unusable> {
        if secrets.iter().any(|secret| !secret.reveal().contains(':')) {
            return Err(Unusable::NotAPair);
        }
        Ok(Token { header: AUTHORIZATION, written: Written::Basic, secrets })
    }

    /// The secret decides: a bearer token, or `USER:PASSWORD`.
    pub(super) fn bearer_or_basic(secrets: Vec<Secret>) -> Self {
        Token { header: AUTHORIZATION, written: Written::BearerOrBasic, secrets }
    }

    pub(super) fn has_secret(&self) -> bool {
        !self.secrets.is_empty()
    }

    pub(super) fn name(&self) -> &HeaderName {
        &self.header
    }

    pub(super) fn check(&self, all: &HeaderMap) -> Result<(), Refused> {
        let value = headers::one(all, &self.header);
        let given = value.as_ref().ok().and_then(|value| self.written.read(value));
        // Hashed and compared also when there is nothing to compare.
        let fits = is_one_of(given.as_deref().unwrap_or_default(), &self.secrets);
        if self.secrets.is_empty() {
            return Err(Refused::NoSecret);
        }
        value?;
        if fits && given.is_some() { Ok(()) } else { Err(Refused::NoMatch) }
    }
}

impl Token {
    /// The header with the first secret.
    pub(super) fn prove(&self) -> Option<Parts> {
        let secret = self.secrets.first()?.reveal();
        let basic = || format!("Basic {}", base64(secret.as_bytes()));
        let value = match self.written {
            Written::Plain => secret.to_owned(),
            Written::Bearer => format!("Bearer {secret}"),
            Written::Basic => basic(),
            Written::BearerOrBasic if secret.contains(':') => basic(),
            Written::BearerOrBasic => format!("Bearer {secret}"),
        };
        Some((vec![(self.header.clone(), value)], None))
    }
}

impl Written {
    fn read(self, value: &str) -> Option<Vec<u8>> {
        let bearer = || value.strip_prefix("Bearer ").map(|token| token.as_bytes().to_vec());
        let basic = || value.strip_prefix("Basic ").and_then(|pair| LENIENT.decode(pair).ok());
        match self {
            Written::Plain => Some(value.as_bytes().to_vec()),
            Written::Bearer => bearer(),
            Written::Basic => basic(),
            Written::BearerOrBasic => bearer().or_else(basic),
        }
    }
}
