//! outbound.md, from a transcript's line to the request at the receiver.

use std::collections::BTreeMap;

use ringback_testkit::Home;
use ringback_testkit::{Answer, Received, Receiver};
use serde_json::json;

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

const SECRET: &str = "whsec_cmluZ2JhY2stdGVzdC1zZWNyZXQtMDEyMzQ1Njc=";
const OLD_SECRET: &str = "an older secret in raw bytes";

fn configure(home: &Home, webhooks: serde_json::Value) {
    home.write_config(&json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks }).to_string());
}

fn changes(requests: &[Received]) -> Vec<String> {
    requests
        .iter()
        .map(|r| {
            let e = r.json();
            format!("{}>{}", e["from"].as_str().unwrap_or("-"), e["to"].as_str().unwrap_or("-"))
        })
        .collect()
}

#[tokio::test]
async fn a_session_s_changes_arrive_signed_in_the_contract_s_shape() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    configure(
        &home,
        json!([{ "name": "all", "url": receiver.url("/hook?q=1"), "secret": [SECRET, OLD_SECRET], "concurrency": 1 }]),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "5e55101d-0000-4000-8000-000000000001");
    session.prompt("Fix the build");
    session.tool("t1", "Bash");
    receiver.wait_for(1, DEADLINE).await;
    session.result("t1");
    session.end("Done.");
    let requests = receiver.wait_for(3, DEADLINE).await;

    assert_eq!(changes(&requests), ["thinking>running", "running>thinking", "thinking>waiting"]);
    for (n, request) in requests.iter().enumerate() {
        request.verify(&[SECRET, OLD_SECRET]).expect("both secrets sign");
        let event = request.json();
        assert_eq!(request.header("webhook-id"), event["id"].as_str());
        assert_eq!(request.header("x-lazyagent-delivery"), event["id"].as_str());
        assert_eq!(request.header("x-lazyagent-event"), Some("state_transition"));
        assert_eq!(request.header("x-ringback-attempt"), Some("1"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(event["sequence"], n + 1);
        assert_eq!(event["event"], "state_transition");
        assert_eq!(event["agent"], "claude");
        assert_eq!(event["project_path"], home.project().to_string_lossy().into_owned());
        let url = format!("http://{}/api/sessions/5e55101d-0000-4000-8000-000000000001", daemon.api());
        assert_eq!(event["api"]["session_url"], url);
    }
    assert_eq!(requests[2].json()["reason"], "turn_end");
    assert_eq!(requests[2].json()["model"], "claude-sonnet-5-5");

    // The keys stand in the contract's order, the additive ones after them.
    let text = String::from_utf8(requests[2].message.body.to_vec()).expect("the body is UTF-8");
    let keys =
        ["id", "event", "session_id", "agent", "from", "to", "project_path", "timestamp", "api", "sequence"];
    let places: Vec<_> =
        keys.iter().map(|k| text.find(&format!("\"{k}\":")).expect("every key is there")).collect();
    assert!(places.is_sorted(), "{text}");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn filters_let_only_wanted_events_through() {
    let home = Home::new();
    let (waiting, codex, elsewhere, off) = (
        Receiver::always(Answer::Status(204)).await,
        Receiver::always(Answer::Status(204)).await,
        Receiver::always(Answer::Status(204)).await,
        Receiver::always(Answer::Status(204)).await,
    );
    let project = home.project().to_string_lossy().into_owned();
    configure(
        &home,
        json!([
            { "name": "waiting", "url": waiting.url("/"), "events": ["WAITING"], "agents": ["Claude"],
              "projects": [project], "reasons": ["turn_end"] },
            { "name": "codex", "url": codex.url("/"), "agents": ["codex"] },
            { "name": "elsewhere", "url": elsewhere.url("/"), "projects": ["/nowhere"] },
            { "name": "off", "url": off.url("/"), "enabled": false },
        ]),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-filter");
    session.prompt("go");
    session.tool("t1", "Read");
    session.result("t1");
    session.end("done");
    let requests = waiting.wait_for(1, DEADLINE).await;
    assert_eq!(changes(&requests), ["thinking>waiting"]);
    // Unsigned: no secret, no signature.
    assert_eq!((requests[0].header("webhook-id"), requests[0].header("x-lazyagent-signature")), (None, None));
    let ended = daemon.terminate().await.expect_success();
    assert!(ended.stdout().contains("3 endpoints"), "{}", ended.stdout());
    for other in [codex, elsewhere, off] {
        assert!(other.requests().is_empty());
    }
}

#[tokio::test]
async fn failures_are_retried_by_backoff_with_the_same_id_and_a_new_timestamp() {
    let home = Home::new();
    let receiver =
        Receiver::scripted([Answer::Status(500), Answer::Reset, Answer::Status(429), Answer::Status(200)])
            .await;
    configure(
        &home,
        json!([{ "name": "flaky", "url": receiver.url("/"), "secret": SECRET, "events": ["waiting"],
                 "backoff": ["10ms", "20ms", "30ms"] }]),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-retry");
    session.prompt("go");
    session.end("done");
    let requests = receiver.wait_for(4, DEADLINE).await;
    let ids: Vec<_> = requests.iter().map(|r| r.json()["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(
        requests.iter().all(|r| r.message.body == requests[0].message.body && r.verify(&[SECRET]).is_ok())
    );
    let attempts: Vec<_> = requests.iter().map(|r| r.header("x-ringback-attempt").unwrap_or("-")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);

    let delivery = settled(&daemon, "flaky").await;
    assert_eq!(delivery["state"], "delivered");
    let statuses: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|a| a["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([500, null, 429, 200]));
}

#[tokio::test]
async fn what_cannot_succeed_ends_at_once_and_what_failed_for_too_long_is_dead() {
    let home = Home::new();
    let (gone, moved, dead) = (
        Receiver::always(Answer::Status(404)).await,
        Receiver::always(Answer::with_headers(302, &[("location", "http://127.0.0.1:9/elsewhere")])).await,
        Receiver::always(Answer::Status(503)).await,
    );
    let entry = |name, r: &Receiver| json!({ "name": name, "url": r.url("/"), "events": ["waiting"], "backoff": ["1ms"] });
    configure(&home, json!([entry("gone", &gone), entry("moved", &moved), entry("dead", &dead)]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-dead");
    session.prompt("go");
    session.end("done");
    for (name, state, tries, part) in [
        ("gone", "failed", 1, "status 404"),
        ("moved", "failed", 1, "redirected to http://127.0.0.1:9/"),
        ("dead", "dead", 2, "status 503"),
    ] {
        let delivery = settled(&daemon, name).await;
        let attempts = delivery["attempts"].as_array().expect("attempts are kept");
        assert_eq!((delivery["state"].as_str(), attempts.len()), (Some(state), tries), "{delivery}");
        let error = attempts[tries - 1]["error"].as_str().unwrap_or_default();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_410_disables_the_endpoint_until_its_entry_is_edited() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(410)).await;
    configure(&home, json!([{ "name": "gone", "url": receiver.url("/"), "events": ["waiting"] }]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-410");
    session.prompt("go");
    session.end("done");
    assert_eq!(settled(&daemon, "gone").await["state"], "dead");
    daemon.wait_for_line("endpoint disabled", DEADLINE).await;
    daemon.terminate().await.expect_success();

    let daemon = home.up(ringback()).await;
    let listed = daemon.api_get("/api/webhooks").await.json();
    assert_eq!(listed["items"][0]["enabled"], false, "{listed}");
    assert_eq!(listed["items"][0]["disabled_reason"], "the receiver answered 410 Gone");
    daemon.terminate().await.expect_success();

    configure(&home, json!([{ "name": "gone", "url": receiver.url("/new"), "events": ["waiting"] }]));
    let daemon = home.up(ringback()).await;
    let listed = daemon.api_get("/api/webhooks").await.json();
    assert_eq!(listed["items"][0]["enabled"], true, "{listed}");
}

#[tokio::test]
async fn one_endpoint_that_hangs_delays_no_other_and_holds_no_more_than_its_slots() {
    let home = Home::new();
    let (hanging, healthy) =
        (Receiver::always(Answer::Hang).await, Receiver::always(Answer::Status(200)).await);
    configure(
        &home,
        json!([{ "name": "hanging", "url": hanging.url("/"), "concurrency": 2 },
               { "name": "healthy", "url": healthy.url("/") }]),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-hang");
    session.prompt("go");
    for n in 0..20 {
        session.tool(&format!("t{n}"), "Bash");
        session.result(&format!("t{n}"));
    }
    session.end("done");
    let requests = healthy.wait_for(41, DEADLINE).await;
    let mut sequences: Vec<_> = requests.iter().filter_map(|r| r.json()["sequence"].as_u64()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=41).collect::<Vec<_>>());
    assert!(hanging.most_at_once() <= 2, "{}", hanging.most_at_once());
    // Attempts in flight may finish for ten seconds; these never do.
    let ended = daemon.terminate().await.expect_success();
    assert!(!ended.stderr().contains("panicked"), "{}", ended.stderr());
}

#[tokio::test]
async fn the_test_event_is_a_ping_and_tells_what_the_receiver_said() {
    let home = Home::new();
    let (good, bad) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::with_headers(400, &[])).await);
    configure(
        &home,
        json!([{ "name": "good", "url": good.url("/"), "secret": SECRET, "events": ["idle"] },
               { "name": "bad", "url": bad.url("/") }]),
    );
    let daemon = home.up(ringback()).await;
    let done = home.spawn(ringback(), &["webhooks", "test", "good"]).wait(DEADLINE).await.expect_success();
    assert!(done.stdout().starts_with("good: delivered, status 200"), "{}", done.stdout());
    let request = &good.requests()[0];
    assert_eq!(
        (request.header("x-lazyagent-event"), &request.json()["event"]),
        (Some("ping"), &json!("ping"))
    );
    // What the documentation says of every event holds for it too.
    let session = request.json()["session_id"].as_str().expect("a session").to_owned();
    assert!(session.starts_with("ringback-test-"), "{session}");
    let session_url = format!("http://{}/api/sessions/{session}", daemon.api());
    assert_eq!(
        (&request.json()["sequence"], &request.json()["api"]["session_url"]),
        (&json!(1), &json!(session_url))
    );
    request.verify(&[SECRET]).expect("the test event is signed too");
    let failed = home.spawn(ringback(), &["webhooks", "test", "bad"]).wait(DEADLINE).await;
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr().contains("bad: status 400"), "{}", failed.stderr());
    let missing = home.spawn(ringback(), &["webhooks", "test", "nobody"]).wait(DEADLINE).await;
    assert!(missing.stderr().contains("webhook not found"), "{}", missing.stderr());
    drop(daemon);
}

#[tokio::test]
async fn durability_memory_keeps_no_event_on_disk() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "delivery": { "durability": "memory" },
            "webhooks": [{ "name": "all", "url": receiver.url("/"), "events": ["waiting"] }],
        })
        .to_string(),
    );
    std::fs::create_dir_all(home.state_dir()).expect("a state directory");
    let left = home.state_dir().join("observed");
    std::fs::write(&left, "what an observer knew of s-in-memory-only").expect("a file");
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-in-memory-only");
    session.prompt("go");
    session.end("done");
    receiver.wait_for(1, DEADLINE).await;
    assert_eq!(settled(&daemon, "all").await["state"], "delivered");
    daemon.terminate().await.expect_success();
    for entry in std::fs::read_dir(home.state_dir()).expect("the state directory is there") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let found = bytes.windows(16).any(|w| w == b"s-in-memory-only");
        assert!(!found, "{} holds the session", path.display());
    }
}

#[tokio::test]
async fn what_a_full_queue_in_memory_has_no_room_for_is_dropped_counted_and_warned_about() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Hang).await;
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "delivery": { "durability": "memory" },
            "webhooks": [{ "name": "slow", "url": receiver.url("/"), "timeout": "1h" }],
        })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-full");
    session.prompt("go");
    // One event makes sure that the session is known: what comes in the burst is told whole.
    session.tool("t0", "Bash");
    session.result("t0");
    receiver.wait_for(2, DEADLINE).await;
    session.burst(200);
    let line = daemon.wait_for_line("the queue of their endpoint is full", DEADLINE).await;
    assert!(line.text.contains("dropped="), "{}", line.text);
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let rows = daemon.api_get("/api/webhooks").await.json();
        if rows["items"][0]["dropped"] == 402 - 256 {
            assert_eq!(rows["items"][0]["pending"], 256);
            break;
        }
        assert!(tokio::time::Instant::now() < give_up, "{rows}");
        tokio::task::yield_now().await;
    }
    daemon.kill9().await;
}

/// The endpoint's only delivery, once it is no longer pending.
pub(crate) async fn settled(daemon: &ringback_testkit::Daemon, endpoint: &str) -> serde_json::Value {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let listed = daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}")).await.json();
        if let Some(delivery) = listed["items"].get(0).filter(|d| d["state"] != "pending") {
            return delivery.clone();
        }
        assert!(tokio::time::Instant::now() < give_up, "{endpoint} is still pending: {listed}");
        tokio::task::yield_now().await;
    }
}

/// Requests by event id.
pub(crate) fn by_event(requests: &[Received]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let id = request.json()["id"].as_str().unwrap_or("-").to_owned();
        *counts.entry(id).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_larger_than_what_may_wait_in_memory_loses_nothing() {
    const CALLS: usize = 6_000;
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    configure(&home, json!([{ "name": "all", "url": receiver.url("/"), "concurrency": 16 }]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-burst");
    session.prompt("go");
    session.tool("first", "Bash");
    receiver.wait_for(1, DEADLINE).await;
    session.result("first");
    session.burst(CALLS);
    let want = 2 + 2 * CALLS as u64;
    let give_up = tokio::time::Instant::now() + DEADLINE * 3;
    let stats = loop {
        let stats = daemon.api_get("/api/stats").await.json();
        if stats["deliveries_delivered"].as_u64() >= Some(want) {
            break stats;
        }
        assert!(tokio::time::Instant::now() < give_up, "not all delivered: {stats}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((stats["events"].as_u64(), &stats["deliveries_pending"]), (Some(want), &json!(0)), "{stats}");
    let mut sequences: Vec<_> =
        receiver.requests().iter().filter_map(|r| r.json()["sequence"].as_u64()).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences, (1..=want).collect::<Vec<_>>());
}
