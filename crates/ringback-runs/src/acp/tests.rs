use std::time::Duration;

use ringback_model::Secret;
use uuid::Uuid;

use super::*;
use crate::environment::Environment;
use crate::spec::{Adapter, Limits};

/// `opencode acp` 1.18.33 with a scripted model: what it says, in order, some texts cut.
const OPENCODE: &str = include_str!("fixtures/opencode.jsonl");

fn spec() -> Spec {
    Spec {
        run_id: Uuid::from_u128(1),
        adapter: Adapter::Acp,
        command: vec!["opencode".into(), "acp".into()],
        cwd: "/home/dev/proj".into(),
        prompt: "look".into(),
        prompt_without_history: Some("look without".into()),
        env: Environment::default(),
        mcp: Some(Mcp { url: "http://127.0.0.1:1/mcp".into(), token: Secret::new("t0ken") }),
        limits: Limits::new(Duration::from_secs(60)),
        output_dir: "/nowhere".into(),
        session: Session::Unnamed,
        model: None,
        thinking: true,
        allowed_tools: vec!["Read".into()],
        denied_dirs: vec![],
        max_turns: None,
        max_cost_usd: None,
    }
}

fn fork() -> Spec {
    Spec { session: Session::Fork { of: SessionId::new("ses_1"), id: None }, ..spec() }
}

/// The messages that a client sends after this one.
fn after(client: &mut Client, message: &Value) -> Vec<Value> {
    sent(&client.read(message.to_string().as_bytes()))
}

fn sent(steps: &[Step]) -> Vec<Value> {
    let bytes = steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(bytes),
        Step::Tell(_) => None,
    });
    bytes.map(|bytes| serde_json::from_slice(bytes).unwrap()).collect()
}

fn end_of(steps: &[Step]) -> &TurnResult {
    match steps.last() {
        Some(Step::Tell(Progress::Turn(turn))) => turn,
        other => panic!("no turn: {other:?}"),
    }
}

fn initialized(can: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": 1, "agentCapabilities": can}})
}

#[test]
fn the_output_of_a_real_agent_leads_from_hello_to_the_end_of_its_turn() {
    let mut client = Client::new(&spec());
    let hello: Value = serde_json::from_slice(&client.hello()).unwrap();
    assert_eq!((&hello["method"], &hello["params"]["protocolVersion"]), (&json!("initialize"), &json!(1)));
    let steps: Vec<Step> = OPENCODE.lines().flat_map(|line| client.read(line.as_bytes())).collect();
    let sent = sent(&steps);
    let methods: Vec<Option<&str>> = sent.iter().map(|m| m["method"].as_str()).collect();
    assert_eq!(methods, [Some("session/new"), Some("session/prompt"), None]);
    let server = json!({"type": "http", "name": "ringback", "url": "http://127.0.0.1:1/mcp",
                        "headers": [{"name": "Authorization", "value": "Bearer t0ken"}]});
    assert_eq!(sent[0]["params"], json!({"cwd": "/home/dev/proj", "mcpServers": [server]}));
    assert_eq!(sent[1]["params"]["prompt"], json!([{"type": "text", "text": "look"}]));
    // Bash is not in the list.
    assert_eq!(
        sent[2],
        json!({"jsonrpc": "2.0", "id": 0, "result": {"outcome":
        {"outcome": "selected", "optionId": "reject"}}})
    );
    let turn = end_of(&steps);
    assert_eq!((turn.is_error, &turn.denied_tools[..]), (false, &["sleep 2; echo done".to_owned()][..]));
    assert!(!client.is_at_work() && client.cancel().is_none());
}

#[test]
fn a_fork_is_made_where_the_agent_offers_it_and_else_the_run_has_no_history_and_is_told_so() {
    let can = json!({"mcpCapabilities": {"http": true}, "sessionCapabilities": {"fork": {}}});
    let mut client = Client::new(&fork());
    client.hello();
    let asked = after(&mut client, &initialized(&can));
    assert_eq!(
        (&asked[0]["method"], &asked[0]["params"]["sessionId"]),
        (&json!("session/fork"), &json!("ses_1"))
    );
    let prompt = after(&mut client, &json!({"id": 2, "result": {"sessionId": "ses_2"}}));
    assert_eq!(prompt[0]["params"]["prompt"][0]["text"], "look");

    let cannot = json!({"mcpCapabilities": {"http": true}});
    for (can, refuses) in [(&can, true), (&cannot, false)] {
        let mut client = Client::new(&fork());
        client.hello();
        let mut steps = client.read(initialized(can).to_string().as_bytes());
        if refuses {
            steps = client.read(json!({"id": 2, "error": {"code": -32603}}).to_string().as_bytes());
        }
        assert_eq!(steps[0], Step::Tell(Progress::WithoutHistory));
        assert_eq!(sent(&steps)[0]["method"], "session/new");
        let id = client.last_id;
        let prompt = after(&mut client, &json!({"id": id, "result": {"sessionId": "ses_2"}}));
        assert_eq!(prompt[0]["params"]["prompt"][0]["text"], "look without");
    }
}

#[test]
fn an_agent_that_takes_no_server_by_http_gets_none_and_is_told_so() {
    let mut client = Client::new(&spec());
    client.hello();
    let new = after(&mut client, &initialized(&json!({})));
    assert_eq!(new[0]["params"]["mcpServers"], json!([]));
    let prompt = after(&mut client, &json!({"id": 2, "result": {"sessionId": "s"}}));
    assert_eq!(
        prompt[0]["params"]["prompt"],
        json!([
        {"type": "text", "text": NO_TOOLS}, {"type": "text", "text": "look"}])
    );
}

#[test]
fn a_model_and_thinking_are_chosen_before_the_prompt_and_an_unknown_model_ends_the_run() {
    let options = json!([
        {"id": "m", "category": "model", "options": [{"group": "g", "options": [{"value": "a/b"}]}, {"value": "c"}]},
        {"id": "t", "category": "thought_level", "options": [{"value": "on"}, {"value": "off"}]},
    ]);
    let begin = |model: &str| {
        let mut client = Client::new(&Spec { model: Some(model.into()), thinking: false, ..spec() });
        client.hello();
        client.read(initialized(&json!({})).to_string().as_bytes());
        let opened = json!({"id": 2, "result": {"sessionId": "s", "configOptions": options}});
        let steps = client.read(opened.to_string().as_bytes());
        (client, steps)
    };
    let (mut client, steps) = begin("a/b");
    let chosen: Vec<Value> = sent(&steps).iter().map(|m| m["params"].clone()).collect();
    assert_eq!(
        chosen,
        [
            json!({"sessionId": "s", "configId": "m", "value": "a/b"}),
            json!({"sessionId": "s", "configId": "t", "value": "off"})
        ]
    );
    assert!(after(&mut client, &json!({"id": 3, "result": {}})).is_empty());
    assert_eq!(after(&mut client, &json!({"id": 4, "result": {}}))[0]["method"], "session/prompt");

    let (_, steps) = begin("haiku");
    assert_eq!(failure(end_of(&steps)), "invalid model: haiku; the agent does not offer it");
}

#[test]
fn the_causes_of_a_bad_end_are_told_in_plain_words() {
    let ends_with = |message: Value| {
        let mut client = Client::new(&spec());
        client.hello();
        client.read(initialized(&json!({})).to_string().as_bytes());
        client.read(json!({"id": 2, "result": {"sessionId": "s"}}).to_string().as_bytes());
        failure(end_of(&client.read(message.to_string().as_bytes())))
    };
    let error = |error: Value| ends_with(json!({"id": 3, "error": error}));
    assert_eq!(error(json!({"code": 1, "message": "no", "data": {"details": "because"}})), "no: because");
    assert!(
        error(json!({"code": -32000, "message": "Authentication required"})).starts_with("not logged in, ")
    );
    assert_eq!(error(json!(7)), "an error without words");
    for (reason, cause) in [("max_turn_requests", "out of turns"), ("refusal", "the model refused to go on")]
    {
        assert_eq!(ends_with(json!({"id": 3, "result": {"stopReason": reason}})), cause);
    }
    assert_eq!(ends_with(json!({"id": 3, "result": 7})), "the turn ended with unknown");
    let mut client = Client::new(&spec());
    client.hello();
    let other = client.read(br#"{"id":1,"result":{"protocolVersion":2}}"#);
    assert_eq!(failure(end_of(&other)), "speaks version 2 of the protocol, and not 1");
}

#[test]
fn after_a_cancel_open_questions_are_cancelled_and_the_turn_is_awaited() {
    let mut client = Client::new(&spec());
    client.hello();
    assert!(client.cancel().is_none(), "there is no turn yet");
    client.read(initialized(&json!({})).to_string().as_bytes());
    client.read(json!({"id": 2, "result": {"sessionId": "s"}}).to_string().as_bytes());
    let cancel: Value = serde_json::from_slice(&client.cancel().unwrap()).unwrap();
    assert_eq!(cancel, json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s"}}));
    let question = json!({"id": "q", "method": "session/request_permission", "params": {"toolCall": {"kind": "read"},
        "options": [{"optionId": "once", "kind": "allow_once"}]}});
    assert_eq!(after(&mut client, &question)[0]["result"]["outcome"]["outcome"], "cancelled");
    let end = client.read(br#"{"id":3,"result":{"stopReason":"cancelled"}}"#);
    assert!(end_of(&end).is_error && !client.is_at_work());
}

#[test]
fn junk_answers_to_nothing_and_unknown_requests_do_no_harm() {
    let mut client = Client::new(&spec());
    client.hello();
    for junk in [
        "",
        "hello",
        "null",
        "[]",
        "{}",
        "{\"id\":99,\"result\":{}}",
        "{\"id\":\"1\"}",
        "{\"method\":7}",
        "{\"method\":\"session/update\"}",
        "{\"method\":\"x\",\"id\":null}",
    ] {
        assert_eq!(client.read(junk.as_bytes()), [], "{junk}");
    }
    let refused =
        after(&mut client, &json!({"id": "a", "method": "fs/read_text_file", "params": {"path": "/"}}));
    assert_eq!((&refused[0]["id"], &refused[0]["error"]["code"]), (&json!("a"), &json!(NO_SUCH_METHOD)));
}

proptest::proptest! {
    /// Lines of the real agent, damaged: words exchanged, ends cut, bytes changed.
    #[test]
    fn a_client_survives_any_lines(
        lines in proptest::collection::vec((0..24_usize, 0..4000_usize, 0..4000_usize, proptest::num::u8::ANY), 0..40)
    ) {
        let real: Vec<&str> = OPENCODE.lines().collect();
        let mut client = Client::new(&fork());
        client.hello();
        for (number, cut, at, byte) in lines {
            let mut line = real.get(number).unwrap_or(&"{}").as_bytes().to_vec();
            if let Some(changed) = line.get_mut(at) {
                *changed = byte;
            }
            if cut % 4 == 0 {
                line.truncate(cut);
            }
            for step in client.read(&line) {
                if let Step::Send(bytes) = step {
                    proptest::prop_assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
                }
            }
        }
    }
}
