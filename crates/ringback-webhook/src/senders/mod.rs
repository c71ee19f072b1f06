//! Is this incoming webhook what its sender sent? (inbound.md, "POST /hook/{slug}")
//!
//! Owns: how each sender proves itself over the raw bytes, what of a proven request names its event and its delivery,
//! and the answers that a sender demands. Everything is a pure function of (request, secrets, instant).
//!
//! Deliberately absent: configuration files, HTTP, deduplication and the body's meaning. A refusal says nothing to the
//! caller: whoever serves HTTP answers every [`Refused`] with the same 401 and logs its text, which holds no value
//! from outside.

mod algorithm;
mod body;
mod discord;
mod etiquette;
mod headers;
mod presets;
mod prove;
mod signed;
mod standard;
mod token;
mod twilio;

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, StatusCode};
use ringback_model::{Secret, Timestamp};

use body::Source;
use etiquette::Etiquette;

pub use algorithm::{Algorithm, Encoding};
pub use presets::PRESETS;
pub use prove::{Proven, Unprovable};
pub use signed::{HmacSpec, TimestampSpec, Unit};

/// How one hook's sender proves itself. `Debug` shows no secret.
#[derive(Debug)]
pub struct Scheme {
    proof: Proof,
    /// Where the event's name is found; the first place that has one counts.
    event: Vec<Source>,
    /// Where the delivery's id is found, likewise.
    delivery_id: Vec<Source>,
    etiquette: Etiquette,
}

/// A request as received. It is borrowed: nothing of it is copied to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The raw bytes, before any parsing.
    pub body: &'a [u8],
    /// What followed the question mark, as it came; `None` without one.
    pub query: Option<&'a str>,
    /// The hook's URL as its sender knows it, without a query. Only Twilio signs it.
    pub public_url: Option<&'a str>,
}

/// What a request is that proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A question about the endpoint: it gets this answer, and nothing is run for it.
    Challenge(Answer),
    /// A call of the hook.
    Call(Call),
}

/// A call of a hook by its proven sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The sender's name for what happened ("push", "invoice.paid"); 1 to 255 printable ASCII characters.
    pub event: Option<String>,
    /// The same for every attempt to deliver the same thing; 1 to 255 printable ASCII characters. Where the sender
    /// signs an id it is that one; where it signs none (GitHub, GitLab, PagerDuty, ...) it is its header.
    pub delivery_id: Option<String>,
    /// What the sender demands to hear of an accepted call; `None`: any 2xx will do.
    pub accepted: Option<Answer>,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Content-Type`; `None` goes with an empty body.
    pub content_type: Option<&'static str>,
    /// The whole body.
    pub body: Cow<'static, str>,
}

/// Why a request is not believed: for our log, never for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The hook has no secret, so that nobody can prove anything.
    #[error("the hook has no secret")]
    NoSecret,
    /// The hook's public URL is not known, and the sender signs it.
    #[error("the hook has no public url, which its sender signs")]
    NoPublicUrl,
    /// A header of the scheme is not there.
    #[error("header {0} is missing")]
    Missing(HeaderName),
    /// A header of the scheme is there twice, and nothing says which one counts.
    #[error("header {0} is there more than once")]
    Doubled(HeaderName),
    /// A header of the scheme is not printable ASCII.
    #[error("header {0} is not printable ASCII")]
    Unreadable(HeaderName),
    /// No signature, or no token, fits any of the secrets.
    #[error("the signature or token fits no secret")]
    NoMatch,
    /// There is no timestamp, or it is no whole number.
    #[error("the timestamp is missing or not a whole number")]
    BadTimestamp,
    /// The timestamp is too far from now, before or after.
    #[error("the timestamp is outside the tolerance")]
    OutsideTolerance,
}

/// A scheme that cannot be, in words that follow "auth: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No sender of that name is known.
    #[error("no sender is called {0:?}; known are {list}", list = PRESETS.join(", "))]
    UnknownSender(String),
    /// The text is no name of a header.
    #[error("{0:?} is not the name of a header")]
    NotAHeader(String),
    /// A secret for Basic authentication without a colon. The secret is not repeated.
    #[error("a secret for basic authentication is USER:PASSWORD")]
    NotAPair,
    /// A public key that is none.
    #[error("not an Ed25519 public key: {0} is needed")]
    NotAPublicKey(&'static str),
    /// The signed template names something that is not there to be signed.
    #[error("{{{0}}} cannot be signed: a template has {{body}}, {{timestamp}} (or {{ts}}) and {{id}}")]
    UnknownPlaceholder(String),
    /// The template does not cover the body, or covers it twice.
    #[error("the signed template needs {{body}} exactly once")]
    BodyNotSigned,
    /// A timestamp that nobody signs proves nothing.
    #[error("{{timestamp}} in the signed template and a timestamp header belong together: give both or none")]
    TimestampNotSigned,
    /// The template signs an id and no header is named that has it.
    #[error("{{id}} in the signed template needs an id header")]
    NoIdHeader,
}

impl Scheme {
    /// The scheme of a sender that is known by name, one of [`PRESETS`], with every secret that is good now. Empty
    /// secrets count as none; without any, [`verify`](Self::verify) refuses everything.
    ///
    /// # Errors
    /// An unknown name, or a secret that cannot be one for this sender (Basic, and Ed25519 public keys).
    pub fn preset(name: &str, secrets: &[Secret]) -> Result<Self, Unusable> {
        presets::preset(name, usable(secrets))
    }

    /// A secret in a header of any name, as it is.
    ///
    /// # Errors
    /// `header` is not the name of a header.
    pub fn header(header: &str, secrets: &[Secret]) -> Result<Self, Unusable> {
        let name = headers::name(header)?;
        Ok(Proof::Token(token::Token::header(name, usable(secrets))).into())
    }

    /// A signature by HMAC as described by `spec`.
    ///
    /// # Errors
    /// A header that cannot be one, or a template that does not sign what has to be signed.
    pub fn hmac(spec: &HmacSpec, secrets: &[Secret]) -> Result<Self, Unusable> {
        let mut scheme = Scheme::from(Proof::Hmac(signed::Signed::new(spec, usable(secrets))?));
        let source = |header: &str| headers::name(header).map(|name| vec![Source::Header(name)]);
        scheme.delivery_id = spec.id_header.as_deref().map(source).transpose()?.unwrap_or_default();
        scheme.event = spec.event_header.as_deref().map(source).transpose()?.unwrap_or_default();
        Ok(scheme)
    }

    /// No proof at all (`auth: none`): everything is believed.
    pub fn unsigned() -> Self {
        Proof::Nothing.into()
    }

    /// Whether anything can be verified. Without a secret everything is refused.
    pub fn has_secret(&self) -> bool {
        match &self.proof {
            Proof::Nothing => true,
            Proof::Token(token) => token.has_secret(),
            Proof::Hmac(signed) => signed.has_secret(),
            Proof::Gitlab { token, signing } => token.has_secret() || signing.has_secret(),
            Proof::Standard(standard) => standard.has_secret(),
            Proof::Twilio(twilio) => twilio.has_secret(),
            Proof::Discord(discord) => discord.has_secret(),
        }
    }

    /// Whether the headers of such a request say all about its sender, so that its body changes nothing.
    pub fn is_in_the_headers(&self, headers: &HeaderMap) -> bool {
        match &self.proof {
            Proof::Nothing | Proof::Token(_) => true,
            Proof::Gitlab { token, signing } => !is_signed(token, signing, headers),
            Proof::Hmac(_) | Proof::Standard(_) | Proof::Twilio(_) | Proof::Discord(_) => false,
        }
    }

    /// Whether [`Incoming::public_url`] is needed.
    pub fn needs_public_url(&self) -> bool {
        matches!(self.proof, Proof::Twilio(_))
    }

    /// Whether a header carries a proof, or something else that nobody behind this module has to see.
    pub fn hides(&self, header: &HeaderName) -> bool {
        [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(header)
            || header.as_str().contains("signature")
            || match &self.proof {
                Proof::Token(token) | Proof::Gitlab { token, .. } => token.name() == header,
                Proof::Hmac(signed) => signed.names().contains(header),
                Proof::Nothing | Proof::Standard(_) | Proof::Twilio(_) | Proof::Discord(_) => false,
            }
    }

    /// Believes the request or not; `now` is the receiver's time.
    ///
    /// Every secret is tried against every signature, in constant time, and a request without a signature costs the
    /// same hashing as one with a wrong signature. (Ed25519 knows no secret here, and stops at what is missing.)
    ///
    /// # Errors
    /// Why not; the caller is told none of it.
    pub fn verify(&self, request: &Incoming<'_>, now: Timestamp) -> Result<Verified, Refused> {
        self.proof.check(request, now)?;
        Ok(self.assumed(request))
    }

    /// What a request is if its sender is believed. To show what would be; nothing may be done for it.
    pub fn assumed(&self, request: &Incoming<'_>) -> Verified {
        match self.etiquette.challenge(request.body) {
            Some(answer) => Verified::Challenge(answer),
            None => Verified::Call(Call {
                event: body::first(&self.event, request),
                delivery_id: body::first(&self.delivery_id, request),
                accepted: self.etiquette.accepted(),
            }),
        }
    }
}

/// What is checked.
#[derive(Debug)]
enum Proof {
    Nothing,
    Token(token::Token),
    Hmac(signed::Signed),
    /// A token, or signatures of Standard Webhooks.
    Gitlab {
        token: token::Token,
        signing: standard::Standard,
    },
    Standard(standard::Standard),
    Twilio(twilio::Twilio),
    Discord(discord::Discord),
}

impl Proof {
    fn check(&self, request: &Incoming<'_>, now: Timestamp) -> Result<(), Refused> {
        match self {
            Proof::Nothing => Ok(()),
            Proof::Token(token) => token.check(request.headers),
            Proof::Hmac(signed) => signed.check(request, now),
            // What is signed is judged by its signature, also when a right token comes with it.
            Proof::Gitlab { token, signing } => {
                if is_signed(token, signing, request.headers) {
                    signing.check(request, now)
                } else {
                    token.check(request.headers)
                }
            }
            Proof::Standard(standard) => standard.check(request, now),
            Proof::Twilio(twilio) => twilio.check(request),
            Proof::Discord(discord) => discord.check(request, now),
        }
    }
}

/// Whether GitLab's signature counts, and not its token.
fn is_signed(token: &token::Token, signing: &standard::Standard, headers: &HeaderMap) -> bool {
    signing.has_secret() && (standard::WEBHOOK.is_in(headers) || !token.has_secret())
}

impl From<Proof> for Scheme {
    fn from(proof: Proof) -> Self {
        Scheme { proof, event: Vec::new(), delivery_id: Vec::new(), etiquette: Etiquette::None }
    }
}

/// An empty secret is none: it would be known to everybody.
fn usable(secrets: &[Secret]) -> Vec<Secret> {
    secrets.iter().filter(|secret| !secret.reveal().is_empty()).cloned().collect()
}
