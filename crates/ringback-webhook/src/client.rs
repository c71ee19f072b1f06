//! The one HTTP client of the process: one attempt in, one [`Reply`] out.
//!
//! It follows no redirect, uses no proxy that it was not given, decompresses nothing and repeats nothing that the
//! receiver may have seen. It goes only where its [`Policy`] allows: the URL is judged before anything is done, and
//! the addresses of a name when a connection is made. It does not know events, signatures or what a status means.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ringback_model::delivery::{Answer, Reply};
use ringback_model::{Failure, Timestamp};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;
use url::{Position, Url};

use crate::connect::Connector;
use crate::failure;
use crate::guard::{self, Denied, Policy};
use crate::proxy::{Proxies, Proxy};
use crate::redact::{self, Hidden};
use crate::resolve::{Guarded, Resolve, SystemResolver, is_ours};

/// How much of a response's body is read; at this point the connection is dropped and the status counts.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How much of a response's body is kept, in bytes.
pub const EXCERPT_LIMIT: usize = 1024;

/// Longest `Location` that is kept, in bytes.
const LOCATION_LIMIT: usize = 512;
/// Read further than the excerpt, so that a credential that straddles its end is recognised and masked.
const HEAD_LIMIT: usize = 4 * EXCERPT_LIMIT;
/// Idle connections kept to one receiver: as many as a thousand endpoints at one host need at once. Fewer would have
/// the others connect anew for each delivery.
const IDLE_PER_HOST: usize = 1024;
/// Shorter than the shortest keep-alive in common use (five seconds, Node.js): we hang up first, so that no attempt
/// is lost to a connection that the receiver closes at the same instant.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// How long a name is looked up that a proxy will look up anyway.
const LOOKUP: Duration = Duration::from_secs(2);

/// Sends attempts. Clones are cheap and share the idle connections.
#[derive(Clone)]
pub struct Client {
    reach: Arc<Reach>,
    ground: Arc<Ground>,
}

/// What clients of every policy have in common.
struct Ground {
    tls: Arc<ClientConfig>,
    names: Arc<dyn Resolve>,
    proxies: Option<Proxies>,
    /// Those in use. Held for lookups only.
    reaches: Mutex<HashMap<Arc<Policy>, Weak<Reach>>>,
}

/// The connections under one policy. A pooled connection never serves another policy.
struct Reach {
    policy: Arc<Policy>,
    http: Http,
    /// For URLs with one of ringback's own ports, which are allowed on other machines: made when there is one, since
    /// a resolver does not learn the port. Held for lookups only.
    own_ports: Mutex<HashMap<u16, Http>>,
    /// Those that go through a proxy and nowhere else: made when there is a URL for it. Held for lookups only.
    proxied: Mutex<HashMap<Proxy, Http>>,
}

/// A pool of connections that are made in one way.
type Http = legacy::Client<Connector, Full<Bytes>>;

/// The client cannot be made: the TLS library refuses its own defaults.
#[derive(Debug, thiserror::Error)]
#[error("tls: {0}")]
pub struct Error(#[from] rustls::Error);

impl Client {
    /// A client under the default policy that trusts the platform's certificate authorities, or those in the PEM file
    /// that the environment variable `SSL_CERT_FILE` names. Reads files; to be called once, at start.
    ///
    /// # Errors
    ///
    /// The TLS library cannot be set up. A machine without certificate authorities is no error: plain http
    /// works there, and https says what is wrong.
    pub fn new() -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "certificate authorities of the platform: one source cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(ignored, "no certificate authorities found; https endpoints will fail");
        }
        Client::with_roots(roots)
    }

    /// A client under the default policy that trusts exactly these certificate authorities.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn with_roots(roots: RootCertStore) -> Result<Self, Error> {
        Client::with_names(roots, Arc::new(SystemResolver))
    }

    /// As [`Client::with_roots`], with another place where names are looked up. What it answers is judged as the
    /// system's answers are.
    ///
    /// # Errors
    ///
    /// As [`Client::new`].
    pub fn with_names(roots: RootCertStore, names: Arc<dyn Resolve>) -> Result<Self, Error> {
        // The provider is named here, so that nothing depends on a process-wide default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let ground = Ground { tls: tls.into(), names, proxies: None, reaches: Mutex::default() };
        Ok(Client::on(ground, Policy::default()))
    }

    /// The same client, with the URLs that these are for going through these proxies.
    ///
    /// A proxy may be at any address that is not refused always. What it is asked for is judged before: a URL as
    /// always, and the addresses of a name as far as they are known here. Where the proxy then connects to is its own
    /// doing.
    pub fn through(&self, proxies: Proxies) -> Self {
        let (tls, names) = (Arc::clone(&self.ground.tls), Arc::clone(&self.ground.names));
        let ground = Ground { tls, names, proxies: Some(proxies), reaches: Mutex::default() };
        Client::on(ground, Policy::clone(&self.reach.policy))
    }

    fn on(ground: Ground, policy: Policy) -> Self {
        Client { reach: ground.reach(policy), ground: Arc::new(ground) }
    }

    /// The same client under another policy. All clients of equal policies share their connections.
    pub fn under(&self, policy: Policy) -> Self {
        Client { reach: self.ground.reach(policy), ground: Arc::clone(&self.ground) }
    }

    /// Makes one attempt: POSTs `body` with `headers` to `url` and reads the answer, all within `timeout`.
    ///
    /// Credentials in the URL become a `Basic` authorization. `now` is the time of the attempt, to which a
    /// `Retry-After` date is compared. What is kept of the answer (excerpt, location, error texts) has control
    /// characters escaped and holds no credential of the URL and no value of a sensitive header.
    ///
    /// Dropping the future ends the attempt and its connection.
    pub async fn send(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        now: Timestamp,
    ) -> Reply {
        let (answer, _) = self.exchange(url, headers, body, timeout, now).await?;
        Ok(answer)
    }

    /// As [`Client::send`], with the body of the answer as it came, for a caller that has to read it: at most
    /// [`BODY_LIMIT`] bytes, in which nothing is masked.
    pub async fn exchange(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        now: Timestamp,
    ) -> Result<(Answer, Vec<u8>), Failure> {
        guard::vet_url(url, &self.reach.policy, is_ours)
            .map_err(|denied| Failure::Blocked(denied.to_string()))?;
        let proxy = self.ground.proxies.as_ref().and_then(|proxies| proxies.of_url(url));
        let mut hidden = Hidden::of(url).and_headers(&headers);
        if let Some(credentials) = proxy.as_ref().and_then(|proxy| proxy.credentials.clone()) {
            hidden = hidden.and_headers(&HeaderMap::from_iter([(PROXY_AUTHORIZATION, credentials)]));
        }
        let request = request(url, headers, body, proxy.as_ref())
            .ok_or_else(|| Failure::Broken("the request could not be made".to_owned()))?;
        let http = match &proxy {
            Some(proxy) => self.proxied(proxy)?,
            None => self.http(url),
        };
        let began = Instant::now();
        let exchange = async {
            if proxy.is_some() {
                self.vet_name(url).await?;
            }
            let response = http
                .request(request)
                .await
                .map_err(|error| failure::classify(&error, error.is_connect(), &hidden))?;
            read(response, url, &hidden, began, now)
                .await
                .map_err(|error| failure::classify(&error, false, &hidden))
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Failure::Timeout))
    }

    /// What makes connections to a proxy.
    fn proxied(&self, proxy: &Proxy) -> Result<Http, Failure> {
        let policy = Proxy::policy(&self.reach.policy.own_ports);
        proxy.vet(&policy).map_err(|denied| Failure::Blocked(format!("the proxy: {denied}")))?;
        let mut proxied = self.reach.proxied.lock().unwrap_or_else(PoisonError::into_inner);
        let made = proxied.entry(proxy.clone()).or_insert_with(|| self.ground.proxied(proxy, policy));
        Ok(made.clone())
    }

    /// Judges the addresses of a URL's name where somebody else will look it up to connect. One that is not known
    /// here passes: behind a proxy there often is no DNS for the rest of the world.
    async fn vet_name(&self, url: &Url) -> Result<(), Failure> {
        let policy = &self.reach.policy;
        let port = url.port_or_known_default().filter(|port| policy.own_ports.contains(port));
        let Some(name) = url.domain() else { return Ok(()) };
        let names = self.ground.guarded(Arc::clone(policy), port.unwrap_or(0));
        match tokio::time::timeout(LOOKUP, names.look_up(name)).await {
            Ok(Err(error)) => match error.downcast_ref::<Denied>() {
                Some(denied) => Err(Failure::Blocked(denied.to_string())),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What makes connections to a URL's port.
    fn http(&self, url: &Url) -> Http {
        let reach = &self.reach;
        let Some(port) = url.port_or_known_default().filter(|port| reach.policy.own_ports.contains(port))
        else {
            return reach.http.clone();
        };
        let mut own_ports = reach.own_ports.lock().unwrap_or_else(PoisonError::into_inner);
        own_ports.entry(port).or_insert_with(|| self.ground.http(&reach.policy, port)).clone()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("policy", &self.reach.policy).finish_non_exhaustive()
    }
}

impl Ground {
    fn reach(&self, policy: Policy) -> Arc<Reach> {
        let mut reaches = self.reaches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reach) = reaches.get(&policy).and_then(Weak::upgrade) {
            return reach;
        }
        let policy = Arc::new(policy);
        let http = self.http(&policy, 0);
        let reach = Arc::new(Reach {
            policy: Arc::clone(&policy),
            http,
            own_ports: Mutex::default(),
            proxied: Mutex::default(),
        });
        reaches.retain(|_, reach| reach.strong_count() > 0);
        reaches.insert(policy, Arc::downgrade(&reach));
        reach
    }

    fn http(&self, policy: &Arc<Policy>, own_port: u16) -> Http {
        pool(Connector::direct(&self.tls, self.guarded(Arc::clone(policy), own_port)))
    }

    /// Connections to this proxy and nothing else.
    fn proxied(&self, proxy: &Proxy, policy: Policy) -> Http {
        let port = proxy.url.port_or_known_default().filter(|port| policy.own_ports.contains(port));
        let names = self.guarded(Arc::new(policy), port.unwrap_or(0));
        pool(Connector::proxied(&self.tls, names, &proxy.uri, proxy.credentials.as_ref()))
    }

    fn guarded(&self, policy: Arc<Policy>, own_port: u16) -> Guarded {
        Guarded { names: Arc::clone(&self.names), policy, own_port }
    }
}

fn pool(connector: Connector) -> Http {
    #[expect(clippy::disallowed_methods, reason = "this is the one guarded client")]
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_idle_timeout(IDLE_FOR)
        .build(connector)
}

/// A request with these headers, and an authorization made of the URL's credentials where they have none. `None` = the
/// URL cannot be asked for.
fn request(
    url: &Url,
    mut headers: HeaderMap,
    body: Bytes,
    proxy: Option<&Proxy>,
) -> Option<Request<Full<Bytes>>> {
    let uri: Uri = if url.username().is_empty() && url.password().is_none() {
        url[..Position::AfterQuery].parse().ok()?
    } else {
        headers.entry(AUTHORIZATION).or_insert(authorization(url)?);
        let (scheme, rest) =
            (&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterQuery]);
        format!("{scheme}{rest}").parse().ok()?
    };
    if url.scheme() == "http"
        && let Some(credentials) = proxy.and_then(|proxy| proxy.credentials.clone())
    {
        headers.insert(PROXY_AUTHORIZATION, credentials);
    }
    // Firewalls take a request without it for a robot's.
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some(request)
}

/// The `Basic` authorization of a URL's user and password.
fn authorization(url: &Url) -> Option<HeaderValue> {
    let mut value: HeaderValue = format!("Basic {}", redact::basic(url)).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn read(
    mut response: Response<Incoming>,
    url: &Url,
    hidden: &Hidden,
    began: Instant,
    now: Timestamp,
) -> Result<(Answer, Vec<u8>), hyper::Error> {
    let answered_at = now.plus(began.elapsed());
    let status = response.status();
    let headers = response.headers();
    let mut answer = Answer {
        status: status.as_u16(),
        retry_after: retry_after(headers, answered_at),
        disable: wants_no_more(headers),
        location: if status.is_redirection() { location(headers, url, hidden) } else { None },
        excerpt: String::new(),
    };
    let mut body = Vec::new();
    while body.len() < BODY_LIMIT
        && let Some(frame) = response.frame().await
    {
        // Trailers are no data.
        let Ok(chunk) = frame?.into_data() else { continue };
        let wanted = chunk.len().min(BODY_LIMIT - body.len());
        body.extend_from_slice(&chunk[..wanted]);
    }
    let head = &body[..body.len().min(HEAD_LIMIT)];
    answer.excerpt = hidden.clean(&String::from_utf8_lossy(head), EXCERPT_LIMIT);
    Ok((answer, body))
}

/// `Retry-After` as a wait from `now`: whole seconds, or an HTTP date (RFC 9110, 10.2.3). A date in the past is no
/// wait; anything else is as if it were not there.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // A number too large to hold is as good as forever: the rules cap it.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(0).plus(date).since(now))
}

/// Whether the receiver says `webhook-delivery: disable`.
fn wants_no_more(headers: &HeaderMap) -> bool {
    headers
        .get_all("webhook-delivery")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.trim().eq_ignore_ascii_case("disable"))
}

/// The redirect's target, without what could be a credential in it: users, query and fragment go.
fn location(headers: &HeaderMap, url: &Url, hidden: &Hidden) -> Option<String> {
    let raw = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes());
    let mut target = match url.join(&raw) {
        Ok(target) => target,
        Err(_) => return Some("(not a url)".to_owned()),
    };
    // Both fail only for a URL that cannot have a user.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    target.set_query(None);
    target.set_fragment(None);
    Some(hidden.clean(target.as_str(), LOCATION_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wait(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        // Sun, 06 Nov 1994 08:49:07 GMT
        retry_after(&headers, Timestamp::from_millis(784_111_747_000))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Sun Nov  6 08:49:37 1994"), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_date_in_the_past_is_no_wait() {
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    }

    #[test]
    fn a_number_beyond_all_measure_is_kept_for_the_rules_to_cap() {
        assert_eq!(wait("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn what_is_neither_is_as_if_it_were_not_there() {
        for value in ["", "soon", "-1", "1.5", "1e3", "+3"] {
            assert_eq!(wait(value), None, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Timestamp::from_millis(0)), None);
    }

    fn shown(url: &str, location_header: &str) -> Option<String> {
        let url: Url = url.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_str(location_header).unwrap());
        location(&headers, &url, &Hidden::of(&url))
    }

    #[test]
    fn a_location_is_shown_absolute_and_without_credentials() {
        let url = "https://h.example/in/0123456789abcdef?key=0123456789";
        assert_eq!(shown(url, "/else").as_deref(), Some("https://h.example/else"));
        assert_eq!(
            shown(url, "https://a:b@other.example/x?y=z#f").as_deref(),
            Some("https://other.example/x")
        );
        assert_eq!(
            shown(url, "https://www.h.example/in/0123456789abcdef?key=0123456789").as_deref(),
            Some("https://www.h.example/in/***")
        );
        assert_eq!(shown(url, "http://[").as_deref(), Some("(not a url)"));
    }
}
