//! Percentiles over an endpoint's last answers.

use crate::Latency;

/// How many answers count.
pub(crate) const WINDOW: usize = 1000;

/// Reads the percentiles off durations in any order; `None` = there are none.
pub(crate) fn percentiles(mut durations_ms: Vec<u64>) -> Option<Latency> {
    durations_ms.sort_unstable();
    let rank = |percent: usize| {
        let rank = (durations_ms.len() * percent).div_ceil(100);
        durations_ms.get(rank.saturating_sub(1)).copied()
    };
    Some(Latency { p50_ms: rank(50)?, p99_ms: rank(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let of = |n: u64| percentiles((1..=n).rev().collect()).map(|l| (l.p50_ms, l.p99_ms));
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some((1, 1)));
        assert_eq!(of(2), Some((1, 2)));
        assert_eq!(of(100), Some((50, 99)));
        assert_eq!(of(1000), Some((500, 990)));
    }
}
