//! api-cli.md: who may call the API, and what it answers.

use ringback_testkit::Home;
use ringback_testkit::{Answer, Receiver};
use serde_json::{Value, json};

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
    // Without the token nobody learns which routes and methods there are.
    for (method, path) in [("GET", "/api/nope"), ("POST", "/api/sessions"), ("POST", "/api/auth")] {
        let reply = daemon.raw(method, path, &[("host", &host)], b"").await;
        assert_eq!((reply.status, reply.json()), (401, json!({ "error": "missing bearer token" })), "{path}");
    }
    assert_eq!(call("/api/auth", &[("host", &host)]).await.status, 200);
    let with = |extra: (&'static str, &'static str)| {
        [("host", host.as_str()), ("authorization", bearer.as_str()), extra]
    };
    assert_eq!(call("/api/stats", &with(("x-a", "b"))).await.status, 200);
    assert_eq!(call("/api/stats", &with(("origin", "https://evil.example"))).await.status, 403);
    assert_eq!(call("/api/stats", &with(("origin", "null"))).await.status, 403);
    let own = format!("http://{host}");
    let same = [("host", host.as_str()), ("authorization", bearer.as_str()), ("origin", own.as_str())];
    assert_eq!(call("/api/stats", &same).await.status, 200);
    let evil = ("origin", "https://evil.example");
    assert_eq!(
        call("/api/stats", &[&same[..], &[evil]].concat()).await.status,
        403,
        "each of several counts"
    );
    // The token in the query opens the event stream and nothing else.
    let query = format!("/api/stats?token={}", daemon.token());
    assert_eq!(call(&query, &[("host", &host)]).await.status, 401);
    assert_eq!(call("/nowhere", &with(("x-a", "b"))).await.json(), json!({ "error": "not found" }));
    assert_eq!(call("/api/nope", &with(("x-a", "b"))).await.status, 404);
    assert_eq!(daemon.api_put("/api/stats", &json!({})).await.status, 405);
}

#[tokio::test]
async fn what_cannot_be_read_of_a_request_is_refused_as_json_with_the_right_status() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let run = "01900000-0000-7000-8000-000000000000";
    for (path, text) in [
        ("/api/sessions?dir=/a&dir=/b", "invalid query: duplicate field `dir`"),
        ("/api/deliveries?limit=1&limit=2", "invalid query: duplicate field `limit`"),
        (&format!("/api/runs/{run}/log?from=start"), "from must be a whole number of bytes"),
        (&format!("/api/runs/{run}/log?from=-1"), "from must be a whole number of bytes"),
        ("/api/sessions/%ff", "invalid path: its percent-encoding must decode to UTF-8"),
    ] {
        let refused = daemon.api_get(path).await;
        assert_eq!((refused.status, refused.json()), (400, json!({ "error": text })), "{path}");
    }
    let long = json!({ "message": "x".repeat(64 * 1024) });
    for path in ["/api/sessions/s/name", "/api/budget"] {
        let refused = daemon.api_put(path, &long).await;
        assert_eq!(
            (refused.status, refused.json()),
            (413, json!({ "error": "payload too large" })),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_listing_takes_a_limit_and_its_own_cursor() {
    let home = Home::new();
    let entries = ["a", "b", "c"].map(|name| json!({ "name": name, "url": "http://127.0.0.1:9/" }));
    home.write_config(&json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": entries }).to_string());
    let daemon = home.up(ringback()).await;
    let get = async |path: &str| daemon.api_get(path).await;
    let names = |page: &Value| -> String {
        page["items"].as_array().into_iter().flatten().filter_map(|w| w["name"].as_str()).collect()
    };
    let first = get("/api/webhooks?limit=2").await.json();
    let cursor = first["next"].as_str().expect("there is more").to_owned();
    let second = get(&format!("/api/webhooks?limit=2&cursor={cursor}")).await.json();
    assert_eq!((names(&first), names(&second), &second["next"]), ("ab".into(), "c".into(), &json!(null)));
    assert_eq!(names(&get("/api/webhooks").await.json()), "abc");

    let lists = ["deliveries", "runs", "webhooks", "hooks", "hooks/deliveries", "updates", "worktrees"];
    for list in lists {
        let page = get(&format!("/api/{list}?limit=1000")).await;
        assert!(page.status == 200 && page.json()["items"].is_array(), "{list}");
        for limit in ["0", "1001", "-1", "many", ""] {
            let refused = get(&format!("/api/{list}?limit={limit}")).await;
            assert_eq!(refused.status, 400, "{list} {limit}");
            assert_eq!(refused.json()["error"], "limit must be a whole number from 1 to 1000", "{list}");
        }
        let own = if list == "hooks/deliveries" { "calls" } else { list };
        for (cursor, status) in
            [(format!("{own}-1"), 200), ("others-1".to_owned(), 400), ("1".to_owned(), 400)]
        {
            let reply = get(&format!("/api/{list}?cursor={cursor}")).await;
            assert_eq!(reply.status, status, "{list} {cursor}");
        }
    }
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
        let seen = watch.wait_for_line("> running", DEADLINE);
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
