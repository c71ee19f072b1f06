//! From what a caller sent to the message of a run, to one for the user, to silence, or to the 400 that it is answered.
//!
//! Owns: how a body becomes a tree, what expressions see of a request, the order of the checks, and the texts of the
//! answers. Pure: the fence is an argument. Who called, and whether they may, was asked before.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use ringback_model::escape::escaped_and_cut;
use ringback_model::inbound::json;
use ringback_webhook::senders::Scheme;
use serde_json::{Map, Value};

use super::auth::Auth;
use super::expressions::Context;
use super::{Hook, notice, prompt};

/// The most fields of a form.
const MAX_FORM_FIELDS: usize = 1000;
/// The most names in an answer.
const MAX_NAMES: usize = 20;

/// What a caller sent.
#[derive(Clone, Copy)]
pub(in crate::hook) struct Sent<'a> {
    pub(in crate::hook) headers: &'a HeaderMap,
    pub(in crate::hook) query: Option<&'a str>,
    pub(in crate::hook) body: &'a [u8],
    /// The sender's name for what happened.
    pub(in crate::hook) event: Option<&'a str>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::hook) enum Filled {
    /// The hook is not interested.
    Ignored,
    /// What a run is to be asked.
    Message {
        text: String,
        /// What the call is about; see [`ringback_model::run::Run::subject`].
        subject: Option<String>,
    },
    /// What the user is to be told, without a run.
    Notice(String),
}

/// Why a payload does not fit; every one is a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::hook) enum Unfit {
    #[error("invalid json")]
    InvalidJson,
    /// At most 20, none echoes a value.
    #[error("validation failed")]
    Invalid(Vec<String>),
    /// Names of the file.
    #[error("payload missing fields referenced in template: [{}]", .0.join(", "))]
    Missing(Vec<String>),
}

impl Unfit {
    /// The answer's body.
    pub(in crate::hook) fn body(&self) -> String {
        let error = self.to_string();
        match self {
            // Written by hand: a map would sort its keys.
            Unfit::Invalid(details) => {
                format!(
                    "{{\"error\":{},\"details\":{}}}",
                    Value::from(error),
                    Value::from(details.as_slice())
                )
            }
            Unfit::InvalidJson | Unfit::Missing(_) => serde_json::json!({ "error": error }).to_string(),
        }
    }
}

/// Fills a hook.
pub(in crate::hook) fn fill(hook: &Hook, sent: Sent<'_>, fence: &str) -> Result<Filled, Unfit> {
    if is_ping(hook, sent.event) {
        return Ok(Filled::Ignored);
    }
    // Sentry sends some of its events without a body.
    let is_bodiless = sent.body.is_empty() && hook.sender() == Some("sentry");
    let body = if is_bodiless { Map::new() } else { body(&sent)? };
    let Some((values, subject)) = values(hook, body, &sent)? else { return Ok(Filled::Ignored) };
    let values = Value::Object(values);
    let problems = hook.fields.problems(&values);
    if !problems.is_empty() {
        return Err(Unfit::Invalid(problems));
    }
    let Value::Object(values) = values else { return Err(Unfit::InvalidJson) };
    let is_there = |name: &str| hook.fields.is_declared(name) && values.contains_key(name);
    let missing: Vec<String> =
        hook.template.fields().into_iter().filter(|name| !is_there(name)).map(str::to_owned).collect();
    if !missing.is_empty() {
        return Err(Unfit::Missing(missing.into_iter().take(MAX_NAMES).collect()));
    }
    if hook.flow.is_deliver_only {
        return Ok(notice::text(&hook.template, &values).map_or(Filled::Ignored, Filled::Notice));
    }
    Ok(Filled::Message { text: prompt::message(&hook.fields, &hook.template, &values, fence), subject })
}

/// Values by field, and what the call is about.
type Values = (Map<String, Value>, Option<String>);

/// What the fields are filled with; `None` where `when` does not hold.
fn values(hook: &Hook, body: Map<String, Value>, sent: &Sent<'_>) -> Result<Option<Values>, Unfit> {
    if hook.when.is_none() && hook.map.is_none() && !hook.flow.has_key() {
        return Ok(Some((body, hook.flow.subject_without_key(&hook.slug))));
    }
    let context = Context::new(&names(hook, body.clone(), sent));
    let failed = |what: String| move |e| Unfit::Invalid(vec![format!("{what}: {e}")]);
    if let Some(when) = &hook.when
        && !when.holds(&context).map_err(failed("when".to_owned()))?
    {
        return Ok(None);
    }
    let subject = hook.flow.subject(&hook.slug, &context).map_err(failed("coalesce.key".to_owned()))?;
    let Some(map) = &hook.map else { return Ok(Some((body, subject))) };
    let mut values = Map::new();
    for (name, mapped) in map {
        let failed = failed(format!("map.{}", escaped_and_cut(name, 64)));
        if let Some(value) = mapped.value(&context).map_err(failed)? {
            values.insert(name.clone(), value);
        }
    }
    Ok(Some((values, subject)))
}

/// GitHub asks once whether anybody listens; its ping has nothing that a hook could be about.
fn is_ping(hook: &Hook, event: Option<&str>) -> bool {
    matches!(&hook.auth, Auth::Sender { name, .. } if name == "github") && event == Some("ping")
}

/// The body as an object: JSON, or a form. A form whose only field is `payload` carries JSON in it (GitHub, Slack).
fn body(sent: &Sent<'_>) -> Result<Map<String, Value>, Unfit> {
    let content_type = sent.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let value = if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let form = pairs(sent.body).ok_or(Unfit::InvalidJson)?;
        match form.get("payload").and_then(Value::as_str) {
            Some(payload) if form.len() == 1 => json::read(payload.as_bytes()),
            _ => Ok(Value::Object(form)),
        }
    } else {
        json::read(sent.body)
    };
    match value {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) | Err(json::InvalidJson) => Err(Unfit::InvalidJson),
    }
}

/// Fields of a form or a query. One that is there more than once is a list. `None`: there are too many.
fn pairs(text: &[u8]) -> Option<Map<String, Value>> {
    let mut fields = Map::new();
    for (count, (name, value)) in form_urlencoded::parse(text).enumerate() {
        if count == MAX_FORM_FIELDS {
            return None;
        }
        let value = Value::from(value.into_owned());
        match fields.get_mut(name.as_ref()) {
            None => {
                fields.insert(name.into_owned(), value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Some(fields)
}

/// What expressions see: the body, and of the request `headers`, `query` and `event`. Where the body has an `event` of
/// its own (Slack, PagerDuty) it is that one.
fn names(hook: &Hook, mut body: Map<String, Value>, sent: &Sent<'_>) -> Map<String, Value> {
    let query = pairs(sent.query.unwrap_or_default().as_bytes()).unwrap_or_default();
    body.insert("headers".to_owned(), Value::Object(headers(hook, sent.headers)));
    body.insert("query".to_owned(), Value::Object(query));
    if let Some(event) = sent.event {
        body.entry("event").or_insert_with(|| event.into());
    }
    body
}

/// The headers that carry no proof, by their names in lower case; of a repeated one the values in a row.
pub(in crate::hook) fn headers(hook: &Hook, headers: &HeaderMap) -> Map<String, Value> {
    let unsigned = Scheme::unsigned();
    let scheme: &Scheme = match &hook.auth {
        Auth::Shared => &unsigned,
        Auth::Sender { scheme, .. } => scheme,
    };
    let shown = headers.keys().filter(|name| !scheme.hides(name));
    shown
        .map(|name| {
            let values: Vec<&str> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
            (name.as_str().to_owned(), values.join(", ").into())
        })
        .collect()
}
