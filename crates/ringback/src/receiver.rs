//! A webhook receiver for trying things out: verifies what comes in, answers as told, and hands it on.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ringback_daemon::clock;
use ringback_model::Secret;
use ringback_webhook::sign::Key;
use ringback_webhook::verify::{self, TOLERANCE};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Longest body that is taken, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// One request as it came.
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the signatures are worth; `None` = no secret to check them with.
    pub(crate) verdict: Option<verify::Verdict>,
}

/// How requests are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) status: StatusCode,
    pub(crate) delay: Duration,
    /// Never answer.
    pub(crate) hang: bool,
}

#[derive(Clone)]
struct Parts {
    keys: Arc<[Key]>,
    manner: Manner,
    out: mpsc::Sender<Received>,
}

/// Serves until the process ends. Every request is sent to `out`; a full channel holds the sender up.
pub(crate) async fn serve(
    listener: TcpListener,
    secrets: &[Secret],
    manner: Manner,
    out: mpsc::Sender<Received>,
) -> std::io::Result<()> {
    let parts = Parts { keys: Key::all(secrets).into(), manner, out };
    axum::serve(listener, Router::new().fallback(take).with_state(parts)).await
}

async fn take(State(parts): State<Parts>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "body too large\n").into_response();
    };
    let verdict = (!parts.keys.is_empty())
        .then(|| verify::verify(&head.headers, &body, &parts.keys, clock::now(), TOLERANCE));
    let is_refused = verdict.as_ref().is_some_and(|v| !v.is_authentic());
    // Nobody listening any more means that the program is about to end.
    let _ = parts.out.send(Received { headers: head.headers, body, verdict }).await;
    if parts.manner.hang {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(parts.manner.delay).await;
    if is_refused && parts.manner.status.is_success() {
        return (StatusCode::UNAUTHORIZED, "signature does not match\n").into_response();
    }
    parts.manner.status.into_response()
}
