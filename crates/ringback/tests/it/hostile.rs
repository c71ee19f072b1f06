//! Receivers that mean no good: outbound.md, "One endpoint that is down, slow or limited delays no other".

use ringback_testkit::{Answer, Daemon, Home, Program, Receiver};
use serde_json::{Value, json};

use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// Changes of the session: a prompt, then a tool and its result each, then the end.
const TOOLS: usize = 8;
const EVENTS: usize = 2 * TOOLS + 1;
/// What a daemon may grow by while it is lied to, in KiB.
const GROWTH_KIB: u64 = 32 * 1024;

/// Each kind that `ringback listen --fault` has, what becomes of its deliveries, and what the last attempt's error
/// says.
const FAULTS: [(&str, &str, &str); 9] = [
    // The status counts once enough of the body is read.
    ("endless-body", "delivered", ""),
    ("gzip-bomb", "delivered", ""),
    ("http10", "delivered", ""),
    ("hang-up", "delivered", ""),
    ("trickle", "dead", "timeout after 300ms"),
    ("tls-stall", "dead", "timeout after 300ms"),
    ("reset", "dead", "connection broken"),
    // What ends these first, the parser's bounds or the time, is not promised.
    ("huge-headers", "dead", ""),
    ("continue", "dead", ""),
];

/// `ringback listen` with a fault, and its address.
async fn misbehaving(home: &Home, fault: &str) -> (Program, String) {
    let program = home.spawn(ringback(), &["listen", "--port", "0", "--fault", fault]);
    let line = program.wait_for_line("listening", DEADLINE).await.text;
    let url = line.split_whitespace().nth(1).expect("the address follows").to_owned();
    (program, url)
}

#[tokio::test]
async fn hostile_receivers_hold_no_slot_past_the_deadline_no_memory_and_nobody_up() {
    let home = Home::new();
    let healthy = Receiver::always(Answer::Status(200)).await;
    let mut hostile = Vec::new();
    let mut entries = vec![json!({ "name": "healthy", "url": healthy.url("/") })];
    for (fault, state, _) in FAULTS {
        let (program, url) = misbehaving(&home, fault).await;
        // What ends by itself may take as long as this machine needs.
        let timeout = if state == "delivered" || fault == "reset" { "30s" } else { "300ms" };
        // A request may meet the end of the connection that was kept; the next attempt has a new one.
        let backoff = if fault == "hang-up" { json!(["10ms", "10ms", "10ms"]) } else { json!([]) };
        entries.push(json!({ "name": fault, "url": url, "timeout": timeout, "backoff": backoff,
                             "concurrency": 2 }));
        hostile.push(program);
    }
    let config = json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": entries });
    home.write_config(&config.to_string());
    let daemon = home.up(ringback()).await;
    let before = resident_kib(&daemon);

    let session = Transcript::new(&home, "s-hostile");
    session.prompt("go");
    for n in 0..TOOLS {
        session.tool(&format!("t{n}"), "Bash");
        session.result(&format!("t{n}"));
    }
    session.end("done");

    let requests = healthy.wait_for(EVENTS, DEADLINE).await;
    let mut sequences: Vec<_> = requests.iter().filter_map(|r| r.json()["sequence"].as_u64()).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=EVENTS as u64).collect::<Vec<_>>());

    // Every delivery ends, so every slot was freed: two slots at each endpoint, one attempt for each event.
    for (fault, state, error) in FAULTS {
        for delivery in ended(&daemon, fault).await {
            let last = delivery["attempts"].as_array().and_then(|a| a.last()).expect("there was an attempt");
            assert_eq!(delivery["state"], state, "{fault}: {delivery}");
            let said = last["error"].as_str().unwrap_or("");
            assert!(said.contains(error), "{fault}: {said}");
            // Not decompressed: what is kept are the bytes that came, not the zeros that they stand for.
            let excerpt = last["excerpt"].as_str().unwrap_or("");
            assert!(fault != "gzip-bomb" || excerpt.starts_with("\\u{1f}"), "{excerpt}");
        }
    }
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
    daemon.terminate().await.expect_success();
}

/// The deliveries of an endpoint, once all of them ended.
async fn ended(daemon: &Daemon, endpoint: &str) -> Vec<Value> {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let listed = daemon.api_get(&format!("/api/deliveries?endpoint={endpoint}")).await.json();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        if items.len() == EVENTS && items.iter().all(|d| d["state"] != "pending") {
            return items;
        }
        assert!(tokio::time::Instant::now() < give_up, "{endpoint} is not done: {listed}");
        tokio::task::yield_now().await;
    }
}

/// What the daemon holds in memory now.
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has a size");
    line.trim().trim_end_matches(" kB").parse().expect("the size is a number")
}

#[tokio::test]
async fn headers_reach_the_receiver_and_are_shown_nowhere() {
    let mut home = Home::new();
    home.set_env("HOOK_TOKEN", "hunter2-hunter2");
    let receiver = Receiver::answering(|request| {
        let echo = request.header("authorization").unwrap_or("-").as_bytes().to_vec();
        Answer::Full { status: 400, headers: Vec::new(), body: echo }
    })
    .await;
    let config = json!({
        "server": { "listen": "127.0.0.1:0" },
        "webhooks": [{ "name": "all", "url": receiver.url("/"), "events": ["waiting"],
                       "headers": { "Authorization": "Bearer ${HOOK_TOKEN}", "X-Team": "blue" } }],
    });
    home.write_config(&config.to_string());
    let daemon = home.up(ringback()).await;
    let session = Transcript::new(&home, "s-headers");
    session.prompt("go");
    session.end("done");
    let request = receiver.wait_for(1, DEADLINE).await.remove(0);
    assert_eq!(request.header("authorization"), Some("Bearer hunter2-hunter2"));
    assert_eq!(request.header("x-team"), Some("blue"));
    daemon.wait_for_line("delivery ended without success", DEADLINE).await;
    for path in ["/api/webhooks", "/api/deliveries", "/api/config"] {
        let text = daemon.api_get(path).await.message.text();
        assert!(!text.contains("hunter2"), "{path}: {text}");
    }
    let ended = daemon.terminate().await.expect_success();
    assert!(!ended.stderr().contains("hunter2") && !ended.stdout().contains("hunter2"), "{}", ended.stderr());
    for entry in std::fs::read_dir(home.state_dir()).expect("the state directory is there") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "{} holds the value", path.display());
    }
}
