//! Journaled events to endpoints: two HMACs and one request for each delivery, and its outcome on the disk before the
//! slot takes the next.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{Mutex, mpsc};

use super::journal::Journal;
use crate::daemon::SECRET;
use crate::sink::{Answer, Sink};
use crate::wire::Connection;

/// Of one delivery, after the first.
const TRIES: usize = 3;

/// An event in hand.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) body: Bytes,
}

impl Event {
    /// Of the size that ringback's have.
    pub(crate) fn new(session: usize, sequence: usize) -> Event {
        let id = format!("{session:08x}-0000-7000-8000-{sequence:012x}");
        let session_id = crate::sessions::id(session);
        let body = serde_json::json!({
            "id": id, "event": "state_transition", "session_id": session_id, "agent": "claude",
            "from": "thinking", "to": "running", "project_path": "/tmp/ringback-AbCdEf/project",
            "timestamp": "2026-05-19T14:30:00.000Z",
            "api": { "session_url": format!("http://127.0.0.1:7421/api/sessions/{session_id}") },
            "sequence": sequence, "host": "bench", "model": "claude-sonnet-5-5", "duration_ms": 10,
        });
        Event { id, body: body.to_string().into() }
    }
}

/// Endpoints of a sink, each with a queue and so many slots. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    journal: Journal,
    queues: Arc<Vec<mpsc::UnboundedSender<Event>>>,
}

impl Sender {
    /// Starts the slots on the runtime that this is called in.
    pub(crate) fn start(journal: Journal, sink: SocketAddr, endpoints: usize, slots: usize) -> Sender {
        let queue = |endpoint| {
            let (queue, events) = mpsc::unbounded_channel();
            let events = Arc::new(Mutex::new(events));
            for _ in 0..slots {
                // What fails here is missed at the sink, and voids the row there.
                tokio::spawn(deliver(Arc::clone(&events), journal.clone(), sink, endpoint));
            }
            queue
        };
        let queues = Arc::new((0..endpoints).map(queue).collect());
        Sender { journal, queues }
    }

    /// Journals events in one record and queues them at every endpoint.
    pub(crate) async fn send(&self, events: Vec<Event>) -> Result<()> {
        let record = events.iter().flat_map(|event| event.body.iter().copied().chain([b'\n'])).collect();
        self.journal.append(record).await?;
        for queue in self.queues.iter() {
            for event in &events {
                ensure!(queue.send(event.clone()).is_ok(), "an endpoint's slots are gone");
            }
        }
        Ok(())
    }
}

async fn deliver(
    events: Arc<Mutex<mpsc::UnboundedReceiver<Event>>>,
    journal: Journal,
    sink: SocketAddr,
    endpoint: usize,
) -> Result<()> {
    let path = Sink::path(Answer::Takes, endpoint);
    let mut connection = None;
    loop {
        let Some(event) = events.lock().await.recv().await else { return Ok(()) };
        let timestamp = crate::clock::now().as_millis().div_euclid(1000).to_string();
        let lazyagent = format!("sha256={}", hex::encode(mac(&[&event.body])));
        let signed: [&[u8]; 5] = [event.id.as_bytes(), b".", timestamp.as_bytes(), b".", &event.body];
        let standard = format!("v1,{}", STANDARD.encode(mac(&signed)));
        let headers = [
            ("user-agent", "ceiling/1"),
            ("x-lazyagent-event", "state_transition"),
            ("x-lazyagent-delivery", &event.id),
            ("x-lazyagent-signature", &lazyagent),
            ("webhook-id", &event.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &standard),
        ];
        let mut tries = 0;
        let status = loop {
            match post(&mut connection, sink, &path, &headers, &event.body).await {
                Ok(status) => break status,
                // A listener that many connect to at once may turn one away.
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => (connection, tries) = (None, tries + 1),
            }
        };
        journal.append(format!("{} {endpoint} {status}", event.id).into_bytes()).await?;
    }
}

/// One request, on a new connection where there is none.
async fn post(
    connection: &mut Option<Connection>,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Bytes,
) -> Result<StatusCode> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(to).await?),
    };
    open.post(path, headers, body.clone()).await
}

fn mac(parts: &[&[u8]]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}
