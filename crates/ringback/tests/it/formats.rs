//! outbound.md, `format`, and inbound.md, "Notifiers": what Slack, Discord, ntfy and Telegram are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ringback_testkit::{Answer, Daemon, Ended, FakeDiscord, FakeDiscordConfig, FakeProvider, Home, Service};
use serde_json::{Value, json};

use crate::operator::wait_for;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

const SECRET: &str = "whsec_cmluZ2JhY2stdGVzdC1zZWNyZXQtMDEyMzQ1Njc=";

fn configure(home: &Home, webhooks: Value) {
    home.write_config(&json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks }).to_string());
}

async fn run(home: &Home, args: &[&str]) -> Ended {
    home.spawn(ringback(), args).wait(DEADLINE).await
}

/// One change that an endpoint with `events = ["waiting"]` wants.
fn turn(home: &Home, session: &str) {
    let session = Transcript::new(home, session);
    session.prompt("go");
    session.end("done");
}

fn discord_url(fake: &FakeDiscord) -> String {
    let FakeDiscordConfig { webhook_id, webhook_token, .. } = fake.config();
    format!("{}/api/webhooks/{webhook_id}/{webhook_token}", fake.base_url())
}

fn full(status: u16, body: &str) -> Option<Answer> {
    Some(Answer::Full { status, headers: Vec::new(), body: body.as_bytes().to_vec() })
}

async fn endpoint(daemon: &Daemon) -> Value {
    daemon.api_get("/api/webhooks").await.json()["items"][0].clone()
}

#[tokio::test]
async fn a_change_arrives_at_each_destination_in_its_own_format() {
    let home = Home::new();
    let slack = FakeProvider::start(Service::Slack).await;
    let ntfy = FakeProvider::start(Service::Ntfy).await;
    let telegram = FakeProvider::start(Service::Telegram).await;
    let discord = FakeDiscord::start(FakeDiscordConfig::default()).await;
    let entry = |format: &str, url: &str| json!({ "name": format, "url": url, "format": format, "events": ["waiting"], "secret": SECRET });
    configure(
        &home,
        json!([
            entry("slack", &slack.url()),
            entry("ntfy", &ntfy.url()),
            entry("telegram", &telegram.url()),
            entry("discord", &discord_url(&discord)),
        ]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-formats");
    let slack_said = slack.wait_for(1, DEADLINE).await.remove(0);
    let ntfy_said = ntfy.wait_for(1, DEADLINE).await.remove(0);
    let telegram_said = telegram.wait_for(1, DEADLINE).await.remove(0);
    let discord_said = discord.wait_for(1, DEADLINE).await.remove(0).body;

    for text in [
        &slack_said["blocks"][0]["text"]["text"],
        &ntfy_said["title"],
        &telegram_said["text"],
        &discord_said["embeds"][0]["title"],
    ] {
        assert!(text.as_str().is_some_and(|t| t.contains("Claude finished its turn")), "{text}");
    }
    let project = home.project().to_string_lossy().into_owned();
    for said in [&slack_said, &ntfy_said, &telegram_said] {
        let said = said.to_string();
        for part in [
            project.as_str(),
            "turn end",
            "thinking for",
            "claude --resume s-formats",
            "/api/sessions/s-formats",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    for request in slack.requests().iter().chain(&ntfy.requests()).chain(&telegram.requests()) {
        request.verify(&[SECRET]).expect("the signature is of the bytes that were sent");
        assert_eq!(request.header("x-lazyagent-event"), Some("state_transition"));
    }
    for refusals in [slack.refusals(), ntfy.refusals(), telegram.refusals(), discord.refusals()] {
        assert_eq!(refusals, Vec::<String>::new());
    }
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_test_turns_red_with_the_destination_s_own_words() {
    let home = Home::new();
    let slack = FakeProvider::start(Service::Slack).await;
    configure(
        &home,
        json!([
            { "name": "raw", "url": slack.url(), "format": "json" },
            { "name": "slack", "url": slack.url(), "format": "slack" },
        ]),
    );
    let daemon = home.up(ringback()).await;
    let red = run(&home, &["webhooks", "test", "raw"]).await;
    assert!(red.code == Some(1) && red.stderr().contains("no_text"), "{}", red.stderr());
    run(&home, &["webhooks", "test", "slack"]).await.expect_success();
    assert_eq!(slack.messages()[0]["blocks"][0]["text"]["text"], "Ringback test");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_wait_in_the_body_of_a_429_pauses_the_endpoint() {
    let home = Home::new();
    let telegram = FakeProvider::start(Service::Telegram).await;
    // On several lines, as a service may write it.
    let limited = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 2 } });
    telegram.script([full(429, &format!("{limited:#}\n"))]);
    configure(
        &home,
        json!([{ "name": "phone", "url": telegram.url(), "format": "telegram", "events": ["waiting"],
                 "concurrency": 1, "backoff": ["1ms", "1ms", "1ms"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-one");
    turn(&home, "s-two");
    telegram.wait_for(2, DEADLINE).await;
    let requests = telegram.requests();
    assert_eq!(requests.len(), 3);
    // Neither the retry, due after a millisecond, nor the other session's event came before the pause was over.
    let pause = requests[1].at.duration_since(requests[0].at);
    assert!(pause >= Duration::from_millis(1_900), "{pause:?}");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_webhook_that_slack_does_not_know_any_more_is_disabled_with_slack_s_word() {
    let home = Home::new();
    let slack = FakeProvider::start(Service::Slack).await;
    slack.script([full(404, "no_service\n")]);
    configure(
        &home,
        json!([{ "name": "gone", "url": slack.url(), "format": "slack", "events": ["waiting"] }]),
    );
    let daemon = home.up(ringback()).await;
    turn(&home, "s-gone");
    wait_for(&daemon, "gone", "dead", 1).await;
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let row = endpoint(&daemon).await;
        if row["enabled"] == false && row["disabled_reason"] == "the receiver answered 404: no_service\\n" {
            break;
        }
        assert!(tokio::time::Instant::now() < give_up, "{row}");
        tokio::task::yield_now().await;
    }
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_url_that_does_not_fit_its_format_is_a_bad_entry_that_says_so() {
    let home = Home::new();
    configure(
        &home,
        json!([
            { "name": "topicless", "url": "https://ntfy.sh/" },
            { "name": "chatless", "url": "https://api.telegram.org/bot1:token-0123456789/sendMessage" },
            { "name": "card", "url": "https://example.com/", "format": "teams" },
            { "name": "known", "url": "https://hooks.slack.com/services/T/B/x", "enabled": false },
        ]),
    );
    let daemon = home.up(ringback()).await;
    let row = endpoint(&daemon).await;
    assert_eq!((&row["name"], &row["format"]), (&json!("known"), &json!("slack")));
    let ended = daemon.terminate().await.expect_success();
    for part in [
        "\"topicless\" is skipped: webhooks[0].url",
        "https://ntfy.sh/TOPIC",
        "\"chatless\" is skipped: webhooks[1].url",
        "chat_id=CHAT",
        "this version does not have the format \"teams\" yet; valid: json slack discord ntfy telegram",
    ] {
        assert!(ended.stderr().contains(part), "{part}: {}", ended.stderr());
    }
    assert!(!ended.stderr().contains("0123456789"), "{}", ended.stderr());
}

#[tokio::test]
async fn every_kind_of_notifier_takes_a_message() {
    let mut home = Home::new();
    let slack = FakeProvider::start(Service::Slack).await;
    let ntfy = FakeProvider::start(Service::Ntfy).await;
    let telegram = FakeProvider::start(Service::Telegram).await;
    let discord = FakeDiscord::start(FakeDiscordConfig::default()).await;
    home.set_env("SLACK_URL", &slack.url());
    home.set_env("NTFY_TOKEN", "tk_0123456789");
    home.set_env("TELEGRAM_TOKEN", "1000001:token-of-the-fake");
    home.set_env("DISCORD_URL", &discord.webhook_url());
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "notify": [
                { "type": "slack", "url_env": "SLACK_URL" },
                { "type": "ntfy", "url": ntfy.base_url(), "topic": "topic-of-the-fake", "token_env": "NTFY_TOKEN" },
                { "type": "telegram", "token_env": "TELEGRAM_TOKEN", "chat_id": -1000002, "api_base": telegram.base_url() },
                { "type": "discord", "url_env": "DISCORD_URL", "api_base": discord.base_url() },
            ],
        })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    run(&home, &["notify", "test"]).await.expect_success();
    let text = "ringback: this is a test message";
    assert_eq!(slack.wait_for(1, DEADLINE).await[0]["text"], text);
    assert_eq!(ntfy.wait_for(1, DEADLINE).await[0]["message"], text);
    assert_eq!(ntfy.requests()[0].header("authorization"), Some("Bearer tk_0123456789"));
    assert_eq!(telegram.wait_for(1, DEADLINE).await[0]["text"], text);
    assert_eq!(discord.wait_for(1, DEADLINE).await[0].content(), text);
    let ended = daemon.terminate().await.expect_success();
    assert!(ended.stdout().contains("notify     4 notifiers"), "{}", ended.stdout());
}

#[tokio::test]
async fn a_notifier_that_cannot_work_is_refused_with_what_it_needs() {
    let mut home = Home::new();
    home.set_env("URL", "https://hooks.example.com/");
    home.set_env("TOKEN", "not-a-token");
    let cases = BTreeMap::from([
        (r#"{"type":"slack"}"#, "slack needs url_env"),
        (r#"{"type":"slack","url_env":"ABSENT"}"#, "the variable \"ABSENT\" is not set"),
        (r#"{"type":"ntfy"}"#, "ntfy needs topic"),
        (r#"{"type":"ntfy","topic":"a b"}"#, "https://ntfy.sh/TOPIC"),
        (r#"{"type":"telegram","token_env":"TOKEN"}"#, "telegram needs token_env and chat_id"),
        (r#"{"type":"telegram","token_env":"TOKEN","chat_id":7}"#, "not a bot's token"),
        (r#"{"type":"discord","url_env":"URL"}"#, "https://discord.com/api/webhooks/ID/TOKEN"),
        (r#"{"type":"pigeon"}"#, "unknown notifier; valid: discord slack ntfy telegram desktop console"),
    ]);
    for (entry, words) in cases {
        home.write_config(&format!(r#"{{"notify":[{entry}]}}"#));
        let ended = run(&home, &["up"]).await;
        assert_eq!(ended.code, Some(2), "{entry}: {}", ended.stderr());
        assert!(ended.stderr().contains(words), "{entry}: {}", ended.stderr());
        assert!(!ended.stderr().contains("not-a-token"), "{}", ended.stderr());
    }
}

#[tokio::test]
async fn without_a_notifier_the_desktop_stands_in_where_there_is_a_session_bus() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let console = home.up(ringback()).await.terminate().await.expect_success();
    assert!(
        console.stdout().contains("notify     console: no notifier is configured"),
        "{}",
        console.stdout()
    );
    home.set_env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let desktop = home.up(ringback()).await.terminate().await.expect_success();
    assert!(
        desktop.stdout().contains("notify     desktop: no notifier is configured"),
        "{}",
        desktop.stdout()
    );
}
