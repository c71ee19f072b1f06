//! api-cli.md: "what is found, what is missing, and the command that mends it".

use std::os::unix::fs::PermissionsExt;

use ringback_testkit::{Answer, Ended, Home, Receiver};
use serde_json::{Value, json};

use crate::operator::wait_for;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

async fn doctor(home: &Home, more: &[&str]) -> Ended {
    home.spawn(ringback(), &[&["doctor"], more].concat()).wait(DEADLINE).await
}

/// The findings as JSON, with the exit code.
async fn findings(home: &Home) -> (Option<i32>, Vec<Value>) {
    let ended = doctor(home, &["--json"]).await;
    let answer: Value = serde_json::from_str(&ended.stdout()).expect("JSON on standard output");
    let list = answer["findings"].as_array().cloned().expect("a list of findings");
    let broken = list.iter().filter(|f| f["mark"] == "broken").count();
    assert_eq!(answer["broken"], broken, "{answer}");
    (ended.code, list)
}

/// The one finding of a check whose text has this part.
fn find<'a>(findings: &'a [Value], check: &str, part: &str) -> &'a Value {
    let fits = |f: &&Value| f["check"] == check && f["what"].as_str().is_some_and(|w| w.contains(part));
    let found: Vec<_> = findings.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{check} {part:?} in {findings:#?}");
    found[0]
}

fn check(findings: &[Value], check: &str, part: &str, mark: &str, mend: &str) {
    let finding = find(findings, check, part);
    assert_eq!(finding["mark"], mark, "{finding}");
    assert!(finding["mend"].as_str().unwrap_or_default().contains(mend), "{finding}");
}

/// An agent's program that only knows its version.
fn agent(home: &mut Home, name: &str, version: &str) {
    let path = home.write(format!("bin/{name}"), format!("#!/bin/sh\necho '{version}'\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    let bin = path.parent().expect("it is in a directory").to_string_lossy().into_owned();
    home.set_env("PATH", &format!("{bin}:/usr/bin:/bin"));
}

#[tokio::test]
async fn a_fresh_home_has_nothing_broken_and_stays_as_it_is() {
    let mut home = Home::new();
    agent(&mut home, "claude", "9.8.7 (Claude Code)");
    let ended = doctor(&home, &[]).await.expect_success();
    let text = ended.stdout();
    for part in [
        "no file; defaults are in force",
        "claude 9.8.7 (Claude Code)",
        "mend: ringback up",
        "nothing is broken",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour: {text}");
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(0));
    check(&list, "state", "is not there yet", "note", "ringback up");
    check(&list, "store", "empty", "ok", "");
    check(&list, "agent", "codex is not found", "note", "install codex");
    check(&list, "limits", "claude: every limit", "ok", "");
    check(&list, "connect", "do not reach your main session", "note", "ringback connect claude");
    check(&list, "hooks", "off", "note", "WEBHOOK_SECRET");
    assert!(!home.state_dir().exists(), "a look makes nothing");
}

#[tokio::test]
async fn every_finding_that_is_not_well_has_its_mend_on_the_next_line() {
    let home = Home::new();
    let text = doctor(&home, &[]).await.stdout();
    let lines: Vec<&str> = text.lines().collect();
    let unwell: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].starts_with("note ")).collect();
    assert!(unwell.len() > 2, "{text}");
    for n in unwell {
        assert!(lines[n + 1].starts_with("       mend: "), "{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_said_in_the_words_of_the_start() {
    let mut home = Home::new();
    agent(&mut home, "claude", "1");
    let path = home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "windw_minutes": 3,
            "runs": { "agents": { "mine": { "adapter": "command", "command": ["/bin/cat"] } } },
            "webhooks": [{ "name": "bad", "url": "ftp://h/" },
                         { "name": "good", "url": "http://127.0.0.1:9/", "secret": "sixteen-characters" },
                         { "name": "off", "url": "http://127.0.0.1:9/", "enabled": false }],
        })
        .to_string(),
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("our own file");
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(1));
    check(&list, "config", "unknown key windw_minutes", "note", &format!("edit {}", path.display()));
    check(&list, "config", "webhook \"bad\" is skipped: ", "broken", "edit ");
    check(&list, "config", "can be read by other users", "note", &format!("chmod 600 {}", path.display()));
    check(&list, "webhook", "off: enabled = false", "note", "its entry");
    check(&list, "webhook", "good", "ok", "");
    check(&list, "limits", "mine: its adapter cannot enforce allowed_tools", "note", "in the agent itself");
    let daemon = home.up(ringback()).await;
    for finding in list.iter().filter(|f| f["check"] == "config" && f["mark"] != "ok") {
        // The log escapes quotes.
        let words = finding["what"].as_str().expect("text").split('"').next().expect("a first part");
        daemon.wait_for_line(words, DEADLINE).await;
    }
    daemon.terminate().await.expect_success();

    let broken = home.write_config("{ not json");
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(2));
    check(&list, "config", "does not parse", "broken", &format!("edit {}", broken.display()));
    check(&list, "store", "is sound", "ok", "");
}

#[tokio::test]
async fn taken_ports_and_a_state_directory_that_up_refuses_are_broken() {
    let mut home = Home::new();
    agent(&mut home, "claude", "1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    home.set_env("WEBHOOK_SECRET", "the-secret-of-the-hook-listener");
    home.write_config(
        &json!({ "server": { "listen": format!("127.0.0.1:{port}") }, "inbound": { "port": port },
                 "runs": { "agent": "claude", "agents": { "claude": { "command": ["no-such-agent"] } } } })
        .to_string(),
    );
    let real = home.write("elsewhere/keep", "").parent().expect("it is in a directory").to_owned();
    std::os::unix::fs::symlink(&real, home.state_dir()).expect("a link can be made");
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(1));
    check(&list, "api", &format!("cannot listen on 127.0.0.1:{port}"), "broken", "[server] listen");
    check(&list, "hooks", &format!("cannot listen on 127.0.0.1:{port}"), "broken", "[inbound] port");
    check(&list, "state", "is a link", "broken", "RINGBACK_STATE_DIR");
    check(
        &list,
        "agent",
        "no-such-agent is not found, and webhooks that come in start it",
        "broken",
        "[runs]",
    );
}

#[tokio::test]
async fn a_running_daemon_is_asked_and_its_disabled_endpoint_is_broken() {
    let mut home = Home::new();
    agent(&mut home, "claude", "1");
    let receiver = Receiver::always(Answer::Status(410)).await;
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" },
                 "webhooks": [{ "name": "gone", "url": receiver.url("/"), "events": ["waiting"] }] })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(0), "{list:#?}");
    check(&list, "daemon", &format!("process {}", daemon.pid()), "ok", "");
    check(&list, "api", &format!("answers at http://{}", daemon.api()), "ok", "");
    check(&list, "store", "is in use", "ok", "");
    check(&list, "webhook", "gone", "ok", "");

    let session = Transcript::new(&home, "s-doctor");
    session.prompt("go");
    session.end("done");
    wait_for(&daemon, "gone", "dead", 1).await;
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(1));
    check(&list, "webhook", "gone is disabled: ", "broken", "ringback webhooks enable gone");

    let refused = doctor(&home, &["--repair"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr().contains(&format!("process {}", daemon.pid())), "{}", refused.stderr());
    assert!(refused.stderr().contains("mend: stop it first"), "{}", refused.stderr());
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn connect_is_seen_and_an_entry_of_another_ringback_is_broken() {
    let mut home = Home::new();
    agent(&mut home, "claude", "1");
    home.spawn(ringback(), &["connect", "claude"]).wait(DEADLINE).await.expect_success();
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(0));
    check(&list, "connect", "hands updates over", "ok", "");
    let settings = home.read(".claude/settings.json").expect("connect wrote it");
    home.write(".claude/settings.json", settings.replace("/ringback'", "/older/ringback'"));
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(1));
    check(&list, "connect", "calls another ringback", "broken", "ringback connect claude");
}

#[tokio::test]
async fn a_damaged_journal_is_moved_aside_by_repair_alone_and_what_can_be_read_is_kept() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-kept");
    session.prompt("go");
    session.end("done");
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while daemon.api_get("/api/sessions/s-kept").await.json()["activity"] != "waiting" {
        assert!(tokio::time::Instant::now() < give_up, "the session is not seen");
        tokio::task::yield_now().await;
    }
    daemon.terminate().await.expect_success();
    let (_, list) = findings(&home).await;
    check(&list, "store", "is sound", "ok", "");
    let sound = doctor(&home, &["--repair"]).await.expect_success();
    assert!(sound.stdout().contains("nothing to repair"), "{}", sound.stdout());

    let database = home.state_dir().join("ringback.db");
    let mut bytes = std::fs::read(&database).expect("the daemon made it");
    // The last page goes; the header still promises it.
    let kept = bytes.len() - 4096;
    bytes[kept..].fill(0xA5);
    std::fs::write(&database, &bytes).expect("our own file");
    let (code, list) = findings(&home).await;
    assert_eq!(code, Some(1));
    check(&list, "store", "is damaged", "broken", "ringback doctor --repair");
    assert_eq!(std::fs::read(&database).expect("it is there"), bytes, "a look changes nothing");

    let repaired = doctor(&home, &["--repair"]).await.expect_success();
    let aside = home.state_dir().join("ringback.db.corrupt");
    assert!(repaired.stdout().contains(&aside.display().to_string()), "{}", repaired.stdout());
    assert_eq!(
        std::fs::read(&aside).expect("it was moved there"),
        bytes,
        "the damaged one is kept as it was"
    );
    let (_, list) = findings(&home).await;
    check(&list, "store", "is sound", "ok", "");
    home.up(ringback()).await.terminate().await.expect_success();
}
