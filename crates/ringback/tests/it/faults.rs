//! outbound.md, Durability, and api-cli.md, day-one errors: what happens while the disk fails.
//!
//! Faults are made below the store: a small library, preloaded into the real program, fails the system calls on files
//! in the state directory (`faults/shim.c`). The test says how by a file that the library reads at every call.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ringback_testkit::{Answer, Daemon, Home, Received, Receiver};
use serde_json::{Value, json};

use crate::inbound::Inbound;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

const SHIM: &str = include_str!("faults/shim.c");

/// How the disk below the state directory fails.
#[derive(Clone)]
struct Disk {
    mode: PathBuf,
}

impl Disk {
    /// Programs of this home started from now on have the disk that this one is.
    async fn of(home: &mut Home) -> Disk {
        let source = home.write("faults.c", SHIM);
        let library = home.path().join("faults.so");
        let words = |paths: [&PathBuf; 2]| paths.map(|p| p.to_string_lossy().into_owned());
        let [source, library] = words([&source, &library]);
        let args = ["-shared", "-fPIC", "-O1", "-o", &library, &source, "-ldl"];
        home.spawn("cc", &args).wait(DEADLINE).await.expect_success();
        let mode = home.path().join("faults.mode");
        home.set_env("FAULTS_MODE", &mode.to_string_lossy());
        // As the kernel names it: a temporary directory may be reached by a link.
        std::fs::create_dir_all(home.state_dir()).expect("the home is ours");
        let below = home.state_dir().canonicalize().expect("it was just made");
        home.set_env("FAULTS_BELOW", &below.to_string_lossy());
        home.set_env("LD_PRELOAD", &library);
        Disk { mode }
    }

    /// `full`, `sync`, `readonly`, or `works`.
    fn is(&self, mode: &str) {
        let next = self.mode.with_extension("next");
        std::fs::write(&next, mode).expect("the home is ours");
        std::fs::rename(&next, &self.mode).expect("the home is ours");
    }
}

/// Looks at the API until something is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(tokio::time::Instant::now() < give_up, "{what}: {seen}"),
        }
        // There is nothing to wait on but the answer itself.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_not_ready(daemon: &Daemon, reason: &str) {
    until("not ready", async || {
        let reply = daemon.raw("GET", "/readyz", &[], b"").await;
        let told = reply.json()["reason"].as_str().unwrap_or_default().to_owned();
        let is_so = reply.status == 503 && told.contains(reason);
        if is_so { Ok(()) } else { Err(format!("{} {told}", reply.status)) }
    })
    .await;
}

async fn until_ready(daemon: &Daemon) {
    until("ready", async || {
        let reply = daemon.raw("GET", "/readyz", &[], b"").await;
        if reply.status == 200 { Ok(()) } else { Err(reply.message.text()) }
    })
    .await;
}

async fn until_metric(daemon: &Daemon, name: &str, is_enough: impl Fn(u64) -> bool) -> u64 {
    until(name, async || {
        let value = metric(daemon, name).await;
        if is_enough(value) { Ok(value) } else { Err(value.to_string()) }
    })
    .await
}

async fn metric(daemon: &Daemon, name: &str) -> u64 {
    let text = daemon.raw("GET", "/metrics", &[], b"").await.message.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

async fn until_activity(daemon: &Daemon, session: &str, activity: &str) {
    until("the session's activity", async || {
        let session = daemon.api_get(&format!("/api/sessions/{session}")).await.json();
        if session["activity"] == activity { Ok(()) } else { Err(session.to_string()) }
    })
    .await;
}

/// Every event once, those of a session numbered without a gap from 1; returns how many.
fn each_once(requests: &[Received]) -> usize {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests {
        let event = request.json();
        let session = event["session_id"].as_str().unwrap_or("-").to_owned();
        numbers.entry(session).or_default().push(event["sequence"].as_u64().unwrap_or(0));
    }
    for (session, mut numbers) in numbers {
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{session}");
    }
    requests.len()
}

fn warnings(daemon: &Daemon) -> usize {
    daemon.lines().iter().filter(|line| line.text.contains("WARN") && line.text.contains("store")).count()
}

/// From a working disk to one that fails and back, with an endpoint and a hook.
async fn fails_and_works_again(mode: &str, reason: &str) {
    let mut inbound = Inbound::new("exit 0", json!({}));
    let disk = Disk::of(&mut inbound.home).await;
    let receiver = Receiver::always(Answer::Status(200)).await;
    inbound.configure(json!({ "webhooks": [{ "name": "all", "url": receiver.url("/") }] }));
    let daemon = inbound.home.up(ringback()).await;
    let (one, two) = (Transcript::new(&inbound.home, "s-one"), Transcript::new(&inbound.home, "s-two"));
    one.prompt("go");
    one.tool("t1", "Bash");
    receiver.wait_for(1, DEADLINE).await;
    two.prompt("go");
    until_activity(&daemon, "s-two", "thinking").await;

    let failing_since = tokio::time::Instant::now();
    disk.is(mode);
    one.result("t1");
    until_not_ready(&daemon, reason).await;
    one.end("done");
    two.end("done");
    // Observing goes on.
    until_activity(&daemon, "s-one", "waiting").await;
    until_activity(&daemon, "s-two", "waiting").await;
    until_metric(&daemon, "ringback_events_waiting", |waiting| waiting >= 3).await;
    let call = inbound.post(r#"{"message":"hello","source":"test"}"#).await;
    assert_eq!((call.status, call.json()), (503, json!({ "error": "storage unavailable" })));
    assert_eq!(call.message.header("retry-after"), Some("30"));
    // A further try has failed since the first was told.
    until_not_ready(&daemon, reason).await;
    assert_eq!(receiver.requests().len(), 1, "something was sent that is not journaled");
    let minutes = usize::try_from(failing_since.elapsed().as_secs() / 60).unwrap_or(usize::MAX);
    let warned = warnings(&daemon);
    assert!(
        (1..=1 + minutes).contains(&warned),
        "{warned} warnings in {minutes} minutes: {:?}",
        daemon.lines()
    );

    disk.is("works");
    let requests = receiver.wait_for(4, DEADLINE).await;
    assert_eq!(each_once(&requests), 4);
    until_ready(&daemon).await;
    until_metric(&daemon, "ringback_events_waiting", |waiting| waiting == 0).await;
    assert_eq!(metric(&daemon, "ringback_events_lost_total").await, 0);
    inbound.start(json!({ "message": "hello", "source": "test" })).await;

    // What is on the disk is what was answered: nothing is sent again after a kill, and the file is sound.
    until_metric(&daemon, "ringback_deliveries_delivered_total{endpoint=\"all\"}", |n| n >= 4).await;
    daemon.kill9().await;
    let sound = ringback_store::check(&inbound.home.state_dir().join("ringback.db"));
    assert_eq!(sound, Ok(vec![]));
    let daemon = inbound.home.up(ringback()).await;
    one.prompt("again");
    let requests = receiver.wait_for(5, DEADLINE).await;
    let of_one: Vec<Value> =
        requests.iter().map(Received::json).filter(|event| event["session_id"] == "s-one").collect();
    assert_eq!(of_one.last().map(|event| &event["sequence"]), Some(&json!(4)));
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_holds_events_in_memory_and_they_are_journaled_when_there_is_room_again() {
    fails_and_works_again("full", "the disk is full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_synced_is_not_journaled_and_is_written_again_when_it_can() {
    fails_and_works_again("sync", "input or output failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_turns_read_only_is_as_a_full_disk() {
    fails_and_works_again("readonly", "; ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_program_that_holds_the_database_is_waited_for() {
    let mut home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.set_env("RINGBACK_LOG", "warn");
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": [{ "name": "all", "url": receiver.url("/") }] })
            .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-locked");
    session.prompt("go");
    session.tool("t1", "Bash");
    receiver.wait_for(1, DEADLINE).await;
    until_metric(&daemon, "ringback_deliveries_delivered_total{endpoint=\"all\"}", |n| n >= 1).await;

    let hold = "import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('BEGIN IMMEDIATE')
print('held', flush=True)
time.sleep(3600)";
    let database = home.state_dir().join("ringback.db").to_string_lossy().into_owned();
    let holder = home.spawn("python3", &["-c", hold, &database]);
    holder.wait_for_line("held", DEADLINE).await;
    session.result("t1");
    until_not_ready(&daemon, "locked by another process").await;
    session.end("done");
    until_activity(&daemon, "s-locked", "waiting").await;
    assert_eq!(receiver.requests().len(), 1, "something was sent that is not journaled");
    holder.kill9().await;
    assert_eq!(each_once(&receiver.wait_for(3, DEADLINE).await), 3);
    until_ready(&daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_committed_keeps_its_slot_and_is_not_sent_again() {
    let mut home = Home::new();
    let disk = Disk::of(&mut home).await;
    let receiver = Receiver::answering({
        let (disk, mut is_first) = (disk.clone(), true);
        move |_| {
            if std::mem::take(&mut is_first) {
                // Before the answer, and so before its outcome.
                disk.is("full");
            }
            Answer::Status(200)
        }
    })
    .await;
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" },
                 "webhooks": [{ "name": "one", "url": receiver.url("/"), "concurrency": 1 }] })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-slots");
    session.prompt("go");
    session.burst(3);
    receiver.wait_for(1, DEADLINE).await;
    until_not_ready(&daemon, "the disk is full").await;
    // A later event meets the full disk too.
    session.end("done");
    until_metric(&daemon, "ringback_events_waiting", |waiting| waiting >= 1).await;
    until_activity(&daemon, "s-slots", "waiting").await;
    assert_eq!(receiver.requests().len(), 1, "another attempt began in a slot that is not free");
    disk.is("works");
    assert_eq!(each_once(&receiver.wait_for(7, DEADLINE).await), 7);
    assert_eq!(receiver.most_at_once(), 1);
    until_metric(&daemon, "ringback_deliveries_delivered_total{endpoint=\"one\"}", |n| n == 7).await;
    assert_eq!(receiver.requests().len(), 7, "an event was sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_wait_and_then_the_oldest_are_dropped_and_counted() {
    const CALLS: usize = 5_300;
    let mut home = Home::new();
    let disk = Disk::of(&mut home).await;
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" },
                 "webhooks": [{ "name": "all", "url": receiver.url("/"), "events": ["waiting"] }] })
        .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-many");
    session.prompt("go");
    until_activity(&daemon, "s-many", "thinking").await;
    disk.is("full");
    session.tool("first", "Bash");
    session.result("first");
    until_not_ready(&daemon, "the disk is full").await;
    session.burst(CALLS);
    session.end("done");
    until_activity(&daemon, "s-many", "waiting").await;
    let waiting = until_metric(&daemon, "ringback_events_waiting", |waiting| waiting >= 10_000).await;
    assert_eq!(waiting, 10_000);
    let lost = metric(&daemon, "ringback_events_lost_total").await;
    assert_eq!(lost, 2 * (CALLS as u64 + 1) + 1 - 10_000);
    disk.is("works");
    let requests = receiver.wait_for(1, DEADLINE).await;
    // The newest is there, under the number that it got when it happened.
    assert_eq!(requests[0].json()["sequence"], lost + 10_000);
    until_metric(&daemon, "ringback_events_total", |events| events == 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_page_is_told_and_what_does_not_need_it_goes_on() {
    let mut home = Home::new();
    home.set_env("RINGBACK_LOG", "warn");
    let receiver = Receiver::always(Answer::Status(200)).await;
    home.write_config(
        &json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": [{ "name": "all", "url": receiver.url("/") }] })
            .to_string(),
    );
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-corrupt");
    session.prompt("go");
    session.burst(150);
    receiver.wait_for(300, DEADLINE).await;
    until_metric(&daemon, "ringback_deliveries_delivered_total{endpoint=\"all\"}", |n| n == 300).await;
    daemon.terminate().await.expect_success();

    // A leaf of events that are not among the oldest, which prune looks at, nor in the last, where new ones go.
    let path = home.state_dir().join("ringback.db");
    let mut bytes = std::fs::read(&path).expect("the database is there");
    let mark = br#""session_id":"s-corrupt""#;
    let is_leaf = |page: &[u8]| page[0] == 0x0d && page.windows(mark.len()).any(|part| part == mark);
    let leaves: Vec<usize> =
        (0..bytes.len() / 4096).filter(|page| is_leaf(&bytes[page * 4096..][..4096])).collect();
    let start = leaves[leaves.len() - 3] * 4096;
    bytes[start..start + 4096].fill(0x55);
    std::fs::write(&path, &bytes).expect("the database can be written");

    let daemon = home.up(ringback()).await;
    let listing = daemon.api_get("/api/deliveries?limit=1000").await;
    assert_eq!((listing.status, listing.json()), (503, json!({ "error": "storage unavailable" })));
    until_not_ready(&daemon, "ringback doctor --repair").await;
    session.end("done");
    let requests = receiver.wait_for(301, DEADLINE).await;
    assert_eq!(requests[300].json()["to"], "waiting");
    // A good read after it does not make the file sound.
    until_not_ready(&daemon, "the database is corrupt").await;
    daemon.wait_for_line("the database is corrupt", DEADLINE).await;
    daemon.terminate().await.expect_success();
}

#[tokio::test]
async fn a_corrupt_database_exits_2_names_the_repair_and_is_left_as_it_is() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    home.up(ringback()).await.terminate().await.expect_success();
    let path = home.state_dir().join("ringback.db");
    let bytes = vec![b'x'; 20_000];
    std::fs::write(&path, &bytes).expect("the database can be written");
    home.set_env("RINGBACK_LOG", "error");
    let config = home.config_path().to_string_lossy().into_owned();
    let ended = home.spawn(ringback(), &["up", "--config", &config]).wait(DEADLINE).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr());
    assert!(
        ended.stderr().contains("mend: ") && ended.stderr().contains("`ringback doctor --repair`"),
        "{}",
        ended.stderr()
    );
    assert!(std::fs::read(&path).expect("it is there") == bytes, "the file changed");
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_exits_2() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    home.up(ringback()).await.terminate().await.expect_success();
    let disk = Disk::of(&mut home).await;
    home.set_env("RINGBACK_LOG", "error");
    let config = home.config_path().to_string_lossy().into_owned();
    for mode in ["readonly", "full"] {
        disk.is(mode);
        let ended = home.spawn(ringback(), &["up", "--config", &config]).wait(DEADLINE).await;
        assert_eq!(ended.code, Some(2), "{mode}: {}", ended.stderr());
        assert!(ended.stderr().contains("RINGBACK_STATE_DIR"), "{mode}: {}", ended.stderr());
    }
}
