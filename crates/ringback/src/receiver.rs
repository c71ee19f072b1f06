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

use crate::fault::{self, Fault};

/// Longest body that is taken, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

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
    /// What is wrong with the answers.
    pub(crate) fault: Option<Fault>,
}

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Parts {
    keys: Arc<[Key]>,
    pub(crate) manner: Manner,
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
    match manner.fault {
        Some(fault) => fault::serve(listener, fault, parts).await,
        None => axum::serve(listener, Router::new().fallback(take).with_state(parts)).await,
    }
}

async fn take(State(parts): State<Parts>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "body too large\n").into_response();
    };
    let status = parts.take(head.headers, body).await;
    if parts.manner.hang {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(parts.manner.delay).await;
    if status == StatusCode::UNAUTHORIZED {
        return (status, "signature does not match\n").into_response();
    }
    status.into_response()
}

impl Parts {
    /// Verifies a request, hands it on, and gives the status of its answer.
    pub(crate) async fn take(&self, headers: HeaderMap, body: Bytes) -> StatusCode {
        let verdict = (!self.keys.is_empty())
            .then(|| verify::verify(&headers, &body, &self.keys, clock::now(), TOLERANCE));
        let is_refused = verdict.as_ref().is_some_and(|v| !v.is_authentic());
        // Nobody listening any more means that the program is about to end.
        let _ = self.out.send(Received { headers, body, verdict }).await;
        if is_refused && self.manner.status.is_success() {
            return StatusCode::UNAUTHORIZED;
        }
        self.manner.status
    }
}
