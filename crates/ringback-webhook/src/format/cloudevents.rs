//! CloudEvents 1.0, structured mode: the event as it is, in an envelope that any sink knows.

use bytes::Bytes;
use ringback_model::Event;
use ringback_model::event::EventKind;
use serde::Serialize;
use serde_json::value::RawValue;
use url::Url;

use super::Request;

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'static str,
    subject: &'a str,
    time: ringback_model::Timestamp,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

pub(super) fn request(url: &Url, body: &Bytes) -> Option<Request> {
    let event: Event = serde_json::from_slice(body).ok()?;
    let envelope = Envelope {
        specversion: "1.0",
        id: event.id.to_string(),
        source: format!("urn:ringback:{}", host(event.host.as_deref())),
        r#type: match event.event {
            EventKind::StateTransition => "ringback.state_transition",
            EventKind::Ping => "ringback.ping",
            EventKind::Message => return None,
        },
        subject: event.session_id.as_str(),
        time: event.timestamp,
        datacontenttype: "application/json",
        data: serde_json::from_slice(body).ok()?,
    };
    let request = Request::json(url, &envelope)?;
    Some(Request { content_type: "application/cloudevents+json", ..request })
}

/// As a part of a URN.
fn host(name: Option<&str>) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = name.unwrap_or_default().chars().filter(plain).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
