//! Accepting connections within bounds: how many, and how long their headers may take.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 1024;
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A listener that fails (no file descriptors left) is left alone for this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take once the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` turns true; requests under way then may still end. `answer` is told the socket's other end.
pub(super) async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    mut stop: watch::Receiver<bool>,
) where
    F: Future<Output = Response> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections: JoinSet<()> = JoinSet::new();
    while !*stop.borrow() {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            _ = stop.changed() => continue,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the hook listener cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answering = answer(peer, request);
            async { Ok::<_, Infallible>(answering.await) }
        });
        let mut stopping = stop.clone();
        let stopped = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        connections.spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            let connection = http.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let _ = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopped => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop(slot);
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, ended).await;
}

type Accepted = (tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// A connection together with its slot, so that nothing is accepted that cannot be served.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}
