//! Of many numbers a few.

use std::time::Duration;

/// Median, least and greatest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Zeros for no numbers.
    pub(crate) fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        Spread { median: f64::midpoint(at(last / 2), at(sorted.len() / 2)), min: at(0), max: at(last) }
    }
}

/// How far two neighbours are apart at most, as a share of the median.
pub(crate) fn noise(values: &[f64]) -> Option<f64> {
    let median = Spread::of(values).median;
    let apart = values.windows(2).map(|pair| (pair[0] - pair[1]).abs());
    let apart = apart.max_by(f64::total_cmp)?;
    Some(if median == 0.0 { 0.0 } else { apart / median })
}

/// The time that this share of all stays within, in milliseconds; `times` need no order.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_any_number_of_rounds() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn noise_is_the_widest_step_between_two_rounds() {
        assert_eq!(noise(&[10.0, 11.0, 9.0, 10.0]), Some(0.2));
        assert_eq!(noise(&[10.0]), None);
    }

    #[test]
    fn a_percentile_is_the_time_that_so_many_stay_within() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut times, 0.5), 50.0);
        assert_eq!(percentile(&mut times, 0.99), 99.0);
        assert_eq!(percentile(&mut [Duration::from_millis(3)], 0.99), 3.0);
    }
}
