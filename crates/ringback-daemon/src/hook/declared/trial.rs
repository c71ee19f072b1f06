//! A hook tried without a daemon: what a request would be answered, and what a run would be asked.
//!
//! Owns: how a request is put together out of what the operator gives, and the order of the checks, which is the
//! listener's. Starts nothing, binds nothing, writes nothing.

use std::borrow::Cow;
use std::path::Path;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ringback_model::Timestamp;
use ringback_model::escape::escaped_and_cut;
use ringback_model::inbound::Refusal;
use ringback_webhook::samples;
use ringback_webhook::senders::{Answer, Incoming, Scheme, Unprovable, Verified};
use uuid::Uuid;

use super::auth::Auth;
use super::fill::{Filled, Sent, fill};
use super::{Hook, directory};
use crate::config::Config;
use crate::env::Env;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The request's body.
    pub body: Vec<u8>,
    /// Its headers. A body that is one of the built-in samples brings its own; these replace them.
    pub headers: Vec<(String, String)>,
    /// The sender's name for what happened, for the header in which this sender says so.
    pub event: Option<String>,
    /// Prove the request with the hook's own secret, as its sender would.
    pub sign: bool,
}

/// What would come of it.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The hook's slug.
    pub slug: String,
    /// Its file's own name.
    pub file: String,
    /// The built-in sample whose body and headers these are: sender and event.
    pub sample: Option<(&'static str, &'static str)>,
    /// Whether its sender would be believed.
    pub proof: Proof,
    /// The sender's name for what happened.
    pub event: Option<String>,
    /// The sender's name for the delivery.
    pub delivery_id: Option<String>,
    /// What would become of it.
    pub outcome: Outcome,
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub answer: String,
    /// What a run would be asked, behind the line with the slug and what it is told about its tools; or what the user
    /// would be told.
    pub message: Option<String>,
}

/// What a request's proof is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// We signed it, and it holds.
    Signed,
    /// The given headers prove it.
    Given,
    /// There is none, and the hook asks for none.
    NotNeeded,
    /// There is none: the rest is shown as if there were. Why.
    Missing(String),
    /// It does not hold. Why.
    Wrong(String),
}

/// What would become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would start a run.
    Accepted,
    /// The user would be told, without a run.
    Told,
    /// The hook would not be interested.
    Ignored,
    /// It asks about the endpoint, and would be answered.
    Challenge,
    /// It would get an error.
    Refused,
}

impl Outcome {
    /// The word of the journal of calls.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Told => "told",
            Outcome::Ignored => "ignored",
            Outcome::Challenge => "challenge",
            Outcome::Refused => "refused",
        }
    }
}

/// Nothing could be tried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotTried {
    /// No file is the hook of this slug. What is wrong with the files that are none.
    #[error("no hook is called {slug}; {}", there_are(known, problems))]
    Unknown {
        /// As given.
        slug: String,
        /// The slugs that there are.
        known: Vec<String>,
        /// Files that cannot be used.
        problems: Vec<String>,
    },
    /// The file is no hook.
    #[error("it is not a usable hook: {}", .0.join("; "))]
    Broken(Vec<String>),
    /// A header that cannot be one.
    #[error("{0} is no header")]
    NotAHeader(String),
    /// The sender says in the body what happened.
    #[error("this sender names the event in the body")]
    NoEventHeader,
}

fn there_are(known: &[String], problems: &[String]) -> String {
    let slugs =
        if known.is_empty() { "there is none".to_owned() } else { format!("known are {}", known.join(", ")) };
    problems.iter().fold(slugs, |told, problem| format!("{told}; {problem}"))
}

/// Tries the hook of a slug, with the files as a daemon would read them.
///
/// # Errors
/// There is no such hook, or the request cannot be put together.
pub fn try_slug(
    slug: &str,
    trial: &Trial,
    config: &Config,
    env: &Env,
    now: Timestamp,
) -> Result<Tried, NotTried> {
    let loaded = directory::look_once(config, env);
    let hook = loaded.hooks.get(slug).ok_or_else(|| NotTried::Unknown {
        slug: escaped_and_cut(slug, 64),
        known: loaded.hooks.keys().cloned().collect(),
        problems: loaded.problems.clone(),
    })?;
    try_hook(hook, trial, config, now)
}

/// Tries the hook of a file, wherever it lies.
///
/// # Errors
/// It is no hook, or the request cannot be put together.
pub fn try_file(
    path: &Path,
    trial: &Trial,
    config: &Config,
    env: &Env,
    now: Timestamp,
) -> Result<Tried, NotTried> {
    let hook = directory::read_file(path, config, env).map_err(NotTried::Broken)?;
    try_hook(&hook, trial, config, now)
}

fn try_hook(hook: &Hook, trial: &Trial, config: &Config, now: Timestamp) -> Result<Tried, NotTried> {
    let shared;
    let scheme = match &hook.auth {
        Auth::Sender { scheme, .. } => &**scheme,
        Auth::Shared => {
            let secrets: Vec<_> = config.inbound.secret.iter().cloned().collect();
            // No preset for tokens refuses a secret.
            shared = Scheme::preset("bearer", &secrets).unwrap_or_else(|_| Scheme::unsigned());
            &shared
        }
    };
    let sample = samples::with_body(hook.sender().unwrap_or("bearer"), &trial.body);
    let mut headers = headers(hook, scheme, trial, sample.map(|s| s.headers).unwrap_or_default())?;
    let mut body = Cow::Borrowed(trial.body.as_slice());
    let is_given = headers.keys().any(|name| scheme.hides(name));
    let url = format!("https://localhost/hook/{}", hook.slug);
    let public_url = Some(hook.public_url.as_deref().unwrap_or(&url));
    let mut proof = if is_given { Proof::Given } else { unsigned(hook, scheme) };
    if trial.sign && proof != Proof::NotNeeded {
        let request = Incoming { headers: &headers, body: &body, query: None, public_url };
        proof = match scheme.prove(&request, now) {
            Ok(proven) => {
                (headers, body) = (proven.headers, Cow::Owned(proven.body));
                Proof::Signed
            }
            Err(Unprovable::NoSecret) => Proof::Wrong(no_secret(hook)),
            Err(why @ Unprovable::OnlyTheSender) => Proof::Missing(why.to_string()),
        };
    }
    let request = Incoming { headers: &headers, body: &body, query: None, public_url };
    let verified = match &proof {
        Proof::Signed | Proof::Given => {
            super::verify(hook, scheme, request, now).map_err(|why| why.to_string())
        }
        Proof::NotNeeded | Proof::Missing(_) => Ok(scheme.assumed(&request)),
        Proof::Wrong(why) => Err(why.clone()),
    };
    let tried = Tried {
        slug: hook.slug.clone(),
        file: hook.file.clone(),
        sample: sample.map(|sample| (sample.sender, sample.event)),
        proof,
        event: None,
        delivery_id: None,
        outcome: Outcome::Refused,
        status: Refusal::Unauthorized.status(),
        answer: Refusal::Unauthorized.body(),
        message: None,
    };
    let call = match verified {
        Err(why) => return Ok(Tried { proof: Proof::Wrong(why), ..tried }),
        Ok(Verified::Challenge(answer)) => return Ok(answered(tried, Outcome::Challenge, answer)),
        Ok(Verified::Call(call)) => call,
    };
    let tried = Tried { event: call.event.clone(), delivery_id: call.delivery_id, ..tried };
    if body.len() > hook.max_body {
        let (status, answer) = (Refusal::PayloadTooLarge.status(), Refusal::PayloadTooLarge.body());
        return Ok(Tried { status, answer, ..tried });
    }
    let sent = Sent { headers: &headers, query: None, body: &body, event: call.event.as_deref() };
    let ours = |word| Answer {
        status: StatusCode::ACCEPTED,
        content_type: Some("application/json"),
        body: Cow::Owned(format!("{{\"status\":\"{word}\"}}")),
    };
    Ok(match fill(hook, sent, &Uuid::new_v4().simple().to_string()) {
        Err(unfit) => Tried { status: StatusCode::BAD_REQUEST.as_u16(), answer: unfit.body(), ..tried },
        Ok(Filled::Ignored) => {
            answered(tried, Outcome::Ignored, call.accepted.unwrap_or_else(|| ours("ignored")))
        }
        Ok(Filled::Message { text, .. }) => {
            let tried = Tried { message: Some(text), ..tried };
            answered(tried, Outcome::Accepted, call.accepted.unwrap_or_else(|| ours("accepted")))
        }
        Ok(Filled::Notice(text)) => {
            let tried = Tried { message: Some(text), ..tried };
            answered(tried, Outcome::Told, call.accepted.unwrap_or_else(|| ours("accepted")))
        }
    })
}

fn answered(tried: Tried, outcome: Outcome, answer: Answer) -> Tried {
    Tried { outcome, status: answer.status.as_u16(), answer: answer.body.into_owned(), ..tried }
}

/// The headers of a sample, then the given ones, then what every request has.
fn headers(
    hook: &Hook,
    scheme: &Scheme,
    trial: &Trial,
    sample: &[(&str, &str)],
) -> Result<HeaderMap, NotTried> {
    let mut headers = HeaderMap::new();
    let given = trial.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in sample.iter().copied().chain(given) {
        let not_one = || NotTried::NotAHeader(escaped_and_cut(name, 64));
        let name: HeaderName = name.parse().map_err(|_| not_one())?;
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| not_one())?);
    }
    if let Some(event) = &trial.event {
        let name = scheme.event_header().ok_or(NotTried::NoEventHeader)?.clone();
        let value = HeaderValue::from_bytes(event.as_bytes());
        headers.insert(name.clone(), value.map_err(|_| NotTried::NotAHeader(name.to_string()))?);
    }
    let content_type = match hook.sender() {
        Some("twilio") => "application/x-www-form-urlencoded",
        _ => "application/json",
    };
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    Ok(headers)
}

fn unsigned(hook: &Hook, scheme: &Scheme) -> Proof {
    if matches!(&hook.auth, Auth::Sender { name, .. } if name == "none") {
        return Proof::NotNeeded;
    }
    let there = if scheme.has_secret() { String::new() } else { format!("; {}", no_secret(hook)) };
    Proof::Missing(format!("no signature and no token is given{there}"))
}

fn no_secret(hook: &Hook) -> String {
    match (&hook.auth, hook.unset.as_slice()) {
        (Auth::Shared, _) => "the listener has no secret: WEBHOOK_SECRET is not set".to_owned(),
        (_, []) => "the hook has no secret".to_owned(),
        (_, unset) => unset.join("; "),
    }
}
