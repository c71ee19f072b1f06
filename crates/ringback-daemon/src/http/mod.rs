//! The API: routes, who may call them, and the one place where errors become statuses.

pub(crate) mod auth;
mod calls;
mod deliveries;
mod events;
mod gate;
mod health;
mod hooks;
mod runs;
mod sessions;
mod webhooks;
mod worktrees;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use ringback_model::{Secret, Timestamp};
use ringback_store::Store;
use ringback_webhook::guard::Network;
use serde_json::json;
use tokio::sync::watch;

use crate::config::Config;
use crate::feed::Feed;
use crate::hook::call_log::CallLog;
use crate::hook::declared::Declared;
use crate::lane::Lanes;
use crate::record::Origin;
use crate::run::Runs;
use crate::storage::Health;
use crate::view::View;

pub(crate) use events::Updates;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    /// Where names are kept, and what the operator disabled: on disk in both durability modes.
    pub(crate) names: Arc<dyn Store>,
    pub(crate) runs: Runs,
    /// The hooks of files.
    pub(crate) declared: Declared,
    /// What is remembered of their calls.
    pub(crate) calls: CallLog,
    pub(crate) view: View,
    pub(crate) feed: Feed,
    /// What the event stream's clients are sent of the sessions.
    pub(crate) updates: Updates,
    pub(crate) lanes: Lanes,
    pub(crate) health: Arc<Health>,
    pub(crate) origin: Origin,
    pub(crate) token: Arc<Secret>,
    /// `api_salt`, public.
    pub(crate) salt: Arc<str>,
    pub(crate) hosts: Arc<[String]>,
    pub(crate) is_loopback: bool,
    pub(crate) window: Duration,
    /// Which addresses endpoints may have, as the daemon started with it.
    pub(crate) network: Network,
    /// The configuration as it was last read and found good.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// Turns true once the sessions in the window are read.
    pub(crate) first_scan: watch::Receiver<bool>,
    /// Turns true when the daemon stops: long answers end.
    pub(crate) stop: watch::Receiver<bool>,
    /// When the daemon started: part of the ids of typed events, whose numbers begin anew with each daemon.
    pub(crate) started_at: Timestamp,
    pub(crate) now: fn() -> Timestamp,
}

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let private = Router::new()
        .route("/api/sessions", get(sessions::list))
        .route("/api/sessions/{id}", get(sessions::show))
        .route("/api/sessions/{id}/name", put(sessions::rename).delete(sessions::unname))
        .route("/api/stats", get(sessions::stats))
        .route("/api/config", get(health::config))
        .route("/api/webhooks", get(webhooks::list))
        .route("/api/webhooks/{name}/test", post(webhooks::test))
        .route("/api/webhooks/{name}/enable", post(webhooks::enable))
        .route("/api/webhooks/{name}/disable", post(webhooks::disable))
        .route("/api/deliveries", get(deliveries::list))
        .route("/api/deliveries/{id}", get(deliveries::show))
        .route("/api/deliveries/replay", post(deliveries::replay_many))
        .route("/api/deliveries/{id}/replay", post(deliveries::replay))
        .route("/api/events", get(events::stream))
        .route("/api/runs", get(runs::list).post(runs::trigger))
        .route("/api/runs/{id}", get(runs::show))
        .route("/api/runs/{id}/cancel", post(runs::cancel))
        .route("/api/runs/{id}/retry", post(runs::retry))
        .route("/api/runs/{id}/log", get(runs::log))
        .route("/api/worktrees", get(worktrees::list))
        .route("/api/worktrees/prune", post(worktrees::prune))
        .route("/api/worktrees/{run}", delete(worktrees::remove))
        .route("/api/updates", get(runs::updates))
        .route("/api/updates/pop", post(runs::pop))
        .route("/api/updates/hand-over", post(runs::hand_over))
        .route("/api/hooks", get(hooks::list))
        .route("/api/hooks/{slug}/resume", post(hooks::resume))
        .route("/api/hooks/deliveries", get(calls::list))
        .route("/api/hooks/deliveries/{id}", get(calls::show))
        .route("/api/hooks/deliveries/{id}/replay", post(calls::replay))
        .route("/api/hooks/{slug}/deliveries", get(calls::of_hook))
        .route("/api/budget", get(runs::budget).put(runs::set_budget))
        .route("/api/main", get(runs::main).put(runs::set_main))
        .route("/api/notify/test", post(runs::test_notifiers))
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::token));
    let probes = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::token_off_loopback));
    private
        .merge(probes)
        .route("/api/auth", get(auth::parameters))
        .fallback(|| async { Error::NotFound("not found") })
        .method_not_allowed_fallback(|| async { Error::Method })
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::host))
        .layer(axum::extract::DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// Rows of one page: `limit`, 1 to 1000.
fn limit(given: Option<&str>) -> Result<usize, Error> {
    match given.map(str::parse::<usize>) {
        None => Ok(100),
        Some(Ok(limit)) if (1..=1000).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::BadRequest("limit must be a whole number from 1 to 1000".to_owned())),
    }
}

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(crate) enum Error {
    BadRequest(String),
    Unauthorized(&'static str),
    Forbidden(&'static str),
    NotFound(&'static str),
    Method,
    Conflict(String),
    Store(ringback_store::Error),
    NotReady(String),
}

impl From<ringback_store::Error> for Error {
    fn from(error: ringback_store::Error) -> Self {
        Error::Store(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let answer =
            |status: StatusCode, text: &str| (status, axum::Json(json!({ "error": text }))).into_response();
        match self {
            Error::BadRequest(text) => answer(StatusCode::BAD_REQUEST, &text),
            Error::Unauthorized(text) => {
                let mut response = answer(StatusCode::UNAUTHORIZED, text);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Error::Forbidden(text) => answer(StatusCode::FORBIDDEN, text),
            Error::NotFound(text) => answer(StatusCode::NOT_FOUND, text),
            Error::Method => answer(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            Error::Conflict(text) => answer(StatusCode::CONFLICT, &text),
            Error::Store(error) => {
                tracing::debug!(%error, "a request failed in the store");
                answer(StatusCode::SERVICE_UNAVAILABLE, "storage unavailable")
            }
            Error::NotReady(reason) => (
                StatusCode::SERVICE_UNAVAILABLE,
                axum::Json(json!({ "error": "not ready", "reason": reason })),
            )
                .into_response(),
        }
    }
}
