//! The hook listener: what anybody who knows the secret can reach, and nothing else.
//!
//! Separate from the API's listener, so that a tunnel or a proxy can expose it alone. It does not look at Host.

mod connections;
mod throttle;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use governor::clock::Clock;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body_util::BodyExt;
use ringback_model::inbound::{self, Refusal};
use ringback_model::run::RunId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use connections::Peer;
use throttle::Throttle;

use crate::clock;
use crate::config;
use crate::run::Runs;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of bodies in flight together.
const BODIES_IN_FLIGHT: usize = 64 << 20;
/// A refused body is read away up to this, so that the answer arrives.
const READ_AWAY: usize = 1 << 20;
/// Seconds until a caller may try again when the journal cannot be written.
const STORAGE_RETRY: u64 = 30;

#[derive(Clone)]
pub(crate) struct Hooks(Arc<Parts>);

struct Parts {
    runs: Runs,
    secret_hash: [u8; 32],
    max_body: usize,
    rate: Option<DefaultDirectRateLimiter>,
    trusted_proxies: Vec<ipnet::IpNet>,
    /// Held for a look-up only.
    throttle: Mutex<Throttle>,
    bodies: Arc<Semaphore>,
}

impl Hooks {
    /// `None` when there is no secret, and so no listener.
    pub(crate) fn new(config: &config::Inbound, runs: Runs) -> Option<Hooks> {
        let secret = config.secret.as_ref()?;
        let quota = config.rate_per_minute.and_then(NonZeroU32::new).map(Quota::per_minute);
        Some(Hooks(Arc::new(Parts {
            runs,
            secret_hash: Sha256::digest(secret.reveal()).into(),
            max_body: config.max_body,
            rate: quota.map(RateLimiter::direct),
            trusted_proxies: config.trusted_proxies.clone(),
            throttle: Mutex::default(),
            bodies: Arc::new(Semaphore::new(BODIES_IN_FLIGHT)),
        })))
    }

    /// Serves until `stop` turns true.
    pub(crate) async fn serve(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        connections::serve(listener, Router::new().fallback(handle).with_state(self), stop).await;
    }
}

async fn handle(State(hooks): State<Hooks>, request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let socket = head.extensions.get::<Peer>().map(|p| p.0);
    let peer = hooks.peer(socket, &head.headers);
    let answer = hooks.answer(peer, &head.method, head.uri.path(), &head.headers, &mut body).await;
    match answer {
        Ok(run) => {
            let mut response = (StatusCode::ACCEPTED, json(r#"{"status":"accepted"}"#)).into_response();
            if let Ok(id) = HeaderValue::from_str(&run.to_string()) {
                response.headers_mut().insert("x-ringback-run", id);
            }
            response
        }
        Err(refused) => {
            read_away(body).await;
            refused.into_response()
        }
    }
}

/// A refusal and how long to wait before another try.
struct Refused {
    status: StatusCode,
    body: String,
    retry_after: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let retry_after = match refusal {
            Refusal::StorageUnavailable => Some(STORAGE_RETRY),
            Refusal::TooManyRequests => Some(60),
            _ => None,
        };
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Refused { status, body: refusal.body(), retry_after }
    }
}

impl Refused {
    fn other(status: StatusCode, text: &str) -> Self {
        Refused { status, body: format!("{{\"error\":\"{text}\"}}"), retry_after: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, json(&self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn json(text: &str) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json")], text.to_owned())
}

impl Hooks {
    /// Authentication, then rates, then the body, then idempotency.
    async fn answer(
        &self,
        peer: Option<IpAddr>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<RunId, Refused> {
        if !path.starts_with("/hook/") {
            return Err(Refusal::NotFound.into());
        }
        if !self.is_authentic(headers) {
            return Err(self.unauthorized(peer));
        }
        if path != "/hook/agent" {
            return Err(Refusal::NotFound.into());
        }
        if method != Method::POST {
            return Err(Refusal::MethodNotAllowed.into());
        }
        if let Some(rate) = &self.0.rate
            && let Err(until) = rate.check()
        {
            let wait = until.wait_time_from(governor::clock::DefaultClock::default().now());
            return Err(Refused { retry_after: Some(wait.as_secs() + 1), ..Refusal::TooManyRequests.into() });
        }
        let bytes = self.body(headers, body).await?;
        let call = inbound::parse_call(&bytes, &self.0.runs.known())?;
        let key = match headers.get("idempotency-key") {
            None => None,
            Some(value) => Some(inbound::idempotency_key(value.as_bytes()).ok_or_else(|| {
                Refused::other(
                    StatusCode::BAD_REQUEST,
                    "invalid Idempotency-Key: expected 1 to 255 printable ASCII characters",
                )
            })?),
        };
        Ok(self.0.runs.accept(call, path, key).await?)
    }

    /// A missing, doubled or unreadable header costs the same work as a wrong secret.
    fn is_authentic(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let first = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
        let is_single = values.next().is_none();
        let given = first.strip_prefix(b"Bearer ");
        let hash: [u8; 32] = Sha256::digest(given.unwrap_or_default()).into();
        let is_equal: bool = hash.ct_eq(&self.0.secret_hash).into();
        is_equal && is_single && given.is_some()
    }

    /// Failing calls are slowed down; a valid one is never refused for them.
    fn unauthorized(&self, peer: Option<IpAddr>) -> Refused {
        let mut throttle = self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        match peer.and_then(|peer| throttle.failed(peer, clock::now())) {
            Some(wait) => {
                Refused { retry_after: Some(wait.as_secs().max(1)), ..Refusal::TooManyRequests.into() }
            }
            None => Refusal::Unauthorized.into(),
        }
    }

    /// The socket's address; behind a trusted proxy the last address that the proxy did not add itself.
    fn peer(&self, socket: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let socket = socket?.ip();
        let is_trusted = |ip: &IpAddr| self.0.trusted_proxies.iter().any(|net| net.contains(ip));
        if !is_trusted(&socket) {
            return Some(socket);
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
        let hops: Vec<IpAddr> =
            forwarded.flat_map(|v| v.split(',')).filter_map(|a| a.trim().parse().ok()).collect();
        Some(hops.into_iter().rev().find(|ip| !is_trusted(ip)).unwrap_or(socket))
    }

    async fn body(&self, headers: &HeaderMap, body: &mut Body) -> Result<Vec<u8>, Refused> {
        let is_plain = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .all(|v| v.as_bytes().eq_ignore_ascii_case(b"identity"));
        if !is_plain {
            return Err(Refused::other(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content encoding not supported: send the body as it is",
            ));
        }
        let limit = self.0.max_body;
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(Refusal::PayloadTooLarge.into());
        }
        let reserved = u32::try_from(announced.unwrap_or(limit)).unwrap_or(u32::MAX);
        let _room = self.0.bodies.try_acquire_many(reserved).map_err(|_| Refused {
            retry_after: Some(1),
            ..Refused::other(StatusCode::SERVICE_UNAVAILABLE, "too many bodies in flight")
        })?;
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|_| Refused::other(StatusCode::BAD_REQUEST, "the body broke off"))?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > limit {
                        return Err(Refusal::PayloadTooLarge.into());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(bytes)
        };
        tokio::time::timeout(BODY_TIME, reading)
            .await
            .unwrap_or_else(|_| Err(Refused::other(StatusCode::REQUEST_TIMEOUT, "the body took too long")))
    }
}

/// Reads what is left of a body, within bounds: a peer that is still sending would otherwise see a reset and not the
/// answer.
async fn read_away(mut body: Body) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > READ_AWAY {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
}
