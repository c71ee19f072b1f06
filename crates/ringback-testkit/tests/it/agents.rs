//! The scripted model carries the real CLIs through whole sessions.

use ringback_model::Activity;
use ringback_testkit::{Agents, Asked, DEADLINE, Home, ModelServer, Script, Turn};
use serde_json::json;

fn activities(model: &ModelServer) -> Vec<Activity> {
    model.truth().iter().map(|t| t.activity).collect()
}

fn turns_asked(model: &ModelServer) -> Vec<usize> {
    let turn = |asked| match asked {
        Asked::Turn(number) => Some(number),
        Asked::Side => None,
    };
    model.requests().iter().filter_map(|r| turn(r.asked)).collect()
}

#[tokio::test]
async fn claude_code_runs_the_scripted_tools() {
    let Some(agents) = Agents::installed("claude_code_runs_the_scripted_tools") else { return };
    let home = Home::new();
    home.write("project/notes.txt", "hello\n");
    let notes = home.project().join("notes.txt");
    let copy = home.project().join("copy.txt");
    let model = ModelServer::start(Script::new([
        Turn::tool("Read", json!({"file_path": notes}))
            .thinking("First the notes.")
            .saying("I read the notes."),
        Turn::tool("Bash", json!({"command": "echo ran > ran.txt", "description": "Leave a mark"})),
        Turn::tool("Write", json!({"file_path": copy, "content": "hello again\n"})),
        Turn::text("All is done."),
    ]))
    .await;

    let ended =
        agents.claude(&home, &model, "Please copy the notes.", &[]).wait(DEADLINE).await.expect_success();

    assert!(ended.stdout().contains("All is done."), "{}", ended.stdout());
    assert_eq!(home.read("project/ran.txt").as_deref(), Some("ran\n"));
    assert_eq!(home.read("project/copy.txt").as_deref(), Some("hello again\n"));
    assert_eq!(turns_asked(&model), [0, 1, 2, 3]);
    use Activity::{Reading, Running, Thinking, Waiting, Writing};
    assert_eq!(
        activities(&model),
        [Thinking, Reading, Thinking, Running, Thinking, Writing, Thinking, Waiting]
    );
}

#[tokio::test]
async fn codex_runs_the_scripted_tools_in_code_mode() {
    let Some(agents) = Agents::installed("codex_runs_the_scripted_tools_in_code_mode") else { return };
    let home = Home::new();
    let patch = "*** Begin Patch\\n*** Add File: copy.txt\\n+hello again\\n*** End Patch\\n";
    let model = ModelServer::start(Script::new([
        Turn::freeform(
            "exec",
            "const r = await tools.exec_command({cmd: \"echo ran > ran.txt\", yield_time_ms: 5000}); text(r.output);",
        )
        .thinking("First a mark.")
        .saying("I leave a mark."),
        Turn::freeform("exec", format!("const r = await tools.apply_patch(\"{patch}\"); text(r);")),
        Turn::text("All is done."),
    ]))
    .await;

    let program = agents.codex(&home, &model, "gpt-6.1-sol", "Please copy the notes.", &[]);
    let ended = program.wait(DEADLINE).await.expect_success();

    assert!(ended.stdout().contains("All is done."), "{}", ended.stdout());
    assert_eq!(home.read("project/ran.txt").as_deref(), Some("ran\n"));
    assert_eq!(home.read("project/copy.txt").as_deref(), Some("hello again\n"));
    assert_eq!(turns_asked(&model), [0, 1, 2]);
    use Activity::{Running, Thinking, Waiting, Writing};
    assert_eq!(activities(&model), [Thinking, Running, Thinking, Writing, Thinking, Waiting]);
}

#[tokio::test]
async fn codex_runs_the_scripted_tools_when_it_calls_them_directly() {
    let Some(agents) = Agents::installed("codex_runs_the_scripted_tools_when_it_calls_them_directly") else {
        return;
    };
    let home = Home::new();
    let command = |name: &str| json!({"cmd": format!("echo {name} > {name}.txt"), "yield_time_ms": 5000});
    let model = ModelServer::start(Script::new([
        Turn::tool("exec_command", command("one")).and_tool("exec_command", command("two")),
        Turn::freeform(
            "apply_patch",
            "*** Begin Patch\n*** Add File: copy.txt\n+hello again\n*** End Patch\n",
        ),
        Turn::text("All is done."),
    ]))
    .await;

    let program = agents.codex(&home, &model, "gpt-5.5", "Please copy the notes.", &[]);
    program.wait(DEADLINE).await.expect_success();

    assert_eq!(home.read("project/one.txt").as_deref(), Some("one\n"));
    assert_eq!(home.read("project/two.txt").as_deref(), Some("two\n"));
    assert_eq!(home.read("project/copy.txt").as_deref(), Some("hello again\n"));
    assert_eq!(turns_asked(&model), [0, 1, 2]);
}
