//! Calls by HTTP that are on the disk before they are answered.

use std::net::SocketAddr;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use serde_json::Value;
use tokio::net::TcpListener;

use super::journal::Journal;
use super::sender::{Event, Sender};

/// Takes calls of `POST /hook/agent` with this secret, and journals each. Called in the ceiling's runtime.
pub(crate) async fn hooks(journal: Journal, secret: &'static str) -> Result<SocketAddr> {
    let bearer = format!("Bearer {secret}");
    let take = move |State(journal): State<Journal>, headers: HeaderMap, body: Bytes| {
        let bearer = bearer.clone();
        async move {
            if headers.get("authorization").is_none_or(|given| given.as_bytes() != bearer.as_bytes()) {
                return (StatusCode::UNAUTHORIZED, r#"{"error":"unauthorized"}"#);
            }
            let call = serde_json::from_slice::<Value>(&body);
            if call.is_ok_and(|call| call["message"].is_string())
                && journal.append(body.to_vec()).await.is_ok()
            {
                (StatusCode::ACCEPTED, r#"{"status":"accepted"}"#)
            } else {
                (StatusCode::BAD_REQUEST, r#"{"error":"message required"}"#)
            }
        }
    };
    serve(Router::new().route("/hook/agent", post(take)).with_state(journal)).await
}

/// Takes a call and sends one event for it. Called in the ceiling's runtime.
pub(crate) async fn events(sender: Sender) -> Result<SocketAddr> {
    let take = |State(sender): State<Sender>, body: Bytes| async move {
        let number = std::str::from_utf8(&body).ok().and_then(|n| n.parse().ok()).unwrap_or_default();
        match sender.send(vec![Event::new(0, number)]).await {
            Ok(()) => StatusCode::ACCEPTED,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    serve(Router::new().route("/event", post(take)).with_state(sender)).await
}

async fn serve(app: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
