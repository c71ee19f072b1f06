//! The inbound half with a real agent of the Agent Client Protocol: `opencode acp`.

use ringback_testkit::{Agents, FakeDiscord, FakeDiscordConfig, Home, ModelServer, Script, Turn};
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

const BOT_TOKEN: &str = "bot-token-of-the-test";
const SWITCHES: [&str; 2] = ["OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_AUTOUPDATE"];

/// A home whose runs are of the real OpenCode, against a scripted model.
struct World {
    inbound: Inbound,
    discord: FakeDiscord,
    opencode: std::path::PathBuf,
}

impl World {
    async fn new(test: &str, model: &ModelServer) -> Option<World> {
        let opencode = Agents::installed(test)?.opencode_path(test)?;
        let mut inbound = Inbound::new("true", json!({}));
        let config = FakeDiscordConfig { token: BOT_TOKEN.to_owned(), ..FakeDiscordConfig::default() };
        let discord = FakeDiscord::start(config).await;
        inbound.home.set_env("DISCORD_TOKEN", BOT_TOKEN);
        for switch in SWITCHES {
            inbound.home.set_env(switch, "1");
        }
        inbound.configure(json!({
            "runs": { "agent": "opencode", "agents": { "opencode": {
                "adapter": "acp", "command": [opencode, "acp"], "env": SWITCHES } } },
            "notify": [{ "type": "discord", "token_env": "DISCORD_TOKEN", "user_id": FakeDiscordConfig::default().user_id,
                         "api_base": discord.base_url() }],
        }));
        let world = World { inbound, discord, opencode };
        world.talk_to(model);
        Some(world)
    }

    fn home(&self) -> &Home {
        &self.inbound.home
    }

    /// Makes OpenCode talk to this model, and ask before it changes or runs anything.
    fn talk_to(&self, model: &ModelServer) {
        let config = json!({
            "model": "scripted/model-1", "small_model": "scripted/model-1", "autoupdate": false,
            "permission": { "bash": "ask", "edit": "ask" },
            "provider": { "scripted": {
                "npm": "@ai-sdk/anthropic",
                "options": { "baseURL": format!("{}/v1", model.url()), "apiKey": "dummy" },
                "models": { "model-1": { "tool_call": true, "limit": { "context": 128_000, "output": 8192 } } },
            } },
        });
        self.home().write(".config/opencode/opencode.json", config.to_string());
    }

    /// What OpenCode keeps of a session.
    async fn export(&self, session: &str) -> String {
        let exported = self.home().spawn(&self.opencode, &["export", session]).wait(DEADLINE).await;
        exported.expect_success().stdout().to_owned()
    }
}

fn ping(message: &str) -> Turn {
    Turn::tool("ringback_ping_user", json!({ "message": message }))
}

fn report(message: &str) -> Turn {
    Turn::tool("ringback_report_updates", json!({ "message": message }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acp_agent_pings_the_user_and_is_asked_for_the_report_it_owes() {
    let runs = ModelServer::start(Script::new([
        ping("The build is red"),
        Turn::text("Done."),
        report("Looked into site#42"),
        Turn::text("Reported."),
    ]))
    .await;
    let test = "an_acp_agent_pings_the_user_and_is_asked_for_the_report_it_owes";
    let Some(world) = World::new(test, &runs).await else { return };
    let daemon = world.home().up(ringback()).await;
    let id = world.inbound.start(json!({ "message": "CI build failed for site#42", "isolated": true })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &Value::Null), "{run}");
    assert_eq!((&run["pinged"], &run["reported"]), (&json!(true), &json!(true)), "{run}");
    assert!(run["session_id"].as_str().is_some_and(|id| id.starts_with("ses_")), "{run}");
    let messages = world.discord.wait_for(1, DEADLINE).await;
    assert_eq!(messages.iter().map(|m| m.content()).collect::<Vec<_>>(), ["[bg] The build is red"]);
    let updates = daemon.api_get("/api/updates").await.json();
    assert!(updates.to_string().contains("Looked into site#42"), "{updates}");
    let output = world.home().state_dir().join(format!("runs/{id}/output.jsonl"));
    let output = std::fs::read_to_string(output).expect("output is kept");
    assert!(output.contains("end_turn") && !output.contains(&daemon.token()), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_forks_the_pinned_session_of_an_acp_agent_which_stays_as_it_is() {
    let main = ModelServer::start(Script::new([Turn::text("I will remember the heron.")])).await;
    let test = "a_call_forks_the_pinned_session_of_an_acp_agent_which_stays_as_it_is";
    let Some(world) = World::new(test, &main).await else { return };
    let args = ["run", "--format", "json", "The word is heron."];
    let said = world.home().spawn(&world.opencode, &args).wait(DEADLINE).await.expect_success();
    let first = said.stdout().lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let session = first.and_then(|e| e["sessionID"].as_str().map(str::to_owned)).expect("a session");
    let before = world.export(&session).await;
    // Turn 0 is the parent's.
    let runs = ModelServer::start(Script::new([Turn::text("(the parent's)"), Turn::text("Done.")])).await;
    world.talk_to(&runs);
    let daemon = world.home().up(ringback()).await;
    daemon.api_put("/api/main", &json!({ "session_id": session })).await;
    let id = world.inbound.start(json!({ "message": "look", "source": "ci" })).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["forked_from"]), (&json!("completed"), &json!(session)), "{run}");
    assert_ne!(run["session_id"], json!(session));
    let asked: Vec<String> = runs.requests().iter().map(|r| r.message.text()).collect();
    assert!(
        asked.iter().any(|a| a.contains("The word is heron.") && a.contains("[webhook:ci] ")),
        "{asked:?}"
    );
    assert_eq!(world.export(&session).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_the_list_of_an_acp_agent_lacks_is_refused_and_one_that_it_has_is_not() {
    let script = || {
        Script::new([
            Turn::tool("bash", json!({ "command": "touch mark", "description": "mark" })),
            Turn::text("Done."),
        ])
    };
    let runs = ModelServer::start(script()).await;
    let test = "a_tool_that_the_list_of_an_acp_agent_lacks_is_refused_and_one_that_it_has_is_not";
    let Some(world) = World::new(test, &runs).await else { return };
    let more = json!({ "adapter": "acp", "command": [world.opencode, "acp"], "env": SWITCHES, "allowed_tools": ["Bash"] });
    let gone = json!({ "adapter": "acp", "command": ["/nowhere/agent"] });
    world.inbound.configure_more(json!({ "runs": { "agents": { "with-bash": more, "gone": gone } } }));
    let daemon = world.home().up(ringback()).await;
    let absent = world.inbound.post(&json!({ "message": "look", "agent": "gone" }).to_string()).await;
    assert_eq!((absent.status, absent.json()), (503, json!({ "error": "agent not available: gone" })));
    for (agent, is_made) in [("opencode", false), ("with-bash", true)] {
        let id = world.inbound.start(json!({ "message": "look", "isolated": true, "agent": agent })).await;
        let run = ended(&daemon, &id).await;
        assert_eq!(run["state"], "completed", "{run}");
        assert_eq!(world.home().project().join("mark").exists(), is_made, "{agent}");
    }
    let id = world.inbound.start(json!({ "message": "look", "isolated": true, "model": "no/such" })).await;
    let run = ended(&daemon, &id).await;
    let why = "opencode: invalid model: no/such; the agent does not offer it";
    assert_eq!((&run["state"], &run["error"]), (&json!("failed"), &json!(why)), "{run}");
}
