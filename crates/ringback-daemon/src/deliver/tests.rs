//! outbound.md, "Outcome of an attempt" and the keys of an entry, through the loop. Time is paused: a sleep takes none.

use std::sync::Arc;
use std::time::Duration;

use ringback_model::delivery::{Answer, Next};
use ringback_model::{DeliveryState, Endpoint, Failure, Secret, Timestamp};
use ringback_store::{Ending, Ledger, Settled, Store};

use crate::lane::{Lane, in_turn};

use super::stage::{Script, Seen, Stage, endpoint, play, retry_after, status};

const DAY: Duration = Duration::from_secs(86_400);
const AT_ONCE: Duration = Duration::ZERO;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn always(status_code: u16) -> Script {
    vec![(AT_ONCE, status(status_code))]
}

fn began(seen: &[Seen], event: u64) -> Vec<Timestamp> {
    seen.iter().filter(|s| s.event == event).map(|s| s.began).collect()
}

#[test]
fn a_retry_after_of_429_and_503_pauses_the_whole_endpoint_and_uses_up_no_attempts() {
    for code in [429, 503] {
        play(async {
            let stage = Stage::new(endpoint());
            stage.tell(1, "a", vec![(AT_ONCE, retry_after(code, 40)), (AT_ONCE, status(204))]).await;
            for n in 2..=9 {
                stage.tell(n, "b", always(204)).await;
            }
            let running = stage.start();
            assert!(stage.settle(DAY).await);
            let seen = stage.network.wires().seen.clone();
            let pause_ends = seen[0].ended.plus(secs(40));
            assert!(seen[1..].iter().all(|s| s.began >= pause_ends), "{seen:?}");
            assert_eq!(seen.len(), 10);
            for delivery in &stage.deliveries().await[1..] {
                assert_eq!((delivery.row.delivery.attempts, delivery.attempts.len()), (1, 1));
            }
            running.stop().await;
        });
    }
}

#[test]
fn a_retry_after_of_another_status_makes_only_that_delivery_wait() {
    play(async {
        let stage = Stage::new(endpoint());
        stage.tell(1, "a", vec![(AT_ONCE, retry_after(500, 40)), (AT_ONCE, status(204))]).await;
        stage.tell(2, "b", always(204)).await;
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        let seen = stage.network.wires().seen.clone();
        assert!(began(&seen, 2)[0] < began(&seen, 1)[0].plus(secs(1)), "{seen:?}");
        assert!(began(&seen, 1)[1] >= began(&seen, 1)[0].plus(secs(40)), "{seen:?}");
        running.stop().await;
    });
}

#[test]
fn the_header_webhook_delivery_disable_disables_the_endpoint_and_ends_its_queue() {
    play(async {
        let stage = Stage::new(endpoint());
        let answer = Answer { status: 200, disable: true, ..Answer::default() };
        stage.tell(1, "a", vec![(AT_ONCE, Ok(answer))]).await;
        for n in 2..=9 {
            stage.tell(n, "a", always(204)).await;
        }
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        assert_eq!(stage.network.wires().seen.len(), 1);
        let states = stage.states().await;
        assert_eq!(states[0], DeliveryState::Delivered, "a 2xx is one, whatever else it says");
        assert!(states[1..].iter().all(|state| *state == DeliveryState::Dead), "{states:?}");
        let kept = stage.store.endpoint_status(&stage.lane.endpoint.name).await.unwrap().unwrap();
        assert_eq!(kept.reason, "the receiver answered webhook-delivery: disable");
        assert_eq!(kept.entry_fingerprint, stage.lane.fingerprint);
        // What was under way to the queue at that moment ends too.
        stage.tell(10, "a", always(204)).await;
        assert!(stage.settle(DAY).await);
        assert_eq!((stage.states().await[9], stage.network.wires().seen.len()), (DeliveryState::Dead, 1));
        running.stop().await;
    });
}

#[test]
fn what_the_receiver_takes_while_its_endpoint_is_disabled_is_delivered() {
    play(async {
        let stage = Stage::new(Endpoint { concurrency: 4, ..endpoint() });
        stage.tell(1, "a", vec![(secs(1), status(200))]).await;
        stage.tell(2, "b", always(410)).await;
        stage.tell(3, "c", vec![(secs(1), status(500))]).await;
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        running.stop().await;
        let dead = DeliveryState::Dead;
        assert_eq!(stage.states().await, [DeliveryState::Delivered, dead, dead]);
        assert!(stage.lane.is_disabled());
        let counts = &stage.store.endpoint_counts().await.unwrap()[0];
        assert_eq!((counts.pending, counts.delivered, counts.dead), (0, 1, 2));
    });
}

#[test]
fn what_the_receiver_takes_after_its_entry_is_gone_is_delivered() {
    play(async {
        let stage = Stage::new(endpoint());
        stage.tell(1, "a", vec![(secs(1), status(200))]).await;
        stage.tell(2, "a", always(200)).await;
        let running = stage.start();
        tokio::time::sleep(Duration::from_millis(1)).await;
        stage.lane.retire();
        let name = &stage.lane.endpoint.name;
        stage.store.close_pending(name, Ending::Cancelled, super::stage::now()).await.unwrap();
        running.stop().await;
        assert_eq!(stage.states().await, [DeliveryState::Delivered, DeliveryState::Cancelled]);
    });
}

#[test]
fn a_network_error_of_the_machine_uses_up_no_attempt() {
    play(async {
        let stage = Stage::new(Endpoint { backoff: vec![secs(1)], ..endpoint() });
        let mut script: Script = Vec::new();
        for _ in 0..10 {
            script.push((AT_ONCE, Err(Failure::Dns("no such host".to_owned()))));
            script.push((AT_ONCE, Err(Failure::Unreachable("no route".to_owned()))));
        }
        script.extend([(AT_ONCE, status(500)), (AT_ONCE, status(204))]);
        stage.tell(1, "a", script).await;
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        let delivery = &stage.deliveries().await[0];
        assert_eq!(delivery.row.delivery.state, DeliveryState::Delivered);
        assert_eq!((delivery.row.delivery.attempts, delivery.attempts.len()), (2, 22));
        let seen = stage.network.wires().seen.clone();
        for pair in seen[..21].windows(2) {
            let wait = pair[1].began.since(pair[0].ended);
            assert!((secs(27)..=secs(34)).contains(&wait), "{wait:?}");
        }
        running.stop().await;
    });
}

#[test]
fn a_delivery_is_tried_for_a_day_while_the_machine_is_offline_and_is_then_dead() {
    play(async {
        let stage = Stage::new(endpoint());
        stage.tell(1, "a", vec![(AT_ONCE, Err(Failure::Dns("no such host".to_owned())))]).await;
        let running = stage.start();
        assert!(stage.settle(2 * DAY).await);
        let delivery = &stage.deliveries().await[0].row.delivery;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Dead, 0));
        let seen = stage.network.wires().seen.clone();
        let tried_for = seen.last().unwrap().began.since(seen[0].began);
        assert!(tried_for >= DAY && tried_for <= DAY + secs(60), "{tried_for:?}");
        assert!(!stage.lane.is_disabled(), "the endpoint is not to blame");
        running.stop().await;
    });
}

#[test]
fn what_a_clock_that_was_ahead_put_off_is_tried_at_the_start() {
    play(async {
        let stage = Stage::new(endpoint());
        for n in 1..=3 {
            stage.tell(n, "a", always(204)).await;
        }
        let now = super::stage::now();
        let name = &stage.lane.endpoint.name;
        let claims = stage.store.claim(name, now, 9, Timestamp::MIN).await.unwrap().claims;
        // A day ahead; as far ahead as a receiver may ask for; and not tried yet.
        for (claim, wait) in claims.iter().zip([DAY, secs(3600)]) {
            let next = Next { state: DeliveryState::Pending, attempts: 1, due_at: now.plus(wait) };
            stage.store.settle(vec![Settled { id: claim.delivery.id, attempt: None, next }]).await.unwrap();
        }
        let running = stage.start();
        assert!(stage.settle(DAY / 2).await);
        let seen = stage.network.wires().seen.clone();
        assert!(began(&seen, 1)[0] < now.plus(secs(1)), "{seen:?}");
        assert!(began(&seen, 2)[0] >= now.plus(secs(3600)), "{seen:?}");
        running.stop().await;
    });
}

#[test]
fn what_exceeds_the_rate_waits_without_a_slot_and_is_not_dropped() {
    play(async {
        let rate = Some("3/m".parse().unwrap());
        let stage = Stage::new(Endpoint { rate, concurrency: 8, ..endpoint() });
        for n in 1..=10 {
            stage.tell(n, "a", always(204)).await;
        }
        let running = stage.start();
        tokio::time::sleep(secs(30)).await;
        assert_eq!(stage.network.wires().seen.len(), 3);
        // What waits is the store's: somebody else could take it.
        let name = stage.lane.endpoint.name.clone();
        let free = stage.store.claim(&name, super::stage::now(), 100, Timestamp::MIN).await.unwrap().claims;
        assert_eq!(free.len(), 7);
        stage.store.release(free.iter().map(|c| c.delivery.id).collect()).await.unwrap();
        assert!(stage.settle(DAY).await);
        assert!(stage.states().await.iter().all(|state| *state == DeliveryState::Delivered));
        let seen = stage.network.wires().seen.clone();
        for n in 3..10 {
            let span = seen[n].began.since(seen[n - 3].began);
            assert!(span >= secs(60) && span <= secs(61), "{span:?}");
        }
        running.stop().await;
    });
}

/// Puts another entry in the place of the stage's, as an edit of the configuration does.
fn edit(stage: &mut Stage, entry: Endpoint) {
    let lane = Lane::webhook(entry, "key").after(&stage.lane);
    std::mem::replace(&mut stage.lane, Arc::new(lane)).retire();
}

#[test]
fn an_edited_entry_keeps_the_pause_of_its_receiver_and_another_url_has_none() {
    for (url, waits) in [("http://e.example/", true), ("http://other.example/", false)] {
        play(async {
            let mut stage = Stage::new(endpoint());
            stage.tell(1, "a", vec![(AT_ONCE, retry_after(429, 40)), (AT_ONCE, status(204))]).await;
            let old = stage.start();
            tokio::time::sleep(secs(1)).await;
            edit(&mut stage, Endpoint { url: Secret::new(url), timeout: secs(1), ..endpoint() });
            stage.tell(2, "b", always(204)).await;
            let new = stage.start();
            assert!(stage.settle(DAY).await);
            let seen = stage.network.wires().seen.clone();
            let pause_ends = seen[0].ended.plus(secs(40));
            assert_eq!(began(&seen, 2)[0] >= pause_ends, waits, "{url} {seen:?}");
            old.stop().await;
            new.stop().await;
        });
    }
}

#[test]
fn an_answer_to_an_attempt_from_before_the_edit_pauses_the_entry_of_now() {
    play(async {
        let mut stage = Stage::new(Endpoint { concurrency: 2, ..endpoint() });
        stage.tell(1, "a", vec![(secs(1), retry_after(503, 40)), (AT_ONCE, status(204))]).await;
        let old = stage.start();
        tokio::time::sleep(Duration::from_millis(1)).await;
        edit(&mut stage, Endpoint { concurrency: 3, ..endpoint() });
        let new = stage.start();
        tokio::time::sleep(secs(2)).await;
        stage.tell(2, "b", always(204)).await;
        assert!(stage.settle(DAY).await);
        let seen = stage.network.wires().seen.clone();
        assert!(began(&seen, 2)[0] >= seen[0].ended.plus(secs(40)), "{seen:?}");
        old.stop().await;
        new.stop().await;
    });
}

#[test]
fn an_edit_gives_no_more_attempts_than_the_rate_and_no_more_slots_than_the_entry_has() {
    play(async {
        let entry = Endpoint { rate: Some("3/m".parse().unwrap()), concurrency: 2, ..endpoint() };
        let mut stage = Stage::new(entry.clone());
        for n in 1..=10 {
            stage.tell(n, "a", vec![(secs(1), status(204))]).await;
        }
        let mut running = vec![stage.start()];
        for edits in 1..=20 {
            // While two are on the wire, and while the rate lets none begin.
            tokio::time::sleep(Duration::from_millis(700)).await;
            edit(&mut stage, Endpoint { timeout: secs(2 + edits), ..entry.clone() });
            running.push(stage.start());
        }
        assert!(stage.settle(DAY).await);
        assert!(stage.states().await.iter().all(|state| *state == DeliveryState::Delivered));
        let seen = stage.network.wires().seen.clone();
        assert_eq!((seen.len(), stage.network.wires().most), (10, 2));
        for n in 3..10 {
            let span = seen[n].began.since(seen[n - 3].began);
            assert!(span >= secs(60), "{span:?}");
        }
        for one in running {
            one.stop().await;
        }
    });
}

#[test]
fn ordered_a_session_waits_for_its_retries_and_others_go_on() {
    play(async {
        let stage = Stage::new(Endpoint { ordered: true, concurrency: 4, ..endpoint() });
        stage
            .tell(1, "a", vec![(AT_ONCE, status(500)), (secs(1), status(503)), (AT_ONCE, status(204))])
            .await;
        stage.tell(2, "a", always(404)).await;
        stage.tell(3, "b", always(204)).await;
        stage.tell(4, "a", always(204)).await;
        let running = stage.start();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.tell(5, "b", always(204)).await;
        assert!(stage.settle(DAY).await);
        let events: Vec<u64> = stage.network.wires().seen.iter().map(|s| s.event).collect();
        assert_eq!(events, [1, 3, 5, 1, 1, 2, 4]);
        running.stop().await;
    });
}

#[test]
fn ordered_what_comes_after_a_dead_delivery_goes_on() {
    play(async {
        let stage = Stage::new(Endpoint { ordered: true, backoff: vec![secs(1)], ..endpoint() });
        stage.tell(1, "a", always(500)).await;
        stage.tell(2, "a", always(204)).await;
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        assert_eq!(stage.states().await, [DeliveryState::Dead, DeliveryState::Delivered]);
        running.stop().await;
    });
}

/// Tells an event every four hours, each refused; returns after how many the endpoint was disabled.
async fn refuse(stage: &Stage, from: u64, to: u64) -> Option<u64> {
    for n in from..=to {
        stage.tell(n, "a", always(404)).await;
        assert!(stage.settle(DAY).await);
        if stage.lane.is_disabled() {
            return Some(n);
        }
        tokio::time::sleep(DAY / 6).await;
    }
    None
}

#[test]
fn five_days_without_a_success_disable_the_endpoint_also_across_a_restart() {
    play(async {
        let stage = Stage::new(endpoint());
        let running = stage.start();
        assert_eq!(refuse(&stage, 1, 10).await, None);
        running.stop().await;
        // Nobody is counted on while ringback does not run.
        tokio::time::sleep(30 * DAY).await;
        let running = stage.start();
        // Five days are 30 gaps: nine before the stop, none across it, and 21 after it.
        assert_eq!(refuse(&stage, 11, 60).await, Some(32));
        let kept = stage.store.endpoint_status(&stage.lane.endpoint.name).await.unwrap().unwrap();
        assert!(kept.reason.contains("of awake time without a success"), "{}", kept.reason);
        assert_eq!(stage.store.values("failing:").await.unwrap(), [], "once enabled it begins anew");
        running.stop().await;
    });
}

#[test]
fn one_success_in_five_days_keeps_the_endpoint() {
    play(async {
        let stage = Stage::new(endpoint());
        let running = stage.start();
        assert_eq!(refuse(&stage, 1, 14).await, None);
        stage.tell(15, "a", always(204)).await;
        assert!(stage.settle(DAY).await);
        assert_eq!(refuse(&stage, 16, 35).await, None);
        running.stop().await;
    });
}

#[test]
fn the_operators_headers_go_with_every_attempt() {
    play(async {
        let headers = vec![("authorization".to_owned(), Secret::new("Bearer hunter2"))];
        let stage = Stage::new(Endpoint { headers, ..endpoint() });
        stage.tell(1, "a", vec![(AT_ONCE, status(500)), (AT_ONCE, status(204))]).await;
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        let seen = stage.network.wires().seen.clone();
        assert_eq!(seen.len(), 2);
        for attempt in seen {
            assert_eq!(attempt.headers["authorization"], "Bearer hunter2");
            assert_eq!(attempt.headers["content-type"], "application/json");
            assert!(!format!("{:?}", attempt.headers).contains("hunter2"));
        }
        assert!(!format!("{:?}", stage.lane).contains("hunter2"));
        running.stop().await;
    });
}

#[test]
fn an_endpoint_is_served_after_the_others_while_its_last_attempt_had_no_success() {
    play(async {
        let (stage, other) = (Stage::new(endpoint()), Stage::new(endpoint()));
        stage.tell(1, "a", vec![(AT_ONCE, status(500)), (AT_ONCE, status(204))]).await;
        let running = stage.start();
        let comes_first = || Arc::ptr_eq(in_turn([&stage.lane, &other.lane].into_iter())[0], &stage.lane);
        assert!(comes_first(), "nothing speaks against it");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!comes_first());
        assert!(stage.settle(DAY).await);
        assert!(comes_first());
        running.stop().await;
    });
}

#[test]
fn endpoints_that_fail_share_400_attempts_a_second_and_nothing_is_lost_by_it() {
    play(async {
        let mut endpoint = Endpoint { concurrency: 8, backoff: vec![secs(1); 3], ..endpoint() };
        endpoint.timeout = secs(1);
        let stage = Stage::new(endpoint);
        for n in 1..=900 {
            stage
                .tell(n, "a", vec![(AT_ONCE, status(500)), (AT_ONCE, status(500)), (AT_ONCE, status(204))])
                .await;
        }
        let running = stage.start();
        assert!(stage.settle(DAY).await);
        assert!(stage.states().await.iter().all(|state| *state == DeliveryState::Delivered));
        let seen = stage.network.wires().seen.clone();
        let failed =
            |n: &Seen| seen.iter().filter(|s| s.event == n.event).position(|s| s.began == n.began) < Some(2);
        let failing: Vec<Timestamp> = seen.iter().filter(|s| failed(s)).map(|s| s.began).collect();
        // The first slots are filled before anything is known of the endpoint.
        for (n, first) in failing.iter().enumerate().skip(8) {
            let within = failing[n..].iter().take_while(|at| at.since(*first) < secs(1)).count();
            assert!(within <= 408, "{within}");
        }
        running.stop().await;
    });
}
