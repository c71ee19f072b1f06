//! api-cli.md, the row of `/api/events`.

use ringback_testkit::{Daemon, Home};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// An open event stream.
struct Stream(BufReader<TcpStream>);

/// One event of it.
#[derive(Debug)]
struct Told {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    async fn open(daemon: &Daemon, query: &str, last_id: Option<&str>) -> Stream {
        let mut socket = TcpStream::connect(daemon.api()).await.expect("the API listens");
        let last = last_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /api/events?token={}{query} HTTP/1.1\r\nhost: {}\r\n{last}\r\n",
            daemon.token(),
            daemon.api()
        );
        socket.write_all(head.as_bytes()).await.expect("the request is sent");
        let mut stream = Stream(BufReader::new(socket));
        assert_eq!(stream.line().await, "HTTP/1.1 200 OK");
        stream
    }

    /// The next event; heartbeats, headers and the framing of chunks are passed over.
    async fn next(&mut self) -> Told {
        let (mut kind, mut id) = (None, None);
        loop {
            let line = self.line().await;
            match line.split_once(": ") {
                Some(("event", text)) => kind = Some(text.to_owned()),
                Some(("id", text)) => id = Some(text.to_owned()),
                Some(("data", text)) => {
                    let data = serde_json::from_str(text).expect("the data is JSON");
                    // The id may stand after the data.
                    while id.is_none() {
                        match self.line().await.split_once(": ") {
                            Some(("id", text)) => id = Some(text.to_owned()),
                            Some(("event", text)) => kind = Some(text.to_owned()),
                            _ => break,
                        }
                    }
                    return Told { kind: kind.expect("an event has a kind"), id, data };
                }
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.0.read_line(&mut line)).await;
        assert!(read.expect("a line comes in time").expect("the stream is readable") > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    async fn transitions(&mut self, count: usize) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let told = self.next().await;
            if told.kind == "transition" {
                let to = told.data["to"].as_str().expect("a transition leads somewhere");
                seen.push((told.id.expect("typed events have ids"), to.to_owned()));
            }
        }
        seen
    }
}

#[tokio::test]
async fn a_selection_starts_with_the_snapshot_too_and_what_it_names_must_be_known() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let mut chosen = Stream::open(&daemon, "&events=transition", None).await;
    let mut all = Stream::open(&daemon, "&events=", None).await;
    assert_eq!(chosen.next().await.kind, "update");
    assert_eq!(all.next().await.kind, "update");
    let session = Transcript::new(&home, "s-chosen");
    session.prompt("go");
    session.tool("t1", "Bash");
    session.result("t1");
    for _ in 0..2 {
        assert_eq!(chosen.next().await.kind, "transition", "and nothing else after it");
    }
    assert_eq!(all.transitions(2).await.len(), 2, "an empty list is all");
    let refused = daemon.api_get("/api/events?events=transitions").await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["error"],
        "unknown event \"transitions\"; valid: update transition delivery run"
    );
}

#[tokio::test]
async fn every_connection_starts_with_a_snapshot_and_after_last_event_id_only_later_events_follow() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let mut first = Stream::open(&daemon, "", None).await;
    let snapshot = first.next().await;
    assert_eq!((snapshot.kind.as_str(), &snapshot.id), ("update", &None));
    assert!(snapshot.data["sessions"].is_array() && snapshot.data["stats"].is_object(), "{snapshot:?}");

    let session = Transcript::new(&home, "s-events");
    session.prompt("go");
    session.tool("t1", "Bash");
    let seen = first.transitions(1).await;
    session.result("t1");
    session.end("done");
    let mut seen = [seen, first.transitions(2).await].concat();
    assert_eq!(
        seen.iter().map(|(_, to)| to.as_str()).collect::<Vec<_>>(),
        ["running", "thinking", "waiting"]
    );
    drop(first);

    let mut resumed = Stream::open(&daemon, "", Some(&seen[0].0)).await;
    let snapshot = resumed.next().await;
    assert_eq!(
        (snapshot.kind.as_str(), &snapshot.data["sessions"][0]["activity"]),
        ("update", &"waiting".into())
    );
    assert_eq!(resumed.transitions(2).await, seen.split_off(1), "not the one that it has seen");

    // What this daemon does not remember: the snapshot alone, and then what is new.
    let (started_at, _) = seen[0].0.split_once('-').expect("the id names the daemon");
    let unknown = ["1-1".to_owned(), "nonsense".to_owned(), format!("{started_at}-999"), "1".to_owned()];
    let mut strangers = Vec::new();
    for id in &unknown {
        let mut stream = Stream::open(&daemon, "&events=update,transition", Some(id)).await;
        assert_eq!(stream.next().await.kind, "update", "{id}");
        strangers.push(stream);
    }
    session.prompt("again");
    for mut stream in strangers {
        let told = stream.transitions(1).await;
        assert_eq!(told[0].1, "thinking", "nothing old comes first");
    }
}
