//! Claude Code itself, against a scripted model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use ringback_model::{Secret, SessionId};
use ringback_runs::{
    Adapter, End, Environment, Host, Leader, Limits, Mcp, Order, Progress, Session, Spec, TurnResult, start,
};
use ringback_testkit::{Agents, Answer, Asked, Home, ModelServer, Received, Receiver, Script, Turn};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::kit::{DEADLINE, finish, is_alive, wait_for};

const TOKEN: &str = "t0ken-of-this-run";
/// The user's own settings, which allow more than any run here.
const SETTINGS: &str =
    r#"{"permissions":{"allow":["Bash","Write","Read","Edit"],"defaultMode":"bypassPermissions"}}"#;

/// A run of Claude Code in this home; the configured names of the `claude` agent, and what keeps the CLI from
/// calling out.
fn spec(home: &Home, model: &ModelServer, prompt: &str) -> Spec {
    home.write(".claude/settings.json", SETTINGS);
    let place = std::env::var("RINGBACK_AGENTS").expect("the caller has seen that the agents are there");
    let claude = Path::new(&place).join("node_modules/.bin/claude").canonicalize().unwrap();
    let mut process: BTreeMap<String, String> = home.env().clone();
    let url = model.url();
    for (name, value) in [
        ("ANTHROPIC_BASE_URL", url.as_str()),
        ("ANTHROPIC_API_KEY", "dummy"),
        ("DISABLE_TELEMETRY", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ] {
        process.insert(name.to_owned(), value.to_owned());
    }
    let names: Vec<String> = process.keys().filter(|n| !n.starts_with("GIT_")).cloned().collect();
    let run_id = Uuid::new_v4();
    Spec {
        run_id,
        adapter: Adapter::Claude,
        command: vec![claude.to_str().unwrap().to_owned()],
        cwd: home.project(),
        prompt: prompt.to_owned(),
        prompt_without_history: None,
        env: Environment::select(&process, &names, &BTreeSet::new()),
        mcp: None,
        limits: Limits::new(DEADLINE),
        output_dir: home.path().join("runs").join(run_id.to_string()),
        session: Session::New { id: Uuid::new_v4() },
        model: Some("sonnet".to_owned()),
        thinking: true,
        allowed_tools: vec!["Read".to_owned(), "Grep".to_owned()],
        denied_dirs: vec![],
        max_turns: Some(20),
        max_cost_usd: Some(2.0),
    }
}

fn id_of(session: &Session) -> Uuid {
    match session {
        Session::New { id } | Session::Fork { id: Some(id), .. } => *id,
        Session::Fork { .. } | Session::Unnamed => panic!("the test gave it an id"),
    }
}

/// The transcript of a session.
fn transcript(home: &Home, id: Uuid) -> std::path::PathBuf {
    let slug: String = home
        .project()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    home.path().join(format!(".claude/projects/{slug}/{id}.jsonl"))
}

/// The bodies of the model calls of the conversation.
fn calls(model: &ModelServer) -> Vec<Value> {
    let turns = model.requests().into_iter().filter(|r| matches!(r.asked, Asked::Turn(_)));
    turns.map(|r| r.message.json()).collect()
}

/// Writes down what it is told, and asks for one more turn if it has a prompt for it.
#[derive(Default)]
struct Notes {
    prompt: Option<String>,
    turns: Vec<TurnResult>,
    /// Whose arguments to look at when the session is named: then the agent waits for us.
    leader: Option<Leader>,
    arguments: String,
}

impl Host for Notes {
    fn learn(&mut self, fact: &Progress) {
        if let Progress::Turn(turn) = fact {
            self.turns.push(turn.clone());
        } else if let Some(leader) = self.leader {
            let bytes = fs::read(format!("/proc/{}/cmdline", leader.pid)).unwrap_or_default();
            self.arguments = String::from_utf8(bytes).unwrap();
        }
    }

    fn another_turn(&mut self, _: &TurnResult) -> Option<String> {
        self.prompt.take()
    }
}

/// An MCP server with one tool.
fn answer_mcp(request: &Received) -> Answer {
    if request.method != "POST" {
        return Answer::Status(405);
    }
    let call = request.json();
    let result = match call["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": call["params"]["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "ringback", "version": "0"}}),
        Some("tools/list") => json!({"tools": [{"name": "ping_user", "description": "Tells the user.",
            "inputSchema": {"type": "object", "properties": {"message": {"type": "string"}}}}]}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "Message sent."}]}),
        Some(notice) if notice.starts_with("notifications/") => return Answer::Status(202),
        _ => Value::Null,
    };
    let body = match result {
        Value::Null => {
            json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "method not found"}})
        }
        result => json!({"jsonrpc": "2.0", "id": call["id"], "result": result}),
    };
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Answer::Full { status: 200, headers, body: body.to_string().into_bytes() }
}

#[tokio::test]
async fn an_isolated_run_is_a_new_session_with_ringbacks_tools_and_its_token_is_in_no_argument() {
    let Some(_) = Agents::installed("an_isolated_run_is_a_new_session_with_ringbacks_tools") else { return };
    let home = Home::new();
    let mcp = Receiver::answering(answer_mcp).await;
    let model = ModelServer::start(Script::new([
        Turn::tool("mcp__ringback__ping_user", json!({"message": "the build is red"})),
        Turn::text("Told."),
    ]))
    .await;
    let mut spec = spec(&home, &model, "[webhook:ci] Look at this.\n\"quoted\" --model opus");
    spec.mcp = Some(Mcp { url: mcp.url("/mcp"), token: Secret::new(TOKEN) });

    let running = start(&spec).unwrap();
    let mut notes = Notes { leader: Some(running.leader()), ..Notes::default() };
    let outcome = finish(running, &mut notes).await;

    assert_eq!((&outcome.end, outcome.exit_code), (&End::Completed, Some(0)), "{outcome:?}");
    let id = id_of(&spec.session);
    assert_eq!(outcome.session_id, Some(SessionId::new(id.to_string())));
    assert!(outcome.cost_usd.is_some_and(|c| c > 0.0) && outcome.tokens.is_some_and(|t| t.output > 0));
    assert_eq!(outcome.turns, Some(2));
    assert_eq!(notes.turns.iter().map(|t| t.text.as_deref()).collect::<Vec<_>>(), [Some("Told.")]);
    assert!(fs::read_to_string(transcript(&home, id)).unwrap().contains("--model opus"));
    assert!(calls(&model)[0].to_string().contains(r#"[webhook:ci] Look at this.\n\"quoted\" --model opus"#));
    assert_eq!(calls(&model)[0]["model"], "claude-sonnet-5-5");

    let asked = mcp.requests();
    assert!(asked.iter().all(|r| r.header("authorization") == Some(&format!("Bearer {TOKEN}"))));
    assert!(asked.iter().any(|r| r.method == "POST" && r.json()["method"] == "tools/call"));
    if cfg!(target_os = "linux") {
        assert!(notes.arguments.contains("--strict-mcp-config"), "{:?}", notes.arguments);
    }
    assert!(!notes.arguments.contains(TOKEN) && !notes.arguments.contains("webhook"));
    let output = fs::read_to_string(spec.output_dir.join("output.jsonl")).unwrap();
    assert!(
        output.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && output.contains("Told.")
    );
}

#[tokio::test]
async fn a_fork_has_the_full_history_and_leaves_the_parents_file_as_it_is() {
    let Some(_) = Agents::installed("a_fork_has_the_full_history") else { return };
    let home = Home::new();
    let model = ModelServer::start(Script::new([
        Turn::text("The answer of the parent."),
        Turn::text("The answer of the fork."),
    ]))
    .await;
    let parent = spec(&home, &model, "The question to the parent.");
    let parents = finish(start(&parent).unwrap(), &mut ()).await;
    assert_eq!(parents.end, End::Completed, "{parents:?}");
    let parent_id = id_of(&parent.session);
    let before = fs::read(transcript(&home, parent_id)).unwrap();

    let mut fork = spec(&home, &model, "The question to the fork.");
    fork.session = Session::Fork { of: SessionId::new(parent_id.to_string()), id: Some(Uuid::new_v4()) };
    let mut notes = Notes::default();
    let forks = finish(start(&fork).unwrap(), &mut notes).await;

    assert_eq!(forks.end, End::Completed, "{forks:?}");
    let id = id_of(&fork.session);
    assert_eq!(forks.session_id, Some(SessionId::new(id.to_string())));
    let asked = calls(&model)[1].to_string();
    for part in ["The question to the parent.", "The answer of the parent.", "The question to the fork."] {
        assert!(asked.contains(part), "{part}");
    }
    assert!(fs::read(transcript(&home, parent_id)).unwrap() == before);
    assert!(fs::read_to_string(transcript(&home, id)).unwrap().contains("The answer of the fork."));
    // What the agent calls the total begins with the parent's cost; the run's own does not.
    let (own, parents, total) =
        (forks.cost_usd.unwrap(), parents.cost_usd.unwrap(), notes.turns[0].session_cost_usd.unwrap());
    assert!(own > 0.0 && (own + parents - total).abs() < 1e-9, "{own} + {parents} = {total}");
}

#[tokio::test]
async fn a_tool_that_the_users_own_settings_allow_is_refused_in_a_run_whose_list_lacks_it() {
    let Some(_) = Agents::installed("a_tool_that_the_users_own_settings_allow_is_refused") else { return };
    let home = Home::new();
    let mark = home.project().join("mark");
    let (hidden, shown) = (home.write("odd (1)/state", "h1dden"), home.write("project/notes", "sh0wn"));
    let model = ModelServer::start(Script::new([
        Turn::tool(
            "Bash",
            json!({"command": format!("touch '{}'", mark.display()), "description": "Leave a mark"}),
        ),
        Turn::tool("Write", json!({"file_path": mark, "content": "x"})),
        Turn::tool("Read", json!({"file_path": hidden})),
        Turn::tool("Grep", json!({"pattern": "h1", "path": hidden.parent(), "output_mode": "content"})),
        Turn::tool("Read", json!({"file_path": shown})),
        Turn::text("Done."),
    ]))
    .await;
    let mut spec = spec(&home, &model, "Do it.");
    spec.denied_dirs = vec![hidden.parent().unwrap().to_owned()];
    let mut notes = Notes::default();
    let outcome = finish(start(&spec).unwrap(), &mut notes).await;

    assert_eq!(outcome.end, End::Completed, "{outcome:?}");
    assert!(!mark.exists());
    let calls = calls(&model);
    let tools: BTreeSet<&str> = calls[0]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        // It stands for tools that are to be loaded later, of which there are none.
        .filter(|name| *name != "DeferredToolPlaceholder")
        .collect();
    assert_eq!(tools, BTreeSet::from(["Grep", "Read"]));
    let last = calls.last().unwrap().to_string();
    assert!(last.contains("sh0wn") && !last.contains("h1dden"), "{last}");
    assert_eq!(notes.turns[0].denied_tools, ["Read", "Grep"]);
}

#[tokio::test]
async fn a_path_that_an_outsider_mentions_is_not_read() {
    let Some(_) = Agents::installed("a_path_that_an_outsider_mentions_is_not_read") else { return };
    let home = Home::new();
    let secret = home.write("project/secret.txt", "s3cret");
    let model = ModelServer::start(Script::new([Turn::text("Done.")])).await;
    let prompt = format!("[webhook:ci] see @{} and @secret.txt", secret.display());
    let mut spec = spec(&home, &model, &prompt);
    spec.allowed_tools = vec![];
    let outcome = finish(start(&spec).unwrap(), &mut ()).await;
    assert_eq!(outcome.end, End::Completed, "{outcome:?}");
    let asked = calls(&model)[0].to_string();
    assert!(asked.contains("and @secret.txt") && !asked.contains("s3cret"), "{asked}");
}

#[tokio::test]
async fn a_run_may_get_one_more_turn_in_the_same_session() {
    let Some(_) = Agents::installed("a_run_may_get_one_more_turn_in_the_same_session") else { return };
    let home = Home::new();
    let model = ModelServer::start(Script::new([Turn::text("First."), Turn::text("Second.")])).await;
    let spec = spec(&home, &model, "Do it.");
    let mut notes = Notes { prompt: Some("Now report.".to_owned()), ..Notes::default() };
    let outcome = finish(start(&spec).unwrap(), &mut notes).await;
    assert_eq!((&outcome.end, outcome.turns), (&End::Completed, Some(2)), "{outcome:?}");
    assert_eq!(
        notes.turns.iter().map(|t| t.text.as_deref()).collect::<Vec<_>>(),
        [Some("First."), Some("Second.")]
    );
    let asked = calls(&model)[1].to_string();
    assert!(asked.contains("First.") && asked.contains("Now report."));
    let sum: f64 = notes.turns.iter().filter_map(|t| t.cost_usd).sum();
    assert!((sum - outcome.cost_usd.unwrap()).abs() < 1e-9 && outcome.cost_usd > notes.turns[0].cost_usd);
}

#[tokio::test]
async fn thinking_false_asks_the_model_for_no_thinking() {
    let Some(_) = Agents::installed("thinking_false_asks_the_model_for_no_thinking") else { return };
    let home = Home::new();
    let mut seen = Vec::new();
    for thinking in [true, false] {
        let model = ModelServer::start(Script::new([Turn::text("Done.")])).await;
        let mut spec = spec(&home, &model, "Do it.");
        spec.thinking = thinking;
        assert_eq!(finish(start(&spec).unwrap(), &mut ()).await.end, End::Completed);
        seen.push(!calls(&model)[0]["thinking"].is_null());
    }
    assert_eq!(seen, [true, false]);
}

#[tokio::test]
async fn the_causes_of_a_failed_run_are_told_in_plain_words() {
    let Some(_) = Agents::installed("the_causes_of_a_failed_run_are_told_in_plain_words") else { return };
    let home = Home::new();
    let readme = home.project().join("README.md");
    let model =
        ModelServer::start(Script::new([]).otherwise(Turn::tool("Read", json!({"file_path": readme})))).await;
    let failed = async |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec(&home, &model, "Do it.");
        change(&mut spec);
        match finish(start(&spec).unwrap(), &mut ()).await {
            outcome if outcome.exit_code == Some(1) => match outcome.end {
                End::Failed(why) => why,
                end => panic!("{end:?}"),
            },
            outcome => panic!("{outcome:?}"),
        }
    };
    let turns = failed(&|s| s.max_turns = Some(2)).await;
    assert_eq!(turns, "claude: reached max_turns = 2");
    let money = failed(&|s| s.max_cost_usd = Some(0.01)).await;
    assert_eq!(money, "claude: reached max_cost_usd = 0.01");
    let logged_out = |s: &mut Spec| {
        let rest: BTreeMap<String, String> = s
            .env
            .iter()
            .filter(|(name, _)| *name != "ANTHROPIC_API_KEY")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let names: Vec<String> = rest.keys().cloned().collect();
        s.env = Environment::select(&rest, &names, &BTreeSet::new());
    };
    assert_eq!(failed(&logged_out).await, "claude: not logged in, run `claude` and /login");
    let id = Uuid::new_v4();
    let unknown = |s: &mut Spec| {
        s.session = Session::Fork { of: SessionId::new(id.to_string()), id: None };
    };
    assert_eq!(failed(&unknown).await, format!("claude: No conversation found with session ID: {id}"));
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_tool_behind_although_tools_have_sessions_of_their_own() {
    let Some(_) = Agents::installed("a_cancelled_run_leaves_no_tool_behind") else { return };
    // With TERM first, and killed at once, when the agent cannot end its tools itself.
    for kill_after in [DEADLINE, Duration::ZERO] {
        let home = Home::new();
        let pid_file = home.project().join("pid");
        let command = format!("echo $$ > '{}'; sleep 1000; echo", pid_file.display());
        let model = ModelServer::start(Script::new([Turn::tool(
            "Bash",
            json!({"command": command, "description": "Take a while"}),
        )]))
        .await;
        let mut spec = spec(&home, &model, "Do it.");
        spec.allowed_tools = vec!["Bash".to_owned()];
        spec.limits.kill_after = kill_after;
        let running = start(&spec).unwrap();
        let leader = running.leader();
        let (orders, listener) = watch::channel(Order::Proceed);
        let waiting = tokio::spawn(async move { running.wait(listener, &mut ()).await });
        let tool = wait_for(&pid_file).await;
        orders.send(Order::Cancel).unwrap();
        let outcome = waiting.await.unwrap();
        assert_eq!((outcome.end, outcome.cost_usd), (End::Cancelled, None));
        assert!(!is_alive(&tool) && !is_alive(&leader.pid.to_string()), "{kill_after:?}");
    }
}
