//! outbound.md, Config entry: the file is watched, and a change applies to what is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringback_testkit::{Answer, Daemon, Home, Receiver};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::crash::Random;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

fn configure(home: &Home, webhooks: Value) {
    home.write_config(&settings(webhooks));
}

fn settings(webhooks: Value) -> String {
    json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks }).to_string()
}

/// The rows of `GET /api/webhooks`, once they are as wanted.
async fn rows_when(daemon: &Daemon, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let rows =
            daemon.api_get("/api/webhooks").await.json()["items"].as_array().cloned().unwrap_or_default();
        if wanted(&rows) {
            return rows;
        }
        assert!(Instant::now() < give_up, "the configuration is not in force: {rows:?}");
        tokio::task::yield_now().await;
    }
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["name"].as_str()).collect()
}

/// The states of an endpoint's deliveries, oldest first, once none is pending.
async fn states(daemon: &Daemon, endpoint: &str) -> Vec<String> {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let page = daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}&limit=1000")).await.json();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let states: Vec<String> =
            items.iter().rev().filter_map(|d| d["state"].as_str().map(str::to_owned)).collect();
        if !states.is_empty() && !states.iter().any(|s| s == "pending") {
            return states;
        }
        assert!(Instant::now() < give_up, "still pending at {endpoint}: {states:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_entry_that_is_added_gets_what_happens_from_then_on_and_the_others_miss_nothing() {
    let home = Home::new();
    let (first, second) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(200)).await);
    configure(&home, json!([{ "name": "first", "url": first.url("/") }]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-add");
    session.prompt("go");
    session.tool("t1", "Bash");
    first.wait_for(1, DEADLINE).await;

    configure(
        &home,
        json!([{ "name": "second", "url": second.url("/") }, { "name": "first", "url": first.url("/") }]),
    );
    let rows = rows_when(&daemon, |rows| rows.len() == 2).await;
    assert_eq!(names(&rows), ["second", "first"]);
    session.result("t1");
    session.end("done");
    let got = second.wait_for(2, DEADLINE).await;
    let sequences: BTreeSet<u64> = got.iter().map(sequence).collect();
    assert_eq!(sequences, [2, 3].into());
    first.wait_for(3, DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn without_a_file_the_first_one_that_is_written_is_taken_in() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(&settings(json!([])));
    fs::remove_file(home.config_path()).expect("it was just written");
    let daemon = home.up(ringback()).await;
    configure(&home, json!([{ "name": "new", "url": receiver.url("/") }]));
    rows_when(&daemon, |rows| names(rows) == ["new"]).await;
    assert_eq!(daemon.api_post("/api/webhooks/new/test", &json!({})).await.status, 202);
    receiver.wait_for(1, DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_removed_entry_s_pending_deliveries_are_cancelled_and_a_disabled_one_s_are_dead() {
    let home = Home::new();
    let down = Receiver::always(Answer::Status(500)).await;
    let entry = |name: &str, enabled: bool| json!({ "name": name, "url": down.url("/"), "backoff": ["1h"], "enabled": enabled });
    configure(&home, json!([entry("goes", true), entry("rests", true)]));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-remove");
    session.prompt("go");
    session.tool("t1", "Bash");
    session.result("t1");
    session.end("done");
    // Every delivery had its first attempt and waits for the second.
    down.wait_for(6, DEADLINE).await;

    configure(&home, json!([entry("rests", false)]));
    let rows = rows_when(&daemon, |rows| rows.len() == 1).await;
    assert_eq!(rows[0]["disabled_reason"], "enabled = false");
    assert_eq!(states(&daemon, "goes").await, ["cancelled"; 3]);
    assert_eq!(states(&daemon, "rests").await, ["dead"; 3]);

    // Nothing new is queued for it.
    let other = Transcript::new(&home, "s-after");
    other.prompt("go");
    other.tool("t1", "Bash");
    let give_up = Instant::now() + DEADLINE;
    while daemon.api_get("/api/sessions/s-after").await.json()["activity"] != "running" {
        assert!(Instant::now() < give_up, "the session is not seen");
        tokio::task::yield_now().await;
    }
    assert_eq!(states(&daemon, "rests").await.len(), 3);

    // Dead is replayable, once it is enabled again.
    configure(&home, json!([entry("rests", true)]));
    rows_when(&daemon, |rows| rows.len() == 1 && rows[0]["enabled"] == true).await;
    down.answer_with(|_| Answer::Status(200));
    let replayed = daemon.api_post("/api/deliveries/replay", &json!({ "state": "dead" })).await.json();
    assert_eq!(replayed["replayed"], 3);
    assert_eq!(states(&daemon, "rests").await, ["delivered"; 3]);
    daemon.terminate().await.expect_success();
}

/// Waits until so many deliveries of an endpoint are pending.
async fn wait_for_pending(daemon: &Daemon, endpoint: &str, count: usize) {
    let give_up = Instant::now() + DEADLINE;
    loop {
        let page = daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}&state=pending")).await.json();
        let pending = page["items"].as_array().map_or(0, Vec::len);
        if pending == count {
            return;
        }
        assert!(Instant::now() < give_up, "{pending} are pending at {endpoint}, not {count}");
        tokio::task::yield_now().await;
    }
}

/// Three events of one session.
fn three_events(home: &Home, session: &str) {
    let session = Transcript::new(home, session);
    session.prompt("go");
    session.tool("t1", "Bash");
    session.result("t1");
    session.end("done");
}

#[tokio::test]
async fn a_bad_entry_keeps_its_pending_deliveries_until_it_is_right_again_or_gone() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    // One event each, and two that wait.
    let slow = |name: &str| json!({ "name": name, "url": receiver.url("/"), "rate": "1/h" });
    configure(&home, json!([slow("typo"), slow("rotated"), slow("goes")]));
    let daemon = home.up(ringback()).await;
    three_events(&home, "s-bad");
    receiver.wait_for(3, DEADLINE).await;
    for name in ["typo", "rotated", "goes"] {
        wait_for_pending(&daemon, name, 2).await;
    }

    let missing = json!({ "name": "rotated", "url": receiver.url("/"), "secret_file": "/nowhere/at/all" });
    let typo = json!({ "name": "typo", "url": receiver.url("/"), "backoff": ["5"] });
    configure(&home, json!([typo, missing, slow("goes")]));
    rows_when(&daemon, |rows| names(rows) == ["goes"]).await;
    // What a program leaves that is interrupted while it writes: an entry without a name, and no other.
    configure(&home, json!([{}]));
    rows_when(&daemon, |rows| rows.is_empty()).await;
    assert_eq!(receiver.requests().len(), 3, "nothing is sent while an entry is bad");

    let right = |name: &str| json!({ "name": name, "url": receiver.url("/") });
    configure(&home, json!([right("typo"), right("rotated")]));
    assert_eq!(states(&daemon, "typo").await, ["delivered"; 3]);
    assert_eq!(states(&daemon, "rotated").await, ["delivered"; 3]);
    let mut gone = states(&daemon, "goes").await;
    gone.sort();
    assert_eq!(gone, ["cancelled", "cancelled", "delivered"]);
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn an_entry_that_is_bad_at_a_start_keeps_its_pending_deliveries() {
    let mut home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    let entry = |name: &str, rate: &str| json!({ "name": name, "url": receiver.url("/"), "rate": rate, "secret_env": "OF_THE_TEST" });
    configure(&home, json!([entry("stays", "1/h"), entry("goes", "1/h")]));
    home.set_env("OF_THE_TEST", "a secret of the environment");
    let daemon = home.up(ringback()).await;
    three_events(&home, "s-start");
    receiver.wait_for(2, DEADLINE).await;
    wait_for_pending(&daemon, "stays", 2).await;
    wait_for_pending(&daemon, "goes", 2).await;
    daemon.terminate().await.expect_success();

    home.set_env("OF_THE_TEST", "");
    let signed = json!({ "name": "stays", "url": receiver.url("/"), "secret_env": "OF_THE_TEST" });
    configure(&home, json!([signed, { "url": receiver.url("/") }]));
    let daemon = home.up(ringback()).await;
    wait_for_pending(&daemon, "stays", 2).await;
    wait_for_pending(&daemon, "goes", 2).await;
    home.write(".config/ringback/.env", "OF_THE_TEST=a secret beside the configuration\n");
    fs::set_permissions(home.path().join(".config/ringback/.env"), PermissionsExt::from_mode(0o600))
        .expect("it was just written");
    configure(&home, json!([signed]));
    assert_eq!(states(&daemon, "stays").await, ["delivered"; 3]);
    let mut gone = states(&daemon, "goes").await;
    gone.sort();
    assert_eq!(gone, ["cancelled", "cancelled", "delivered"]);
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn an_attempt_on_the_wire_ends_as_it_began_and_every_later_one_uses_the_new_entry() {
    let home = Home::new();
    let (old, new) = (Receiver::always(Answer::Hang).await, Receiver::always(Answer::Status(200)).await);
    let entry = |url: String, secret: &str| {
        json!([{ "name": "moves", "url": url, "secret": secret, "concurrency": 1, "timeout": "2s",
                 "backoff": ["10ms", "1h"] }])
    };
    configure(&home, entry(old.url("/"), "the secret of the old entry"));
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-move");
    session.prompt("go");
    session.tool("t1", "Bash");
    session.result("t1");
    session.end("done");
    // One is on the wire and hangs there; two wait for its slot.
    old.wait_for(1, DEADLINE).await;

    configure(&home, entry(new.url("/"), "the secret of the new entry"));
    let requests = new.wait_for(3, DEADLINE).await;
    for request in &requests {
        request.verify(&["the secret of the new entry"]).expect("the new secret signs");
    }
    assert_eq!(old.requests().len(), 1, "nothing new begins at the old address");
    old.requests()[0].verify(&["the secret of the old entry"]).expect("the old secret signed");
    // The attempt that timed out at the old address counts: its retry at the new one is the second.
    let first = old.requests()[0].json()["id"].clone();
    let retried = requests.iter().find(|r| r.json()["id"] == first).expect("it is tried again");
    assert_eq!(retried.header("x-ringback-attempt"), Some("2"));
    assert_eq!(states(&daemon, "moves").await, ["delivered"; 3]);
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_file_that_no_longer_parses_or_is_gone_keeps_the_last_good_configuration_and_warns() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    let good = json!([{ "name": "stays", "url": receiver.url("/") }]);
    configure(&home, good.clone());
    let daemon = home.up(ringback()).await;
    for (broken, said) in
        [("{ \"webhooks\": [ {", "does not parse"), ("{ \"webhooks\": 7 }", "expected a list")]
    {
        home.write_config(broken);
        daemon.wait_for_line(said, DEADLINE).await;
        assert_eq!(daemon.api_post("/api/webhooks/stays/test", &json!({})).await.status, 202);
    }
    // What a program leaves that empties the file before it writes is no wish to have no endpoint.
    home.write_config("\n");
    daemon.wait_for_line("is empty", DEADLINE).await;
    assert_eq!(daemon.api_post("/api/webhooks/stays/test", &json!({})).await.status, 202);
    fs::remove_file(home.config_path()).expect("it is there");
    daemon.wait_for_line("cannot read the configuration", DEADLINE).await;
    assert_eq!(daemon.api_post("/api/webhooks/stays/test", &json!({})).await.status, 202);
    receiver.wait_for(4, DEADLINE).await;

    // A bad entry costs itself alone, and says so.
    configure(
        &home,
        json!([{ "name": "bad", "url": "ftp://x/" }, { "name": "stays", "url": receiver.url("/") },
               { "name": "more", "url": receiver.url("/") }]),
    );
    let rows = rows_when(&daemon, |rows| rows.len() == 2).await;
    assert_eq!(names(&rows), ["stays", "more"]);
    daemon.wait_for_line("webhook \"bad\" is skipped", DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn an_edit_of_a_section_that_is_read_at_the_start_is_named() {
    let home = Home::new();
    configure(&home, json!([]));
    let daemon = home.up(ringback()).await;
    let edited = json!({
        "server": { "listen": "127.0.0.1:0" },
        "delivery": { "network": "server" }, "runs": { "timeout": "5m" },
    });
    home.write_config(&edited.to_string());
    daemon.wait_for_line("taken in at the next start: delivery, runs", DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn an_endpoint_disabled_by_its_receiver_is_enabled_again_by_an_edit_of_its_entry() {
    let home = Home::new();
    let receiver = Receiver::scripted([Answer::Status(410), Answer::Status(200)]).await;
    configure(&home, json!([{ "name": "gone", "url": receiver.url("/old") }]));
    let daemon = home.up(ringback()).await;
    daemon.api_post("/api/webhooks/gone/test", &json!({})).await;
    rows_when(&daemon, |rows| rows.len() == 1 && rows[0]["enabled"] == false).await;
    configure(&home, json!([{ "name": "gone", "url": receiver.url("/new") }]));
    rows_when(&daemon, |rows| rows.len() == 1 && rows[0]["enabled"] == true).await;
    assert_eq!(daemon.api_post("/api/webhooks/gone/test", &json!({})).await.status, 202);
    receiver.wait_for(2, DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_secret_file_that_is_replaced_signs_from_then_on() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write("key/secret", "the first secret of the file\n");
    let path = home.path().join("key/secret");
    configure(&home, json!([{ "name": "signed", "url": receiver.url("/"), "secret_file": path }]));
    let daemon = home.up(ringback()).await;
    daemon.api_post("/api/webhooks/signed/test", &json!({})).await;
    receiver.wait_for(1, DEADLINE).await[0]
        .verify(&["the first secret of the file"])
        .expect("the first signs");
    home.write("key/secret.new", "the second secret of the file\n");
    fs::rename(home.path().join("key/secret.new"), &path).expect("both are in one directory");
    daemon.wait_for_line("the edited webhooks are in force", DEADLINE).await;
    daemon.api_post("/api/webhooks/signed/test", &json!({})).await;
    receiver.wait_for(2, DEADLINE).await[1]
        .verify(&["the second secret of the file"])
        .expect("the second signs");
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_secret_in_a_pipe_that_nobody_writes_holds_nothing_up() {
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write("key/secret", "the first secret of the file\n");
    let path = home.path().join("key/secret");
    configure(
        &home,
        json!([
            { "name": "signed", "url": receiver.url("/"), "secret_file": path },
            { "name": "plain", "url": receiver.url("/") },
        ]),
    );
    let daemon = home.up(ringback()).await;
    fs::rename(home.fifo("key/pipe"), &path).expect("both are in one directory");
    // It can be opened for writing once somebody reads it.
    let began = Instant::now();
    let _writer = loop {
        match tokio::net::unix::pipe::OpenOptions::new().open_sender(&path) {
            Ok(writer) => break writer,
            Err(_) => assert!(began.elapsed() < DEADLINE, "nobody reads the pipe"),
        }
        assert_eq!(daemon.api_get("/healthz").await.status, 200);
    };
    assert_eq!(daemon.api_post("/api/webhooks/plain/test", &json!({})).await.status, 202);
    receiver.wait_for(1, DEADLINE).await;
    daemon.terminate().await.expect_success();
}

const EDITS: usize = 1_000;
/// After so many edits the guest is away for good, until it is seen that it gets nothing.
const EDITS_A_CHECK: usize = 250;
/// Events that may be on their way at a time.
const MOST_BEHIND: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_random_edits_under_load_lose_no_event_and_a_removed_endpoint_gets_nothing() {
    let seed = std::env::var("RINGBACK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0xed17_u64);
    println!("seed {seed} (RINGBACK_SEED repeats it)");
    let home = Home::new();
    let (steady, guest) =
        (Receiver::always(Answer::Status(200)).await, Receiver::always(Answer::Status(200)).await);
    let mut random = Random(seed);
    // The steady entry is in every good file, always another one; the guest comes and goes.
    let file = |random: &mut Random, with_guest: bool| {
        let concurrency = 1 + random.next() % 8;
        let mut entries =
            vec![json!({ "name": "steady", "url": steady.url("/"), "concurrency": concurrency })];
        if with_guest {
            entries.push(json!({ "name": "guest", "url": guest.url("/"), "concurrency": concurrency }));
        }
        if random.next().is_multiple_of(2) {
            entries.reverse();
        }
        settings(json!(entries))
    };
    home.write_config(&file(&mut random, true));
    let daemon = home.up(ringback()).await;

    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let delivered = Arc::new(AtomicU64::new(0));
    steady.answer_with({
        let delivered = Arc::clone(&delivered);
        move |_| {
            delivered.fetch_add(1, Ordering::Relaxed);
            Answer::Status(200)
        }
    });
    let session = Transcript::new(&home, "s-load");
    let writer = tokio::task::spawn_blocking({
        let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
        move || {
            session.prompt("go");
            while !stop.load(Ordering::Relaxed) {
                // An agent's pace, not a wait for anything.
                std::thread::sleep(Duration::from_millis(5));
                // A slow machine is asked for less, not for a backlog that it cannot deliver in time.
                if calls.load(Ordering::Relaxed) * 2 > delivered.load(Ordering::Relaxed) + MOST_BEHIND {
                    continue;
                }
                let call = format!("t{}", calls.fetch_add(1, Ordering::Relaxed));
                session.tool(&call, "Bash");
                session.result(&call);
            }
            session.end("done");
        }
    });

    let path = home.config_path();
    for edit in 1..=EDITS {
        let with_guest = !random.next().is_multiple_of(3);
        let good = file(&mut random, with_guest);
        match random.next() % 4 {
            0 => home.write_config(&good),
            1 => home.write_config("{ \"webhooks\": \"none\" }"),
            2 => {
                // Half written where it lies, and finished by the next edit or not at all.
                let half = good.len() / 2 + usize::try_from(random.next() % 40).unwrap_or(0);
                fs::write(&path, &good[..half.min(good.len() - 1)]).expect("the file can be written");
                path.clone()
            }
            _ => {
                fs::write(&path, &good).expect("the file can be written");
                path.clone()
            }
        };
        // An editor's pace, from a blow to a pause.
        tokio::time::sleep(Duration::from_millis(random.next() % 20)).await;
        if !edit.is_multiple_of(EDITS_A_CHECK) {
            continue;
        }
        // Told from all files before it: one of them may just have been read.
        let mark = 9 + edit / EDITS_A_CHECK % 8;
        home.write_config(&settings(
            json!([{ "name": "steady", "url": steady.url("/"), "concurrency": mark }]),
        ));
        rows_when(&daemon, |rows| names(rows) == ["steady"] && rows[0]["concurrency"] == mark).await;
        // What was queued before is cancelled, what is on the wire ends, and what happens from now on goes elsewhere.
        let gone_at = guest_is_quiet(&daemon, &steady).await;
        let after = guest.requests().iter().filter(|r| sequence(r) > gone_at).count();
        assert_eq!(after, 0, "the guest got what happened after its removal");
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends");

    // A call changes the activity twice, and so does the end of the turn.
    let told = calls.load(Ordering::Relaxed) * 2 + 1;
    let give_up = Instant::now() + DEADLINE;
    loop {
        let stats = daemon.api_get("/api/stats").await.json();
        if stats["events"] == told && stats["deliveries_pending"] == 0 {
            break;
        }
        assert!(Instant::now() < give_up, "{told} events are not delivered: {stats}");
        tokio::task::yield_now().await;
    }
    let requests = steady.requests();
    let mut sequences: BTreeMap<u64, usize> = BTreeMap::new();
    for request in &requests {
        *sequences.entry(sequence(request)).or_default() += 1;
    }
    let expected: BTreeMap<u64, usize> = (1..=told).map(|n| (n, 1)).collect();
    assert!(sequences == expected, "{told} events, {} of them arrived", sequences.len());
    println!("{told} events, {EDITS} edits, {} requests at the guest", guest.requests().len());
    daemon.terminate().await.expect_success();
}

fn sequence(request: &ringback_testkit::Received) -> u64 {
    request.json()["sequence"].as_u64().unwrap_or(0)
}

/// Waits until nothing of the guest's is pending and the steady endpoint is well past the removal. Returns the newest
/// event that was recorded when the removal was seen.
async fn guest_is_quiet(daemon: &Daemon, steady: &Receiver) -> u64 {
    let seen = daemon.api_get("/api/sessions/s-load").await.json();
    let newest = |session: &Value| {
        let rows = session["transitions"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|t| t["sequence"].as_u64()).max().unwrap_or(0)
    };
    let gone_at = newest(&seen);
    let give_up = Instant::now() + DEADLINE;
    loop {
        let left = daemon.api_get("/api/deliveries?endpoint=guest&state=pending").await.json();
        if left["items"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        assert!(Instant::now() < give_up, "deliveries of a removed entry are pending: {left}");
    }
    steady
        .wait_until("what happened after the removal", DEADLINE, |requests| {
            requests.iter().any(|r| sequence(r) > gone_at + 50)
        })
        .await;
    gone_at
}
