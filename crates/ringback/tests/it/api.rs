//! api-cli.md: who may call the API, and what it answers.

use ringback_testkit::Home;
use ringback_testkit::{Answer, Receiver};
use serde_json::json;

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

#[tokio::test]
async fn every_route_but_the_probes_wants_the_token_a_host_of_ours_and_no_foreign_page() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let bearer = format!("Bearer {}", daemon.token());
    let host = daemon.api().to_string();
    let call = async |path: &str, headers: &[(&str, &str)]| daemon.raw("GET", path, headers, b"").await;

    for path in
        ["/api/sessions", "/api/stats", "/api/config", "/api/webhooks", "/api/deliveries", "/api/events"]
    {
        let reply = call(path, &[("host", &host)]).await;
        assert_eq!(reply.status, 401, "{path}");
        assert_eq!(reply.message.header("www-authenticate"), Some("Bearer"));
        assert_eq!(reply.json(), json!({ "error": "missing bearer token" }));
        let wrong = call(path, &[("host", &host), ("authorization", "Bearer nonsense")]).await;
        assert_eq!((wrong.status, wrong.json()), (401, json!({ "error": "invalid bearer token" })));
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(call(path, &[("host", &host)]).await.status, 200, "{path}");
        assert_eq!(call(path, &[("host", "evil.example")]).await.status, 403, "{path}");
    }
    let with = |extra: (&'static str, &'static str)| {
        [("host", host.as_str()), ("authorization", bearer.as_str()), extra]
    };
    assert_eq!(call("/api/stats", &with(("x-a", "b"))).await.status, 200);
    assert_eq!(call("/api/stats", &with(("origin", "https://evil.example"))).await.status, 403);
    assert_eq!(call("/api/stats", &with(("origin", "null"))).await.status, 403);
    let own = format!("http://{host}");
    let same = [("host", host.as_str()), ("authorization", bearer.as_str()), ("origin", own.as_str())];
    assert_eq!(call("/api/stats", &same).await.status, 200);
    // The token in the query opens the event stream and nothing else.
    let query = format!("/api/stats?token={}", daemon.token());
    assert_eq!(call(&query, &[("host", &host)]).await.status, 401);
    assert_eq!(call("/nowhere", &with(("x-a", "b"))).await.json(), json!({ "error": "not found" }));
    assert_eq!(daemon.api_put("/api/stats", &json!({})).await.status, 405);
}

#[tokio::test]
async fn sessions_are_listed_shown_named_and_filtered() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": [{ "name": "a", "url": receiver.url("/") }] })
            .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-api");
    session.prompt("Fix it");
    session.end("Fixed.");
    receiver.wait_for(1, DEADLINE).await;

    let listed = daemon.api_get("/api/sessions").await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let row = &listed[0];
    assert_eq!(
        (&row["session_id"], &row["agent"], &row["activity"], &row["reason"], &row["is_active"]),
        (&json!("s-api"), &json!("claude"), &json!("waiting"), &json!("turn_end"), &json!(false))
    );
    assert_eq!(row["total_messages"], 2, "{row}");

    let project = home.project().to_string_lossy().into_owned();
    for (query, count) in [
        (format!("dir={project}"), 1),
        ("dir=/elsewhere".to_owned(), 0),
        ("filter=waiting".to_owned(), 1),
        ("filter=running".to_owned(), 0),
        ("agent=codex".to_owned(), 0),
        ("search=PROJ".to_owned(), 1),
    ] {
        let found = daemon.api_get(&format!("/api/sessions?{query}")).await.json();
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{query}");
    }
    let relative = daemon.api_get("/api/sessions?dir=here").await;
    assert_eq!((relative.status, relative.json()), (400, json!({ "error": "dir must be an absolute path" })));

    let named = daemon.api_put("/api/sessions/s-api/name", &json!({ "name": "  build fixer " })).await.json();
    assert_eq!(named, json!({ "session_id": "s-api", "custom_name": "build fixer" }));
    assert_eq!(daemon.api_put("/api/sessions/s-api/name", &json!({ "nam": 1 })).await.status, 400);
    assert_eq!(daemon.api_put("/api/sessions/nobody/name", &json!({ "name": "x" })).await.status, 404);
    daemon.terminate().await.expect_success();

    // Names outlive the daemon.
    let daemon = home.up(ringback()).await;
    let shown = daemon.api_get("/api/sessions/s-api").await.json();
    assert_eq!(shown["custom_name"], "build fixer", "{shown}");
    assert_eq!((&shown["user_messages"], &shown["assistant_messages"]), (&json!(1), &json!(1)));
    assert_eq!((&shown["input_tokens"], &shown["output_tokens"]), (&json!(10), &json!(5)));
    assert_eq!(shown["resume_command"], "claude --resume s-api");
    assert_eq!(shown["recent_messages"][0]["text"], "Fix it");
    assert_eq!(shown["transitions"][0]["to"], "waiting");
    assert_eq!(daemon.api_delete("/api/sessions/s-api/name").await.json()["custom_name"], "");
    let missing = daemon.api_get("/api/sessions/nobody").await;
    assert_eq!((missing.status, missing.json()), (404, json!({ "error": "session not found" })));
}

#[tokio::test]
async fn a_restart_reads_what_was_written_meanwhile_and_nothing_twice_unless_nothing_may_be_on_disk() {
    for (durability, messages) in [("disk", 4), ("memory", 3)] {
        let home = Home::new();
        let receiver = Receiver::always(Answer::Status(200)).await;
        let config = json!({
            "server": { "listen": "127.0.0.1:0" },
            "delivery": { "durability": durability },
            "webhooks": [{ "name": "a", "url": receiver.url("/") }],
        });
        home.write_config(&config.to_string());
        let daemon = home.up(ringback()).await;
        let session = Transcript::new(&home, "s-api");
        session.prompt("Fix it");
        session.end("Fixed.");
        receiver.wait_for(1, DEADLINE).await;
        daemon.terminate().await.expect_success();

        // Whoever reads the first line again does not count it.
        session.spoil();
        session.prompt("And this");
        session.end("Done.");
        let daemon = home.up(ringback()).await;
        let row = daemon.api_get("/api/sessions").await.json()[0].clone();
        assert_eq!(
            (&row["total_messages"], &row["activity"]),
            (&json!(messages), &json!("waiting")),
            "{row}"
        );
        daemon.terminate().await.expect_success();
    }
}

#[tokio::test]
async fn sessions_watch_prints_a_line_for_each_transition() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-watch");
    session.prompt("go");
    let watch = home.spawn(ringback(), &["sessions", "watch"]);
    // The stream is open once it has told something; until then the session goes back and forth.
    let line = {
        let seen = watch.wait_for_line("running", DEADLINE);
        tokio::pin!(seen);
        let mut n = 0;
        loop {
            session.tool(&format!("t{n}"), "Bash");
            session.result(&format!("t{n}"));
            n += 1;
            tokio::select! {
                line = &mut seen => break line,
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
        }
    };
    assert!(line.text.contains("claude   thinking   > running"), "{}", line.text);
    daemon.terminate().await.expect_success();
    let ended = watch.wait(DEADLINE).await.expect_success();
    assert!(ended.stderr().contains("ringback stopped"), "{}", ended.stderr());
}
