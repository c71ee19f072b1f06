//! outbound.md, "Config entry": what an entry may say, and what becomes of one that says it wrongly.

use std::collections::BTreeSet;

use ringback_testkit::{Answer, Home, Receiver};
use serde_json::{Value, json};

use crate::operator::wait_for;
use crate::promises::{changes, configure, files, holds, run, turn, until_activity};
use crate::{DEADLINE, ringback};

const SECRET: &str = "whsec_cmluZ2JhY2stdGVzdC1zZWNyZXQtMDEyMzQ1Njc=";

#[tokio::test]
async fn a_bad_entry_is_skipped_with_one_warning_that_names_it_its_key_the_value_and_the_valid_ones() {
    let mut home = Home::new();
    home.set_env("EMPTY", "");
    let good = Receiver::always(Answer::Status(200)).await;
    let url = good.url("/");
    let bad = [
        ("words", json!({ "events": ["sleeping"] }), &["events", "\"sleeping\"", "idle waiting"][..]),
        ("whose", json!({ "agents": ["claudia"] }), &["agents", "\"claudia\"", "claude codex pi"]),
        ("why", json!({ "reasons": ["boredom"] }), &["reasons", "\"boredom\"", "turn_end permission"]),
        ("shape", json!({ "format": "slak" }), &["format", "\"slak\"", "json slack discord"]),
        ("scheme", json!({ "url": "ftp://u:hunter2@h/" }), &["url", "\"ftp\"", "http https"]),
        ("no-host", json!({ "url": "hunter2" }), &["url", "http://HOST/"]),
        ("fast", json!({ "rate": "quick" }), &["rate", "\"quick\"", "\"30/m\""]),
        ("where", json!({ "allow": ["here"] }), &["allow", "\"here\"", "10.0.0.0/8"]),
        ("at-once", json!({ "timeout": "0s" }), &["timeout", "more than 0s"]),
        ("idle", json!({ "concurrency": 0 }), &["concurrency", "from 1 to 1024"]),
        ("soon", json!({ "backoff": ["soon"] }), &["backoff", "\"30s\""]),
        ("two", json!({ "secret": "hunter2", "secret_env": "HOME" }), &["secret", "exactly one"]),
        ("void", json!({ "secret": [""] }), &["secret", "may not be empty"]),
        ("unset", json!({ "secret_env": "EMPTY" }), &["secret_env", "\"EMPTY\" is not set"]),
        ("no-file", json!({ "secret_file": "/nowhere/key" }), &["secret_file", "/nowhere/key"]),
        ("good", json!({ "url": "http://127.0.0.1:9/hunter2" }), &["name", "taken"]),
    ];
    let mut entries = vec![json!({ "name": "good", "url": url, "events": ["waiting"] })];
    for (name, keys, _) in &bad {
        let mut entry = json!({ "name": name, "url": url });
        for (key, value) in keys.as_object().expect("keys and values") {
            entry[key] = value.clone();
        }
        entries.push(entry);
    }
    configure(&home, json!({}), json!(entries));
    let daemon = home.up(ringback()).await;
    turn(&home, "s-bad");
    good.wait_for(1, DEADLINE).await;
    let rows = daemon.api_get("/api/webhooks").await.json()["items"].clone();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "of two with one name the first works: {rows}");
    let ended = daemon.terminate().await.expect_success();
    let warnings: Vec<_> = ended.lines.iter().filter(|l| l.text.contains("is skipped")).collect();
    assert_eq!(warnings.len(), bad.len(), "{warnings:#?}");
    for (name, _, parts) in bad {
        let named = format!("webhook \"{name}\" is skipped");
        let warning = warnings.iter().find(|l| l.text.contains(&named)).expect("the entry is named");
        for part in parts {
            assert!(warning.text.contains(part), "{part}: {}", warning.text);
        }
    }
    assert!(!ended.stderr().contains("hunter2"), "{}", ended.stderr());
}

#[tokio::test]
async fn every_key_and_format_of_a_later_version_makes_a_bad_entry_that_says_so() {
    const KEYS: [&str; 7] =
        ["template", "include", "after", "supersede", "expires_after", "digest", "quiet_hours"];
    const FORMATS: [&str; 3] = ["teams", "pagerduty", "template"];
    let home = Home::new();
    let entry = |name: &str| json!({ "name": name, "url": "http://127.0.0.1:9/" });
    let mut entries = Vec::new();
    for key in KEYS {
        let mut entry = entry(key);
        entry[key] = json!("1m");
        entries.push(entry);
    }
    for format in FORMATS {
        let mut entry = entry(&format!("format-{format}"));
        entry["format"] = json!(format);
        entries.push(entry);
    }
    configure(&home, json!({}), json!(entries));
    let daemon = home.up(ringback()).await;
    assert_eq!(daemon.api_get("/api/webhooks").await.json()["items"], json!([]));
    let said = daemon.terminate().await.expect_success().stderr();
    for key in KEYS {
        let line = said.lines().find(|l| l.contains(&format!("webhook \"{key}\" is skipped")));
        let line = line.unwrap_or_else(|| panic!("{key}: {said}"));
        assert!(line.contains("this version does not have this key yet"), "{line}");
    }
    for format in FORMATS {
        assert!(said.contains(&format!("this version does not have the format \"{format}\" yet")), "{said}");
    }
}

#[tokio::test]
async fn every_word_is_taken_in_any_case_and_other_reasons_are_not_sent() {
    const EVENTS: [&str; 10] = [
        "Idle",
        "WAITING",
        "thinking",
        "Compacting",
        "reading",
        "writing",
        "running",
        "searching",
        "browsing",
        "spawning",
    ];
    const AGENTS: [&str; 10] =
        ["Claude", "CODEX", "pi", "cursor", "amp", "opencode", "grok", "kimi", "kilo", "gemini"];
    const REASONS: [&str; 9] = [
        "Turn_End",
        "permission",
        "question",
        "ERROR",
        "rate_limit",
        "interrupted",
        "exited",
        "timeout",
        "stuck",
    ];
    let home = Home::new();
    let (all, others) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(200)).await);
    configure(
        &home,
        json!({}),
        json!([
            { "name": "all", "url": all.url("/"), "events": EVENTS, "agents": AGENTS, "reasons": REASONS },
            { "name": "others", "url": others.url("/"), "reasons": REASONS[1..] },
        ]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-words");
    assert_eq!(changes(&all.wait_for(1, DEADLINE).await), ["1 thinking>waiting"]);
    assert_eq!(all.requests()[0].json()["reason"], "turn_end");
    let row = daemon.api_get("/api/webhooks").await.json()["items"][0].clone();
    for (key, words) in [("events", &EVENTS[..]), ("agents", &AGENTS), ("reasons", &REASONS)] {
        let shown: BTreeSet<_> =
            row[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let want: Vec<String> = words.iter().map(|w| w.to_ascii_lowercase()).collect();
        assert_eq!(shown, want.iter().map(String::as_str).collect(), "{key}");
    }
    let ended = daemon.terminate().await.expect_success();
    assert!(!ended.stderr().contains("WARN"), "{}", ended.stderr());
    assert!(others.requests().is_empty());
}

#[tokio::test]
async fn a_secret_stands_in_the_entry_in_a_variable_or_in_a_file_and_a_short_one_is_a_warning() {
    let mut home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.set_env("HOOK_SECRET", "the secret of a variable");
    home.write("key", "the secret of a file\n");
    let file = home.path().join("key");
    let cases = [
        ("short", json!({ "secret": "short" }), "short"),
        ("variable", json!({ "secret_env": "HOOK_SECRET" }), "the secret of a variable"),
        ("file", json!({ "secret_file": file }), "the secret of a file"),
    ];
    let entries: Vec<Value> = cases
        .iter()
        .map(|(name, keys, _)| {
            let mut entry = keys.clone();
            entry["name"] = json!(name);
            entry["url"] = json!(receiver.url(&format!("/{name}")));
            entry
        })
        .collect();
    configure(&home, json!({}), json!(entries));
    let daemon = home.up(ringback()).await;
    for (name, _, secret) in cases {
        run(&home, &["webhooks", "test", name]).await.expect_success();
        let requests = receiver.requests();
        let request = requests.iter().find(|r| r.path == format!("/{name}")).expect("it was sent");
        request.verify(&[secret]).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    }
    let ended = daemon.terminate().await.expect_success();
    let warnings: Vec<_> = ended.lines.iter().filter(|l| l.text.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].text.contains("webhook \"short\": a secret is shorter than 16 characters"));
}

#[tokio::test]
async fn an_endpoint_s_credentials_and_secret_are_not_stored_not_logged_and_not_shown() {
    const HIDDEN: [&str; 4] = ["hunter2", "T0123456789", "aHVudGVyMi11c2Vy", "sixteen-or-more-characters"];
    let mut home = Home::new();
    home.set_env("RINGBACK_LOG", "trace");
    let receiver = Receiver::answering(|request| {
        // Repeats everything that it was told.
        let body = format!("{} {:?}", request.path, request.header("authorization"));
        Answer::Full { status: 400, headers: Vec::new(), body: body.into_bytes() }
    })
    .await;
    let url = format!("http://hunter2-user:hunter2@{}/T0123456789?key=T0123456789", receiver.addr());
    configure(
        &home,
        json!({}),
        json!([{ "name": "hidden", "url": url, "secret": HIDDEN[3], "events": ["waiting"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-hidden");
    let failed = wait_for(&daemon, "hidden", "failed", 1).await;
    let rows = daemon.api_get("/api/webhooks").await.json();
    assert_eq!(rows["items"][0]["url"], format!("http://{}/***", receiver.addr()));
    let mut shown = vec![rows.to_string(), failed[0].to_string()];
    for path in ["/api/config", "/metrics", "/api/stats"] {
        shown.push(daemon.api_get(path).await.message.text());
    }
    for args in [&["webhooks"][..], &["deliveries"], &["webhooks", "test", "hidden"]] {
        let said = run(&home, args).await;
        shown.extend([said.stdout(), said.stderr()]);
    }
    let ended = daemon.terminate().await.expect_success();
    shown.extend([ended.stdout(), ended.stderr()]);
    for part in HIDDEN {
        for text in &shown {
            assert!(!text.contains(part), "{part}: {text}");
        }
        for (path, (bytes, _)) in files(&home.state_dir()) {
            assert!(!holds(&bytes, part), "{path} holds {part}");
        }
    }
}

#[tokio::test]
async fn without_an_enabled_entry_no_event_is_written_to_disk() {
    let home = Home::new();
    configure(&home, json!({}), json!([{ "name": "off", "url": "http://127.0.0.1:9/", "enabled": false }]));
    let daemon = home.up(ringback()).await;
    turn(&home, "s-nobody");
    until_activity(&daemon, "s-nobody", "waiting").await;
    let stats = daemon.api_get("/api/stats").await.json();
    assert_eq!((&stats["events"], &stats["deliveries_pending"]), (&json!(0), &json!(0)), "{stats}");
    daemon.terminate().await.expect_success();
    for (path, (bytes, _)) in files(&home.state_dir()) {
        assert!(!holds(&bytes, "state_transition"), "{path} holds an event");
    }
}

#[tokio::test]
async fn the_first_endpoint_of_the_documentation_works_with_ringback_listen() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/outbound.md"))
        .expect("the documentation is there");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.expect("the page begins with an example");
    let mut home = Home::new();
    home.set_env("RINGBACK_PHONE_SECRET", SECRET);
    for (secret, verdict) in
        [(SECRET, "delivered, status 200"), ("another secret, not the phone's", "status 401")]
    {
        let listen =
            home.spawn_with(ringback(), &["listen", "--port", "0"], &[("RINGBACK_LISTEN_SECRET", secret)]);
        let line = listen.wait_for_line("listening", DEADLINE).await.text;
        let url = line.split_whitespace().nth(1).expect("the address follows");
        let entry = example.replace("https://hooks.example.com/ringback", url);
        assert!(entry.contains(url), "{entry}");
        home.write_config(&format!("{entry}\n[server]\nlisten = \"127.0.0.1:0\"\n"));
        let daemon = home.up(ringback()).await;
        let said = run(&home, &["webhooks", "test", "phone"]).await;
        let said = format!("{}{}", said.stdout(), said.stderr());
        assert!(said.contains(verdict), "{said}");
        let ended = daemon.terminate().await.expect_success();
        assert!(!ended.stderr().contains("is skipped"), "{}", ended.stderr());
        listen.kill9().await;
    }
}
