//! Who may call the API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
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
    if !is_single || !is_ours(&app, host_of(given)) {
        return Err(Error::Forbidden("host not allowed"));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, rest)| rest);
        // The origin of a page is scheme, host and port; ours has the port that the request came to.
        if authority.is_none_or(|a| !a.eq_ignore_ascii_case(given)) {
            return Err(Error::Forbidden("origin not allowed"));
        }
    }
    Ok(next.run(request).await)
}

/// Asks for the token. The event stream alone also takes it as a query parameter: browsers cannot set headers
/// there.
pub(super) async fn token(State(app): State<App>, request: Request, next: Next) -> Result<Response, Error> {
    check(&app, &request)?;
    Ok(next.run(request).await)
}

/// Asks for the token where the API listens beyond loopback.
pub(super) async fn token_off_loopback(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    if !app.is_loopback {
        check(&app, &request)?;
    }
    Ok(next.run(request).await)
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
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Both sides are hashed first, so that the comparison tells nothing about the token's length either.
fn is_equal(given: &[u8], token: &Secret) -> bool {
    let (a, b) = (Sha256::digest(given), Sha256::digest(token.reveal()));
    a.as_slice().ct_eq(b.as_slice()).into()
}

fn is_ours(app: &App, host: &str) -> bool {
    ["localhost", "127.0.0.1", "::1"].contains(&host)
        || app.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

/// The host without port and brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or("");
    }
    authority.split(':').next().unwrap_or("")
}
