use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::*;

fn known() -> Known {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Known { agents: set(&["claude", "codex"]), workspaces: set(&["default", "site"]) }
}

fn call(body: &Value) -> Result<Call, Refusal> {
    parse_call(body.to_string().as_bytes(), &known())
}

/// Status and body as the caller gets them.
fn answer(body: &[u8]) -> (u16, String) {
    let refusal = parse_call(body, &known()).expect_err("a refusal");
    (refusal.status(), refusal.body())
}

#[test]
fn a_message_alone_gets_the_tables_defaults() {
    assert_eq!(
        call(&json!({"message": "  hi\n", "unknown": {"deep": [1]}})),
        Ok(Call {
            message: "  hi\n".into(),
            source: "webhook".into(),
            isolated: false,
            model: None,
            thinking: true,
            allow_ping: true,
            update_main_session: UpdatePolicy::OnPing,
            agent: None,
            workspace: None,
        })
    );
}

#[test]
fn the_contracts_example_is_accepted() {
    let body = json!({ "message": "CI build failed for ringback#42", "source": "github-actions",
        "isolated": true, "model": "haiku", "thinking": true, "allow_ping": true,
        "update_main_session": "on_ping" });
    let call = call(&body).unwrap();
    assert_eq!(
        (call.source.as_str(), call.isolated, call.model.as_deref()),
        ("github-actions", true, Some("haiku"))
    );
}

#[test]
fn what_is_no_json_object_is_400_invalid_json() {
    let deep = |n: usize| format!("{{\"message\":\"m\",\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
    for body in [
        &b""[..],
        b"{",
        b"hello",
        b"{\"message\":\"m\"} x",
        b"{\"message\":\"m\",}",
        b"{'message':'m'}",
        b"[{\"message\":\"m\"}]",
        b"\"message\"",
        b"null",
        b"{\"message\":\"\xff\"}",
        b"\xef\xbb\xbf{\"message\":\"m\"}",
        b"{\"message\":\"\\ud800\"}",
        b"{\"message\":\"a\nb\"}",
        b"{\"message\":\"m\",\"message\":\"n\"}",
        b"{\"message\":\"m\",\"x\":[{\"y\":{\"k\":1,\"\\u006b\":1}}]}",
        deep(32).as_bytes(),
        b"{\"message\":\"m\",\"x\":NaN}",
    ] {
        assert_eq!(
            answer(body),
            (400, r#"{"error":"invalid json"}"#.into()),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    // The object is the first of the 32 levels.
    assert!(parse_call(deep(31).as_bytes(), &known()).is_ok());
}

#[test]
fn a_hundred_thousand_brackets_do_not_use_up_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]"), ("[", "")] {
        let body = format!("{{\"message\":\"m\",\"x\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(parse_call(body.as_bytes(), &known()), Err(Refusal::InvalidJson));
        assert_eq!(parse_call(open.repeat(100_000).as_bytes(), &known()), Err(Refusal::InvalidJson));
    }
}

#[test]
fn a_message_that_is_missing_empty_or_no_string_is_required() {
    for body in [
        json!({}),
        json!({"message": ""}),
        json!({"message": " \t\r\n\u{a0}"}),
        json!({"message": null}),
        json!({"message": 7}),
        json!({"message": ["m"]}),
    ] {
        assert_eq!(
            answer(body.to_string().as_bytes()),
            (400, r#"{"error":"message required"}"#.into()),
            "{body}"
        );
    }
}

#[test]
fn each_field_takes_what_the_table_says_and_names_itself_in_the_refusal() {
    let long = "x".repeat(65);
    let model = format!("m{}", "o".repeat(99));
    let accepted = [
        ("source", json!("a")),
        ("source", json!("x".repeat(64))),
        ("source", json!("A.b_c-9")),
        ("model", json!("opus")),
        ("model", json!("org/model:2026-01.x_y")),
        ("model", json!(model)),
        ("isolated", json!(true)),
        ("thinking", json!(false)),
        ("allow_ping", json!(false)),
        ("update_main_session", json!("always")),
        ("update_main_session", json!("on_ping")),
        ("update_main_session", json!("freely")),
        ("update_main_session", json!("blocked")),
        ("agent", json!("codex")),
        ("workspace", json!("site")),
    ];
    for (field, value) in accepted {
        assert!(call(&json!({"message": "m", field: value})).is_ok(), "{field} {value}");
    }
    let refused = [
        ("source", json!(""), "invalid source: "),
        ("source", json!("a b"), "invalid source: a b"),
        ("source", json!("gr\u{fc}n"), "invalid source: gr\u{fc}n"),
        ("source", json!(long), &format!("invalid source: {}", "x".repeat(64))),
        ("source", json!(5), "invalid source: expected string"),
        ("source", json!(null), "invalid source: expected string"),
        ("isolated", json!("true"), "invalid isolated: expected boolean"),
        ("isolated", json!(null), "invalid isolated: expected boolean"),
        ("model", json!("--help"), "invalid model: --help"),
        ("model", json!(""), "invalid model: "),
        ("model", json!(format!("{model}x")), &format!("invalid model: m{}", "o".repeat(63))),
        ("model", json!({}), "invalid model: expected string"),
        ("thinking", json!(1), "invalid thinking: expected boolean"),
        ("allow_ping", json!([]), "invalid allow_ping: expected boolean"),
        ("update_main_session", json!("sometimes"), "invalid update_main_session: sometimes"),
        ("update_main_session", json!("Always"), "invalid update_main_session: Always"),
        ("update_main_session", json!(""), "invalid update_main_session: "),
        ("update_main_session", json!(true), "invalid update_main_session: expected string"),
        ("agent", json!("gemini"), "invalid agent: gemini"),
        ("agent", json!(0), "invalid agent: expected string"),
        ("workspace", json!("../etc"), "invalid workspace: ../etc"),
        ("workspace", json!(false), "invalid workspace: expected string"),
    ];
    for (field, value, error) in refused {
        let refusal = call(&json!({"message": "m", field: value})).expect_err(field);
        assert_eq!((refusal.status(), refusal.to_string().as_str()), (400, error), "{field} {value}");
    }
}

#[test]
fn of_several_mistakes_the_first_in_the_contracts_order_is_told() {
    let order = [
        "source",
        "isolated",
        "model",
        "thinking",
        "allow_ping",
        "update_main_session",
        "agent",
        "workspace",
    ];
    let mut body: Map<String, Value> = order.iter().map(|field| ((*field).to_owned(), json!([]))).collect();
    assert_eq!(call(&Value::Object(body.clone())), Err(Refusal::MessageRequired));
    body.insert("message".into(), json!("m"));
    for field in order {
        let told = call(&Value::Object(body.clone())).expect_err(field).to_string();
        assert!(told.starts_with(&format!("invalid {field}: ")), "{told}");
        body.remove(field);
    }
    assert!(call(&Value::Object(body)).is_ok());
}

#[test]
fn a_refused_value_is_escaped_and_cut() {
    let refusal = call(&json!({"message": "m", "source": "a\"b\n\u{1b}[2J\u{202e}"})).expect_err("a refusal");
    assert_eq!(refusal.to_string(), "invalid source: a\"b\\u000a\\u001b[2J\\u202e");
    assert_eq!(refusal.body(), r#"{"error":"invalid source: a\"b\\u000a\\u001b[2J\\u202e"}"#);
    let refusal = call(&json!({"message": "m", "agent": "\u{7}".repeat(500)})).expect_err("a refusal");
    assert_eq!(refusal.to_string(), format!("invalid agent: {}", "\\u0007".repeat(10)));
}

#[test]
fn the_other_rows_of_the_table_have_their_status_and_body() {
    for (refusal, status, body) in [
        (Refusal::Unauthorized, 401, r#"{"error":"unauthorized"}"#),
        (Refusal::PayloadTooLarge, 413, r#"{"error":"payload too large"}"#),
        (Refusal::NotFound, 404, r#"{"error":"not found"}"#),
        (Refusal::MethodNotAllowed, 405, r#"{"error":"method not allowed"}"#),
        (Refusal::TooManyRequests { wait: Duration::ZERO }, 429, r#"{"error":"too many requests"}"#),
        (Refusal::AgentNotAvailable("claude".into()), 503, r#"{"error":"agent not available: claude"}"#),
        (Refusal::StorageUnavailable, 503, r#"{"error":"storage unavailable"}"#),
    ] {
        assert_eq!((refusal.status(), refusal.body().as_str()), (status, body));
    }
}

#[test]
fn an_idempotency_key_is_at_most_255_printable_ascii_characters() {
    let read = |value: &[u8]| idempotency_key(value).map(|key| key.as_str().to_owned());
    assert_eq!(read(b"a b~!").as_deref(), Some("a b~!"));
    assert_eq!(read(&[b'k'; 255]), Some("k".repeat(255)));
    for bad in [&b""[..], &[b'k'; 256], b"a\tb", b"a\x7f", "\u{fc}".as_bytes(), b"\xff"] {
        assert_eq!(read(bad), None);
    }
}

/// JSON no deeper than the door lets in. Fractions are quarters: the reader of floats is exact for those.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn valid_call() -> impl Strategy<Value = Call> {
    (
        any::<String>().prop_filter("a message", |text| !text.trim().is_empty()),
        "[A-Za-z0-9._-]{1,64}",
        prop::option::of("[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}"),
        any::<[bool; 3]>(),
        prop::sample::select(UpdatePolicy::ALL),
        prop::option::of(prop::sample::select(vec!["claude", "codex"])),
        prop::option::of(prop::sample::select(vec!["default", "site"])),
    )
        .prop_map(|(message, source, model, flags, update_main_session, agent, workspace)| Call {
            message,
            source,
            isolated: flags[0],
            model,
            thinking: flags[1],
            allow_ping: flags[2],
            update_main_session,
            agent: agent.map(str::to_owned),
            workspace: workspace.map(str::to_owned),
        })
}

fn written(call: &Call) -> Value {
    let mut body = json!({
        "message": call.message, "source": call.source, "isolated": call.isolated,
        "thinking": call.thinking, "allow_ping": call.allow_ping,
        "update_main_session": call.update_main_session,
    });
    for (field, value) in [("model", &call.model), ("agent", &call.agent), ("workspace", &call.workspace)] {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    body
}

proptest! {
    #[test]
    fn arbitrary_json_is_read_as_it_was_written(value in value()) {
        prop_assert_eq!(json::read(value.to_string().as_bytes()), Ok(value.clone()));
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(json::read(&pretty), Ok(value));
    }

    #[test]
    fn every_valid_call_is_read_as_it_was_written(expected in valid_call()) {
        prop_assert_eq!(call(&written(&expected)), Ok(expected));
    }

    #[test]
    fn a_key_named_twice_is_refused_at_any_depth(
        key in any::<String>(), one in value(), two in value(), depth in 0usize..20,
    ) {
        let key = Value::from(key);
        let twice = format!("{{{key}:{one},{key}:{two}}}");
        let body = format!("{{\"message\":\"m\",\"x\":{}{twice}{}}}", "[".repeat(depth), "]".repeat(depth));
        prop_assert_eq!(parse_call(body.as_bytes(), &known()), Err(Refusal::InvalidJson));
    }
}

/// A valid call with pieces cut out, repeated or overwritten: gets further into the parser than noise does.
fn damaged_call() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0usize..8, prop::collection::vec(any::<u8>(), 0..8));
    (valid_call(), value(), prop::collection::vec(edit, 0..6)).prop_map(|(call, extra, edits)| {
        let mut body = written(&call);
        body["extra"] = extra;
        let mut bytes = body.to_string().into_bytes();
        for (at, removed, added) in edits {
            let from = at.index(bytes.len() + 1);
            let to = (from + removed).min(bytes.len());
            bytes.splice(from..to, added);
        }
        bytes
    })
}

/// Values of the wrong type and wrong words in the right fields.
fn odd_call() -> impl Strategy<Value = Vec<u8>> {
    let field = prop::sample::select(vec![
        "message",
        "source",
        "isolated",
        "model",
        "thinking",
        "allow_ping",
        "update_main_session",
        "agent",
        "workspace",
        "other",
    ]);
    prop::collection::btree_map(field, value(), 0..10).prop_map(|fields| serde_json::to_vec(&fields).unwrap())
}

#[test]
fn survives_generated_bytes_as_the_body_of_a_call() {
    let seconds = std::env::var("RINGBACK_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let until = Instant::now() + Duration::from_secs(seconds);
    let bodies = prop_oneof![prop::collection::vec(any::<u8>(), 0..512), damaged_call(), odd_call()];
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(256) });
    loop {
        let outcome = runner.run(&bodies, |body| {
            match parse_call(&body, &known()) {
                Ok(call) => {
                    prop_assert!(!call.message.trim().is_empty() && is_source(&call.source));
                    prop_assert_eq!(parse_call(written(&call).to_string().as_bytes(), &known()), Ok(call));
                }
                Err(refusal) => {
                    prop_assert_eq!(refusal.status(), 400);
                    let told: Value = serde_json::from_str(&refusal.body()).unwrap();
                    prop_assert_eq!(told, json!({"error": refusal.to_string()}));
                    prop_assert!(!refusal.to_string().chars().any(escape::is_hidden));
                    prop_assert!(refusal.to_string().chars().count() <= 128);
                }
            }
            let _ = idempotency_key(&body);
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
        if Instant::now() >= until {
            break;
        }
    }
}
