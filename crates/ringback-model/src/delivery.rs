//! An event on its way to an endpoint, and what an attempt's outcome makes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{DeliveryId, EndpointName, EventId, words};
use crate::time::Timestamp;

words! {
    /// Where a delivery stands.
    DeliveryState, "delivery state" {
        /// An attempt is due, now or later.
        Pending = "pending",
        /// The endpoint answered 2xx.
        Delivered = "delivered",
        /// The endpoint refused it for good.
        Failed = "failed",
        /// Attempts used up; replayable.
        Dead = "dead",
        /// The endpoint's entry went away.
        Cancelled = "cancelled",
    }
}

/// An [`Event`](crate::Event) for one [`Endpoint`](crate::Endpoint).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Given by the store.
    pub id: DeliveryId,
    /// The event.
    pub event_id: EventId,
    /// The endpoint's name.
    pub endpoint: EndpointName,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts made that count against `backoff`.
    pub attempts: u32,
    /// When the event was journaled, or, if that is later, when the delivery was last replayed.
    pub created_at: Timestamp,
    /// When the next attempt is due; meaningless unless pending.
    pub due_at: Timestamp,
}

/// One HTTP try, as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1-based, over all tries of the delivery.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Status of the answer; `None` = there was none.
    pub status: Option<u16>,
    /// What went wrong, for a reader: "timeout after 10s", "redirected to …"; `None` = nothing.
    pub error: Option<String>,
    /// The first bytes of the answer's body, at most 1 KiB, as text.
    pub excerpt: String,
}

/// What came of an attempt on the wire.
pub type Reply = Result<Answer, Failure>;

/// An HTTP answer, read as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `Retry-After`, already turned into a wait, uncapped.
    pub retry_after: Option<Duration>,
    /// The header `webhook-delivery: disable` was there.
    pub disable: bool,
    /// Target of a redirect.
    pub location: Option<String>,
    /// At most 1 KiB of the body.
    pub excerpt: String,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The attempt's time ran out.
    Timeout,
    /// Nothing listens there.
    Refused,
    /// The connection broke, or what came was no HTTP.
    Broken(String),
    /// No TLS session.
    Tls(String),
    /// The name has no address right now: the machine's fault.
    Dns(String),
    /// No route, network down: the machine's fault.
    Unreachable(String),
    /// The address is not allowed by the network profile.
    Blocked(String),
}

/// What a reply means (outbound.md, "Outcome of an attempt").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Delivered,
    /// Try again by `backoff`, no sooner than after `wait`.
    Retry {
        /// The receiver's `Retry-After`, capped at one hour.
        wait: Option<Duration>,
        /// Whether that wait is for the whole endpoint (429 and 503).
        pause: bool,
    },
    /// The machine is offline: costs no attempt.
    Offline,
    /// Failed for good.
    Rejected,
    /// The receiver wants nothing more.
    Disable {
        /// Whether it took this one: a 2xx.
        accepted: bool,
    },
}

/// The longest `Retry-After` that is honoured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How long a delivery is tried while the machine is offline.
pub const OFFLINE_FOR: Duration = Duration::from_secs(24 * 3600);
const OFFLINE_WAIT: Duration = Duration::from_secs(30);
const JITTER_ABOVE: Duration = Duration::from_secs(5);

/// Reads a reply.
pub fn outcome(reply: &Reply) -> Outcome {
    match reply {
        Ok(answer) if answer.status == 410 || answer.disable => {
            Outcome::Disable { accepted: (200..=299).contains(&answer.status) }
        }
        Ok(answer) => match answer.status {
            200..=299 => Outcome::Delivered,
            408 | 425 | 429 | 500.. => Outcome::Retry {
                wait: answer.retry_after.map(|w| w.min(MAX_RETRY_AFTER)),
                pause: matches!(answer.status, 429 | 503) && answer.retry_after.is_some(),
            },
            _ => Outcome::Rejected,
        },
        Err(Failure::Dns(_) | Failure::Unreachable(_)) => Outcome::Offline,
        Err(Failure::Blocked(_)) => Outcome::Rejected,
        Err(Failure::Timeout | Failure::Refused | Failure::Broken(_) | Failure::Tls(_)) => {
            Outcome::Retry { wait: None, pause: false }
        }
    }
}

/// Where a delivery stands after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The new state.
    pub state: DeliveryState,
    /// Attempts used up so far.
    pub attempts: u32,
    /// When it is due, if pending.
    pub due_at: Timestamp,
}

/// Decides what follows an attempt that ended at `now`. `jitter` in `-1.0..=1.0` scales the ±10 % that waits over
/// five seconds get.
pub fn after(
    delivery: &Delivery,
    outcome: &Outcome,
    backoff: &[Duration],
    now: Timestamp,
    jitter: f64,
) -> Next {
    let used = delivery.attempts.saturating_add(1);
    let stop = |state, attempts| Next { state, attempts, due_at: now };
    match outcome {
        Outcome::Delivered | Outcome::Disable { accepted: true } => stop(DeliveryState::Delivered, used),
        Outcome::Rejected => stop(DeliveryState::Failed, used),
        Outcome::Disable { accepted: false } => stop(DeliveryState::Dead, used),
        Outcome::Offline if now.since(delivery.created_at) >= OFFLINE_FOR => {
            stop(DeliveryState::Dead, delivery.attempts)
        }
        Outcome::Offline => {
            let wait = backoff.last().copied().unwrap_or(OFFLINE_WAIT).max(OFFLINE_WAIT);
            Next {
                state: DeliveryState::Pending,
                attempts: delivery.attempts,
                due_at: now.plus(jittered(wait, jitter).max(OFFLINE_WAIT)),
            }
        }
        Outcome::Retry { wait, .. } => match backoff.get(delivery.attempts as usize) {
            None => stop(DeliveryState::Dead, used),
            Some(scheduled) => {
                let wait = jittered(*scheduled, jitter).max(wait.unwrap_or(Duration::ZERO));
                Next { state: DeliveryState::Pending, attempts: used, due_at: now.plus(wait) }
            }
        },
    }
}

/// How long a delivery waits for its next attempt, at most. One that is due later was put there by a clock that was
/// ahead, or by an entry with longer waits.
pub fn longest_wait(backoff: &[Duration]) -> Duration {
    let longest = backoff.iter().copied().fold(MAX_RETRY_AFTER.max(OFFLINE_WAIT), Duration::max);
    jittered(longest, 1.0)
}

fn jittered(wait: Duration, jitter: f64) -> Duration {
    if wait <= JITTER_ABOVE {
        return wait;
    }
    wait.mul_f64(1.0 + 0.1 * jitter.clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

    fn delivery(attempts: u32) -> Delivery {
        Delivery {
            id: DeliveryId(1),
            event_id: EventId(uuid::Uuid::nil()),
            endpoint: EndpointName::new("e"),
            state: DeliveryState::Pending,
            attempts,
            created_at: Timestamp::from_millis(0),
            due_at: Timestamp::from_millis(0),
        }
    }

    fn status(status: u16) -> Outcome {
        outcome(&Ok(Answer { status, ..Answer::default() }))
    }

    #[test]
    fn statuses_mean_what_the_contract_says() {
        for s in [200, 201, 202, 204, 299] {
            assert_eq!(status(s), Outcome::Delivered, "{s}");
        }
        for s in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(status(s), Outcome::Retry { wait: None, pause: false }, "{s}");
        }
        for s in [100, 301, 302, 307, 308, 400, 401, 403, 404, 409, 422] {
            assert_eq!(status(s), Outcome::Rejected, "{s}");
        }
        assert_eq!(status(410), Outcome::Disable { accepted: false });
        assert_eq!(outcome(&Err(Failure::Dns("x".into()))), Outcome::Offline);
        assert_eq!(outcome(&Err(Failure::Refused)), Outcome::Retry { wait: None, pause: false });
    }

    #[test]
    fn a_receiver_that_wants_no_more_has_what_it_answered_2xx_to() {
        for (status, state) in
            [(200, DeliveryState::Delivered), (204, DeliveryState::Delivered), (410, DeliveryState::Dead)]
                .into_iter()
                .chain([302, 404, 429, 500].map(|status| (status, DeliveryState::Dead)))
        {
            let outcome = outcome(&Ok(Answer { status, disable: true, ..Answer::default() }));
            assert!(matches!(outcome, Outcome::Disable { .. }), "{status}");
            let next = after(&delivery(0), &outcome, &BACKOFF, Timestamp::from_millis(0), 0.0);
            assert_eq!(next.state, state, "{status}");
        }
    }

    #[test]
    fn failures_of_the_receiver_are_retried_and_those_of_the_machine_cost_no_attempt() {
        let text = || "why".to_owned();
        let retry = Outcome::Retry { wait: None, pause: false };
        for (failure, wanted) in [
            (Failure::Timeout, &retry),
            (Failure::Refused, &retry),
            (Failure::Broken(text()), &retry),
            (Failure::Tls(text()), &retry),
            (Failure::Dns(text()), &Outcome::Offline),
            (Failure::Unreachable(text()), &Outcome::Offline),
            (Failure::Blocked(text()), &Outcome::Rejected),
        ] {
            assert_eq!(outcome(&Err(failure.clone())), *wanted, "{failure:?}");
        }
    }

    #[test]
    fn retry_after_lengthens_the_wait_up_to_an_hour_and_pauses_for_429_and_503() {
        let with = |status, secs| {
            outcome(&Ok(Answer { status, retry_after: Some(Duration::from_secs(secs)), ..Answer::default() }))
        };
        assert_eq!(with(429, 7), Outcome::Retry { wait: Some(Duration::from_secs(7)), pause: true });
        assert_eq!(with(500, 7), Outcome::Retry { wait: Some(Duration::from_secs(7)), pause: false });
        assert_eq!(with(503, 999_999), Outcome::Retry { wait: Some(MAX_RETRY_AFTER), pause: true });
        let now = Timestamp::from_millis(1000);
        let next = after(&delivery(0), &with(500, 7), &BACKOFF, now, 0.0);
        assert_eq!(next.due_at, now.plus(Duration::from_secs(7)));
        let next = after(&delivery(1), &with(500, 2), &BACKOFF, now, 0.0);
        assert_eq!(next.due_at, now.plus(Duration::from_secs(5)));
    }

    #[test]
    fn attempts_are_one_more_than_the_waits_and_then_the_delivery_is_dead() {
        let now = Timestamp::from_millis(0);
        let retry = Outcome::Retry { wait: None, pause: false };
        let waits: Vec<_> = (0..4)
            .map(|n| {
                let next = after(&delivery(n), &retry, &BACKOFF, now, 0.0);
                (next.state, next.due_at.as_millis(), next.attempts)
            })
            .collect();
        assert_eq!(
            waits,
            [
                (DeliveryState::Pending, 1_000, 1),
                (DeliveryState::Pending, 5_000, 2),
                (DeliveryState::Pending, 30_000, 3),
                (DeliveryState::Dead, 0, 4),
            ]
        );
    }

    #[test]
    fn offline_uses_up_no_attempt_for_a_day() {
        let early = after(&delivery(2), &Outcome::Offline, &BACKOFF, Timestamp::from_millis(5), 0.0);
        assert_eq!(
            (early.state, early.attempts, early.due_at.as_millis()),
            (DeliveryState::Pending, 2, 30_005)
        );
        let late = after(&delivery(2), &Outcome::Offline, &BACKOFF, Timestamp::from_millis(86_400_000), 0.0);
        assert_eq!((late.state, late.attempts), (DeliveryState::Dead, 2));
    }

    #[test]
    fn no_delivery_waits_longer_than_the_longest_wait() {
        let day = Duration::from_secs(86_400);
        let long = [Duration::from_secs(1), day, Duration::from_secs(5)];
        let asked = |secs| Outcome::Retry { wait: Some(Duration::from_secs(secs)), pause: false };
        for backoff in [&BACKOFF[..], &long, &[]] {
            for outcome in [Outcome::Offline, asked(0), asked(3600)] {
                for (attempts, jitter) in [(0, 1.0), (1, 1.0), (1, -1.0), (2, 1.0), (9, 1.0)] {
                    let now = Timestamp::from_millis(0);
                    let next = after(&delivery(attempts), &outcome, backoff, now, jitter);
                    assert!(next.due_at <= now.plus(longest_wait(backoff)), "{backoff:?} {outcome:?}");
                }
            }
        }
        assert_eq!(longest_wait(&BACKOFF), Duration::from_secs(3960));
        assert_eq!(longest_wait(&long), day.mul_f64(1.1));
    }

    #[test]
    fn the_wait_while_offline_is_never_shorter_than_half_a_minute() {
        for (backoff, jitter, millis) in [
            (&BACKOFF[..], -1.0, 30_000),
            (&BACKOFF[..1], -1.0, 30_000),
            (&[], -1.0, 30_000),
            (&BACKOFF[..], 1.0, 33_000),
            (&[Duration::from_secs(100)], -1.0, 90_000),
        ] {
            let next = after(&delivery(0), &Outcome::Offline, backoff, Timestamp::from_millis(0), jitter);
            assert_eq!(next.due_at.as_millis(), millis, "{backoff:?} {jitter}");
        }
    }

    proptest! {
        #[test]
        fn jitter_moves_only_waits_over_five_seconds_and_by_a_tenth(secs in 0u64..100_000, jitter in -1.0f64..1.0) {
            let wait = Duration::from_secs(secs);
            let got = jittered(wait, jitter);
            if secs <= 5 {
                prop_assert_eq!(got, wait);
            } else {
                prop_assert!(got >= wait.mul_f64(0.899) && got <= wait.mul_f64(1.101));
            }
        }
    }
}
