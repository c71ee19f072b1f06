//! The senders that are known by name, and what each of them sends.

use http::HeaderName;
use ringback_model::Secret;

use super::algorithm::{Algorithm, Encoding};
use super::body::Source;
use super::discord::Discord;
use super::etiquette::Etiquette;
use super::signed::{Part, Place, Sent, Signed, Unit};
use super::standard::{self, Standard};
use super::token::Token;
use super::twilio::Twilio;
use super::{Proof, Scheme, Unusable};
use crate::verify::TOLERANCE;

/// Every name that [`Scheme::preset`] takes.
pub const PRESETS: [&str; 15] = [
    "alertmanager",
    "basic",
    "bearer",
    "discord",
    "github",
    "gitlab",
    "linear",
    "pagerduty",
    "sentry",
    "slack",
    "standard-webhooks",
    "stripe",
    "svix",
    "telegram",
    "twilio",
];

pub(super) fn preset(sender: &str, secrets: Vec<Secret>) -> Result<Scheme, Unusable> {
    Ok(match sender {
        "alertmanager" => Scheme {
            // It has no id, and sends the same bytes again when it did not hear the answer.
            delivery_id: vec![Source::BodyHash],
            ..Proof::Token(Token::bearer_or_basic(secrets)).into()
        },
        "basic" => Proof::Token(Token::basic(secrets)?).into(),
        "bearer" => Proof::Token(Token::bearer(secrets)).into(),
        "discord" => Scheme {
            delivery_id: vec![Source::Field(&["id"])],
            etiquette: Etiquette::Discord,
            ..Proof::Discord(Discord::new(&secrets)?).into()
        },
        "github" => Scheme {
            event: vec![header("x-github-event")],
            delivery_id: vec![header("x-github-delivery")],
            ..Proof::Hmac(hex_of_body(&["x-hub-signature-256"], "sha256=", secrets)).into()
        },
        "gitlab" => gitlab(secrets)?,
        "linear" => Scheme {
            event: vec![Source::Field(&["type"])],
            delivery_id: vec![header("linear-delivery")],
            ..Proof::Hmac(Signed {
                timestamp: Some(sent(Place::Body("webhookTimestamp"), Unit::Milliseconds)),
                ..hex_of_body(&["linear-signature"], "", secrets)
            })
            .into()
        },
        "pagerduty" => Scheme {
            event: vec![Source::Field(&["event", "event_type"])],
            delivery_id: vec![header("x-webhook-id")],
            ..Proof::Hmac(Signed {
                separator: Some(','),
                ..hex_of_body(&["x-pagerduty-signature"], "v1=", secrets)
            })
            .into()
        },
        "sentry" => Scheme {
            event: vec![header("sentry-hook-resource")],
            delivery_id: vec![header("request-id")],
            ..Proof::Hmac(hex_of_body(&["sentry-hook-signature", "sentry-app-signature"], "", secrets)).into()
        },
        "slack" => Scheme {
            event: vec![Source::Field(&["event", "type"]), Source::Field(&["type"])],
            delivery_id: vec![Source::Field(&["event_id"])],
            etiquette: Etiquette::Slack,
            ..Proof::Hmac(Signed {
                template: vec![text("v0:"), Part::Timestamp, text(":"), Part::Body],
                timestamp: Some(sent(Place::Header(name("x-slack-request-timestamp")), Unit::Seconds)),
                ..hex_of_body(&["x-slack-signature"], "v0=", secrets)
            })
            .into()
        },
        "standard-webhooks" | "svix" => Scheme {
            event: vec![Source::Field(&["type"])],
            delivery_id: vec![Source::Header(standard::WEBHOOK.id), Source::Header(standard::SVIX.id)],
            ..Proof::Standard(Standard::new(&secrets)?).into()
        },
        "stripe" => Scheme {
            event: vec![Source::Field(&["type"])],
            delivery_id: vec![Source::Field(&["id"])],
            ..Proof::Hmac(Signed {
                separator: Some(','),
                template: vec![Part::Timestamp, text("."), Part::Body],
                timestamp: Some(sent(Place::Element("t="), Unit::Seconds)),
                ..hex_of_body(&["stripe-signature"], "v1=", secrets)
            })
            .into()
        },
        "telegram" => Scheme {
            delivery_id: vec![Source::Field(&["update_id"])],
            ..Proof::Token(Token::header(name("x-telegram-bot-api-secret-token"), secrets)).into()
        },
        "twilio" => Scheme {
            delivery_id: vec![Source::TwilioMessage, header("i-twilio-idempotency-token")],
            etiquette: Etiquette::Twilio,
            ..Proof::Twilio(Twilio::new(secrets)).into()
        },
        other => return Err(Unusable::UnknownSender(other.to_owned())),
    })
}

/// GitLab shows a token, or signs as Standard Webhooks has it; its signing tokens begin with `whsec_`. Such a secret
/// is never taken as a token, which would let a request without a time in.
fn gitlab(secrets: Vec<Secret>) -> Result<Scheme, Unusable> {
    let (signing, tokens): (Vec<_>, Vec<_>) =
        secrets.into_iter().partition(|secret| secret.reveal().starts_with("whsec_"));
    let proof = Proof::Gitlab {
        token: Token::header(name("x-gitlab-token"), tokens),
        signing: Standard::new(&signing)?,
    };
    Ok(Scheme {
        event: vec![header("x-gitlab-event")],
        delivery_id: vec![
            Source::Header(standard::WEBHOOK.id),
            header("idempotency-key"),
            header("x-gitlab-event-uuid"),
        ],
        ..proof.into()
    })
}

/// What most senders have: HMAC-SHA256 over the body, in hex.
fn hex_of_body(headers: &[&'static str], prefix: &str, secrets: Vec<Secret>) -> Signed {
    Signed {
        headers: headers.iter().copied().map(name).collect(),
        prefix: prefix.to_owned(),
        separator: None,
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        template: vec![Part::Body],
        id: None,
        timestamp: None,
        secrets,
    }
}

fn sent(place: Place, unit: Unit) -> Sent {
    Sent { place, unit, tolerance: TOLERANCE }
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn header(header: &'static str) -> Source {
    Source::Header(name(header))
}

/// The name of a header in lower case.
fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}
