//! outbound.md, `format`: what each destination is sent, and that it takes it.

use bytes::Bytes;
use proptest::prelude::*;
use ringback_model::delivery::{self, Answer, Outcome};
use ringback_model::event::{ApiLinks, EventKind};
use ringback_model::ping::Color;
use ringback_model::ping::embed::{Button, Field};
use ringback_model::{Activity, Agent, Event, EventId, Format, Reason, SessionId, Timestamp};
use ringback_testkit::{Service, check_discord_message};
use ringback_webhook::format::{Card, Destination, Misfit, Request, Urgency, event, of_host};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

fn a_change() -> Event {
    Event {
        id: EventId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
        event: EventKind::StateTransition,
        session_id: SessionId::new("5e55101d-0000-4000-8000-000000000001"),
        agent: Agent::Claude,
        from: Activity::Running,
        to: Activity::Waiting,
        project_path: "/home/dev/code/bar".to_owned(),
        timestamp: Timestamp::from_millis(1_779_201_000_000),
        api: Some(ApiLinks { session_url: "http://127.0.0.1:7421/api/sessions/5e55101d".to_owned() }),
        sequence: 7,
        reason: Some(Reason::Permission),
        host: Some("desk".to_owned()),
        session_name: Some("Fix *the* build & <deploy>".to_owned()),
        model: Some("claude-sonnet-5-5".to_owned()),
        git_branch: Some("fix_it".to_owned()),
        duration_ms: Some(192_000),
        run_id: None,
        source: None,
    }
}

fn destination(format: Format) -> Destination {
    let url = match format {
        Format::Slack => "https://hooks.slack.com/services/T0/B0/secret".to_owned(),
        Format::Discord => "https://discord.com/api/webhooks/12/to-ken".to_owned(),
        Format::Ntfy => format!("https://ntfy.sh{}", Service::Ntfy.path()),
        Format::Telegram => format!("https://api.telegram.org{}", Service::Telegram.path()),
        Format::Json | Format::CloudEvents => "https://example.com/in".to_owned(),
    };
    Destination::of(format, &url).expect("the url fits")
}

fn tell(format: Format, event: &Event) -> Request {
    let body = Bytes::from(serde_json::to_vec(event).unwrap());
    destination(format).tell(&body).expect("an event can be told")
}

fn check(format: Format, body: &[u8]) -> Result<(), String> {
    let service = match format {
        Format::Slack => Service::Slack,
        Format::Ntfy => Service::Ntfy,
        Format::Telegram => Service::Telegram,
        Format::Discord => return check_discord_message(body),
        Format::Json | Format::CloudEvents => return Ok(()),
    };
    service.check(body).map_err(|(_, why)| why)
}

fn golden(format: Format) {
    let request = tell(format, &a_change());
    assert_eq!(check(format, &request.body), Ok(()));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let told = format!(
        "POST {}\nContent-Type: {}\n\n{}",
        request.url.as_str(),
        request.content_type,
        serde_json::to_string_pretty(&body).unwrap()
    );
    insta::assert_snapshot!(format!("a_change_for_{format}"), told);
}

#[test]
fn a_change_becomes_what_slack_wants() {
    golden(Format::Slack);
}

#[test]
fn a_change_becomes_what_discord_wants() {
    golden(Format::Discord);
}

#[test]
fn a_change_becomes_what_ntfy_wants() {
    golden(Format::Ntfy);
}

#[test]
fn a_change_becomes_what_telegram_wants() {
    golden(Format::Telegram);
}

#[test]
fn a_change_becomes_a_cloudevent_with_the_event_itself_as_data() {
    golden(Format::CloudEvents);
    let request = tell(Format::CloudEvents, &a_change());
    let envelope: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(envelope["data"], serde_json::to_value(a_change()).unwrap());
}

#[test]
fn the_format_json_sends_the_journaled_bytes() {
    let body = Bytes::from_static(b"{ \"id\" : 1 }");
    let request = destination(Format::Json).tell(&body).unwrap();
    assert_eq!((request.body, request.content_type), (body, "application/json"));
}

#[test]
fn every_activity_and_reason_has_words_of_its_own() {
    let mut table = String::new();
    let mut row = |to: Activity, reason: Option<Reason>| {
        let card = event::card(&Event { to, reason, ..a_change() });
        let reason = reason.map_or("-", Reason::as_str);
        table
            .push_str(&format!("{to:<11} {reason:<12} {} [{} {:?}]\n", card.title, card.color, card.urgency));
        card.title
    };
    let mut titles: Vec<String> = Activity::ALL.iter().map(|to| row(*to, None)).collect();
    titles.extend(Reason::ALL.iter().map(|reason| row(Activity::Waiting, Some(*reason))));
    insta::assert_snapshot!("words", table);
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), Activity::ALL.len() + Reason::ALL.len());
}

#[test]
fn what_the_event_does_not_say_is_left_out() {
    let bare = Event {
        api: None,
        reason: None,
        host: None,
        session_name: None,
        git_branch: None,
        duration_ms: None,
        project_path: String::new(),
        agent: Agent::Grok,
        ..a_change()
    };
    for format in [Format::Slack, Format::Discord, Format::Ntfy, Format::Telegram] {
        let request = tell(format, &bare);
        assert_eq!(check(format, &request.body), Ok(()), "{format}");
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        assert!(text.contains("ringback: Grok is waiting for you"), "{text}");
        for absent in ["Project", "Reason", "Branch", "Resume", "null", " for 0"] {
            assert!(!text.contains(absent), "{format}: {absent}: {text}");
        }
    }
}

#[test]
fn the_test_event_is_in_order_everywhere() {
    let ping = Event { event: EventKind::Ping, ..a_change() };
    for format in Format::ALL {
        let request = tell(*format, &ping);
        assert_eq!(check(*format, &request.body), Ok(()), "{format}");
    }
}

#[test]
fn what_is_no_event_is_no_request() {
    for format in [Format::Slack, Format::Discord, Format::Ntfy, Format::Telegram, Format::CloudEvents] {
        for body in ["", "[]", "{}", r#"{"event":"message","text":"x"}"#] {
            assert!(destination(format).tell(&Bytes::from(body)).is_none(), "{format}: {body}");
        }
    }
}

#[test]
fn the_host_says_the_format() {
    for (url, format) in [
        ("https://hooks.slack.com/services/T/B/x", Some(Format::Slack)),
        ("https://discord.com/api/webhooks/1/x", Some(Format::Discord)),
        ("https://discordapp.com/api/webhooks/1/x", Some(Format::Discord)),
        ("https://ptb.discord.com/api/webhooks/1/x", Some(Format::Discord)),
        ("https://discord.com/api/webhooks/1/x/slack", Some(Format::Slack)),
        ("https://ntfy.sh/topic", Some(Format::Ntfy)),
        ("https://api.telegram.org/bot1:x/sendMessage?chat_id=2", Some(Format::Telegram)),
        ("https://example.com/hooks.slack.com", None),
        ("https://notdiscord.com/api/webhooks/1/x", None),
        ("https://hooks.slack.com.example.com/", None),
    ] {
        assert_eq!(of_host(&url.parse().unwrap()), format, "{url}");
    }
}

#[test]
fn a_url_is_understood_as_its_format_demands() {
    let url = |format, url: &str| {
        let body = Bytes::from(serde_json::to_vec(&a_change()).unwrap());
        Destination::of(format, url).map(|d| d.tell(&body).map(|r| r.url.to_string()).unwrap_or_default())
    };
    for (format, given, want) in [
        (Format::Ntfy, "https://ntfy.sh/topic", "https://ntfy.sh/"),
        (Format::Ntfy, "https://h.example/ntfy/topic/?auth=x", "https://h.example/ntfy/?auth=x"),
        (
            Format::Discord,
            "https://discord.com/api/webhooks/1/x",
            "https://discord.com/api/v10/webhooks/1/x?wait=true",
        ),
        (
            Format::Discord,
            "https://h.example/api/webhooks/1/x?thread_id=2",
            "https://h.example/api/webhooks/1/x?thread_id=2&wait=true",
        ),
        (
            Format::Telegram,
            "https://api.telegram.org/bot1:x?chat_id=@c&disable_notification=true",
            "https://api.telegram.org/bot1:x/sendMessage?disable_notification=true",
        ),
        (Format::Telegram, "http://h/bot1:x/sendMessage?chat_id=2", "http://h/bot1:x/sendMessage"),
        (Format::Slack, "http://h/services/x?y=z", "http://h/services/x?y=z"),
    ] {
        assert_eq!(url(format, given).as_deref(), Ok(want));
    }
    for (format, given, misfit) in [
        (Format::Ntfy, "https://ntfy.sh/", Misfit::Topic),
        (Format::Ntfy, "https://ntfy.sh/a%20b", Misfit::Topic),
        (Format::Telegram, "https://api.telegram.org/bot1:x/sendMessage", Misfit::Chat),
        (Format::Telegram, "https://api.telegram.org/?chat_id=2", Misfit::Chat),
        (Format::Slack, "slack", Misfit::Url),
    ] {
        assert_eq!(url(format, given), Err(misfit), "{given}");
    }
    let shown = format!("{:?}", destination(Format::Telegram));
    assert_eq!(shown, "Destination(\"telegram\")");
}

fn read(format: Format, status: u16, body: &str) -> Outcome {
    let mut answer = Answer { status, ..Answer::default() };
    destination(format).read(&mut answer, body.as_bytes());
    delivery::outcome(&Ok(answer))
}

#[test]
fn a_wait_in_the_body_of_a_429_pauses_as_the_header_does() {
    let pause = |ms| Outcome::Retry { wait: Some(Duration::from_millis(ms)), pause: true };
    let body = r#"{"message":"You are being rate limited.","retry_after":1.25,"global":false}"#;
    assert_eq!(read(Format::Discord, 429, body), pause(1_250));
    let body = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":7}}"#;
    assert_eq!(read(Format::Telegram, 429, body), pause(7_000));
    // An excerpt shows the line break at its end as two characters.
    assert_eq!(read(Format::Telegram, 429, &format!("{body}\\n")), pause(7_000));
    for body in ["", "<html>", "{}", r#"{"retry_after":-1}"#, r#"{"retry_after":1e300}"#] {
        let none = Outcome::Retry { wait: None, pause: false };
        assert_eq!(read(Format::Discord, 429, body), none, "{body}");
    }
}

#[test]
fn a_topic_that_ntfy_repeats_is_masked() {
    let excerpt = r#"{"event":"message","topic":"topic-of-the-fake"}"#.to_owned();
    let mut answer = Answer { status: 200, excerpt, ..Answer::default() };
    destination(Format::Ntfy).read(&mut answer, b"");
    assert_eq!(answer.excerpt, r#"{"event":"message","topic":"***"}"#);
}

#[test]
fn a_destination_that_is_gone_for_good_is_disabled() {
    for (format, status, body, outcome) in [
        (Format::Slack, 404, "no_service", Outcome::Disable { accepted: false }),
        (Format::Slack, 404, "channel_not_found", Outcome::Rejected),
        (Format::Slack, 400, "no_text", Outcome::Rejected),
        (Format::Slack, 500, "no_service", Outcome::Retry { wait: None, pause: false }),
        (
            Format::Discord,
            404,
            r#"{"message":"Unknown Webhook","code":10015}"#,
            Outcome::Disable { accepted: false },
        ),
        (
            Format::Discord,
            401,
            r#"{"message":"Invalid Webhook Token","code":50027}"#,
            Outcome::Disable { accepted: false },
        ),
        (Format::Discord, 404, r#"{"message":"404: Not Found","code":0}"#, Outcome::Rejected),
        (
            Format::Telegram,
            401,
            r#"{"ok":false,"description":"Unauthorized"}"#,
            Outcome::Disable { accepted: false },
        ),
        (
            Format::Telegram,
            403,
            r#"{"ok":false,"description":"Forbidden: bot was blocked by the user"}"#,
            Outcome::Rejected,
        ),
        (Format::Json, 404, "no_service", Outcome::Rejected),
    ] {
        assert_eq!(read(format, status, body), outcome, "{format} {status} {body}");
    }
}

#[test]
fn links_are_buttons_where_a_destination_takes_them_and_text_where_it_does_not() {
    let link = |label: &str, url: &str| Button { label: label.to_owned(), url: url.to_owned() };
    let card = Card {
        title: "t".to_owned(),
        links: vec![
            link("Log", "https://ci.example.com/1?a=b&c=d"),
            link("Session", "http://127.0.0.1:7421/api/sessions/x"),
            link("Evil", "javascript:alert(1)"),
        ],
        command: Some("claude --resume x".to_owned()),
        ..Card::default()
    };
    for (format, at) in [
        (Format::Slack, "/blocks/3/elements/0/url"),
        (Format::Discord, "/components/0/components/0/url"),
        (Format::Ntfy, "/actions/0/url"),
        (Format::Telegram, "/reply_markup/inline_keyboard/0/0/url"),
    ] {
        let requests = destination(format).show(&card, 5);
        let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
        assert_eq!(check(format, &requests[0].body), Ok(()), "{format}");
        assert_eq!(body.pointer(at), Some(&json!("https://ci.example.com/1?a=b&c=d")), "{format}: {body:#}");
        let text = body.to_string();
        assert!(text.contains("http://127.0.0.1:7421/api/sessions/x"), "{format}: {text}");
        assert!(text.contains("claude --resume x") && !text.contains("javascript"), "{format}: {text}");
    }
}

/// Texts that somebody may have chosen to do harm, and long ones.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("@everyone ".to_owned()),
        Just("@here ".to_owned()),
        Just("<!channel> <!here> <@U123> <#C1>".to_owned()),
        Just("<https://evil.example|click>".to_owned()),
        Just("[click](https://evil.example)".to_owned()),
        Just("<b>&amp;</b><a href=\"x\">&&&&".to_owned()),
        Just("*_~`|>\\#*_~`|>\\#".to_owned()),
        Just("```\n".to_owned()),
        Just("\r\n\t \u{2028}".to_owned()),
        Just("\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{fe0f}".to_owned()),
        Just("\u{202e}\u{0}\u{1b}[31m".to_owned()),
        any::<String>(),
    ];
    (prop::collection::vec(piece, 0..8), 1usize..900).prop_map(|(pieces, times)| {
        let once = pieces.concat();
        let times = times.min(9_000 / once.len().max(1)).max(1);
        once.repeat(times)
    })
}

fn field() -> impl Strategy<Value = Field> {
    ("[^\\s]", hostile(), any::<bool>()).prop_map(|(first, text, inline)| Field {
        name: format!("{first}{text}"),
        value: format!("{text}{first}"),
        inline,
    })
}

fn any_card() -> impl Strategy<Value = Card> {
    let links = prop::collection::vec(
        ("[a-z]", hostile(), "(https|http)://[a-z]{1,9}\\.example/[a-z|<>&;,=]{0,600}"),
        0..7,
    );
    let fields = prop::collection::vec(field(), 0..30);
    (hostile(), hostile(), fields, links, prop::option::of(hostile()), any::<bool>()).prop_map(
        |(title, text, fields, links, command, is_literal)| Card {
            title,
            text,
            fields,
            command: command.filter(|command| !command.trim().is_empty()),
            links: links
                .into_iter()
                .map(|(first, label, url)| Button { label: format!("{first}{label}"), url })
                .collect(),
            color: Color::Red,
            urgency: Urgency::High,
            footer: "ringback".to_owned(),
            is_literal,
        },
    )
}

fn visible(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace() && !c.is_control())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_an_event_holds_is_safe_and_in_order(
        session in hostile(), name in prop::option::of(hostile()), path in hostile(), branch in hostile(),
        url in hostile(), ms in any::<u64>(),
    ) {
        let event = Event {
            session_id: SessionId::new(session),
            session_name: name,
            project_path: path,
            git_branch: Some(branch),
            api: Some(ApiLinks { session_url: url }),
            duration_ms: Some(ms),
            ..a_change()
        };
        for format in [Format::Slack, Format::Discord, Format::Ntfy, Format::Telegram] {
            let request = tell(format, &event);
            prop_assert_eq!(check(format, &request.body), Ok(()), "{}", format);
        }
    }

    #[test]
    fn whatever_a_message_holds_is_safe_and_in_order(card in any_card()) {
        for format in [Format::Slack, Format::Discord, Format::Ntfy, Format::Telegram] {
            let requests = destination(format).show(&card, 5);
            prop_assert!(requests.len() <= 5);
            if visible(&card.title) || visible(&card.text) {
                prop_assert!(!requests.is_empty(), "{}", format);
            }
            for request in requests {
                prop_assert_eq!(check(format, &request.body), Ok(()), "{}", format);
            }
        }
    }

    #[test]
    fn a_plain_text_arrives_whole_where_it_fits(text in "[a-z]{1,9}( [a-z]{1,9}){0,200}") {
        let card = Card::of_text(text.clone());
        let said = |format, key: &str| {
            let requests = destination(format).show(&card, 5);
            let parts = requests.iter().map(|r| serde_json::from_slice::<Value>(&r.body).unwrap());
            parts.map(|body| body[key].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        prop_assert_eq!(said(Format::Slack, "text"), text.clone());
        prop_assert_eq!(said(Format::Ntfy, "message"), text.clone());
        prop_assert_eq!(said(Format::Telegram, "text"), text.clone());
        prop_assert_eq!(said(Format::Discord, "content"), text);
    }
}
