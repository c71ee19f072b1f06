//! The real agents, a scripted model, and a receiver that gets the true sequence of activities.

use ringback_testkit::{Agents, Answer, Home, ModelServer, Program, Receiver, Script, Turn};
use serde_json::json;
use std::time::Duration;

use crate::{DEADLINE, ringback};

const SECRET: &str = "whsec_ZW5kLXRvLWVuZC10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";
/// Long enough that no write of the agent's own covers two of its steps.
const STEP: Duration = Duration::from_millis(700);

/// Runs an agent through its script under a daemon; gives the activities that the receiver was told, in order.
async fn told(home: &Home, agent: impl FnOnce(&Home) -> Program, agent_name: &str) -> Vec<String> {
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "webhooks": [{ "name": "all", "url": receiver.url("/"), "secret": SECRET }],
        })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    agent(home).wait(DEADLINE).await.expect_success();
    let requests = receiver
        .wait_until("the end of the turn", DEADLINE, |seen| seen.iter().any(|r| is_over(&r.json())))
        .await;
    daemon.terminate().await.expect_success();
    let mut events: Vec<_> = requests.iter().map(|r| r.json()).collect();
    for request in &requests {
        request.verify(&[SECRET]).expect("every delivery is signed");
    }
    events.sort_by_key(|e| e["sequence"].as_u64());
    let sessions: std::collections::BTreeSet<_> =
        events.iter().map(|e| e["session_id"].to_string()).collect();
    assert_eq!(sessions.len(), 1, "one session was run: {events:#?}");
    assert!(events.iter().all(|e| e["agent"] == agent_name), "{events:#?}");
    for (before, after) in events.iter().zip(events.iter().skip(1)) {
        assert_eq!(before["to"], after["from"], "{events:#?}");
    }
    assert!(events.iter().any(is_over), "{events:#?}");
    events.iter().filter_map(|e| e["to"].as_str()).map(str::to_owned).collect()
}

/// A headless agent exits as its turn ends: it waits, or it is gone, whichever is seen first.
fn is_over(event: &serde_json::Value) -> bool {
    event["reason"] == "turn_end" || event["reason"] == "exited"
}

/// Everything up to the end of the turn, without the first `thinking`: a session may be seen before its first
/// prompt or after it, and the first sight is no event.
fn from_first_tool(activities: &[String]) -> Vec<&str> {
    let all: Vec<&str> = activities.iter().map(String::as_str).collect();
    let start = usize::from(all.first() == Some(&"thinking"));
    let end = all.iter().position(|a| *a == "waiting" || *a == "idle").unwrap_or(all.len());
    all[start..end].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_claude_code_session_arrives_as_it_was() {
    let Some(agents) = Agents::installed("a_real_claude_code_session_arrives_as_it_was") else { return };
    let home = Home::new();
    home.write("proj-notes.txt", "hello\n");
    let notes = home.path().join("proj-notes.txt").to_string_lossy().into_owned();
    let made = home.project().join("made.txt").to_string_lossy().into_owned();
    let model = ModelServer::start(Script::new([
        Turn::tool("Bash", json!({ "command": "sleep 1; echo one", "description": "a command" })).after(STEP),
        Turn::tool("Read", json!({ "file_path": notes })).after(STEP),
        Turn::tool("Write", json!({ "file_path": made, "content": "made" })).after(STEP),
        Turn::text("All done.").after(STEP),
    ]))
    .await;
    let run = |home: &Home| {
        agents.claude(home, &model, "Please do the work.", &["--allowedTools", "Bash,Read,Write"])
    };
    let activities = told(&home, run, "claude").await;
    assert_eq!(
        from_first_tool(&activities),
        ["running", "thinking", "reading", "thinking", "writing", "thinking"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_codex_session_arrives_as_it_was() {
    let Some(agents) = Agents::installed("a_real_codex_session_arrives_as_it_was") else { return };
    let home = Home::new();
    let model = ModelServer::start(Script::new([
        Turn::freeform("exec", "const r = await tools.exec_command({cmd: 'sleep 1; echo one'}); text(r.output);")
            .after(STEP),
        Turn::freeform(
            "exec",
            "const r = await tools.apply_patch('*** Begin Patch\\n*** Add File: made.txt\\n+made\\n*** End Patch\\n'); text(r);",
        )
        .after(STEP),
        Turn::text("All done.").after(STEP),
    ]))
    .await;
    let run = |home: &Home| agents.codex(home, &model, "gpt-6.1-sol", "Please do the work.", &[]);
    let activities = told(&home, run, "codex").await;
    assert_eq!(from_first_tool(&activities), ["running", "thinking", "writing", "thinking"]);
}
