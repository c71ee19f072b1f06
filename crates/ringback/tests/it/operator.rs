//! outbound.md, "Operator", and the API's token from a passphrase.

use ringback_testkit::{Answer, Daemon, Ended, Home, Received, Receiver};
use serde_json::{Value, json};

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

fn configure(home: &Home, webhooks: Value) {
    home.write_config(&json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks }).to_string());
}

async fn run(home: &Home, args: &[&str]) -> Ended {
    home.spawn(ringback(), args).wait(DEADLINE).await
}

/// The deliveries of an endpoint, once `count` are in this state.
pub(crate) async fn wait_for(daemon: &Daemon, endpoint: &str, state: &str, count: usize) -> Vec<Value> {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let listed =
            daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}&state={state}")).await.json();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        if items.len() == count {
            return items;
        }
        assert!(tokio::time::Instant::now() < give_up, "no {count} {state} at {endpoint}: {listed}");
        tokio::task::yield_now().await;
    }
}

/// One change that an endpoint with `events = ["waiting"]` wants.
fn turn(home: &Home, session: &str) {
    let session = Transcript::new(home, session);
    session.prompt("go");
    session.end("done");
}

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn ids(requests: &[Received]) -> Vec<Value> {
    requests.iter().map(|r| r.json()["id"].clone()).collect()
}

#[tokio::test]
async fn a_replay_keeps_the_event_s_id_and_goes_on_with_the_numbers_of_its_attempts() {
    let home = Home::new();
    let receiver = Receiver::scripted([Answer::Status(500), Answer::Status(500), Answer::Status(200)]).await;
    configure(
        &home,
        json!([{ "name": "flaky", "url": receiver.url("/"), "events": ["waiting"], "backoff": ["1ms"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-replay");
    let dead = wait_for(&daemon, "flaky", "dead", 1).await;
    let path = format!("/api/deliveries/{}/replay", id(&dead[0]));
    let replayed = daemon.api_post(&path, &json!({})).await;
    assert_eq!((replayed.status, replayed.json()), (200, json!({ "replayed": 1 })));
    let delivered = wait_for(&daemon, "flaky", "delivered", 1).await;
    assert_eq!(delivered[0]["id"], dead[0]["id"]);
    let attempts = delivered[0]["attempts"].as_array().expect("attempts are kept");
    let seen: Vec<_> = attempts.iter().map(|a| (a["number"].clone(), a["status"].clone())).collect();
    assert_eq!(json!(seen), json!([[1, 500], [2, 500], [3, 200]]));
    let requests = receiver.requests();
    assert_eq!(ids(&requests), vec![dead[0]["event"]["id"].clone(); 3]);
    assert_eq!(requests[2].header("x-ringback-attempt"), Some("3"));
    let listed = daemon.api_get("/api/webhooks").await.json();
    assert_eq!((&listed["items"][0]["dead"], &listed["items"][0]["delivered"]), (&json!(0), &json!(1)));

    // Delivered ones too; the receiver knows the id.
    let again = run(&home, &["deliveries", "replay", id(&dead[0])]).await.expect_success();
    assert_eq!(again.stdout(), "replayed 1 delivery\n");
    receiver.wait_for(4, DEADLINE).await;
    for (path, status, error) in [
        ("/api/deliveries/999/replay", 404, "delivery not found"),
        ("/api/deliveries/none/replay", 404, "delivery not found"),
    ] {
        let refused = daemon.api_post(path, &json!({})).await;
        assert_eq!((refused.status, refused.json()), (status, json!({ "error": error })));
    }
}

#[tokio::test]
async fn all_dead_ones_or_a_time_range_are_replayed_at_once() {
    let home = Home::new();
    let (a, b) = (Receiver::always(Answer::Status(500)).await, Receiver::always(Answer::Status(500)).await);
    let entry =
        |name, r: &Receiver| json!({ "name": name, "url": r.url("/"), "events": ["waiting"], "backoff": [] });
    configure(&home, json!([entry("a", &a), entry("b", &b)]));
    let daemon = home.up(ringback()).await;
    for n in 0..3 {
        turn(&home, &format!("s-{n}"));
    }
    wait_for(&daemon, "a", "dead", 3).await;
    let dead = wait_for(&daemon, "b", "dead", 3).await;
    a.answer_with(|_| Answer::Status(200));
    b.answer_with(|_| Answer::Status(200));

    let one =
        run(&home, &["deliveries", "replay", "--dead", "--endpoint", "a", "--json"]).await.expect_success();
    assert_eq!(serde_json::from_str::<Value>(&one.stdout()).ok(), Some(json!({ "replayed": 3 })));
    wait_for(&daemon, "a", "delivered", 3).await;
    assert_eq!(b.requests().len(), 3, "the other endpoint's stay dead");

    let happened = |n: usize| dead[n]["event"]["timestamp"].as_str().expect("a time");
    let instant = |text: &&str| text.parse::<ringback_model::Timestamp>().expect("an instant");
    let mut times: Vec<&str> = (0..3).map(happened).collect();
    times.sort_unstable_by_key(instant);
    // Two of them can have happened in the same millisecond.
    let before = times.iter().filter(|t| instant(t) < instant(&times[2])).count();
    let replay = async |range: Value| daemon.api_post("/api/deliveries/replay", &range).await;
    let some = replay(json!({ "state": "dead", "to": times[2] })).await.json();
    assert_eq!(some, json!({ "replayed": before }));
    wait_for(&daemon, "b", "delivered", before).await;
    let rest = run(&home, &["deliveries", "replay", "--dead", "--from", times[2]]).await.expect_success();
    let word = match 3 - before {
        1 => "1 delivery".to_owned(),
        n => format!("{n} deliveries"),
    };
    assert_eq!(rest.stdout(), format!("replayed {word}\n"));
    wait_for(&daemon, "b", "delivered", 3).await;
    assert_eq!(replay(json!({ "state": "dead" })).await.json(), json!({ "replayed": 0 }));

    for (range, part) in [
        (json!({}), "say which"),
        (json!({ "endpoint": "a" }), "say which"),
        (json!({ "state": "pending" }), "pending cannot be replayed"),
        (json!({ "state": "lost" }), "unknown delivery state"),
        (json!({ "from": "yesterday" }), "from must be an RFC 3339 time"),
        (json!({ "stat": "dead" }), "expected {"),
    ] {
        let refused = replay(range.clone()).await;
        let error = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(refused.status == 400 && error.contains(part), "{range}: {error}");
    }
    for args in [&["deliveries", "replay"][..], &["deliveries", "replay", "1", "--dead"]] {
        assert_eq!(run(&home, args).await.code, Some(2), "{args:?}");
    }
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_until_it_is_enabled_and_then_what_was_pending_can_be_replayed() {
    let home = Home::new();
    let (switched, other) =
        (Receiver::always(Answer::Status(503)).await, Receiver::always(Answer::Status(200)).await);
    configure(
        &home,
        json!([
            { "name": "switched", "url": switched.url("/"), "events": ["waiting"], "backoff": ["1h"] },
            { "name": "other", "url": other.url("/"), "events": ["waiting"] },
            { "name": "off", "url": other.url("/off"), "enabled": false },
        ]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-1");
    switched.wait_for(1, DEADLINE).await;
    wait_for(&daemon, "switched", "pending", 1).await;
    let told = run(&home, &["webhooks", "disable", "switched"]).await.expect_success();
    assert!(told.stdout().starts_with("switched: disabled"), "{}", told.stdout());
    let dead = wait_for(&daemon, "switched", "dead", 1).await;
    turn(&home, "s-2");
    other.wait_for(2, DEADLINE).await;
    let all = daemon.api_get("/api/deliveries?endpoint=switched").await.json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1), "nothing new is queued: {all}");

    // The switch outlives the daemon and an edit of the entry.
    daemon.terminate().await.expect_success();
    configure(
        &home,
        json!([
            { "name": "switched", "url": switched.url("/new"), "events": ["waiting"] },
            { "name": "other", "url": other.url("/"), "events": ["waiting"] },
            { "name": "off", "url": other.url("/off"), "enabled": false },
        ]),
    );
    let daemon = home.up(ringback()).await;
    let listed = daemon.api_get("/api/webhooks").await.json();
    let row = &listed["items"][0];
    assert_eq!((&row["enabled"], &row["disabled_reason"]), (&json!(false), &json!("disabled by hand")));
    let post = async |path: &str| {
        let reply = daemon.api_post(path, &json!({ "state": "dead" })).await;
        (reply.status, reply.json())
    };
    let one = format!("/api/deliveries/{}/replay", id(&dead[0]));
    let disabled = json!({ "error": "the webhook \"switched\" is disabled: disabled by hand" });
    assert_eq!(post(&one).await, (409, disabled.clone()));
    assert_eq!(post("/api/webhooks/switched/test").await, (409, disabled));
    assert_eq!(post("/api/deliveries/replay").await, (200, json!({ "replayed": 0 })), "skipped in a range");
    let fixed = json!({ "error": "enabled = false in the configuration" });
    assert_eq!(post("/api/webhooks/off/enable").await, (409, fixed));
    assert_eq!(post("/api/webhooks/nobody/enable").await, (404, json!({ "error": "webhook not found" })));

    switched.answer_with(|_| Answer::Status(200));
    let told = run(&home, &["webhooks", "enable", "switched"]).await.expect_success();
    assert_eq!(told.stdout(), "switched: enabled\n");
    assert_eq!(post(&one).await, (200, json!({ "replayed": 1 })));
    wait_for(&daemon, "switched", "delivered", 1).await;
    turn(&home, "s-3");
    wait_for(&daemon, "switched", "delivered", 2).await;
    assert_eq!(switched.requests().len(), 3);
    daemon.terminate().await.expect_success();

    // An entry that went away takes no replay either.
    configure(&home, json!([{ "name": "other", "url": other.url("/") }]));
    let daemon = home.up(ringback()).await;
    let gone = daemon.api_post(&one, &json!({})).await;
    let error = json!({ "error": "the webhook \"switched\" is not in the configuration" });
    assert_eq!((gone.status, gone.json()), (409, error));
}

#[tokio::test]
async fn an_endpoint_that_its_receiver_disabled_is_enabled_by_hand_without_a_restart() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(410)).await;
    configure(&home, json!([{ "name": "gone", "url": receiver.url("/"), "events": ["waiting"] }]));
    let daemon = home.up(ringback()).await;
    turn(&home, "s-1");
    daemon.wait_for_line("endpoint disabled", DEADLINE).await;
    wait_for(&daemon, "gone", "dead", 1).await;
    receiver.answer_with(|_| Answer::Status(200));
    assert_eq!(daemon.api_post("/api/webhooks/gone/enable", &json!({})).await.status, 200);
    turn(&home, "s-2");
    wait_for(&daemon, "gone", "delivered", 1).await;
    let listed = daemon.api_get("/api/webhooks").await.json();
    assert_eq!(listed["items"][0]["enabled"], true, "{listed}");
}

#[tokio::test]
async fn endpoints_are_added_to_and_removed_from_the_file_with_its_comments_kept() {
    let home = Home::new();
    let before = "# mine\n[server]\nlisten = \"127.0.0.1:0\" # any port\n";
    let path = home.write_config(before);
    let added =
        run(&home, &["webhooks", "add", "desk", "http://u:hunter2@127.0.0.1:9/x", "--event", "waiting"]);
    let added = added.await.expect_success();
    let text = home.read(".config/ringback/config.toml").expect("the file is there");
    assert!(text.starts_with(before) && text.contains("[[webhooks]]\nname = \"desk\""), "{text}");
    assert!(added.stdout().contains("+name = \"desk\""), "{}", added.stdout());
    assert!(
        added.stdout().contains("within a second") && !added.stdout().contains("hunter2"),
        "{}",
        added.stdout()
    );
    let again = run(&home, &["webhooks", "add", "desk", "http://127.0.0.1:9/"]).await;
    assert_eq!(again.code, Some(2));
    assert!(again.stderr().contains("has an entry named \"desk\""), "{}", again.stderr());
    run(&home, &["webhooks", "rm", "desk"]).await.expect_success();
    assert_eq!(
        home.read(".config/ringback/config.toml").map(|t| t.trim_end().to_owned()).as_deref(),
        Some(before.trim_end())
    );
    home.write_config("{}");
    let refused = run(&home, &["webhooks", "add", "desk", "http://127.0.0.1:9/"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr().contains(&format!("list in {} by hand", path.display())),
        "{}",
        refused.stderr()
    );
}

#[tokio::test]
async fn a_client_that_knows_the_passphrase_can_derive_the_token_from_what_the_api_says() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"},"api_salt":"lazyagent-api-v1"}"#);
    let daemon = home.up(ringback()).await;
    let random = daemon.token();
    let answer = daemon.raw("GET", "/api/auth", &[], b"").await;
    let expected = json!({
        "salt": "lazyagent-api-v1", "iterations": 600_000, "key_length": 32, "hash": "SHA-256",
        "encoding": "base64url-no-padding",
    });
    assert_eq!((answer.status, answer.json()), (200, expected), "also with a random token");
    assert_eq!(daemon.raw("GET", "/api/auth", &[("host", "evil.example")], b"").await.status, 403);
    daemon.terminate().await.expect_success();

    home.set_env("RINGBACK_API_PASSPHRASE", "correct horse battery staple");
    let daemon = home.up(ringback()).await;
    // Derived with another implementation.
    assert_eq!(daemon.token(), "Od4VY3NzA78BHVPdeoQE_Cr3BAuQ6ychEaqkCD6kPr0");
    assert_eq!(daemon.api_get("/api/stats").await.status, 200);
    let old = format!("Bearer {random}");
    assert_eq!(daemon.raw("GET", "/api/stats", &[("authorization", &old)], b"").await.status, 401);
    let listed = run(&home, &["webhooks"]).await.expect_success();
    assert!(listed.stdout().contains("no endpoint"), "clients find the token: {}", listed.stdout());
    daemon.terminate().await.expect_success();

    home.set_env("RINGBACK_API_PASSPHRASE", "");
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    assert_ne!(
        daemon.token(),
        "Od4VY3NzA78BHVPdeoQE_Cr3BAuQ6ychEaqkCD6kPr0",
        "without the passphrase its token is worth nothing"
    );
    let salt = daemon.raw("GET", "/api/auth", &[], b"").await.json()["salt"].clone();
    assert!(salt.as_str().is_some_and(|s| s.starts_with("ringback-v1-") && s.len() == 34), "{salt}");
    let kept = daemon.token();
    daemon.terminate().await.expect_success();
    let daemon = home.up(ringback()).await;
    assert_eq!(daemon.token(), kept);
    assert_eq!(daemon.raw("GET", "/api/auth", &[], b"").await.json()["salt"], salt);
    daemon.terminate().await.expect_success();

    home.set_env("RINGBACK_API_PASSPHRASE", "eleven char");
    let refused = run(&home, &["up"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr().contains("RINGBACK_API_PASSPHRASE is shorter than 12"), "{}", refused.stderr());
    assert!(refused.stderr().contains("mend: "), "{}", refused.stderr());
}

#[tokio::test]
async fn a_paused_endpoint_is_shown_with_the_end_of_its_pause() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::with_headers(429, &[("retry-after", "600")])).await;
    let settings = json!({
        "server": { "listen": "127.0.0.1:0" },
        "webhooks": [{ "name": "limited", "url": receiver.url("/") }],
    });
    home.write_config(&settings.to_string());
    let daemon = home.up(ringback()).await;
    daemon.api_post("/api/webhooks/limited/test", &json!({})).await;
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let rows = daemon.api_get("/api/webhooks").await.json();
        if rows["items"][0]["paused_until"].is_string() {
            break;
        }
        assert!(tokio::time::Instant::now() < give_up, "{rows}");
        tokio::task::yield_now().await;
    }
    let listed = home.spawn(ringback(), &["webhooks"]).wait(DEADLINE).await.expect_success();
    assert!(listed.stdout().contains("paused until 20"), "{}", listed.stdout());
    daemon.terminate().await.expect_success();
}
