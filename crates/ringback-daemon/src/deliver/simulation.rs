//! Ten thousand random schedules of one endpoint under made-up time.
//!
//! `RINGBACK_SEED=N` plays schedule N alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringback_model::delivery::{self, Answer, DeliveryState, MAX_RETRY_AFTER, Outcome, Reply};
use ringback_model::{Endpoint, Failure};
use ringback_store::{DeliveryDetail, Ending, Store};
use tokio::time::Instant;

use super::stage::{Script, Seen, Stage, endpoint, now, play, retry_after, state_of, status};

const SCHEDULES: u64 = 10_000;
/// Everything is over long before: ten attempts or so per event, at worst three a minute.
const GIVE_UP: Duration = Duration::from_secs(3 * 86_400);

#[test]
fn no_schedule_loses_reorders_repeats_or_leaks() {
    let only =
        std::env::var("RINGBACK_SEED").ok().map(|text| text.parse().expect("RINGBACK_SEED is a number"));
    let seeds = only.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    let mut attempts = 0;
    for seed in seeds {
        let (schedule, result) = play(async {
            let schedule = Schedule::random(seed);
            let result = schedule.run().await;
            (schedule, result)
        });
        match result {
            Ok(made) => attempts += made,
            Err(wrong) => panic!("RINGBACK_SEED={seed}: {wrong}\n{schedule:#?}"),
        }
    }
    assert!(attempts > 0);
}

/// A small generator, so that a seed means the same for ever (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

#[derive(Debug)]
struct Schedule {
    endpoint: Endpoint,
    /// When it is told, its session, its script.
    events: Vec<(Duration, &'static str, Script)>,
    /// What happens meanwhile.
    turn: Option<(Duration, Turn)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Turn {
    /// The loop is stopped and started again.
    Restart,
    /// The entry goes away.
    Cancel,
    /// The operator disables the endpoint.
    Disable,
}

impl Schedule {
    fn random(seed: u64) -> Schedule {
        let mut dice = Dice(seed);
        let ms = Duration::from_millis;
        let waits = [0, 10, 1000, 5000, 7000, 30_000].map(ms);
        let rate = dice.pick(&[None, None, None, Some("2/s"), Some("3/m")]);
        let endpoint = Endpoint {
            concurrency: dice.pick(&[1, 2, 3, 16]),
            backoff: (0..dice.roll(4)).map(|_| dice.pick(&waits)).collect(),
            ordered: dice.roll(2) == 0,
            rate: rate.map(|text| text.parse().expect("it is a rate")),
            ..endpoint()
        };
        let mut told_at = Duration::ZERO;
        let events = (0..1 + dice.roll(7)).map(|_| {
            told_at += ms(dice.pick(&[0, 0, 1, 300, 4000]));
            let session = dice.pick(&["a", "b", "c"]);
            let script = (0..1 + dice.roll(4)).map(|_| (ms(dice.pick(&[0, 1, 40, 1500])), reply(&mut dice)));
            (told_at, session, script.chain([(Duration::ZERO, last_reply(seed, told_at))]).collect())
        });
        let events = events.collect();
        let turn = match dice.roll(6) {
            0 => Some(Turn::Restart),
            1 => Some(Turn::Cancel),
            2 => Some(Turn::Disable),
            _ => None,
        };
        Schedule { endpoint, events, turn: turn.map(|turn| (ms(dice.roll(20_000)), turn)) }
    }

    /// Plays it. Returns the number of attempts, or what went wrong.
    async fn run(&self) -> Result<usize, String> {
        let stage = Stage::new(self.endpoint.clone());
        let is_over = Arc::new(AtomicBool::new(false));
        stage.network.wires().judge = self.judge(&stage, &is_over);
        let mut running = Some(stage.start());
        let began = Instant::now();
        let mut turn = self.turn;
        for (n, (told_at, session, script)) in (1..).zip(&self.events) {
            if let Some((at, what)) = turn.filter(|(at, _)| at <= told_at) {
                tokio::time::sleep_until(began + at).await;
                turn = None;
                self.take(what, &stage, &mut running, &is_over).await;
            }
            tokio::time::sleep_until(began + *told_at).await;
            if !is_over.load(Ordering::Relaxed) {
                stage.tell(n, session, script.clone()).await;
            }
        }
        if let Some((at, what)) = turn {
            tokio::time::sleep_until(began + at).await;
            self.take(what, &stage, &mut running, &is_over).await;
        }
        if !stage.settle(GIVE_UP).await {
            return Err(format!("not every event ended: {:?}", stage.states().await));
        }
        if let Some(running) = running {
            running.stop().await;
        }
        self.check(&stage).await
    }

    async fn take(
        &self,
        what: Turn,
        stage: &Stage,
        running: &mut Option<super::stage::Running>,
        is_over: &AtomicBool,
    ) {
        if what != Turn::Disable
            && let Some(running) = running.take()
        {
            running.stop().await;
        }
        match what {
            Turn::Restart => *running = Some(stage.start()),
            Turn::Cancel => {
                is_over.store(true, Ordering::Relaxed);
                let name = &self.endpoint.name;
                stage.store.close_pending(name, Ending::Cancelled, now()).await.expect("memory takes it");
            }
            Turn::Disable => {
                stage.lane.set_disabled(true);
                stage.lane.wake.notify_one();
            }
        }
    }

    /// What may never be so when an attempt begins.
    fn judge(
        &self,
        stage: &Stage,
        is_over: &Arc<AtomicBool>,
    ) -> Box<dyn FnMut(u64) -> Option<String> + Send> {
        let (lane, store, is_over) = (Arc::clone(&stage.lane), Arc::clone(&stage.store), Arc::clone(is_over));
        let sessions: Vec<&'static str> = self.events.iter().map(|(_, session, _)| *session).collect();
        let is_ordered = self.endpoint.ordered;
        Box::new(move |event| {
            if is_over.load(Ordering::Relaxed) {
                return Some(format!("event {event} was attempted after the cancel"));
            }
            if lane.is_disabled() {
                return Some(format!("event {event} was attempted after the endpoint was disabled"));
            }
            let session = sessions[event as usize - 1];
            let mut earlier = (1..event).filter(|n| is_ordered && sessions[*n as usize - 1] == session);
            let open = earlier.find(|n| state_of(&store, *n) == Some(DeliveryState::Pending))?;
            Some(format!("event {event} was attempted before event {open} was finished"))
        })
    }

    async fn check(&self, stage: &Stage) -> Result<usize, String> {
        let (seen, most, in_flight, wrong) = {
            let wires = stage.network.wires();
            (wires.seen.clone(), wires.most, wires.in_flight, wires.wrong.clone())
        };
        if let Some(wrong) = wrong.first() {
            return Err(wrong.clone());
        }
        if most > self.endpoint.concurrency || in_flight != 0 {
            return Err(format!("{most} in flight at once, {in_flight} at the end"));
        }
        let deliveries = stage.deliveries().await;
        let is_ended_early = stage.lane.is_disabled() || self.turn.is_some_and(|(_, t)| t == Turn::Cancel);
        if deliveries.len() != self.events.len() && !is_ended_early {
            return Err(format!("{} of {} events are there", deliveries.len(), self.events.len()));
        }
        let mut by_event: HashMap<u64, Vec<&Seen>> = HashMap::new();
        for attempt in &seen {
            by_event.entry(attempt.event).or_default().push(attempt);
        }
        let numbers: HashSet<u64> = by_event.keys().copied().collect();
        if numbers.iter().any(|n| *n > deliveries.len() as u64) {
            return Err("an event was attempted that was never told".to_owned());
        }
        for (n, delivery) in (1..).zip(&deliveries) {
            let attempts = by_event.remove(&n).unwrap_or_default();
            let script = &self.events[n as usize - 1].2;
            self.check_event(script, delivery, &attempts, is_ended_early)
                .map_err(|e| format!("event {n}: {e}"))?;
        }
        Ok(seen.len())
    }

    /// Follows the script with the rules of the contract, step by step.
    fn check_event(
        &self,
        script: &Script,
        delivery: &DeliveryDetail,
        attempts: &[&Seen],
        is_ended_early: bool,
    ) -> Result<(), String> {
        let got = delivery.row.delivery.state;
        if delivery.attempts.len() != attempts.len() {
            return Err(format!(
                "{} attempts are kept, {} were made",
                delivery.attempts.len(),
                attempts.len()
            ));
        }
        let mut used = 0;
        for (turn, seen) in attempts.iter().enumerate() {
            let (_, reply) = &script[turn.min(script.len() - 1)];
            let next = attempts.get(turn + 1);
            let (ends, wait, asked) = match delivery::outcome(reply) {
                Outcome::Delivered | Outcome::Disable { accepted: true } => {
                    (Some(DeliveryState::Delivered), Duration::ZERO, None)
                }
                Outcome::Rejected => (Some(DeliveryState::Failed), Duration::ZERO, None),
                Outcome::Disable { accepted: false } => (Some(DeliveryState::Dead), Duration::ZERO, None),
                Outcome::Offline => {
                    let last = self.endpoint.backoff.last().copied().unwrap_or_default();
                    (None, last.max(Duration::from_secs(30)), None)
                }
                Outcome::Retry { wait: asked, .. } => {
                    used += 1;
                    match self.endpoint.backoff.get(used - 1) {
                        Some(wait) => (None, *wait, asked),
                        None => (Some(DeliveryState::Dead), Duration::ZERO, None),
                    }
                }
            };
            match (ends, next) {
                (Some(state), None) if got == state => return Ok(()),
                // What the receiver took is delivered also where the end of the endpoint was quicker.
                (Some(state), None) if is_ended_early && state != DeliveryState::Delivered => return Ok(()),
                (Some(state), _) => {
                    return Err(format!(
                        "it is {got} after {} attempts, not {state} after {}",
                        attempts.len(),
                        turn + 1
                    ));
                }
                (None, Some(next)) => self.check_wait(wait, asked, next.began.since(seen.ended))?,
                (None, None) => {}
            }
        }
        match got {
            DeliveryState::Dead | DeliveryState::Cancelled if is_ended_early => Ok(()),
            _ => Err(format!("it is {got} after {} attempts, and its script goes on", attempts.len())),
        }
    }

    fn check_wait(&self, wait: Duration, asked: Option<Duration>, waited: Duration) -> Result<(), String> {
        let asked = asked.unwrap_or_default().min(MAX_RETRY_AFTER);
        let (least, most) = match wait > Duration::from_secs(5) {
            true => (wait.mul_f64(0.9), wait.mul_f64(1.1)),
            false => (wait, wait),
        };
        // The store counts whole milliseconds, and so does the timer.
        let slack = Duration::from_millis(2);
        if waited + slack < least.max(asked) {
            return Err(format!("it waited {waited:?}, not {wait:?} or {asked:?}"));
        }
        let pauses = |(_, reply): &(Duration, Reply)| {
            matches!(delivery::outcome(reply), Outcome::Retry { pause: true, .. })
        };
        let is_hindered = self.endpoint.concurrency < self.events.len()
            || self.endpoint.ordered
            || self.endpoint.rate.is_some()
            || self.turn.is_some()
            || self.events.iter().any(|(_, _, script)| script.iter().any(pauses));
        if !is_hindered && waited > most.max(asked) + slack {
            return Err(format!("it waited {waited:?}, not {wait:?} or {asked:?}, with nothing in its way"));
        }
        Ok(())
    }
}

fn reply(dice: &mut Dice) -> Reply {
    match dice.roll(24) {
        0..=5 => status(500),
        6..=8 => status(204),
        9 => retry_after(500, 3),
        10 => retry_after(429, 4),
        11 => retry_after(503, 20),
        12 => status(404),
        13 => status(302),
        14 => status(410),
        15 => Ok(Answer { status: 200, disable: true, ..Answer::default() }),
        16 | 17 => Err(Failure::Timeout),
        18 | 19 => Err(Failure::Refused),
        20 => Err(Failure::Broken("reset".to_owned())),
        21 => Err(Failure::Dns("no such host".to_owned())),
        22 => Err(Failure::Unreachable("no route".to_owned())),
        _ => Err(Failure::Blocked("not public".to_owned())),
    }
}

/// Half of the scripts end well and half go on failing.
fn last_reply(seed: u64, told_at: Duration) -> Reply {
    if (seed + told_at.as_millis() as u64).is_multiple_of(2) { status(204) } else { status(503) }
}
