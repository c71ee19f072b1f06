//! Twilio: HMAC-SHA1 over the URL and the form's fields, or over a URL that has the body's hash.
//!
//! Source: <https://www.twilio.com/docs/usage/security>, "Validating signatures from Twilio".

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::HeaderName;
use http::header::CONTENT_TYPE;
use ringback_model::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::algorithm::{Algorithm, Encoding};
use super::prove::{Parts, base64};
use super::{Incoming, Refused, headers};

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");

/// More fields than Twilio ever sends. They are sorted before anybody has proven anything.
const MAX_FIELDS: usize = 1000;

/// The account's tokens.
#[derive(Debug)]
pub(super) struct Twilio(Vec<Secret>);

impl Twilio {
    pub(super) fn new(tokens: Vec<Secret>) -> Self {
        Twilio(tokens)
    }

    pub(super) fn has_secret(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn check(&self, request: &Incoming<'_>) -> Result<(), Refused> {
        let header = headers::one(request.headers, &SIGNATURE);
        let given: Vec<Vec<u8>> =
            header.as_ref().ok().and_then(|value| Encoding::Base64.decode(value)).into_iter().collect();
        let url = full_url(request);
        let hash = body_hash(request.query);
        // A hash in the URL covers the body; else the body's fields are signed, and it has to be a form.
        let fields = if hash.is_some() { Some(String::new()) } else { fields(request.body) };
        let body_fits = match &hash {
            Some(hash) => hash.as_bytes().ct_eq(hex::encode(Sha256::digest(request.body)).as_bytes()).into(),
            None => fields.is_some() && (request.body.is_empty() || is_form(request)),
        };
        let fields = fields.unwrap_or_default();
        let mut fits = false;
        for url in std::iter::once(url.clone()).chain(with_other_port(&url)) {
            fits |= Algorithm::Sha1.fits(&self.0, &[url.as_bytes(), fields.as_bytes()], &given);
        }
        if self.0.is_empty() {
            return Err(Refused::NoSecret);
        }
        if request.public_url.is_none() {
            return Err(Refused::NoPublicUrl);
        }
        header?;
        if fits && body_fits { Ok(()) } else { Err(Refused::NoMatch) }
    }
}

impl Twilio {
    /// The header for a form, or for a body whose hash is in the URL.
    pub(super) fn prove(&self, request: &Incoming<'_>) -> Option<Parts> {
        let token = self.0.first()?;
        let url = full_url(request);
        let fields = if body_hash(request.query).is_some() { None } else { fields(request.body) };
        let parts = [url.as_bytes(), fields.as_deref().unwrap_or_default().as_bytes()];
        let signature = base64(&Algorithm::Sha1.mac(token.reveal().as_bytes(), &parts));
        Some((vec![(SIGNATURE, signature)], None))
    }
}

/// Names a message and, where its state is told, the state: each state is told once.
pub(super) fn message_id(body: &[u8]) -> Option<String> {
    let field =
        |name: &str| form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value);
    let message = field("MessageSid").filter(|sid| !sid.is_empty())?;
    Some(match field("MessageStatus") {
        Some(status) => format!("{message}:{status}"),
        None => message.into_owned(),
    })
}

/// The URL that Twilio asked for. A fragment says how to connect and is not signed.
fn full_url(request: &Incoming<'_>) -> String {
    let base = request.public_url.unwrap_or_default();
    let base = base.split(['?', '#']).next().unwrap_or_default();
    match request.query {
        Some(query) => format!("{base}?{query}"),
        None => base.to_owned(),
    }
}

/// Twilio signs some URLs with the port and some without it.
fn with_other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = match scheme {
        "https" => 443,
        _ => 80,
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    Some(match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => format!("{scheme}://{host}{path}"),
        _ => format!("{scheme}://{authority}:{port}{path}"),
    })
}

fn body_hash(query: Option<&str>) -> Option<Cow<'_, str>> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(key, _)| key == "bodySHA256").map(|(_, value)| value)
}

fn is_form(request: &Incoming<'_>) -> bool {
    let content_type = headers::one(request.headers, &CONTENT_TYPE).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Names and values in a row, by name and then by value, each pair once. `None`: there are too many.
fn fields(body: &[u8]) -> Option<String> {
    let mut pairs = BTreeSet::new();
    for (count, pair) in form_urlencoded::parse(body).enumerate() {
        if count == MAX_FIELDS {
            return None;
        }
        pairs.insert(pair);
    }
    Some(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())
}
