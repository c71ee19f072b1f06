//! outbound.md: events, storage, stopping and listings, where no other file's subject covers them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ringback_model::Timestamp;
use ringback_testkit::{Answer, Daemon, Ended, Home, Received, Receiver};
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended as run_ended};
use crate::operator::wait_for;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// The configuration with these keys of `[delivery]`.
pub(crate) fn configure(home: &Home, delivery: Value, webhooks: Value) {
    let config = json!({ "server": { "listen": "127.0.0.1:0" }, "delivery": delivery, "webhooks": webhooks });
    home.write_config(&config.to_string());
}

pub(crate) async fn run(home: &Home, args: &[&str]) -> Ended {
    home.spawn(ringback(), args).wait(DEADLINE).await
}

/// One change that an endpoint with `events = ["waiting"]` wants.
pub(crate) fn turn(home: &Home, session: &str) {
    let session = Transcript::new(home, session);
    session.prompt("go");
    session.end("done");
}

pub(crate) fn changes(requests: &[Received]) -> Vec<String> {
    let change = |event: Value| {
        format!(
            "{} {}>{}",
            event["sequence"],
            event["from"].as_str().unwrap_or("-"),
            event["to"].as_str().unwrap_or("-")
        )
    };
    requests.iter().map(|r| change(r.json())).collect()
}

pub(crate) async fn until_activity(daemon: &Daemon, session: &str, activity: &str) {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let seen = daemon.api_get(&format!("/api/sessions/{session}")).await.json();
        if seen["activity"] == activity {
            return;
        }
        assert!(tokio::time::Instant::now() < give_up, "{session} is not {activity}: {seen}");
        tokio::task::yield_now().await;
    }
}

/// Every file below a directory: its bytes and when it was changed.
pub(crate) fn files(below: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![below.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).expect("the directory is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let changed = path.metadata().and_then(|m| m.modified()).expect("the file is there");
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.insert(path.to_string_lossy().into_owned(), (bytes, changed));
        }
    }
    found
}

pub(crate) fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test]
async fn after_a_restart_what_was_missed_is_one_event_if_it_is_young_and_else_the_state_alone() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    let entry = json!([{ "name": "all", "url": receiver.url("/"), "concurrency": 1 }]);
    configure(&home, json!({}), entry.clone());
    let session = Transcript::new(&home, "s-missed");
    let daemon = home.up(ringback()).await;
    session.prompt("go");
    session.tool("t1", "Bash");
    receiver.wait_for(1, DEADLINE).await;
    daemon.terminate().await.expect_success();

    session.result("t1");
    session.tool("t2", "Read");
    session.result("t2");
    session.end("done");
    let daemon = home.up(ringback()).await;
    receiver.wait_for(2, DEADLINE).await;
    session.prompt("again");
    receiver.wait_for(3, DEADLINE).await;
    daemon.terminate().await.expect_success();

    session.end("done again");
    configure(&home, json!({ "catch_up": "1ms" }), entry);
    let daemon = home.up(ringback()).await;
    until_activity(&daemon, "s-missed", "waiting").await;
    session.tool("t3", "Bash");
    let requests = receiver.wait_for(4, DEADLINE).await;
    assert_eq!(
        changes(&requests),
        ["1 thinking>running", "2 running>waiting", "3 waiting>thinking", "4 waiting>running"]
    );
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn an_event_says_where_it_comes_from_and_has_one_id_for_all_endpoints() {
    let home = Home::new();
    let (one, two) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(200)).await);
    let entry = |name: &str, r: &Receiver| json!({ "name": name, "url": r.url("/"), "concurrency": 1 });
    configure(&home, json!({}), json!([entry("one", &one), entry("two", &two)]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-origin");
    session.prompt("go");
    until_activity(&daemon, "s-origin", "thinking").await;
    daemon.api_put("/api/sessions/s-origin/name", &json!({ "name": "build fixer" })).await;
    session.tool("t1", "Bash");
    one.wait_for(1, DEADLINE).await;
    session.end("done");
    let events: Vec<Value> = one.wait_for(2, DEADLINE).await.iter().map(Received::json).collect();
    let same: Vec<Value> = two.wait_for(2, DEADLINE).await.iter().map(Received::json).collect();
    assert_eq!(events, same, "the body is the same for every endpoint");
    assert_ne!(events[0]["id"], events[1]["id"]);
    let host = home.spawn("uname", &["-n"]).wait(DEADLINE).await.expect_success().stdout();
    let instant = |event: &Value| {
        event["timestamp"].as_str().and_then(|t| t.parse::<Timestamp>().ok()).expect("an instant")
    };
    let event = &events[1];
    assert_eq!(event["session_name"], "build fixer", "{event}");
    assert_eq!((event["host"].as_str(), event["git_branch"].as_str()), (Some(host.trim()), Some("main")));
    assert_eq!(event["model"], "claude-sonnet-5-5");
    let spent = instant(event).since(instant(&events[0]));
    assert_eq!(event["duration_ms"].as_u64().map(Duration::from_millis), Some(spent), "{events:?}");
    assert!(events.iter().all(|e| !e.to_string().contains("null")), "what has no value is left out");
    assert!(events[0].get("reason").is_none() && event.get("run_id").is_none(), "{events:?}");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn the_session_s_url_is_there_while_the_api_listens_and_a_wildcard_becomes_loopback() {
    let mut listens = vec!["0.0.0.0:0", ":0"];
    listens.extend(std::net::TcpListener::bind("[::]:0").is_ok().then_some("[::]:0"));
    listens.push("none");
    for listen in listens {
        let home = Home::new();
        let receiver = Receiver::always(Answer::Status(200)).await;
        let config = json!({ "server": { "listen": listen }, "webhooks": [{ "name": "a", "url": receiver.url("/") }] });
        home.write_config(&config.to_string());
        let config = home.config_path().to_string_lossy().into_owned();
        let daemon = home.spawn(ringback(), &["up", "--config", &config]);
        let line = daemon.wait_for_line("api  ", DEADLINE).await.text;
        daemon.wait_for_line("ready", DEADLINE).await;
        let session = Transcript::new(&home, "s-url");
        session.prompt("go");
        // Without the API nobody says when the sessions are read; until then the session goes back and forth.
        let arrives = receiver.wait_for(1, DEADLINE);
        tokio::pin!(arrives);
        let mut n = 0;
        let requests = loop {
            session.tool(&format!("t{n}"), "Bash");
            session.result(&format!("t{n}"));
            n += 1;
            tokio::select! {
                requests = &mut arrives => break requests,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        };
        let api = requests[0].json()["api"].clone();
        match line.rsplit_once(':') {
            Some((_, port)) if listen != "none" => {
                let url = format!("http://127.0.0.1:{}/api/sessions/s-url", port.trim());
                assert_eq!(api, json!({ "session_url": url }), "{listen}: {line}");
            }
            _ => assert_eq!((api, listen), (Value::Null, "none"), "{line}"),
        }
        daemon.terminate().await.expect_success();
    }
}

#[tokio::test]
async fn what_is_refused_is_one_warning_with_the_status_and_its_first_200_characters() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Full {
        status: 422,
        headers: Vec::new(),
        body: "x".repeat(5_000).into_bytes(),
    })
    .await;
    configure(
        &home,
        json!({}),
        json!([{ "name": "picky", "url": receiver.url("/"), "events": ["waiting"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-refused");
    wait_for(&daemon, "picky", "failed", 1).await;
    let ended = daemon.terminate().await.expect_success();
    let warnings: Vec<_> = ended.lines.iter().filter(|l| l.text.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    let text = &warnings[0].text;
    assert!(text.contains("422") && text.contains("picky") && text.contains(&"x".repeat(200)), "{text}");
    assert!(!text.contains(&"x".repeat(201)), "{text}");
}

#[tokio::test]
async fn finished_history_goes_after_retention_and_pending_work_never() {
    let home = Home::new();
    let (good, down) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(500)).await);
    let entries = json!([
        { "name": "good", "url": good.url("/"), "events": ["waiting"] },
        { "name": "down", "url": down.url("/"), "events": ["running"], "backoff": ["1h"] },
    ]);
    configure(&home, json!({}), entries.clone());
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-history");
    session.prompt("go");
    session.tool("t1", "Bash");
    session.end("done");
    wait_for(&daemon, "good", "delivered", 1).await;
    down.wait_for(1, DEADLINE).await;
    daemon.terminate().await.expect_success();

    configure(&home, json!({ "retention": "1ms" }), entries);
    let daemon = home.up(ringback()).await;
    daemon.wait_for_line("finished history pruned", DEADLINE).await;
    wait_for(&daemon, "good", "delivered", 0).await;
    wait_for(&daemon, "down", "pending", 1).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn in_memory_mode_token_names_runs_keys_and_budget_are_on_disk_all_the_same() {
    let inbound = Inbound::new("cat > /dev/null", json!({}));
    inbound.configure_more(json!({ "delivery": { "durability": "memory" } }));
    let call = async || {
        let bearer = "Bearer the-hook-listeners-own-secret";
        let headers = [("authorization", bearer), ("idempotency-key", "delivery-1")];
        let reply = inbound.call("POST", "/hook/agent", &headers, br#"{"message":"once"}"#).await;
        assert_eq!(reply.status, 202);
        reply.message.header("x-ringback-run").expect("a run's id").to_owned()
    };
    let daemon = inbound.home.up(ringback()).await;
    let session = Transcript::new(&inbound.home, "s-named");
    session.prompt("go");
    until_activity(&daemon, "s-named", "thinking").await;
    daemon.api_put("/api/sessions/s-named/name", &json!({ "name": "build fixer" })).await;
    daemon.api_put("/api/budget", &json!({ "available": 2 })).await;
    let id = call().await;
    run_ended(&daemon, &id).await;
    let token = daemon.token();
    daemon.kill9().await;
    assert!(inbound.home.state_dir().join("lock").exists());

    let daemon = inbound.home.up(ringback()).await;
    assert_eq!(daemon.token(), token);
    let named = daemon.api_get("/api/sessions/s-named").await.json();
    assert_eq!(named["custom_name"], "build fixer", "{named}");
    assert_eq!(daemon.api_get("/api/budget").await.json()["available"], 2);
    assert_eq!(run_ended(&daemon, &id).await["message"], "once");
    assert_eq!(call().await, id, "the key is bound to its run");
}

#[tokio::test]
async fn agents_own_files_are_never_written() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    configure(&home, json!({}), json!([{ "name": "all", "url": receiver.url("/"), "concurrency": 1 }]));
    let old = Transcript::new(&home, "s-old");
    old.prompt("go");
    old.end("done");
    home.write(".codex/config.toml", "# mine\n");
    let agents = || {
        let mut all = files(&home.path().join(".claude"));
        all.extend(files(&home.path().join(".codex")));
        all
    };
    let before = agents();
    let daemon = home.up(ringback()).await;
    assert!(agents() == before, "something was written at the start");
    let session = Transcript::new(&home, "s-new");
    session.prompt("go");
    session.tool("t1", "Bash");
    session.end("done");
    let before = agents();
    receiver.wait_for(2, DEADLINE).await;
    daemon.api_put("/api/sessions/s-new/name", &json!({ "name": "mine" })).await;
    for args in [&["sessions"][..], &["sessions", "show", "s-new"], &["doctor"]] {
        run(&home, args).await;
    }
    daemon.terminate().await.expect_success();
    assert!(agents() == before, "something was written");
}

#[tokio::test]
async fn at_a_stop_attempts_in_flight_may_finish_and_the_rest_waits_for_the_next_start_oldest_first() {
    let home = Home::new();
    // Its answer comes while the stop waits for it.
    let slow = Answer::Delay(Duration::from_secs(3), Box::new(Answer::Status(200)));
    let receiver = Receiver::scripted([slow, Answer::Status(200)]).await;
    configure(
        &home,
        json!({}),
        json!([{ "name": "slow", "url": receiver.url("/"), "concurrency": 1, "timeout": "60s" }]),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-stop");
    session.prompt("go");
    session.burst(2);
    receiver.wait_for(1, DEADLINE).await;
    until_activity(&daemon, "s-stop", "thinking").await;
    wait_for(&daemon, "slow", "pending", 4).await;
    daemon.terminate().await.expect_success();
    assert_eq!(receiver.requests().len(), 1, "nothing begins during a stop");

    let daemon = home.up(ringback()).await;
    wait_for(&daemon, "slow", "delivered", 4).await;
    let sequences: Vec<Value> = receiver.requests().iter().map(|r| r.json()["sequence"].clone()).collect();
    assert_eq!(sequences, [1, 2, 3, 4], "the attempt in flight is not repeated");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Hang).await;
    configure(
        &home,
        json!({}),
        json!([{ "name": "hangs", "url": receiver.url("/"), "timeout": "60s", "events": ["waiting"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-signals");
    receiver.wait_for(1, DEADLINE).await;
    daemon.signal(ringback_testkit::Signal::SIGTERM);
    // The listeners close first.
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while tokio::net::TcpStream::connect(daemon.api()).await.is_ok() {
        assert!(tokio::time::Instant::now() < give_up, "the API listens on");
        tokio::task::yield_now().await;
    }
    daemon.signal(ringback_testkit::Signal::SIGINT);
    daemon.wait(DEADLINE).await.expect_success();
    // Whoever stops in order, after the attempts in flight, closes the store: then this file is gone.
    assert!(home.state_dir().join("ringback.db-wal").exists(), "the attempt in flight was waited for");
}

#[tokio::test]
async fn listings_show_an_endpoint_s_counts_and_a_delivery_s_attempts() {
    let home = Home::new();
    let answering = async |status| {
        Receiver::always(Answer::Full { status, headers: Vec::new(), body: b"said so".to_vec() }).await
    };
    let (good, picky, down) = (answering(200).await, answering(404).await, answering(503).await);
    let entry = |name: &str, r: &Receiver, backoff: Value| json!({ "name": name, "url": r.url("/"), "events": ["waiting"], "backoff": backoff });
    configure(
        &home,
        json!({}),
        json!([
            entry("good", &good, json!([])),
            entry("picky", &picky, json!([])),
            entry("down", &down, json!([])),
            entry("later", &down, json!(["1h"])),
        ]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-listed");
    for (name, state) in [("good", "delivered"), ("picky", "failed"), ("down", "dead")] {
        wait_for(&daemon, name, state, 1).await;
    }
    down.wait_for(2, DEADLINE).await;
    let mut later = Value::Null;
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while later["attempts"].get(0).is_none() {
        assert!(tokio::time::Instant::now() < give_up, "no attempt is written down: {later}");
        later = wait_for(&daemon, "later", "pending", 1).await.remove(0);
    }
    let rows = daemon.api_get("/api/webhooks").await.json()["items"].clone();
    for (n, (counted, status)) in
        [("delivered", 200), ("failed", 404), ("dead", 503), ("pending", 503)].into_iter().enumerate()
    {
        for key in ["pending", "delivered", "failed", "dead", "dropped"] {
            assert_eq!(rows[n][key], u64::from(key == counted), "{key}: {}", rows[n]);
        }
        assert_eq!(rows[n]["last_status"], status, "{}", rows[n]);
        assert!(rows[n]["latency_p50_ms"].is_u64() && rows[n]["latency_p99_ms"].is_u64(), "{}", rows[n]);
    }
    let table = run(&home, &["webhooks"]).await.expect_success().stdout();
    for part in ["PENDING", "DELIVERED", "FAILED", "DEAD", "LAST", "P50 MS", "P99 MS", "404", "503"] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let attempt = &later["attempts"][0];
    assert_eq!((&attempt["number"], &attempt["status"]), (&json!(1), &json!(503)), "{later}");
    assert_eq!(attempt["excerpt"], "said so");
    assert!(attempt["started_at"].is_string() && attempt["duration_ms"].is_u64(), "{later}");
    assert!(later["next_attempt_at"].is_string() && later["event"]["to"] == "waiting", "{later}");
    let id = later["id"].as_str().expect("an id");
    let shown = run(&home, &["deliveries", "show", id]).await.expect_success().stdout();
    for part in ["state      pending", "next try   ", "attempt 1 ", "status 503", "said so", "s-listed"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn notifiers_obey_the_network_profile() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "delivery": { "network": "server" },
            "notify": [{ "type": "ntfy", "url": receiver.url(""), "topic": "topic-of-the-test" }],
        })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    run(&home, &["notify", "test"]).await.expect_success();
    daemon.wait_for_line("address not allowed: loopback (127.0.0.0/8)", DEADLINE).await;
    daemon.terminate().await.expect_success();
    assert!(receiver.requests().is_empty());
}
