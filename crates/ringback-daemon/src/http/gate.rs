//! Who may call the API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use ringback_model::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{App, Error};

/// Refuses requests whose Host is not ours (a page in the user's browser that had its name rebound to loopback),
/// and pages of other origins.
pub(super) async fn host(State(app): State<App>, request: Request, next: Next) -> Result<Response, Error> {
    let headers = request.headers();
    let given = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let given = given.or_else(|| request.uri().authority().map(|a| a.as_str())).unwrap_or("");
    let is_single = headers.get_all(header::HOST).iter().count() <= 1;
    if !is_single || !host_of(given).is_some_and(|host| is_ours(&app.hosts, host)) {
        return Err(Error::Forbidden("host not allowed"));
    }
    if !headers.get_all(header::ORIGIN).iter().all(|origin| is_page_of(given, origin)) {
        return Err(Error::Forbidden("origin not allowed"));
    }
    Ok(next.run(request).await)
}

/// Asks for the token. The event stream alone also takes it as a query parameter: browsers cannot set headers
/// there.
pub(super) async fn token(State(app): State<App>, request: Request, next: Next) -> Result<Response, Error> {
    if wants_token(request.method(), request.uri().path(), app.is_loopback) {
        check(&app, &request)?;
    }
    Ok(next.run(request).await)
}

/// Everything below /api but what a page needs before it has the token, whether there is such a route or not; beyond
/// loopback the probes too.
fn wants_token(method: &Method, path: &str, is_loopback: bool) -> bool {
    match path {
        "/api" | "/api/auth" => method != Method::GET && method != Method::HEAD,
        "/healthz" | "/readyz" | "/metrics" => !is_loopback,
        path => path.starts_with("/api/"),
    }
}

fn check(app: &App, request: &Request) -> Result<(), Error> {
    if let Some(given) = bearer(request.headers()) {
        return if is_equal(given.as_bytes(), &app.token) {
            Ok(())
        } else {
            Err(Error::Unauthorized("invalid bearer token"))
        };
    }
    if request.uri().path() == "/api/events" {
        let query = request.uri().query().unwrap_or("");
        let given = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        if given.is_some_and(|given| is_equal(given.as_bytes(), &app.token)) {
            return Ok(());
        }
    }
    Err(Error::Unauthorized("missing bearer token"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Both sides are hashed first, so that the comparison tells nothing about the token's length either.
fn is_equal(given: &[u8], token: &Secret) -> bool {
    let (a, b) = (Sha256::digest(given), Sha256::digest(token.reveal()));
    a.as_slice().ct_eq(b.as_slice()).into()
}

fn is_ours(hosts: &[String], host: &str) -> bool {
    let known = ["localhost", "127.0.0.1", "::1"].into_iter().chain(hosts.iter().map(String::as_str));
    known.into_iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// The origin of a page is scheme, host and port; ours has the port that the request came to.
fn is_page_of(authority: &str, origin: &HeaderValue) -> bool {
    let given = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    given.is_some_and(|(_, given)| given.eq_ignore_ascii_case(authority))
}

/// The host without port and brackets; `None` = something else than a port stands after it.
fn host_of(authority: &str) -> Option<&str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_ours_in_any_case_with_at_most_a_port_after_it() {
        let ours = |given: &str| host_of(given).is_some_and(|host| is_ours(&["desk.lan".to_owned()], host));
        for given in
            ["localhost", "LOCALHOST:7421", "127.0.0.1:80", "[::1]", "[::1]:80", "Desk.LAN", "localhost:"]
        {
            assert!(ours(given), "{given}");
        }
        for given in [
            "",
            ":80",
            "evil.example",
            "localhost:80.evil.example",
            "localhost:x",
            "localhost:80:80",
            "[::1]x.evil",
            "[::1]:80x",
            "[::1",
            "[]",
            "localhost.evil.example",
            "localhost@evil.example",
        ] {
            assert!(!ours(given), "{given}");
        }
    }

    #[test]
    fn the_scheme_of_the_token_has_no_case() {
        for (given, token) in [
            ("Bearer t", Some("t")),
            ("bearer t", Some("t")),
            ("BEARER t", Some("t")),
            ("Basic t", None),
            ("Bearert", None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(given))]);
            assert_eq!(bearer(&headers), token, "{given}");
        }
    }

    #[test]
    fn the_token_is_wanted_below_api_whether_there_is_such_a_route_or_not() {
        let wants = |method, path| wants_token(&method, path, true);
        for path in ["/api", "/api/auth", "/healthz", "/readyz", "/metrics", "/nowhere", "/apis", "/"] {
            assert!(!wants(Method::GET, path), "{path}");
        }
        for path in ["/api/", "/api/nope", "/api/auth/", "/api/auth/x", "/api/sessions", "/api//auth"] {
            assert!(wants(Method::GET, path), "{path}");
        }
        assert!(wants(Method::POST, "/api") && wants(Method::POST, "/api/auth"));
        assert!(wants_token(&Method::GET, "/metrics", false), "beyond loopback");
    }
}
