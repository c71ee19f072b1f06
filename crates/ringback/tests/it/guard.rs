//! outbound.md, "Network": where the running program sends nothing, whatever its configuration says.

use ringback_testkit::{Answer, Home, Receiver};
use serde_json::{Value, json};

use crate::deliver::settled;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// What came of one event at each of these endpoints, by name: state and error of the last attempt.
async fn outcomes(network: &str, entries: impl FnOnce(u16) -> Value) -> Vec<(String, String, String)> {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let webhooks = entries(port);
    home.write_config(
        &json!({
            "server": { "listen": format!("127.0.0.1:{port}") },
            "delivery": { "network": network },
            "webhooks": webhooks,
        })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-guard");
    session.prompt("go");
    session.end("done");
    let mut outcomes = Vec::new();
    for entry in webhooks.as_array().expect("a list of entries") {
        let name = entry["name"].as_str().expect("a name");
        let delivery = settled(&daemon, name).await;
        let attempts = delivery["attempts"].as_array().expect("attempts are kept");
        assert_eq!(attempts.len(), 1, "{delivery}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        outcomes.push((name.to_owned(), text(&delivery["state"]), text(&attempts[0]["error"])));
    }
    daemon.terminate().await.expect_success();
    outcomes
}

fn check(outcomes: &[(String, String, String)], wanted: &[(&str, &str, &str)]) {
    let outcomes: Vec<_> = outcomes.iter().map(|(n, s, e)| (n.as_str(), s.as_str(), e.as_str())).collect();
    assert_eq!(outcomes, wanted);
}

fn entry(name: &str, url: &str) -> Value {
    json!({ "name": name, "url": url, "events": ["waiting"] })
}

#[tokio::test]
async fn network_server_reaches_loopback_only_where_it_is_allowed_and_ringback_nowhere() {
    let (refused, allowed) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(200)).await);
    let mut own = 0;
    let outcomes = outcomes("server", |port| {
        own = port;
        let mut entries = [
            entry("refused", &refused.url("/")),
            entry("allowed", &allowed.url("/")),
            entry("own", &format!("http://127.0.0.1:{port}/api/sessions")),
        ];
        for entry in &mut entries[1..] {
            entry["allow"] = json!(["127.0.0.0/8"]);
        }
        json!(entries)
    })
    .await;
    check(
        &outcomes,
        &[
            ("refused", "failed", "address not allowed: loopback (127.0.0.0/8)"),
            ("allowed", "delivered", ""),
            ("own", "failed", &format!("address not allowed: port {own} of this machine is ringback's own")),
        ],
    );
    assert_eq!(allowed.wait_for(1, DEADLINE).await.len(), 1);
    assert!(refused.requests().is_empty());
}

#[tokio::test]
async fn network_local_reaches_loopback_but_neither_ringback_nor_metadata() {
    let receiver = Receiver::always(Answer::Status(200)).await;
    let mut own = 0;
    let outcomes = outcomes("local", |port| {
        own = port;
        json!([
            entry("loopback", &receiver.url("/")),
            entry("own", &format!("http://127.0.0.1:{port}/api/sessions")),
            entry("own-by-name", &format!("http://localhost:{port}/api/sessions")),
            entry("metadata", "http://169.254.169.254/latest/meta-data/"),
        ])
    })
    .await;
    let ours = format!("address not allowed: port {own} of this machine is ringback's own");
    check(
        &outcomes,
        &[
            ("loopback", "delivered", ""),
            ("own", "failed", &ours),
            ("own-by-name", "failed", &ours),
            ("metadata", "failed", "address not allowed: link-local and cloud metadata (169.254.0.0/16)"),
        ],
    );
}

#[tokio::test]
async fn an_allow_that_is_no_network_is_a_bad_entry_and_a_wrong_profile_stops_the_start() {
    let home = Home::new();
    let bad = json!({ "name": "bad", "url": "http://127.0.0.1:9/", "allow": ["10.0.0.0/99"] });
    home.write_config(&json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": [bad] }).to_string());
    let daemon = home.up(ringback()).await;
    daemon.wait_for_line("\"10.0.0.0/99\" is not an address or a network", DEADLINE).await;
    daemon.terminate().await.expect_success();

    home.write_config(&json!({ "delivery": { "network": "lan" } }).to_string());
    let ended = home.spawn(ringback(), &["up"]).wait(DEADLINE).await;
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr().contains("expected \"local\" or \"server\""), "{}", ended.stderr());
}
