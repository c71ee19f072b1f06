//! The hook listener: what anybody who knows the secret can reach, and nothing else.
//!
//! Separate from the API's listener, so that a tunnel or a proxy can expose it alone. It does not look at Host.

pub(crate) mod call_log;
mod connections;
pub(crate) mod declared;
mod slug;
mod throttle;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use ringback_model::hook_call::CallOutcome;
use ringback_model::inbound::bounds::{Caller, Gate};
use ringback_model::inbound::{self, IdempotencyKey, Refusal};
use ringback_model::run::RunId;
use ringback_webhook::senders::Answer;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub use declared::{
    Checked, NotTried, Outcome, Proof, Trial, Tried, check, file_of, hooks_directory, is_slug, try_file,
    try_slug,
};
use throttle::Throttle;

use crate::clock;
use crate::config;
use crate::run::Runs;

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bytes of bodies in flight together.
const BODIES_IN_FLIGHT: usize = 64 << 20;
/// A refused body is read away up to this, so that the answer arrives, as long as it keeps coming.
const READ_AWAY: usize = 1 << 20;
const READ_AWAY_TIME: Duration = Duration::from_secs(5);
const READ_AWAY_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Hooks(Arc<Parts>);

struct Parts {
    runs: Runs,
    secret_hash: [u8; 32],
    max_body: usize,
    /// The hooks of files.
    declared: declared::Declared,
    call_log: call_log::CallLog,
    /// Held for a look-up only.
    gate: Mutex<Gate>,
    /// From when the gate's instants are counted.
    since: Instant,
    trusted_proxies: Vec<ipnet::IpNet>,
    /// Held for a look-up only.
    throttle: Mutex<Throttle>,
    bodies: Arc<Semaphore>,
}

impl Hooks {
    /// `None` when there is no secret, and so no listener.
    pub(crate) fn new(
        config: &config::Inbound,
        runs: Runs,
        declared: declared::Declared,
        call_log: call_log::CallLog,
    ) -> Option<Hooks> {
        let secret = config.secret.as_ref()?;
        Some(Hooks(Arc::new(Parts {
            runs,
            secret_hash: Sha256::digest(secret.reveal()).into(),
            max_body: config.max_body,
            declared,
            call_log,
            gate: Mutex::new(Gate::new(config.rate, &config.bounds)),
            since: Instant::now(),
            trusted_proxies: config.trusted_proxies.clone(),
            throttle: Mutex::default(),
            bodies: Arc::new(Semaphore::new(BODIES_IN_FLIGHT)),
        })))
    }

    /// Serves until `stop` turns true.
    pub(crate) async fn serve(self, listener: TcpListener, stop: watch::Receiver<bool>) {
        let answer = move |socket, request| handle(self.clone(), socket, request);
        connections::serve(listener, answer, stop).await;
    }
}

async fn handle(hooks: Hooks, socket: SocketAddr, request: Request<Incoming>) -> Response {
    let (head, mut body) = request.into_parts();
    let peer = peer(socket, &head.headers, &hooks.0.trusted_proxies);
    let answer = hooks.answer(peer, &head, &mut body).await;
    match answer {
        Ok(answered) => answered.into_response(),
        Err(refused) => {
            // Whoever asks first whether to send it has not sent it; what came too slowly was waited for long enough.
            let is_asking = head.headers.contains_key(header::EXPECT);
            if !is_asking && refused.status != StatusCode::REQUEST_TIMEOUT {
                read_away(body).await;
            }
            refused.into_response()
        }
    }
}

/// What is answered to a call that was believed and fits.
enum Answered {
    /// A run is in the journal. `answer`: what its sender demands to hear instead of ours.
    Accepted { run: RunId, outcome: CallOutcome, answer: Option<Answer> },
    /// A message to the user is; likewise.
    Told { outcome: CallOutcome, answer: Option<Answer> },
    /// The hook is not interested; likewise.
    Ignored(Option<Answer>),
    /// A question about the endpoint.
    Challenge(Answer),
}

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let (run, answer, status) = match self {
            Answered::Accepted { run, answer, .. } => (Some(run), answer, "accepted"),
            Answered::Told { answer, .. } => (None, answer, "accepted"),
            Answered::Ignored(answer) => (None, answer, "ignored"),
            Answered::Challenge(answer) => (None, Some(answer), ""),
        };
        let mut response = match answer {
            Some(answer) => demanded(answer),
            None => (StatusCode::ACCEPTED, json(&format!("{{\"status\":\"{status}\"}}"))).into_response(),
        };
        if let Some(id) = run.and_then(|run| HeaderValue::from_str(&run.to_string()).ok()) {
            response.headers_mut().insert("x-ringback-run", id);
        }
        response
    }
}

fn demanded(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body.into_owned()).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    if let Some(kind) = answer.content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

/// A refusal and how long to wait before another try.
struct Refused {
    status: StatusCode,
    body: String,
    retry_after: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Refused { status, body: refusal.body(), retry_after: refusal.retry_after() }
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
    async fn answer(&self, peer: IpAddr, head: &Head, body: &mut Incoming) -> Result<Answered, Refused> {
        let path = head.uri.path();
        if !path.starts_with("/hook/") {
            return Err(Refusal::NotFound.into());
        }
        let is_bearer = is_authentic(&head.headers, &self.0.secret_hash);
        if path != "/hook/agent" {
            return Box::pin(self.declared(peer, head, body, is_bearer)).await;
        }
        if !is_bearer {
            return Err(self.unauthorized(peer));
        }
        if head.method != Method::POST {
            return Err(Refusal::MethodNotAllowed.into());
        }
        self.wait_for_rate(None)?;
        let (bytes, _room) = self.plain_body(&head.headers, body, self.0.max_body).await?;
        let call = inbound::parse_call(&bytes, self.0.runs.known())?;
        let key = idempotency_key(&head.headers)?;
        let caller = Caller::Source(call.source.clone());
        let run = self.admit(&caller, self.0.runs.accept(call, path, key)).await?;
        Ok(Answered::Accepted { run, outcome: CallOutcome::Accepted, answer: None })
    }

    /// Before the body is read; a call is counted when it is accepted, because only then it is known whose it is.
    fn wait_for_rate(&self, caller: Option<&Caller>) -> Result<(), Refusal> {
        let wait = self.gate().wait(caller, self.0.since.elapsed());
        if wait.is_zero() { Ok(()) } else { Err(Refusal::TooManyRequests { wait }) }
    }

    /// Counts a call while it is accepted, and takes it back when it is not.
    async fn admit<T>(
        &self,
        caller: &Caller,
        accepting: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let counted_at = {
            let mut gate = self.gate();
            let now = self.0.since.elapsed();
            gate.admit(caller, now).map_err(|wait| Refusal::TooManyRequests { wait })?;
            now
        };
        let accepted = accepting.await;
        if accepted.is_err() {
            self.gate().take_back(caller, counted_at);
        }
        accepted
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Failing calls are slowed down; a valid one is never refused for them.
    fn unauthorized(&self, peer: IpAddr) -> Refused {
        let mut throttle = self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        match throttle.failed(peer, clock::now()) {
            Some(wait) => Refusal::TooManyRequests { wait }.into(),
            None => Refusal::Unauthorized.into(),
        }
    }

    /// The body, unless it is encoded, and the room that it takes until it is done with.
    async fn plain_body(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        limit: usize,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refused> {
        is_plain(headers)?;
        self.body(headers, body, limit).await
    }

    /// The body as it came.
    async fn body(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        limit: usize,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refused> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        if announced.is_some_and(|length: usize| length > limit) {
            return Err(Refusal::PayloadTooLarge.into());
        }
        // Taken for what is there: what is announced may never come, and would keep others out.
        let room_for = |bytes: usize| {
            let taken = u32::try_from(bytes).unwrap_or(u32::MAX);
            Arc::clone(&self.0.bodies).try_acquire_many_owned(taken).map_err(|_| Refused {
                retry_after: Some(1),
                ..Refused::other(StatusCode::SERVICE_UNAVAILABLE, "too many bodies in flight")
            })
        };
        let mut room = room_for(0)?;
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|_| Refused::other(StatusCode::BAD_REQUEST, "the body broke off"))?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > limit {
                        return Err(Refusal::PayloadTooLarge.into());
                    }
                    room.merge(room_for(data.len())?);
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(bytes)
        };
        let late = |_| Err(Refused::other(StatusCode::REQUEST_TIMEOUT, "the body took too long"));
        let bytes = tokio::time::timeout(BODY_TIME, reading).await.unwrap_or_else(late)?;
        Ok((bytes, room))
    }
}

/// Whether the body is sent as it is.
fn is_plain(headers: &HeaderMap) -> Result<(), Refused> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let what = "content encoding not supported: send the body as it is";
    Err(Refused::other(StatusCode::UNSUPPORTED_MEDIA_TYPE, what))
}

/// The caller's own key, where it sends one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refused> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    inbound::idempotency_key(value.as_bytes()).map(Some).ok_or_else(|| {
        Refused::other(
            StatusCode::BAD_REQUEST,
            "invalid Idempotency-Key: expected 1 to 255 printable ASCII characters",
        )
    })
}

/// A missing, doubled, non-ASCII or unreadable header costs the same work as a wrong secret.
fn is_authentic(headers: &HeaderMap, secret_hash: &[u8; 32]) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
    let is_single = values.next().is_none();
    let given = first.strip_prefix(b"Bearer ");
    let hash: [u8; 32] = Sha256::digest(given.unwrap_or_default()).into();
    let is_equal: bool = hash.ct_eq(secret_hash).into();
    is_equal && is_single && given.is_some_and(<[u8]>::is_ascii)
}

/// The socket's address; behind a trusted proxy the last address that the proxy did not add itself. Nothing left of
/// what cannot be read is believed: the caller may have written it.
fn peer(socket: SocketAddr, headers: &HeaderMap, trusted: &[ipnet::IpNet]) -> IpAddr {
    let socket = socket.ip();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&socket) {
        return socket;
    }
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|v| v.to_str().unwrap_or_default().split(','))
        .collect();
    let hops = forwarded.into_iter().rev().map_while(|hop| address(hop.trim()));
    hops.into_iter().find(|ip| !is_trusted(ip)).unwrap_or(socket)
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let alone = || hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop).parse().ok();
    hop.parse::<SocketAddr>().map(|with_port| with_port.ip()).ok().or_else(alone)
}

/// Reads what is left of a body, within bounds: a peer that is still sending would otherwise see a reset and not the
/// answer.
async fn read_away(mut body: Incoming) {
    let reading = async {
        let mut read = 0;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(READ_AWAY_PATIENCE, body.frame()).await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > READ_AWAY {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(READ_AWAY_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn hash(secret: &str) -> [u8; 32] {
        Sha256::digest(secret).into()
    }

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let value = |v: &[u8]| HeaderValue::from_bytes(v).unwrap();
        pairs.iter().map(|(n, v)| (header::HeaderName::from_static(n), value(v))).collect()
    }

    #[test]
    fn only_the_one_right_bearer_is_authentic() {
        let right = hash("s3cret");
        assert!(is_authentic(&headers(&[("authorization", b"Bearer s3cret")]), &right));
        for wrong in [
            &b"bearer s3cret"[..],
            b"Bearer s3cret ",
            b"Bearer ",
            b"s3cret",
            b"Bearer s3cr\xe9t",
            b"Basic s3cret",
        ] {
            assert!(!is_authentic(&headers(&[("authorization", wrong)]), &right), "{wrong:?}");
        }
        let mut doubled = headers(&[("authorization", b"Bearer s3cret")]);
        doubled.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
        assert!(!is_authentic(&doubled, &right) && !is_authentic(&HeaderMap::new(), &right));
        let beyond = hash("p\u{e4}ss");
        assert!(!is_authentic(&headers(&[("authorization", "Bearer p\u{e4}ss".as_bytes())]), &beyond));
        // No secret is no secret, not an empty one.
        assert!(!is_authentic(&HeaderMap::new(), &hash("")));
    }

    #[test]
    fn a_forwarded_address_is_believed_from_trusted_proxies_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let forwarded = headers(&[("x-forwarded-for", b"203.0.113.9, 198.51.100.7, 10.1.1.1")]);
        let seen = |socket: &str| peer(socket.parse().unwrap(), &forwarded, &trusted).to_string();
        assert_eq!(seen("192.0.2.1:9"), "192.0.2.1");
        // The caller wrote what stands left of the first address that the proxies vouch for.
        assert_eq!(seen("10.0.0.2:9"), "198.51.100.7");
        for (value, believed) in [
            ("203.0.113.9, 198.51.100.7:4711", "198.51.100.7"),
            ("203.0.113.9, [2001:db8::1], 10.1.1.1", "2001:db8::1"),
            ("203.0.113.9, [2001:db8::1]:443", "2001:db8::1"),
            ("203.0.113.9, unknown", "10.0.0.2"),
            ("203.0.113.9, \u{e4}", "10.0.0.2"),
        ] {
            let all = headers(&[("x-forwarded-for", value.as_bytes())]);
            assert_eq!(peer("10.0.0.2:9".parse().unwrap(), &all, &trusted).to_string(), believed, "{value}");
        }
        let direct = peer("10.0.0.2:9".parse().unwrap(), &HeaderMap::new(), &trusted);
        assert_eq!(direct.to_string(), "10.0.0.2");
    }

    /// For as long as `RINGBACK_FUZZ_SECONDS` says, else 5 s.
    #[tokio::test]
    async fn survives_generated_bytes_as_requests_and_headers() {
        let seconds = std::env::var("RINGBACK_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let answer = |socket, request: Request<Incoming>| async move {
            let is_known = is_authentic(request.headers(), &hash("s3cret"));
            let _ = peer(socket, request.headers(), &["127.0.0.0/8".parse().unwrap()]);
            let _ = request.headers().get("idempotency-key").map(|v| inbound::idempotency_key(v.as_bytes()));
            if is_known { StatusCode::ACCEPTED } else { StatusCode::UNAUTHORIZED }.into_response()
        };
        let serving = tokio::spawn(connections::serve(listener, answer, stopping));

        let mut state = 0x0005_eed5_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap_or(0) % below
        };
        const PIECES: [&[u8]; 12] = [
            b"POST /hook/agent HTTP/1.1\r\n",
            b"GET ",
            b"authorization: Bearer ",
            b"authorization: ",
            b"x-forwarded-for: 1.2.3.4, ",
            b"idempotency-key: ",
            b"\r\n",
            b"\r\n\r\n",
            b"content-length: 99999999999999999999\r\n",
            b"transfer-encoding: chunked\r\n\r\nffffffff\r\n",
            b"host: x\r\n",
            b": ",
        ];
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut sent = 0_u32;
        while Instant::now() < until {
            let mut bytes = Vec::new();
            for _ in 0..=random(12) {
                match random(3) {
                    0 => bytes.extend((0..random(64)).map(|_| u8::try_from(random(256)).unwrap_or(0))),
                    _ => bytes.extend_from_slice(PIECES[random(PIECES.len())]),
                }
            }
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 64])).await;
            sent += 1;
        }
        assert!(sent > 100, "{sent}");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"POST /hook/agent HTTP/1.1\r\nhost: x\r\nauthorization: Bearer s3cret\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        stop.send_replace(true);
        serving.await.unwrap();
    }
}
