//! Flow of declared hooks: rates, concurrency, calls that become one run, what a newer run means for an older one, the
//! pause after failures, and messages without a run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringback_model::Timestamp;
use ringback_testkit::{Daemon, FakeDiscord, FakeDiscordConfig, Reply};
use serde_json::{Value, json};

use crate::hooks::{GITHUB, sign};
use crate::inbound::{Inbound, SECRET, ended};
use crate::limits::{until, works};
use crate::{DEADLINE, ringback};

/// Keeps what it is asked, and ends when the file `go` is in the home.
const WAITS: &str = "cat > \"$HOME/prompt-$RINGBACK_RUN\"; while [ -d \"$HOME\" ] && [ ! -e \"$HOME/go\" ]; do sleep 0.02; done";
/// Keeps what it is asked, and fails unless the file `go` is in the home.
const FAILS: &str = "cat > \"$HOME/prompt-$RINGBACK_RUN\"; [ -e \"$HOME/go\" ]";

const FIELDS: &str = "fields: { properties: { n: { type: integer } }, required: [n] }";

/// A hook with the listener's secret and these keys.
fn write(inbound: &Inbound, slug: &str, keys: &str) {
    let text = format!("---\nisolated: true\n{FIELDS}\n{keys}\n---\nState {{{{n}}}}.\n");
    inbound.home.write(format!(".config/ringback/hooks/{slug}.md"), text);
}

/// Calls it as a delivery of its own.
async fn call(inbound: &Inbound, slug: &str, body: &Value, delivery: &str) -> Reply {
    let bearer = format!("Bearer {SECRET}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", delivery)];
    inbound.call("POST", &format!("/hook/{slug}"), &headers, body.to_string().as_bytes()).await
}

/// The run that an accepted call is answered with.
fn run_in(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.json()), (202, json!({ "status": "accepted" })));
    reply.message.header("x-ringback-run").expect("a run's id").to_owned()
}

async fn start(inbound: &Inbound, slug: &str, n: u32) -> String {
    run_in(&call(inbound, slug, &json!({ "n": n, "pr": 1 }), &format!("{slug}-{n}")).await)
}

async fn waits(daemon: &Daemon, id: &str, reason: &str) -> Value {
    until(daemon, id, reason, |run| run["waiting"]["reason"] == reason).await
}

async fn runs(daemon: &Daemon) -> Vec<Value> {
    daemon.api_get("/api/runs").await.json()["items"].as_array().expect("a list").clone()
}

/// An instant of a run.
fn instant(run: &Value, key: &str) -> Timestamp {
    run[key].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{key}: {run}"))
}

/// What the command prints, which must succeed.
async fn cli(inbound: &Inbound, args: &[&str]) -> String {
    inbound.home.spawn(ringback(), args).wait(DEADLINE).await.expect_success().stdout()
}

/// Messages to the user go to this channel.
async fn discord(inbound: &mut Inbound) -> FakeDiscord {
    let discord = FakeDiscord::start(FakeDiscordConfig::default()).await;
    inbound.home.set_env("CHANNEL", &discord.webhook_url());
    inbound.configure_more(json!({
        "notify": [{ "type": "discord", "url_env": "CHANNEL", "api_base": discord.base_url() }],
    }));
    discord
}

/// The channel has so many messages with this part, also once another one is there that is told now.
async fn told(daemon: &Daemon, discord: &FakeDiscord, part: &str, times: usize) {
    const LAST: &str = "this is a test message";
    let count = |part: &str| discord.messages().iter().filter(|m| m.content().contains(part)).count();
    let before = count(LAST);
    assert_eq!(daemon.api_post("/api/notify/test", &json!({})).await.status, 202);
    let give_up = tokio::time::Instant::now() + DEADLINE;
    while count(LAST) == before || count(part) < times {
        assert!(tokio::time::Instant::now() < give_up, "{:?} {:?}", discord.messages(), discord.refusals());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count(part), times, "{:?}", discord.messages());
}

fn pull_request(commit: u32) -> Value {
    json!({
        "action": "synchronize",
        "number": 7,
        "pull_request": { "head": { "sha": format!("c0ffee{commit:02}") } },
        "repository": { "full_name": "octo/site" },
    })
}

/// What became of the calls of a hook, oldest first, once so many are remembered.
async fn outcomes(daemon: &Daemon, slug: &str, count: usize) -> Vec<String> {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let calls = daemon.api_get(&format!("/api/hooks/{slug}/deliveries?limit=1000")).await.json();
        let items = calls["items"].as_array().cloned().unwrap_or_default();
        if items.len() >= count {
            let outcomes = items.iter().rev().map(|call| call["outcome"].as_str().unwrap_or_default());
            return outcomes.map(str::to_owned).collect();
        }
        assert!(tokio::time::Instant::now() < give_up, "{calls}");
        // They are written beside the answers, and nobody says when.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn twenty_pushes_to_one_pull_request_make_one_run_on_the_newest_state_that_mentions_the_nineteen() {
    let mut inbound = Inbound::new("cat > \"$HOME/prompt-$RINGBACK_RUN\"", json!({}));
    inbound.home.set_env("GITHUB_WEBHOOK_SECRET", GITHUB);
    let hook = "---\nauth: { github: GITHUB_WEBHOOK_SECRET }\nisolated: true\n\
                coalesce: { key: \"{{ repository.full_name }}#{{ number }}\", quiet: 5s, max-wait: 10m }\n\
                fields: { properties: { sha: { type: string } }, required: [sha] }\n\
                map: { sha: \"{{ pull_request.head.sha }}\" }\n---\nReview {{sha}}.\n";
    inbound.home.write(".config/ringback/hooks/pr.md", hook);
    let daemon = inbound.home.up(ringback()).await;
    let push = async |commit: u32, number: u32| {
        let mut body = pull_request(commit);
        body["number"] = number.into();
        let body = body.to_string();
        let signature = sign(GITHUB, body.as_bytes());
        let delivery = format!("d-{commit}");
        let headers = [
            ("x-github-event", "pull_request"),
            ("x-github-delivery", delivery.as_str()),
            ("x-hub-signature-256", signature.as_str()),
        ];
        run_in(&inbound.call("POST", "/hook/pr", &headers, body.as_bytes()).await)
    };
    let first = push(1, 7).await;
    for commit in 2..=20 {
        assert_eq!(push(commit, 7).await, first);
    }
    let shown = waits(&daemon, &first, "quiet").await;
    assert_eq!((&shown["merged"], &shown["subject"]), (&json!(19), &json!("pr:octo/site#7")));
    let other = push(21, 8).await;
    assert_ne!(other, first, "another pull request is another run");
    let run = ended(&daemon, &first).await;
    assert_eq!((&run["state"], &run["merged"]), (&json!("completed"), &json!(19)), "{run}");
    let prompt = inbound.home.read(format!("prompt-{first}")).expect("the agent kept it");
    assert!(prompt.contains("\n  \"sha\": \"c0ffee20\"\n") && !prompt.contains("c0ffee19"), "{prompt}");
    let line = "19 earlier calls were merged into this run: the data below is that of the newest call.";
    assert!(prompt.lines().any(|l| l == line), "{prompt}");
    for commit in 1..=20 {
        assert_eq!(push(commit, 7).await, first, "a redelivery starts none");
    }
    ended(&daemon, &other).await;
    assert_eq!(runs(&daemon).await.len(), 2);
    let prompt = inbound.home.read(format!("prompt-{other}")).expect("the agent kept it");
    assert!(!prompt.contains("merged"), "{prompt}");
    let outcomes = outcomes(&daemon, "pr", 41).await;
    assert_eq!(outcomes[0], "accepted");
    assert!(outcomes[1..20].iter().all(|outcome| outcome == "merged"), "{outcomes:?}");
    assert_eq!(outcomes[20], "accepted");
    assert!(outcomes[21..].iter().all(|outcome| outcome == "repeated"), "{outcomes:?}");
}

#[tokio::test]
async fn what_is_gathered_survives_kill_9_and_becomes_exactly_one_run() {
    let inbound = Inbound::new("cat > \"$HOME/prompt-$RINGBACK_RUN\"", json!({}));
    write(&inbound, "pr", "coalesce: { key: pr, quiet: 5s }");
    let daemon = inbound.home.up(ringback()).await;
    let id = start(&inbound, "pr", 1).await;
    for n in 2..=5 {
        assert_eq!(start(&inbound, "pr", n).await, id);
    }
    let before = waits(&daemon, &id, "quiet").await;
    daemon.kill9().await;
    let daemon = inbound.home.up(ringback()).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["merged"]), (&json!("completed"), &json!(4)), "{run}");
    assert_eq!(run["ready_at"], before["ready_at"], "it started no earlier than it was to");
    assert!(instant(&run, "started_at") >= instant(&run, "ready_at"), "{run}");
    let prompt = inbound.home.read(format!("prompt-{id}")).expect("the agent kept it");
    assert!(prompt.contains("\"n\": 5\n") && prompt.contains("\n4 earlier calls were merged"), "{prompt}");
    assert_eq!(start(&inbound, "pr", 3).await, id, "its deliveries are known");
    assert_eq!(runs(&daemon).await.len(), 1);
}

#[tokio::test]
async fn no_call_is_lost_or_counted_twice_while_runs_start_between_them() {
    let inbound = Arc::new(Inbound::new("cat > /dev/null", json!({})));
    write(&inbound, "pr", "coalesce: { quiet: 10ms, max-wait: 60ms }");
    let daemon = inbound.home.up(ringback()).await;
    let calls: Vec<_> = (0..80)
        .map(|n| {
            let inbound = Arc::clone(&inbound);
            tokio::spawn(async move { start(&inbound, "pr", n).await })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for call in calls {
        ids.insert(call.await.expect("the call was answered"));
    }
    let mut stood_for = 0;
    for id in &ids {
        let run = ended(&daemon, id).await;
        assert_eq!(run["state"], "completed", "{run}");
        stood_for += 1 + run["merged"].as_u64().expect("a number");
    }
    assert_eq!((stood_for, runs(&daemon).await.len()), (80, ids.len()));
}

#[tokio::test]
async fn calls_that_the_key_tells_nothing_about_stand_alone_and_gathering_ones_hold_nobody_up() {
    let inbound = Inbound::new("cat > \"$HOME/prompt-$RINGBACK_RUN\"", json!({ "max_concurrent": 1 }));
    write(&inbound, "pr", "coalesce: { key: pr, quiet: 20h, max-wait: 24h }");
    let daemon = inbound.home.up(ringback()).await;
    let gathers = start(&inbound, "pr", 1).await;
    for n in 2..=3 {
        let alone = call(&inbound, "pr", &json!({ "n": n }), &format!("alone-{n}")).await;
        assert_eq!(ended(&daemon, &run_in(&alone)).await["state"], "completed");
    }
    waits(&daemon, &gathers, "quiet").await;
    let listed = cli(&inbound, &["runs"]).await;
    assert!(listed.contains("gathers further calls until"), "{listed}");
}

#[tokio::test]
async fn with_on_newer_queue_two_runs_about_the_same_never_work_at_once() {
    let inbound = Inbound::new(WAITS, json!({}));
    write(&inbound, "pr", "on-newer: queue");
    write(&inbound, "free", "thinking: true");
    let daemon = inbound.home.up(ringback()).await;
    let (first, second) = (start(&inbound, "pr", 1).await, start(&inbound, "pr", 2).await);
    let third = start(&inbound, "pr", 3).await;
    works(&daemon, &first).await;
    for n in 1..=2 {
        let free = start(&inbound, "free", n).await;
        works(&daemon, &free).await;
    }
    for id in [&second, &third] {
        assert_eq!(waits(&daemon, id, "older_run").await["state"], "queued");
    }
    inbound.home.write("go", "");
    let [first, second, third] =
        [ended(&daemon, &first).await, ended(&daemon, &second).await, ended(&daemon, &third).await];
    assert!(instant(&second, "started_at") >= instant(&first, "ended_at"), "{first} {second}");
    assert!(instant(&third, "started_at") >= instant(&second, "ended_at"), "{second} {third}");
    assert_eq!([&first["merged"], &second["merged"], &third["merged"]], [&json!(0); 3]);
}

#[tokio::test]
async fn with_on_newer_replace_the_newest_takes_the_place_of_those_that_have_not_started() {
    let inbound = Inbound::new(WAITS, json!({}));
    write(&inbound, "pr", "on_newer: replace");
    let daemon = inbound.home.up(ringback()).await;
    let first = start(&inbound, "pr", 1).await;
    works(&daemon, &first).await;
    let (second, third) = (start(&inbound, "pr", 2).await, start(&inbound, "pr", 3).await);
    let last = start(&inbound, "pr", 4).await;
    for (older, newer) in [(&second, &third), (&third, &last)] {
        let older = ended(&daemon, older).await;
        assert_eq!((&older["state"], &older["superseded_by"]), (&json!("superseded"), &json!(newer)));
    }
    assert_eq!(waits(&daemon, &last, "older_run").await["merged"], 2);
    inbound.home.write("go", "");
    assert_eq!(ended(&daemon, &first).await["state"], "completed");
    assert_eq!(ended(&daemon, &last).await["state"], "completed");
    let prompt = inbound.home.read(format!("prompt-{last}")).expect("the agent kept it");
    assert!(prompt.contains("\"n\": 4\n") && prompt.contains("\n2 earlier calls were merged"), "{prompt}");
}

#[tokio::test]
async fn with_on_newer_cancel_the_one_that_works_is_ended_as_superseded_and_not_told_as_a_failure() {
    let mut inbound = Inbound::new(WAITS, json!({}));
    let discord = discord(&mut inbound).await;
    write(&inbound, "pr", "on_newer: cancel");
    let daemon = inbound.home.up(ringback()).await;
    let first = start(&inbound, "pr", 1).await;
    works(&daemon, &first).await;
    let second = start(&inbound, "pr", 2).await;
    let run = ended(&daemon, &first).await;
    assert_eq!((&run["state"], &run["error"]), (&json!("superseded"), &Value::Null), "{run}");
    assert_eq!(run["superseded_by"], second.as_str());
    works(&daemon, &second).await;
    inbound.home.write("go", "");
    assert_eq!(ended(&daemon, &second).await["state"], "completed");
    told(&daemon, &discord, "pr couldn't complete", 0).await;
    assert_eq!(daemon.api_get("/api/hooks").await.json()["items"][0]["failed_in_a_row"], 0);
}

#[tokio::test]
async fn after_kill_9_what_was_being_ended_for_a_newer_run_is_superseded_and_not_run_again() {
    let script =
        "trap '' TERM; cat > /dev/null; while [ -d \"$HOME\" ] && [ ! -e \"$HOME/go\" ]; do sleep 0.02; done";
    let mut inbound = Inbound::new(script, json!({ "retry": true }));
    let discord = discord(&mut inbound).await;
    write(&inbound, "pr", "on_newer: cancel");
    let daemon = inbound.home.up(ringback()).await;
    let first = start(&inbound, "pr", 1).await;
    works(&daemon, &first).await;
    let second = start(&inbound, "pr", 2).await;
    daemon.kill9().await;
    inbound.home.write("go", "");
    let daemon = inbound.home.up(ringback()).await;
    assert_eq!(ended(&daemon, &first).await["state"], "superseded");
    assert_eq!(ended(&daemon, &second).await["state"], "completed");
    assert_eq!(runs(&daemon).await.len(), 2);
    told(&daemon, &discord, "pr couldn't complete", 0).await;
}

#[tokio::test]
async fn rate_and_concurrency_of_a_hook_follow_its_file() {
    let inbound = Inbound::new(WAITS, json!({}));
    write(&inbound, "a", "rate: 3/h\nconcurrency: 1");
    write(&inbound, "b", "thinking: true");
    let daemon = inbound.home.up(ringback()).await;
    let (first, second) = (start(&inbound, "a", 1).await, start(&inbound, "a", 2).await);
    works(&daemon, &first).await;
    let wait = waits(&daemon, &second, "concurrency").await;
    assert_eq!(wait["waiting"]["limit"], 1);
    let free = start(&inbound, "b", 1).await;
    works(&daemon, &free).await;
    // What is refused counts for nothing.
    assert_eq!(call(&inbound, "a", &json!({}), "x").await.status, 400);
    start(&inbound, "a", 3).await;
    let over = call(&inbound, "a", &json!({ "n": 4 }), "a-4").await;
    assert_eq!((over.status, over.json()), (429, json!({ "error": "too many requests" })));
    let wait: u64 = over.message.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(call(&inbound, "a", &json!({}), "x").await.status, 429, "before the payload is looked at");
    start(&inbound, "b", 2).await;

    // An edit applies to what waits and to what comes, and forgets nothing of what was counted.
    write(&inbound, "a", "rate: 4/h\nconcurrency: 2");
    works(&daemon, &second).await;
    start(&inbound, "a", 4).await;
    assert_eq!(call(&inbound, "a", &json!({ "n": 5 }), "a-5").await.status, 429);
}

#[tokio::test]
async fn a_hook_pauses_itself_after_three_failed_runs_in_a_row_and_says_so_once() {
    let mut inbound = Inbound::new(FAILS, json!({}));
    let discord = discord(&mut inbound).await;
    write(&inbound, "ci", "concurrency: 1");
    write(&inbound, "other", "thinking: true");
    let daemon = inbound.home.up(ringback()).await;
    let fails = async |daemon: &Daemon, n: u32| {
        let id = start(&inbound, "ci", n).await;
        assert_eq!(ended(daemon, &id).await["state"], "failed");
    };
    let row = async |daemon: &Daemon| daemon.api_get("/api/hooks").await.json()["items"][0].clone();
    fails(&daemon, 1).await;
    fails(&daemon, 2).await;
    inbound.home.write("go", "");
    let good = start(&inbound, "ci", 3).await;
    assert_eq!(ended(&daemon, &good).await["state"], "completed");
    std::fs::remove_file(inbound.home.path().join("go")).expect("it is there");
    for n in 4..=6 {
        assert_eq!(row(&daemon).await["paused_at"], Value::Null);
        fails(&daemon, n).await;
    }
    let paused = row(&daemon).await;
    assert!(paused["paused_at"].is_string() && paused["failed_in_a_row"] == 3, "{paused}");
    let why = paused["paused_because"].as_str().expect("a reason");
    assert!(why.starts_with("3 failed runs in a row; the last: "), "{why}");
    // Its calls are accepted and wait; others go on.
    let waiting = start(&inbound, "ci", 7).await;
    assert_eq!(waits(&daemon, &waiting, "hook_paused").await["waiting"]["hook"], "ci");
    let other = start(&inbound, "other", 1).await;
    assert_eq!(ended(&daemon, &other).await["state"], "failed");
    let part = "ci is paused after 3 failed runs in a row";
    told(&daemon, &discord, part, 1).await;

    // Also after a restart.
    daemon.kill9().await;
    let daemon = inbound.home.up(ringback()).await;
    waits(&daemon, &waiting, "hook_paused").await;
    assert_eq!(row(&daemon).await["paused_at"], paused["paused_at"]);
    let listed = cli(&inbound, &["hooks"]).await;
    assert!(listed.contains("PAUSED since") && listed.contains("ringback hooks resume ci"), "{listed}");
    told(&daemon, &discord, part, 1).await;
    let resume = async || cli(&inbound, &["hooks", "resume", "ci"]).await;
    inbound.home.write("go", "");
    assert_eq!(resume().await, "ci goes on\n");
    assert_eq!(ended(&daemon, &waiting).await["state"], "completed");
    assert_eq!(resume().await, "ci was not paused\n");
    assert_eq!(row(&daemon).await["paused_at"], Value::Null);
    assert_eq!(daemon.api_post("/api/hooks/nobody/resume", &json!({})).await.status, 404);
    let by_nobody = daemon.raw("POST", "/api/hooks/ci/resume", &[], b"").await;
    assert_eq!(by_nobody.status, 401);
}

#[tokio::test]
async fn a_paused_hook_goes_on_when_its_file_is_edited_and_cannot_fill_the_queue() {
    let inbound = Inbound::new(FAILS, json!({ "max_queued": 102 }));
    write(&inbound, "ci", "concurrency: 1");
    write(&inbound, "other", "thinking: true");
    let daemon = inbound.home.up(ringback()).await;
    for n in 1..=3 {
        let id = start(&inbound, "ci", n).await;
        ended(&daemon, &id).await;
    }
    let first = start(&inbound, "ci", 4).await;
    for n in 5..=103 {
        start(&inbound, "ci", n).await;
    }
    let over = call(&inbound, "ci", &json!({ "n": 104 }), "ci-104").await;
    assert_eq!(over.status, 429);
    assert!(over.message.header("retry-after").is_some());
    assert_eq!(start(&inbound, "ci", 4).await, first, "a redelivery is answered as before");
    let other = start(&inbound, "other", 1).await;
    ended(&daemon, &other).await;
    waits(&daemon, &first, "hook_paused").await;
    // Not by a file that cannot be read, and also while nobody looks.
    inbound.home.write(".config/ringback/hooks/ci.md", "---\nnonsense");
    daemon.wait_for_line("ci.md: ", DEADLINE).await;
    waits(&daemon, &first, "hook_paused").await;
    daemon.terminate().await.expect_success();
    write(&inbound, "ci", "concurrency: 2");
    inbound.home.write("go", "");
    let daemon = inbound.home.up(ringback()).await;
    assert_eq!(ended(&daemon, &first).await["state"], "completed");
}

#[tokio::test]
async fn deliver_only_tells_the_user_once_per_call_without_a_run_an_agent_or_money() {
    let mut inbound = Inbound::new("exit 1", json!({ "daily_cost_usd": 1.0, "max_cost_usd": 1.0 }));
    let discord = discord(&mut inbound).await;
    let hook = "---\ndeliver-only: true\nrate: 3/h\n\
                fields: { properties: { who: { type: string }, n: { type: integer } }, required: [who, n] }\n\
                ---\nDeploy {{n}} by {{who}} is done.\n";
    inbound.home.write(".config/ringback/hooks/deploy.md", hook);
    std::fs::remove_file(inbound.home.path().join("agent.sh")).expect("it is there");
    let daemon = inbound.home.up(ringback()).await;
    let tell = async |n: u32, who: &str| {
        call(&inbound, "deploy", &json!({ "who": who, "n": n }), &format!("deploy-{n}")).await
    };
    for _ in 0..2 {
        let reply = tell(1, "eve\n@everyone \u{202e}look").await;
        assert_eq!((reply.status, reply.json()), (202, json!({ "status": "accepted" })));
        assert_eq!(reply.message.header("x-ringback-run"), None);
    }
    told(&daemon, &discord, "Deploy 1 by eve", 1).await;
    let messages = discord.messages();
    let message = messages.iter().find(|m| m.content().contains("Deploy 1")).expect("it was told");
    assert!(message.content().contains("\\u202elook is done."), "{}", message.content());
    assert!(!message.content().contains("eve\n"), "{}", message.content());
    assert!(discord.refusals().is_empty(), "{:?}", discord.refusals());
    // What does not fit tells nothing and counts for nothing; what fits is bound by the rate.
    assert_eq!(call(&inbound, "deploy", &json!({ "n": 2 }), "deploy-2").await.status, 400);
    assert_eq!(tell(2, "bob").await.status, 202);
    assert_eq!(tell(3, "bob").await.status, 429);
    told(&daemon, &discord, "Deploy", 2).await;
    assert!(runs(&daemon).await.is_empty());
    let outcomes = outcomes(&daemon, "deploy", 5).await;
    assert_eq!(outcomes, ["told", "repeated", "refused", "told", "refused"]);
    // Its deliveries are known after a crash.
    daemon.kill9().await;
    let daemon = inbound.home.up(ringback()).await;
    assert_eq!(tell(1, "eve").await.status, 202);
    told(&daemon, &discord, "Deploy", 2).await;
}
