//! Receivers that mean no good: outbound.md, "One endpoint that is down, slow or limited delays no other".

use std::net::SocketAddr;

use ringback_testkit::{Answer, Daemon, Home, Receiver};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// Changes of the session: a prompt, then a tool and its result each, then the end.
const TOOLS: usize = 8;
const EVENTS: usize = 2 * TOOLS + 1;
/// What a daemon may grow by while it is lied to, in KiB.
const GROWTH_KIB: u64 = 32 * 1024;

/// What is done to a connection once its request was read.
#[derive(Clone, Copy)]
enum Trick {
    /// Headers without end.
    EndlessHeaders,
    /// A body without end.
    EndlessBody,
    /// One byte a second.
    Trickle,
    /// The connection is reset within the promised body.
    ResetInBody,
    /// Interim answers without end.
    Continue,
    /// HTTP/1.0, the body ends with the connection.
    Http10,
    /// A good answer that promises to keep the connection, and closes it.
    HangUp,
}

struct Hostile {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Hostile {
    async fn new(trick: Trick) -> Hostile {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    // The peer hangs up on most of these.
                    let _ = play(stream, trick).await;
                });
            }
        });
        Hostile { addr, _serving: serving }
    }

    fn entry(&self, name: &str) -> Value {
        json!({ "name": name, "url": format!("http://{}/", self.addr), "timeout": "300ms",
                "backoff": [], "concurrency": 2 })
    }
}

async fn play(mut stream: TcpStream, trick: Trick) -> std::io::Result<()> {
    if !read_request(&mut stream).await? {
        return Ok(());
    }
    let filler = vec![b'x'; 64 * 1024];
    match trick {
        Trick::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-filler: ").await?;
                stream.write_all(&filler[..4000]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Trick::EndlessBody => {
            stream.write_all(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"10000\r\n").await?;
                stream.write_all(&filler).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Trick::Trickle => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
            let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
            loop {
                tick.tick().await;
                stream.write_all(b"x").await?;
            }
        }
        Trick::ResetInBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf").await?;
            stream.set_zero_linger()?;
        }
        Trick::Continue => loop {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        },
        Trick::Http10 => stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfine").await?,
        Trick::HangUp => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
    stream.shutdown().await
}

/// Reads one request to its end: closing a socket with unread bytes would be a reset. `false` = there was none.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok(true);
        }
    }
}

#[tokio::test]
async fn hostile_receivers_hold_no_slot_past_the_deadline_no_memory_and_nobody_up() {
    let home = Home::new();
    let healthy = Receiver::always(Answer::Status(200)).await;
    let tricks = [
        ("headers", Trick::EndlessHeaders),
        ("body", Trick::EndlessBody),
        ("trickle", Trick::Trickle),
        ("reset", Trick::ResetInBody),
        ("continue", Trick::Continue),
        ("http10", Trick::Http10),
        ("hangup", Trick::HangUp),
    ];
    let mut hostile = Vec::new();
    let mut entries = vec![json!({ "name": "healthy", "url": healthy.url("/") })];
    for (name, trick) in tricks {
        let receiver = Hostile::new(trick).await;
        let mut entry = receiver.entry(name);
        if matches!(trick, Trick::HangUp) {
            // A request may meet the end of the connection; the next attempt has a new one.
            entry["backoff"] = json!(["10ms", "10ms", "10ms"]);
        }
        entries.push(entry);
        hostile.push(receiver);
    }
    let config = json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": entries });
    home.write_config(&config.to_string());
    let daemon = home.up(ringback()).await;
    let before = resident_kib(&daemon);

    let session = Transcript::new(&home, "s-hostile");
    session.prompt("go");
    for n in 0..TOOLS {
        session.tool(&format!("t{n}"), "Bash");
        session.result(&format!("t{n}"));
    }
    session.end("done");

    let requests = healthy.wait_for(EVENTS, DEADLINE).await;
    let mut sequences: Vec<_> = requests.iter().filter_map(|r| r.json()["sequence"].as_u64()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=EVENTS as u64).collect::<Vec<_>>());

    // Every delivery ends, so every slot was freed: two slots at each endpoint, one attempt for each event.
    for (name, want, error) in [
        ("headers", "dead", None),
        ("body", "dead", Some("status 500")),
        ("trickle", "dead", Some("timeout after 300ms")),
        ("reset", "dead", Some("connection broken")),
        ("continue", "dead", None),
        ("http10", "delivered", None),
        ("hangup", "delivered", None),
    ] {
        for delivery in ended(&daemon, name).await {
            assert_eq!(delivery["state"], want, "{name}: {delivery}");
            let last = delivery["attempts"].as_array().and_then(|a| a.last()).expect("there was an attempt");
            let said = last["error"].as_str().unwrap_or("");
            assert!(said.contains(error.unwrap_or("")), "{name}: {said}");
        }
    }
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
    daemon.terminate().await.expect_success();
}

/// The deliveries of an endpoint, once all of them ended.
async fn ended(daemon: &Daemon, endpoint: &str) -> Vec<Value> {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let listed = daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}")).await.json();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        if items.len() == EVENTS && items.iter().all(|d| d["state"] != "pending") {
            return items;
        }
        assert!(tokio::time::Instant::now() < give_up, "{endpoint} is not done: {listed}");
        tokio::task::yield_now().await;
    }
}

/// What the daemon holds in memory now.
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has a size");
    line.trim().trim_end_matches(" kB").parse().expect("the size is a number")
}

#[tokio::test]
async fn headers_reach_the_receiver_and_are_shown_nowhere() {
    let mut home = Home::new();
    home.set_env("HOOK_TOKEN", "hunter2-hunter2");
    let receiver = Receiver::answering(|request| {
        let echo = request.header("authorization").unwrap_or("-").as_bytes().to_vec();
        Answer::Full { status: 400, headers: Vec::new(), body: echo }
    })
    .await;
    let config = json!({
        "server": { "listen": "127.0.0.1:0" },
        "webhooks": [{ "name": "all", "url": receiver.url("/"), "events": ["waiting"],
                       "headers": { "Authorization": "Bearer ${HOOK_TOKEN}", "X-Team": "blue" } }],
    });
    home.write_config(&config.to_string());
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-headers");
    session.prompt("go");
    session.end("done");
    let request = receiver.wait_for(1, DEADLINE).await.remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer hunter2-hunter2"));
    assert_eq!(request.header("x-team"), Some("blue"));
    daemon.wait_for_line("delivery ended without success", DEADLINE).await;
    for path in ["/api/webhooks", "/api/deliveries", "/api/config"] {
        let text = daemon.api_get(path).await.message.text();
        assert!(!text.contains("hunter2"), "{path}: {text}");
    }
    let ended = daemon.terminate().await.expect_success();
    assert!(!ended.stderr().contains("hunter2") && !ended.stdout().contains("hunter2"), "{}", ended.stderr());
    for entry in std::fs::read_dir(home.state_dir()).expect("the state directory is there") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds the value", path.display());
    }
}
