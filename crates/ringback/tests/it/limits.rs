//! inbound.md, "Limits": turns and money of a run, the day's money, rates and concurrency, and running once more.

use std::time::Duration;

use ringback_testkit::{Agents, Daemon, Home, ModelServer, Script, Turn};
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

/// What Claude Code writes at the end of a turn.
const RESULT: &str =
    r#"{"type":"result","subtype":"success","is_error":false,"num_turns":1,"total_cost_usd":COST}"#;

/// A script that speaks as Claude Code does: waits for the file `go` in the home, then says what it cost.
fn costs(usd: &str) -> String {
    let result = RESULT.replace("COST", usd);
    format!(
        "read -r prompt\nwhile [ -d \"$HOME\" ] && [ ! -e \"$HOME/go\" ]; do sleep 0.02; done\necho '{result}'\ncat > /dev/null"
    )
}

/// Its configuration, with further keys of `[runs]`.
fn as_claude(script: &str, more: Value) -> Inbound {
    let inbound = Inbound::new(script, json!({}));
    inbound.configure(json!({ "runs": { "agents": { "fake": { "adapter": "claude" } } } }));
    inbound.configure_more(json!({ "runs": more }));
    inbound
}

async fn run_of(daemon: &Daemon, id: &str) -> Value {
    daemon.api_get(&format!("/api/runs/{id}")).await.json()
}

/// A run, once it is so.
pub(crate) async fn until(daemon: &Daemon, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let run = run_of(daemon, id).await;
        if is_so(&run) {
            return run;
        }
        assert!(tokio::time::Instant::now() < give_up, "waited for {what}: {run}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn works(daemon: &Daemon, id: &str) {
    until(daemon, id, "the run to work", |run| run["state"] == "working").await;
}

async fn cli(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let ended = home.spawn(ringback(), args).wait(DEADLINE).await;
    (ended.code, ended.stdout(), ended.stderr())
}

/// A zone in which it is between noon and one now: no test crosses midnight, and midnight is 11 to 12 hours away.
fn noon() -> String {
    #[expect(clippy::disallowed_methods, reason = "the daemon's clock is the real one")]
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
    let hour = i64::try_from(now.as_secs() / 3600 % 24).expect("it is below 24");
    format!("NOON{}", hour - 12)
}

#[tokio::test]
async fn what_exceeds_the_days_money_stays_queued_and_says_why_and_new_calls_get_429_until_midnight() {
    let limits = json!({ "max_cost_usd": 1.0, "daily_cost_usd": 2.0, "max_concurrent": 1 });
    let mut inbound = as_claude(&costs("1.5"), limits);
    inbound.home.set_env("TZ", &noon());
    let daemon = inbound.home.up(ringback()).await;
    let first = inbound.start(json!({ "message": "one" })).await;
    works(&daemon, &first).await;
    let second = inbound.start(json!({ "message": "two", "source": "ci" })).await;
    inbound.home.write("go", "");
    let run = ended(&daemon, &first).await;
    assert_eq!((&run["state"], &run["cost_usd"]), (&json!("completed"), &json!(1.5)), "{run}");

    // 0.5 are left, and a run reserves 1.
    let waits = until(&daemon, &second, "the wait", |run| run["waiting"]["reason"] == "daily_cost_usd").await;
    assert_eq!((&waits["state"], &waits["waiting"]["spent"]), (&json!("queued"), &json!(1.5)), "{waits}");
    let refused = inbound.post(r#"{"message":"three"}"#).await;
    assert_eq!((refused.status, refused.json()), (429, json!({ "error": "too many requests" })));
    let wait: u64 = refused.message.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((11 * 3600 - 60..=12 * 3600).contains(&wait), "{wait}");
    let (code, listed, _) = cli(&inbound.home, &["runs", "list"]).await;
    assert!(code == Some(0) && listed.contains("waits for money until"), "{listed}");
    let (_, shown, _) = cli(&inbound.home, &["runs", "show", &second]).await;
    assert!(shown.contains("waiting") && shown.contains("max_cost_usd  1"), "{shown}");

    // A restart forgets nothing of it; a larger day lets it run.
    daemon.kill9().await;
    let daemon = inbound.home.up(ringback()).await;
    until(&daemon, &second, "the wait", |run| run["waiting"]["reason"] == "daily_cost_usd").await;
    assert_eq!(inbound.post(r#"{"message":"three"}"#).await.status, 429);
    daemon.terminate().await.expect_success();
    inbound.configure_more(json!({ "runs": { "daily_cost_usd": 0 } }));
    let daemon = inbound.home.up(ringback()).await;
    assert_eq!(ended(&daemon, &second).await["state"], "completed");
    assert_eq!(inbound.post(r#"{"message":"three"}"#).await.status, 202, "0 = none");
}

#[tokio::test]
async fn a_run_that_kill_9_interrupts_counts_as_the_maximum_it_had_reserved() {
    let limits = json!({ "max_cost_usd": 1.5, "daily_cost_usd": 2.0 });
    let mut inbound = as_claude("read -r prompt\nexec sleep 600", limits);
    inbound.home.set_env("TZ", &noon());
    let daemon = inbound.home.up(ringback()).await;
    let id = inbound.start(json!({ "message": "one" })).await;
    works(&daemon, &id).await;
    assert_eq!(run_of(&daemon, &id).await["charged_usd"], 1.5);
    assert_eq!(inbound.post(r#"{"message":"two"}"#).await.status, 429);
    daemon.kill9().await;
    let daemon = inbound.home.up(ringback()).await;
    let run = ended(&daemon, &id).await;
    assert_eq!(
        (&run["state"], &run["cost_usd"], &run["charged_usd"]),
        (&json!("interrupted"), &Value::Null, &json!(1.5)),
        "{run}"
    );
    assert_eq!(inbound.post(r#"{"message":"two"}"#).await.status, 429);
}

#[tokio::test]
async fn a_repeated_call_is_answered_although_the_days_money_is_spent() {
    let inbound = as_claude(&costs("1"), json!({ "max_cost_usd": 1.0, "daily_cost_usd": 1.0 }));
    inbound.home.write("go", "");
    let daemon = inbound.home.up(ringback()).await;
    let bearer = "Bearer the-hook-listeners-own-secret";
    let headers = [("authorization", bearer), ("idempotency-key", "k")];
    let call = async || inbound.call("POST", "/hook/agent", &headers, br#"{"message":"one"}"#).await;
    let first = call().await;
    let id = first.message.header("x-ringback-run").expect("a run's id").to_owned();
    ended(&daemon, &id).await;
    assert_eq!(inbound.post(r#"{"message":"two"}"#).await.status, 429);
    let again = call().await;
    assert_eq!((again.status, again.message.header("x-ringback-run")), (202, Some(id.as_str())));
}

#[tokio::test]
async fn a_sources_excess_stays_queued_while_others_go_on_and_rates_refuse() {
    let script = "cat > /dev/null; while [ -d \"$HOME\" ] && [ ! -e \"$HOME/go\" ]; do sleep 0.02; done";
    let inbound = Inbound::new(script, json!({ "max_concurrent": 3 }));
    inbound.configure_more(json!({ "inbound": {
        "rate": "5/h",
        "sources": { "ci": { "concurrency": 1 }, "cron": { "rate": "1/h" } },
    } }));
    let daemon = inbound.home.up(ringback()).await;
    let (first, second) = (
        inbound.start(json!({ "message": "a", "source": "ci" })).await,
        inbound.start(json!({ "message": "b", "source": "ci" })).await,
    );
    let other = inbound.start(json!({ "message": "c" })).await;
    works(&daemon, &first).await;
    works(&daemon, &other).await;
    let waits = run_of(&daemon, &second).await;
    assert_eq!((&waits["state"], &waits["waiting"]["reason"]), (&json!("queued"), &json!("concurrency")));

    // Only accepted calls count.
    for _ in 0..9 {
        assert_eq!(inbound.post("{}").await.status, 400);
    }
    let cron = r#"{"message":"d","source":"cron"}"#;
    assert_eq!(inbound.post(cron).await.status, 202);
    let over = async |body: &str| {
        let refused = inbound.post(body).await;
        assert_eq!((refused.status, refused.json()), (429, json!({ "error": "too many requests" })));
        let wait: u64 = refused.message.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
        assert!((1..=3600).contains(&wait), "{wait}");
    };
    over(cron).await;
    assert_eq!(inbound.post(r#"{"message":"e"}"#).await.status, 202);
    over(r#"{"message":"f"}"#).await;
    inbound.home.write("go", "");
    assert_eq!(ended(&daemon, &second).await["state"], "completed");
}

#[tokio::test]
async fn a_run_that_has_ended_can_be_started_again_and_refers_to_the_first() {
    let inbound = Inbound::new("cat > /dev/null; [ -e \"$HOME/go\" ]", json!({}));
    let daemon = inbound.home.up(ringback()).await;
    let id = inbound.start(json!({ "message": "look", "source": "ci", "thinking": false })).await;
    assert_eq!(ended(&daemon, &id).await["state"], "failed");
    inbound.home.write("go", "");
    let (code, out, _) = cli(&inbound.home, &["runs", "retry", &id, "--json"]).await;
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["retry_of"]), (Some(0), &json!(id)), "{out}");
    let again = ended(&daemon, answer["id"].as_str().expect("an id")).await;
    for (key, value) in [("state", "completed"), ("retry_of", &*id), ("message", "look"), ("source", "ci")] {
        assert_eq!(again[key], value, "{again}");
    }
    let (code, out, _) = cli(&inbound.home, &["runs", "retry", &id]).await;
    assert!(code == Some(0) && out.starts_with("queued again as "), "{out}");

    // One that goes on cannot be.
    inbound.home.write("agent.sh", "#!/bin/sh\ncat > /dev/null\nexec sleep 600\n");
    let id = inbound.start(json!({ "message": "long" })).await;
    works(&daemon, &id).await;
    assert_eq!(daemon.api_post(&format!("/api/runs/{id}/retry"), &json!({})).await.status, 409);
    let (code, _, err) = cli(&inbound.home, &["runs", "retry", &id]).await;
    assert!(code == Some(1) && err.contains("only one that has ended can be retried"), "{err}");
    assert_eq!(daemon.api_post("/api/runs/nonsense/retry", &json!({})).await.status, 404);
}

#[tokio::test]
async fn after_kill_9_a_run_runs_again_only_with_retry_and_only_once() {
    for (retry, runs) in [(false, 1), (true, 2)] {
        let inbound = Inbound::new("cat > /dev/null\nexec sleep 600", json!({ "retry": retry }));
        let daemon = inbound.home.up(ringback()).await;
        let id = inbound.start(json!({ "message": "look" })).await;
        works(&daemon, &id).await;
        daemon.kill9().await;
        let listed = async |daemon: &Daemon| daemon.api_get("/api/runs").await.json()["items"].clone();
        let daemon = inbound.home.up(ringback()).await;
        assert_eq!(ended(&daemon, &id).await["state"], "interrupted");
        if retry {
            let again = listed(&daemon).await[0]["id"].as_str().expect("an id").to_owned();
            assert_eq!(run_of(&daemon, &again).await["retry_of"], id.as_str());
            works(&daemon, &again).await;
            daemon.kill9().await;
            let daemon = inbound.home.up(ringback()).await;
            assert_eq!(ended(&daemon, &again).await["state"], "interrupted");
            assert_eq!(listed(&daemon).await.as_array().map(Vec::len), Some(runs));
        } else {
            assert_eq!(listed(&daemon).await.as_array().map(Vec::len), Some(runs));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_turns_and_max_cost_stop_a_real_run_and_the_user_is_told_which_it_was() {
    let Some(agents) =
        Agents::installed("max_turns_and_max_cost_stop_a_real_run_and_the_user_is_told_which_it_was")
    else {
        return;
    };
    let mut inbound = Inbound::new("true", json!({}));
    let readme = inbound.home.project().join("README.md");
    let endless = Script::new([]).otherwise(Turn::tool("Read", json!({ "file_path": readme })));
    let model = ModelServer::start(endless).await;
    let env = [
        ("ANTHROPIC_BASE_URL", model.url()),
        ("ANTHROPIC_API_KEY", "dummy".to_owned()),
        ("DISABLE_TELEMETRY", "1".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
    ];
    for (name, value) in &env {
        inbound.home.set_env(name, value);
    }
    for (limits, cause) in [
        (json!({ "max_turns": 3, "max_cost_usd": 0 }), "claude: reached max_turns = 3"),
        (json!({ "max_turns": 0, "max_cost_usd": 0.02 }), "claude: reached max_cost_usd = 0.02"),
    ] {
        let claude =
            json!({ "command": [agents.claude_path()], "env": env.each_ref().map(|(name, _)| name) });
        inbound.configure(json!({ "runs": { "agent": "claude", "agents": { "claude": claude } } }));
        inbound.configure_more(json!({ "runs": limits }));
        let daemon = inbound.home.up(ringback()).await;
        let id = inbound.start(json!({ "message": "x", "source": "ci", "isolated": true })).await;
        let run = ended(&daemon, &id).await;
        assert_eq!((&run["state"], &run["error"]), (&json!("failed"), &json!(cause)), "{run}");
        daemon.wait_for_line("ci couldn't complete.", DEADLINE).await;
        daemon.wait_for_line(cause, DEADLINE).await;
        daemon.terminate().await.expect_success();
    }
}
