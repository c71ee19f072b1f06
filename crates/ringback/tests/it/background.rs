//! The inbound half with the real Claude Code: a call becomes a fork of the main session that reaches the user.

use std::time::Duration;

use ringback_testkit::{
    Agents, Answer, Daemon, FakeDiscord, FakeDiscordConfig, Home, ModelServer, Receiver, Script, Turn,
};
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

const MAIN: &str = "0a1b2c3d-0000-4000-8000-000000000001";
const OTHER: &str = "0a1b2c3d-0000-4000-8000-000000000002";
const BOT_TOKEN: &str = "bot-token-of-the-test";

/// A home with a main session that knows the word heron, and runs of the real Claude Code against `runs`.
struct World {
    inbound: Inbound,
    agents: Agents,
    discord: FakeDiscord,
    /// What the main session talks to.
    main_model: ModelServer,
}

impl World {
    async fn new(test: &str, runs: &ModelServer) -> Option<World> {
        let agents = Agents::installed(test)?;
        let mut inbound = Inbound::new("true", json!({}));
        let discord = FakeDiscord::start(FakeDiscordConfig {
            token: BOT_TOKEN.to_owned(),
            ..FakeDiscordConfig::default()
        })
        .await;
        inbound.home.set_env("DISCORD_TOKEN", BOT_TOKEN);
        for (name, value) in [
            ("ANTHROPIC_BASE_URL", runs.url().as_str()),
            ("ANTHROPIC_API_KEY", "dummy"),
            ("DISABLE_TELEMETRY", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ] {
            inbound.home.set_env(name, value);
        }
        let env = [
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_API_KEY",
            "DISABLE_TELEMETRY",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        ];
        inbound.configure(json!({
            "runs": { "agent": "claude", "agents": { "claude": { "command": [agents.claude_path()], "env": env } } },
            "notify": [{ "type": "discord", "token_env": "DISCORD_TOKEN", "user_id": FakeDiscordConfig::default().user_id,
                         "api_base": discord.base_url() }],
        }));
        let main_model = ModelServer::start(Script::new([
            Turn::text("I will remember the heron."),
            Turn::text("Nothing else.").after(Duration::from_millis(50)),
            Turn::text("Still nothing."),
            Turn::text("And still nothing."),
        ]))
        .await;
        Some(World { inbound, agents, discord, main_model })
    }

    fn home(&self) -> &Home {
        &self.inbound.home
    }

    /// Starts the main session, or another one, with its first prompt.
    async fn first_prompt(&self, session: &str, prompt: &str) {
        let started = self.agents.claude(self.home(), &self.main_model, prompt, &["--session-id", session]);
        started.wait(DEADLINE).await.expect_success();
    }

    async fn next_prompt(&self, session: &str, prompt: &str) {
        let resumed = self.agents.claude(self.home(), &self.main_model, prompt, &["--resume", session]);
        resumed.wait(DEADLINE).await.expect_success();
    }

    /// A daemon whose main session is pinned.
    async fn up(&self) -> Daemon {
        let daemon = self.home().up(ringback()).await;
        let pinned = daemon.api_put("/api/main", &json!({ "session_id": MAIN })).await;
        assert_eq!(pinned.json()["session_id"], MAIN);
        daemon
    }

    fn transcript(&self, session: &str) -> Vec<u8> {
        let projects = self.home().path().join(".claude/projects");
        let dirs = std::fs::read_dir(projects).expect("Claude Code has projects").flatten();
        let mut found =
            dirs.filter_map(|dir| std::fs::read(dir.path().join(format!("{session}.jsonl"))).ok());
        found.next().expect("the session has a transcript")
    }

    /// The conversation that the model was asked with last.
    fn last_asked(model: &ModelServer) -> String {
        model.requests().last().map(|r| r.message.text()).unwrap_or_default()
    }
}

fn ping(message: &str) -> Turn {
    Turn::tool("mcp__ringback__ping_user", json!({ "message": message }))
}

fn report(message: &str) -> Turn {
    Turn::tool("mcp__ringback__report_updates", json!({ "message": message }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_forks_the_main_session_pings_the_user_and_reports_back_once() {
    // Turn 0 is the parent's: the fork's conversation begins with it.
    let runs = ModelServer::start(Script::new([
        Turn::text("(the parent's turn)"),
        ping("The build is @everyone's problem"),
        report("Looked into site#42"),
        Turn::text("Done."),
    ]))
    .await;
    let Some(world) =
        World::new("a_call_forks_the_main_session_pings_the_user_and_reports_back_once", &runs).await
    else {
        return;
    };
    let with_runs = Receiver::always(Answer::Status(200)).await;
    let without = Receiver::always(Answer::Status(200)).await;
    world.inbound.configure_more(json!({ "webhooks": [
        { "name": "with-runs", "url": with_runs.url("/"), "runs": true },
        { "name": "without", "url": without.url("/") },
    ] }));
    world.first_prompt(MAIN, "The word is heron.").await;
    world.first_prompt(OTHER, "Another session.").await;
    let daemon = world.up().await;
    let connected =
        world.home().spawn(ringback(), &["connect", "claude"]).wait(DEADLINE).await.expect_success();
    assert!(connected.stdout().contains("hand-over claude"), "{}", connected.stdout());
    let before = world.transcript(MAIN);

    let id = world
        .inbound
        .start(json!({ "message": "CI build failed for site#42", "source": "github-actions" }))
        .await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &json!(MAIN)), "{run}");
    assert_eq!((&run["pinged"], &run["reported"]), (&json!(true), &json!(true)), "{run}");
    assert!(run["cost_usd"].as_f64().is_some() && run["session_id"].is_string(), "{run}");
    assert!(world.transcript(MAIN) == before, "the parent's transcript is byte-identical");

    // The run knew the parent's history and got its prompt last.
    let first = runs.requests().first().map(|r| r.message.text()).unwrap_or_default();
    assert!(first.contains("The word is heron.") && first.contains("[webhook:github-actions] "), "{first}");

    let messages = world.discord.wait_for(1, DEADLINE).await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].content(), "[bg] The build is @everyone's problem");
    assert_eq!(messages[0].body["allowed_mentions"], json!({ "parse": [] }));

    // The run is a session: told to endpoints that want runs, and to no others.
    let requests = with_runs
        .wait_until("the run's end", DEADLINE, |seen| {
            seen.iter().any(|r| matches!(r.json()["to"].as_str(), Some("waiting" | "idle")))
        })
        .await;
    assert!(
        requests.iter().all(|r| r.json()["run_id"] == json!(id) && r.json()["source"] == "github-actions")
    );
    assert!(without.requests().is_empty());
    let session = daemon
        .api_get(&format!("/api/sessions/{}", run["session_id"].as_str().unwrap_or_default()))
        .await
        .json();
    assert_eq!(session["run_id"], json!(id), "{session}");

    // The update reaches the main session's next prompt, once, and no other session.
    world.next_prompt(OTHER, "Anything new?").await;
    assert!(!World::last_asked(&world.main_model).contains("Looked into site#42"));
    world.next_prompt(MAIN, "Anything new?").await;
    let asked = World::last_asked(&world.main_model);
    assert_eq!(asked.matches("Looked into site#42").count(), 1, "{asked}");
    assert_eq!(daemon.api_get("/api/updates").await.json()["items"], json!([]));
    world.next_prompt(MAIN, "And now?").await;
    let asked = World::last_asked(&world.main_model);
    assert_eq!(asked.matches("Looked into site#42").count(), 1, "it is history now, and not told again");

    let settings = world.home().path().join(".claude/settings.json");
    assert!(settings.exists());
    world.home().spawn(ringback(), &["disconnect", "claude"]).wait(DEADLINE).await.expect_success();
    assert!(!settings.exists(), "connect made the file, disconnect takes it away");

    // None of ringback's secrets is in what the run left behind.
    let left = std::fs::read_to_string(world.home().state_dir().join(format!("runs/{id}/output.jsonl")))
        .expect("output is kept");
    let transcript =
        String::from_utf8_lossy(&world.transcript(run["session_id"].as_str().unwrap_or_default()))
            .into_owned();
    for secret in [BOT_TOKEN, "the-hook-listeners-own-secret", &daemon.token()] {
        assert!(!left.contains(secret) && !transcript.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_in_the_middle_of_the_users_turn_may_not_ping_but_critically() {
    // Three turns are in the history already: the parent's first, its open call, and what Claude Code puts after a
    // call that was cut off.
    let runs = ModelServer::start(Script::new([
        Turn::text("(the parent's)"),
        Turn::text("(the parent's)"),
        Turn::text("(the parent's)"),
        ping("Not so important"),
        Turn::tool("mcp__ringback__ping_user", json!({ "message": "The disk is full", "critical": true })),
        report("Both tried"),
        Turn::text("Done."),
    ]))
    .await;
    let Some(mut world) =
        World::new("a_fork_in_the_middle_of_the_users_turn_may_not_ping_but_critically", &runs).await
    else {
        return;
    };
    world.main_model = ModelServer::start(Script::new([
        Turn::text("I will remember."),
        // The user's turn goes on until the run is long over.
        Turn::tool(
            "Bash",
            json!({ "command": "while [ ! -e over ]; do sleep 0.1; done; echo over", "description": "wait" }),
        ),
        Turn::text("At last."),
    ]))
    .await;
    world.first_prompt(MAIN, "The word is heron.").await;
    let daemon = world.up().await;
    let busy = world.agents.claude(world.home(), &world.main_model, "Go on", &["--resume", MAIN]);
    let give_up = tokio::time::Instant::now() + DEADLINE;
    // In the middle of its call, and the call is in the transcript: what the fork copies is then always the same.
    while daemon.api_get(&format!("/api/sessions/{MAIN}")).await.json()["activity"] != "running" {
        assert!(tokio::time::Instant::now() < give_up, "the main session is busy");
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.api_get("/api/main").await.json()["busy"], true);
    let id = world.inbound.start(json!({ "message": "look", "source": "ci" })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &json!(MAIN)), "{run}");
    let messages = world.discord.wait_for(1, DEADLINE).await;
    assert_eq!(messages.iter().map(|m| m.content()).collect::<Vec<_>>(), ["[bg] The disk is full"]);
    let asked = World::last_asked(&runs);
    assert!(asked.contains("User is mid-conversation. "), "{asked}");
    let budget = daemon.api_get("/api/budget").await.json();
    assert_eq!((&budget["available"], &budget["critical_today"]), (&json!(5), &json!(1)));
    world.home().write("project/over", "");
    busy.wait(DEADLINE).await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_update_policy_asks_for_what_it_demands() {
    let test = "each_update_policy_asks_for_what_it_demands";
    if Agents::installed(test).is_none() {
        return;
    }
    // An agent that ends without a report, and does as it is told when it is asked for one.
    for (policy, turns, reported, told) in [
        ("always", vec![Turn::text("Done."), report("Asked for it"), Turn::text("Reported.")], true, None),
        ("always", vec![Turn::text("Done."), Turn::text("No.")], false, Some("completed without a report")),
        ("on_ping", vec![Turn::text("Done.")], false, None),
        (
            "on_ping",
            vec![ping("Look"), Turn::text("Done."), report("Asked for it"), Turn::text("Reported.")],
            true,
            Some("[bg] Look"),
        ),
        ("freely", vec![ping("Look"), Turn::text("Done.")], false, Some("[bg] Look")),
        ("blocked", vec![report("Not allowed"), Turn::text("Done.")], false, None),
    ] {
        let runs = ModelServer::start(Script::new(turns).otherwise(Turn::text("No more."))).await;
        let world = World::new(test, &runs).await.expect("the agents are there");
        let daemon = world.home().up(ringback()).await;
        // No main session: the run starts without history and is told so.
        let id = world
            .inbound
            .start(json!({ "message": "look", "source": "ci", "update_main_session": policy }))
            .await;
        let run = ended(&daemon, &id).await;
        assert_eq!(
            (&run["state"], &run["forked_from"]),
            (&json!("completed"), &Value::Null),
            "{policy}: {run}"
        );
        assert_eq!(run["reported"], json!(reported), "{policy}: {run}");
        let first = runs.requests().first().map(|r| r.message.text()).unwrap_or_default();
        assert!(first.contains("You have no history"), "{first}");
        assert_eq!(first.contains("mcp__ringback__report_updates"), policy != "blocked", "{policy}");
        match told {
            Some(part) => {
                let messages = world.discord.wait_for(1, DEADLINE).await;
                assert!(messages.iter().any(|m| m.content().contains(part)), "{policy}: {messages:?}");
            }
            None => assert!(world.discord.messages().is_empty(), "{policy}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_run_knows_nothing_of_the_main_session() {
    let runs = ModelServer::start(Script::new([ping("Looked"), Turn::text("Done.")])).await;
    let Some(world) = World::new("an_isolated_run_knows_nothing_of_the_main_session", &runs).await else {
        return;
    };
    world.first_prompt(MAIN, "The word is heron.").await;
    let daemon = world.up().await;
    let call = json!({ "message": "look", "source": "ci", "isolated": true, "model": "haiku", "thinking": false,
                       "update_main_session": "freely" });
    let id = world.inbound.start(call).await;
    let run = ended(&daemon, &id).await;
    assert_eq!(
        (&run["state"], &run["forked_from"], &run["isolated"]),
        (&json!("completed"), &Value::Null, &json!(true)),
        "{run}"
    );
    let first = runs.requests().first().map(|r| r.message.json()).unwrap_or_default();
    assert!(!first.to_string().contains("heron"), "{first}");
    assert!(first["model"].as_str().is_some_and(|m| m.contains("haiku")), "{first}");
    assert!(first["thinking"].is_null(), "{first}");
    assert_eq!(world.discord.wait_for(1, DEADLINE).await[0].content(), "[bg] Looked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_credentials_and_one_that_hangs_are_told_with_their_cause() {
    let runs =
        ModelServer::start(Script::new([Turn::text("too late").after(Duration::from_secs(600))])).await;
    let test = "an_agent_without_credentials_and_one_that_hangs_are_told_with_their_cause";
    let Some(world) = World::new(test, &runs).await else { return };
    world
        .inbound
        .configure_more(json!({ "runs": { "agents": { "claude": { "env": ["ANTHROPIC_BASE_URL"] } } } }));
    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "look", "source": "nightly", "isolated": true })).await;
    assert_eq!(ended(&daemon, &id).await["state"], "failed");
    let messages = world.discord.wait_for(1, DEADLINE).await;
    assert!(messages[0].content().starts_with("nightly couldn't complete.\n"), "{messages:?}");
    assert!(messages[0].content().contains("not logged in"), "{messages:?}");
    daemon.terminate().await.expect_success();

    let env = ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"];
    world
        .inbound
        .configure_more(json!({ "runs": { "timeout": "3s", "agents": { "claude": { "env": env } } } }));
    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "look", "source": "nightly", "isolated": true })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!(run["state"], "timed_out", "{run}");
    let messages = world.discord.wait_for(2, DEADLINE).await;
    assert!(messages[1].content().starts_with("nightly timed out after "), "{messages:?}");
}
