//! outbound.md, "Network": where the running program sends nothing, whatever its configuration says.

use ringback_testkit::{Answer, Home, Proxy, Receiver};
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

#[tokio::test]
async fn proxies_of_the_environment_are_used_only_with_proxy_env_and_their_password_is_nowhere() {
    let receiver = Receiver::always(Answer::Status(400)).await;
    let proxy = Proxy::start(&[("hooks.test", receiver.addr())]).await;
    let mut home = Home::new();
    let named = format!("http://user:hunter2@{}", proxy.addr());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        home.set_env(name, &named);
    }
    home.set_env("NO_PROXY", "127.0.0.1");
    home.set_env("RINGBACK_LOG", "trace");
    for (n, delivery) in [json!({}), json!({ "proxy": "env" })].into_iter().enumerate() {
        let url = if n == 0 { receiver.url("/direct") } else { "http://hooks.test/through".to_owned() };
        let webhooks = json!([entry("a", &url), entry("exempt", &receiver.url("/exempt"))]);
        home.write_config(
            &json!({ "server": { "listen": "127.0.0.1:0" }, "delivery": delivery, "webhooks": webhooks })
                .to_string(),
        );
        let daemon = home.up(ringback()).await;
        let session = Transcript::new(&home, &format!("s-proxy-{n}"));
        session.prompt("go");
        session.end("done");
        receiver.wait_for(2 * (n + 1), DEADLINE).await;
        let listed = daemon.api_get("/api/deliveries").await.message.text();
        let settings = daemon.api_get("/api/config").await.message.text();
        let ended = daemon.terminate().await.expect_success();
        for text in [listed, settings, ended.stdout(), ended.stderr()] {
            // In base64 as well, which is how it is sent.
            assert!(!text.contains("hunter2") && !text.contains("dXNlcjpodW50ZXIy"), "{text}");
        }
        assert_eq!(proxy.asked().len(), n, "only what is asked for goes through it");
    }
    let asked = proxy.asked().remove(0);
    assert_eq!(asked.target, "http://hooks.test/through");
    assert_eq!(asked.credentials.as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
}

#[tokio::test]
async fn listings_show_an_endpoint_s_order_rate_and_network() {
    let home = Home::new();
    let mut full = entry("full", "http://127.0.0.1:9/");
    full["ordered"] = json!(true);
    full["rate"] = json!("30/m");
    full["allow"] = json!(["127.0.0.0/8"]);
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" }, "delivery": { "network": "server" },
                 "webhooks": [full, entry("plain", "http://127.0.0.1:9/")] })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let rows = daemon.api_get("/api/webhooks").await.json()["items"].clone();
    let shown = |row: &Value| json!([row["ordered"], row["rate"], row["network"], row["allow"]]);
    assert_eq!(shown(&rows[0]), json!([true, "30/m", "server", ["127.0.0.0/8"]]));
    assert_eq!(shown(&rows[1]), json!([false, null, "server", []]));
    let listed = home.spawn(ringback(), &["webhooks", "list"]).wait(DEADLINE).await.expect_success().stdout();
    assert!(listed.contains("ordered, 30/m, public addresses, allow 127.0.0.0/8"), "{listed}");
}
