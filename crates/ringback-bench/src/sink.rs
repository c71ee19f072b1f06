//! Where events go. What arrived is kept as numbers alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde::Deserialize;
use tokio::net::TcpListener;

/// How long a row waits for what has to arrive. Only a row that is void waits so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Receivers on one port, each with its number in its path.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<HashMap<Key, Arrival>>>,
}

/// Endpoint and event: a repeated delivery counts once.
type Key = (usize, String);

/// The first delivery of an event at an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) endpoint: usize,
    /// The number at the end of the session's id.
    pub(crate) session: usize,
    /// The event's number within its session, from 1.
    pub(crate) sequence: usize,
    pub(crate) at: Instant,
}

/// How an endpoint answers.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Takes,
    /// Wants nothing for an hour, so that everything stays pending.
    Defers,
    /// Answers 500.
    Breaks,
    Hangs,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    session_id: &'a str,
    #[serde(default)]
    sequence: usize,
}

impl Sink {
    pub(crate) async fn start() -> Result<Sink> {
        let arrived: Arc<Mutex<HashMap<Key, Arrival>>> = Arc::default();
        let note = |arrived: &Mutex<HashMap<Key, Arrival>>,
                    endpoint: usize,
                    headers: &HeaderMap,
                    body: &[u8]| {
            let at = Instant::now();
            let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else {
                return StatusCode::BAD_REQUEST;
            };
            let id = headers.get("x-lazyagent-delivery").and_then(|id| id.to_str().ok()).unwrap_or_default();
            let session = body.session_id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
            let arrival = Arrival { endpoint, session, sequence: body.sequence, at };
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.entry((endpoint, id.to_owned())).or_insert(arrival);
            StatusCode::NO_CONTENT
        };
        let takes = move |Path(n): Path<usize>,
                          State(arrived): State<Arc<Mutex<HashMap<Key, Arrival>>>>,
                          headers: HeaderMap,
                          body: Bytes| async move { note(&arrived, n, &headers, &body) };
        let defers = move |Path(n): Path<usize>,
                           State(arrived): State<Arc<Mutex<HashMap<Key, Arrival>>>>,
                           headers: HeaderMap,
                           body: Bytes| async move {
            note(&arrived, n, &headers, &body);
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3600")]).into_response()
        };
        let app = Router::new()
            .route("/takes/{n}", post(takes))
            .route("/defers/{n}", post(defers))
            .route("/breaks/{n}", post(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
            .route("/hangs/{n}", post(std::future::pending::<StatusCode>))
            .with_state(Arc::clone(&arrived));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| {
            // Without this an answer may wait for the peer's acknowledgement, and times mean nothing.
            let _ = stream.set_nodelay(true);
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Sink { address, arrived })
    }

    /// The path of an endpoint.
    pub(crate) fn path(answer: Answer, endpoint: usize) -> String {
        let kind = match answer {
            Answer::Takes => "takes",
            Answer::Defers => "defers",
            Answer::Breaks => "breaks",
            Answer::Hangs => "hangs",
        };
        format!("/{kind}/{endpoint}")
    }

    pub(crate) fn url(&self, answer: Answer, endpoint: usize) -> String {
        format!("http://{}{}", self.address, Sink::path(answer, endpoint))
    }

    /// What has arrived so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.lock().values().copied().collect()
    }

    /// Waits until so many deliveries have arrived, each counted once, and gives them. Fails when some never do: an
    /// event was lost.
    pub(crate) async fn wait_for(&self, deliveries: usize) -> Result<Vec<Arrival>> {
        self.wait_for_those(deliveries, |_| true).await
    }

    /// The same, of those that `counts` holds for.
    pub(crate) async fn wait_for_those(
        &self,
        deliveries: usize,
        counts: impl Fn(&Arrival) -> bool,
    ) -> Result<Vec<Arrival>> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            // The length first: it is cheap, and going through all takes time from what is measured.
            let is_enough = self.lock().len() >= deliveries;
            let some = if is_enough { self.arrivals() } else { Vec::new() };
            let some: Vec<Arrival> = some.into_iter().filter(|a| counts(a)).collect();
            if some.len() >= deliveries {
                return Ok(some);
            }
            if Instant::now() > give_up {
                let arrived = self.arrivals().iter().filter(|a| counts(a)).count();
                bail!("{arrived} of {deliveries} deliveries arrived in {PATIENCE:?}");
            }
            // Looked at now and then; when a delivery arrived was noted when it did.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arrival>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the last of them arrived.
pub(crate) fn last(arrivals: &[Arrival]) -> Result<Instant> {
    match arrivals.iter().map(|a| a.at).max() {
        Some(at) => Ok(at),
        None => bail!("nothing has arrived"),
    }
}
