//! Slows down peers that keep failing to authenticate. Pure: the clock is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ringback_model::Timestamp;

/// Failures within [`WINDOW`] that are answered without delay.
const FREE: usize = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Peers remembered at once; beyond, those that failed longest ago are forgotten.
const PEERS: usize = 10_000;

#[derive(Default)]
pub(super) struct Throttle(HashMap<IpAddr, VecDeque<Timestamp>>);

impl Throttle {
    /// Notes a failure. `Some` = the peer is over its bound, and until when it stays so.
    pub(super) fn failed(&mut self, peer: IpAddr, now: Timestamp) -> Option<Duration> {
        if self.0.len() >= PEERS && !self.0.contains_key(&peer) {
            self.0.retain(|_, failures| failures.back().is_some_and(|at| now.since(*at) < WINDOW));
            if self.0.len() >= PEERS {
                self.0.clear();
            }
        }
        let failures = self.0.entry(peer).or_default();
        while failures.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            failures.pop_front();
        }
        if failures.len() < FREE {
            failures.push_back(now);
            return None;
        }
        failures.front().map(|first| first.plus(WINDOW).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_21st_failure_in_60_s_is_throttled_and_other_peers_are_not() {
        let mut throttle = Throttle::default();
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        for n in 0..20 {
            assert_eq!(throttle.failed(a, at(n)), None);
        }
        assert_eq!(throttle.failed(a, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(throttle.failed(b, at(20)), None);
        assert_eq!(throttle.failed(a, at(60)), None);
        assert!(throttle.failed(a, at(60)).is_some());
    }
}
