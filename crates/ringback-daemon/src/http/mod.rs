//! The API: routes, who may call them, and the one place where errors become statuses.

pub(crate) mod auth;
mod calls;
mod deliveries;
mod events;
mod extract;
mod gate;
mod health;
mod hooks;
mod page;
mod runs;
mod sessions;
mod webhooks;
mod worktrees;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
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
    Router::new()
        .route("/api/auth", get(auth::parameters))
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
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(|| async { Error::NotFound("not found") })
        .method_not_allowed_fallback(|| async { Error::Method })
        .layer(axum::middleware::from_fn(whole))
        // Around the fallbacks too: without the token nobody learns which routes there are.
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::token))
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::host))
        .layer(axum::extract::DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// What changes something is done to its end, even if the client hangs up meanwhile: half of it would be a state in
/// the journal that nobody acts on.
async fn whole(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    tokio::spawn(next.run(request)).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be carried out");
        (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({ "error": "internal error" }))).into_response()
    })
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
    TooLarge,
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
            Error::TooLarge => answer(StatusCode::PAYLOAD_TOO_LARGE, "payload too large"),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::routing::any;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_changes_something_ends_even_if_the_client_hangs_up() {
        let (begun, go_on, done) =
            (Arc::<Notify>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
        let handler = {
            let (begun, go_on, done) = (begun.clone(), go_on.clone(), done.clone());
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                done.notify_one();
            }
        };
        let router = Router::new().route("/", any(handler)).layer(axum::middleware::from_fn(whole));
        let call = Request::post("/").body(Body::empty()).unwrap();
        let call = tokio::spawn(router.oneshot(call));
        begun.notified().await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        go_on.notify_one();
        done.notified().await;
    }
}
