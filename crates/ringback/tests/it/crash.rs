//! outbound.md, Durability: kill -9 at any moment loses no event, and repeats at most the attempts in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ringback_testkit::Home;
use ringback_testkit::{Answer, Receiver};
use serde_json::{Value, json};

use crate::deliver::by_event;
use crate::transcript::Transcript;
use crate::{DEADLINE, ringback};

/// Without `RINGBACK_CRASH_ROUNDS`.
const KILLS: usize = 50;
const CONCURRENCY: usize = 4;
const SESSIONS: usize = 3;
/// Per session; two events each, and a round waits for 40 requests at the most.
const CALLS_A_ROUND: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_with_a_flaky_receiver_lose_nothing() {
    let home = Home::new();
    let kills = std::env::var("RINGBACK_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("RINGBACK_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed_u64);
    println!("seed {seed} (RINGBACK_SEED repeats it)");
    let successes: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let receiver = Receiver::answering({
        let successes = Arc::clone(&successes);
        let mut random = Random(seed);
        move |request| {
            if random.next() % 10 < 3 {
                return Answer::Status(500);
            }
            let id = request.json()["id"].as_str().unwrap_or("-").to_owned();
            *successes.lock().expect("nobody panics holding it").entry(id).or_default() += 1;
            Answer::Status(200)
        }
    })
    .await;
    home.write_config(
        &json!({
            "server": { "listen": "127.0.0.1:0" },
            "webhooks": [{ "name": "flaky", "url": receiver.url("/"), "concurrency": CONCURRENCY,
                           "backoff": vec!["5ms"; 40] }],
        })
        .to_string(),
    );

    // The agents work on while the daemon is killed; how much they do a round is bounded, so that a slow machine has
    // no more to deliver than a fast one.
    let stop = Arc::new(AtomicBool::new(false));
    let allowed = Arc::new(AtomicU64::new(0));
    let transcripts: Vec<_> =
        (0..SESSIONS).map(|n| Transcript::new(&home, &format!("s-crash-{n}"))).collect();
    let writer = tokio::task::spawn_blocking({
        let (stop, allowed) = (Arc::clone(&stop), Arc::clone(&allowed));
        move || {
            let mut n = 0_u64;
            for t in &transcripts {
                t.prompt("go");
            }
            while !stop.load(Ordering::Relaxed) {
                // An agent's pace, not a wait for anything.
                std::thread::sleep(std::time::Duration::from_millis(2));
                if n >= allowed.load(Ordering::Relaxed) {
                    continue;
                }
                for t in &transcripts {
                    let call = format!("t{n}");
                    t.tool(&call, "Bash");
                    t.result(&call);
                }
                n += 1;
            }
            for t in &transcripts {
                t.end("done");
            }
        }
    });

    let mut random = Random(!seed);
    for round in 0..kills {
        if round > 0 && round % 50 == 0 {
            println!("{round} of {kills} kills, {} requests so far", receiver.requests().len());
        }
        let daemon = home.up(ringback()).await;
        allowed.fetch_add(CALLS_A_ROUND, Ordering::Relaxed);
        let so_far = receiver.requests().len();
        let more = 1 + usize::try_from(random.next() % 40).unwrap_or(0);
        receiver.wait_for(so_far + more, DEADLINE).await;
        daemon.kill9().await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends");

    let daemon = home.up(ringback()).await;
    let is_drained = |stats: &Value| stats["deliveries_pending"] == 0;
    let give_up = tokio::time::Instant::now() + DEADLINE;
    let stats = loop {
        let stats = daemon.api_get("/api/stats").await.json();
        let ended = daemon.api_get("/api/sessions?filter=waiting").await.json();
        if is_drained(&stats) && ended.as_array().is_some_and(|s| s.len() == SESSIONS) {
            break stats;
        }
        assert!(tokio::time::Instant::now() < give_up, "not drained: {stats}");
        tokio::task::yield_now().await;
    };

    let requests = receiver.requests();
    let events = by_event(&requests);
    assert_eq!(
        stats["events"].as_u64(),
        Some(events.len() as u64),
        "every journaled event reached the receiver"
    );
    assert_eq!((&stats["deliveries_dead"], &stats["deliveries_failed"]), (&json!(0), &json!(0)));

    // Per session the numbers have no gap: none was taken by an event that is not there.
    let mut sequences: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for request in &requests {
        let event = request.json();
        let id = event["id"].as_str().unwrap_or("-").to_owned();
        if seen.insert(id) {
            let session = event["session_id"].as_str().unwrap_or("-").to_owned();
            sequences.entry(session).or_default().push(event["sequence"].as_u64().unwrap_or(0));
        }
    }
    for (session, mut numbers) in sequences {
        numbers.sort_unstable();
        let count = numbers.len() as u64;
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "{session}");
    }

    // A success that was repeated is an attempt whose outcome was not committed when the process died.
    let successes = successes.lock().expect("nobody panics holding it");
    let repeats: usize = successes.values().map(|n| n - 1).sum();
    let lost = events.len() - successes.len();
    println!(
        "crash: {kills} kills, {} events, {lost} lost, {repeats} repeated, {} requests",
        events.len(),
        requests.len()
    );
    assert!(repeats <= kills * CONCURRENCY, "{repeats} repeats");
    assert_eq!(successes.len(), events.len(), "every event was answered 200");
}

/// The splitmix64 generator: the schedule is the seed's.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
