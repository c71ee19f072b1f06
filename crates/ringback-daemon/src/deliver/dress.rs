//! What every request of an endpoint has in common, made once when its loop starts.

use http::{HeaderMap, HeaderName, HeaderValue};
use ringback_model::Endpoint;
use ringback_webhook::format::Destination;
use ringback_webhook::sign::Key;

/// What every request of an endpoint carries.
pub(super) struct Dress {
    /// `None` only for notifiers, which have their own: the configuration takes no other URL.
    pub(super) destination: Option<Destination>,
    pub(super) keys: Vec<Key>,
    pub(super) headers: HeaderMap,
}

impl Dress {
    pub(super) fn of(endpoint: &Endpoint) -> Dress {
        let headers = endpoint.headers.iter().filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(value.reveal()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        Dress {
            destination: Destination::of(endpoint.format, endpoint.url.reveal()).ok(),
            keys: Key::all(&endpoint.secrets),
            headers: headers.collect(),
        }
    }
}
