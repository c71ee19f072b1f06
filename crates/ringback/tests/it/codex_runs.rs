//! The inbound half with the real Codex: forks, isolated runs, the sandbox, and ringback's tools.

use std::path::{Path, PathBuf};

use ringback_testkit::{
    Agents, Answer, FakeDiscord, FakeDiscordConfig, Home, ModelServer, Receiver, Script, Turn,
};
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

const BOT_TOKEN: &str = "bot-token-of-the-test";
/// Knows the plain tools.
const MODEL: &str = "gpt-5.6-sol";

/// A home whose runs are of the real Codex, against `runs`.
struct World {
    inbound: Inbound,
    agents: Agents,
    discord: FakeDiscord,
}

impl World {
    async fn new(test: &str, runs: &ModelServer) -> Option<World> {
        let agents = Agents::installed(test)?;
        let mut inbound = Inbound::new("true", json!({}));
        let config = FakeDiscordConfig { token: BOT_TOKEN.to_owned(), ..FakeDiscordConfig::default() };
        let discord = FakeDiscord::start(config).await;
        inbound.home.set_env("DISCORD_TOKEN", BOT_TOKEN);
        inbound.home.set_env("SCRIPTED_KEY", "dummy");
        inbound.configure(json!({
            "runs": { "agent": "codex", "agents": { "codex": {
                "command": [agents.codex_path()], "env": ["SCRIPTED_KEY"], "models": { "haiku": "gpt-5.6-luna" } } } },
            "notify": [{ "type": "discord", "token_env": "DISCORD_TOKEN", "user_id": FakeDiscordConfig::default().user_id,
                         "api_base": discord.base_url() }],
        }));
        agents.configure_codex(&inbound.home, runs, MODEL);
        Some(World { inbound, agents, discord })
    }

    fn home(&self) -> &Home {
        &self.inbound.home
    }

    /// A session of the user's own that knows the word heron; then Codex talks to `runs` again.
    async fn main_session(&self, runs: &ModelServer) -> (String, PathBuf) {
        let model = ModelServer::start(Script::new([Turn::text("I will remember the heron.")])).await;
        let started = self.agents.codex(self.home(), &model, MODEL, "The word is heron.", &[]);
        started.wait(DEADLINE).await.expect_success();
        self.agents.configure_codex(self.home(), runs, MODEL);
        let rollouts = rollouts(&self.home().path().join(".codex/sessions"));
        let [rollout] = &rollouts[..] else { panic!("one session was run: {rollouts:?}") };
        // Headless sessions are no main sessions; this one is to be one of the terminal. Codex knows how long its
        // file is.
        let text = std::fs::read_to_string(rollout).expect("the session is text");
        let text = text.replacen("\"source\":\"exec\"", "\"source\":\"cli\" ", 1);
        let text = text.replacen("\"originator\":\"codex_exec\"", "\"originator\":\"codex-tui\" ", 1);
        std::fs::write(rollout, &text).expect("the session can be written");
        let meta: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).expect("a record");
        assert_eq!(meta["payload"]["source"], "cli");
        (meta["payload"]["id"].as_str().expect("the session has an id").to_owned(), rollout.clone())
    }
}

/// The session files, oldest first.
fn rollouts(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rollouts(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn shell(command: &str) -> Turn {
    Turn::tool("exec_command", json!({ "cmd": command }))
}

fn ping(message: &str) -> Turn {
    Turn::tool("mcp__ringback__ping_user", json!({ "message": message }))
}

fn report(message: &str) -> Turn {
    Turn::tool("mcp__ringback__report_updates", json!({ "message": message }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_forks_the_latest_codex_session_pings_the_user_and_reports() {
    // Turn 0 is the parent's: the fork's conversation begins with it.
    let runs = ModelServer::start(Script::new([
        Turn::text("(the parent's turn)"),
        ping("The build is red"),
        report("Looked into site#42"),
        Turn::text("Done."),
    ]))
    .await;
    let test = "a_call_forks_the_latest_codex_session_pings_the_user_and_reports";
    let Some(world) = World::new(test, &runs).await else { return };
    let with_runs = Receiver::always(Answer::Status(200)).await;
    world.inbound.configure_more(
        json!({ "webhooks": [{ "name": "with-runs", "url": with_runs.url("/"), "runs": true }] }),
    );
    let (main, rollout) = world.main_session(&runs).await;
    let before = std::fs::read(&rollout).expect("the session is there");
    let daemon = world.home().up(ringback()).await;

    let call = json!({ "message": "CI build failed for site#42", "source": "github-actions" });
    let id = world.inbound.start(call).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &json!(main)), "{run}");
    assert_eq!((&run["pinged"], &run["reported"]), (&json!(true), &json!(true)), "{run}");
    assert!(
        std::fs::read(&rollout).expect("it is still there") == before,
        "the parent's file is byte-identical"
    );

    // The run knew the parent's history and got its prompt last.
    let first = runs.requests().first().map(|r| r.message.text()).unwrap_or_default();
    assert!(first.contains("The word is heron.") && first.contains("[webhook:github-actions] "), "{first}");
    assert!(first.contains("shell commands that write nothing"), "{first}");
    let messages = world.discord.wait_for(1, DEADLINE).await;
    assert_eq!(messages.iter().map(|m| m.content()).collect::<Vec<_>>(), ["[bg] The build is red"]);
    let updates = daemon.api_get("/api/updates").await.json();
    assert!(updates.to_string().contains("Looked into site#42"), "{updates}");

    // Its cost is that of its own three calls, without the parent's.
    let own: u64 = runs.requests().iter().map(|r| (r.message.body.len() / 4) as u64).sum();
    assert_eq!(run["tokens"]["input"], json!(own), "{run}");
    let cost = run["cost_usd"].as_f64().expect("the model has a price");
    let output = run["tokens"]["output"].as_f64().expect("a number");
    assert!((cost - (own as f64 * 4.0 + output * 20.0) / 1e6).abs() < 1e-9, "{run}");

    // It is a session that the observer sees.
    let session = run["session_id"].as_str().expect("Codex has named it").to_owned();
    assert_ne!(session, main);
    let requests = with_runs
        .wait_until("the run's end", DEADLINE, |seen| {
            seen.iter().any(|r| matches!(r.json()["to"].as_str(), Some("waiting" | "idle")))
        })
        .await;
    assert!(requests.iter().all(|r| r.json()["run_id"] == json!(id)), "{requests:?}");
    let output = world.home().state_dir().join(format!("runs/{id}/output.jsonl"));
    let output = std::fs::read_to_string(output).expect("output is kept");
    assert!(output.contains("turn.completed") && !output.contains(&daemon.token()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_run_has_no_history_and_its_sandbox_stops_every_write() {
    let runs = ModelServer::start(Script::new([
        shell("touch mark; touch ../mark; cat README.md"),
        Turn::freeform("apply_patch", "*** Begin Patch\n*** Add File: mark\n+made\n*** End Patch\n"),
        Turn::text("Done."),
    ]))
    .await;
    let test = "an_isolated_run_has_no_history_and_its_sandbox_stops_every_write";
    let Some(world) = World::new(test, &runs).await else { return };
    world.main_session(&runs).await;
    // What the user has opened for sessions that they watch does not hold here.
    let rules =
        ["touch", "/bin/bash"].map(|p| format!("prefix_rule(pattern=[\"{p}\"], decision=\"allow\")\n"));
    let rules = rules.concat();
    world.home().write(".codex/rules/default.rules", rules);
    let config = world.home().read(".codex/config.toml").expect("it was written");
    world.home().write(".codex/config.toml", format!("sandbox_mode = \"danger-full-access\"\n{config}"));
    let daemon = world.home().up(ringback()).await;
    let call =
        json!({ "message": "look", "source": "ci", "isolated": true, "thinking": false, "model": "haiku" });
    let id = world.inbound.start(call).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &Value::Null), "{run}");
    let requests = runs.requests();
    let first = requests.first().map(|r| r.message.json()).unwrap_or_default();
    assert!(!first.to_string().contains("heron"), "{first}");
    assert_eq!((&first["model"], &first["reasoning"]["effort"]), (&json!("gpt-5.6-luna"), &json!("none")));
    let last = requests.last().map(|r| r.message.text()).unwrap_or_default();
    assert!(last.contains("Read-only file system") && last.contains("# demo"), "{last}");
    for mark in [world.home().project().join("mark"), world.home().path().join("mark")] {
        assert!(!mark.exists(), "{}", mark.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_with_edit_lets_a_run_write_in_its_directory_and_nowhere_else() {
    let runs =
        ModelServer::start(Script::new([shell("touch mark; touch ../mark"), Turn::text("Done.")])).await;
    let test = "a_list_with_edit_lets_a_run_write_in_its_directory_and_nowhere_else";
    let Some(world) = World::new(test, &runs).await else { return };
    let tools = json!({ "runs": { "agents": { "codex": { "allowed_tools": ["Read", "Edit"] } } } });
    world.inbound.configure_more(tools);
    // A temporary directory is writable too: the home of the test must not lie in it.
    let config = world.home().read(".codex/config.toml").expect("it was written");
    let outside = "[sandbox_workspace_write]\nexclude_slash_tmp = true\n";
    world.home().write(".codex/config.toml", format!("{config}\n{outside}"));
    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "look", "isolated": true })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!(run["state"], "completed", "{run}");
    assert!(world.home().project().join("mark").exists());
    assert!(!world.home().path().join("mark").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_s_own_notify_program_is_for_their_own_sessions() {
    let runs = ModelServer::start(Script::new([Turn::text("Done.")])).await;
    let Some(world) = World::new("the_user_s_own_notify_program_is_for_their_own_sessions", &runs).await
    else {
        return;
    };
    let mark = world.home().path().join("notified");
    let program = json!(["touch", mark]);
    let config = world.home().read(".codex/config.toml").expect("it was written");
    world.home().write(".codex/config.toml", format!("notify = {program}\n{config}"));

    // Codex hands the event to the program as one more argument, which touch takes for another file.
    let codex = world.agents.codex_path();
    let key = [("SCRIPTED_KEY", "dummy")];
    world.home().spawn_with(codex, &["exec", "--json", "hello"], &key).wait(DEADLINE).await.expect_success();
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while !mark.exists() {
        assert!(
            tokio::time::Instant::now() < give_up,
            "the program was not started for the user's own session"
        );
        tokio::task::yield_now().await;
    }
    std::fs::remove_file(&mark).expect("it is there");

    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "look", "isolated": true })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!(run["state"], "completed", "{run}");
    daemon.terminate().await.expect_success();
    assert!(!mark.exists(), "the program was started for a run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_owes_a_report_is_asked_once_more_in_its_own_session() {
    let runs = ModelServer::start(Script::new([
        Turn::text("Done."),
        report("Asked for it"),
        Turn::text("Reported."),
    ]))
    .await;
    let test = "a_run_that_owes_a_report_is_asked_once_more_in_its_own_session";
    let Some(world) = World::new(test, &runs).await else { return };
    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "look", "update_main_session": "always" })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["reported"]), (&json!("completed"), &json!(true)), "{run}");
    let first = runs.requests().first().map(|r| r.message.text()).unwrap_or_default();
    assert!(first.contains("You have no history"), "{first}");
    assert_eq!(rollouts(&world.home().path().join(".codex/sessions")).len(), 1, "one session had both turns");
    let output = world.home().state_dir().join(format!("runs/{id}/output.jsonl"));
    let output = std::fs::read_to_string(output).expect("output is kept");
    assert_eq!(output.matches("\"turn.completed\"").count(), 2, "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_codex_cannot_be_asked_for_is_refused_and_what_it_lacks_is_told() {
    let runs = ModelServer::start(Script::new([])).await;
    let test = "what_codex_cannot_be_asked_for_is_refused_and_what_it_lacks_is_told";
    let Some(world) = World::new(test, &runs).await else { return };
    world.inbound.configure_more(json!({ "runs": { "agents": {
        "codex": { "env": [] }, "gone": { "adapter": "codex", "command": ["/nowhere/codex"] } } } }));
    let daemon = world.home().up(ringback()).await;
    let refused = world.inbound.post(&json!({ "message": "look", "model": "opus" }).to_string()).await;
    assert_eq!((refused.status, refused.json()), (400, json!({ "error": "invalid model: opus" })));
    let absent = world.inbound.post(&json!({ "message": "look", "agent": "gone" }).to_string()).await;
    assert_eq!((absent.status, absent.json()), (503, json!({ "error": "agent not available: gone" })));

    let id = world.inbound.start(json!({ "message": "look", "source": "nightly" })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["cost_usd"]), (&json!("failed"), &json!(0.0)), "{run}");
    let messages = world.discord.wait_for(1, DEADLINE).await;
    let text = messages[0].content();
    assert!(text.starts_with("nightly couldn't complete.\ncodex: Missing environment variable"), "{text}");
}
