//! Results in a file, and whether new ones are worse than those.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::row::{Better, Measured};
use crate::statistics::Spread;

/// A regression smaller than this is none, however quiet the rounds were.
const LEAST_NOISE: f64 = 0.05;

/// The claims of one run, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// By the claim's name.
    pub claims: BTreeMap<String, Entry>,
}

/// One claim. Only `ratio` and `noise` are compared; the rest is for readers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says: in a file so that it can be read alone.
    pub unit: String,
    /// Median, least and greatest of ours.
    pub ours: [f64; 3],
    /// The same of the ceiling.
    pub ceiling: Option<[f64; 3]>,
    /// Ours over the ceiling, or over the floor.
    pub ratio: Option<f64>,
    /// How far the ratios of neighbouring rounds were apart, as a share.
    pub noise: Option<f64>,
    /// Whether the promise was kept.
    pub met: Option<bool>,
}

/// A claim that is worse than it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// The claim's name.
    pub name: String,
    /// The ratio in the baseline.
    pub was: f64,
    /// The ratio now.
    pub is: f64,
    /// By what share a ratio may be worse: the noise.
    pub allowed: f64,
}

impl Results {
    /// What was measured, as it is written to a file.
    pub fn of(measured: &[Measured]) -> Results {
        let rounded = |n: f64| (n * 1000.0).round() / 1000.0;
        let three = |s: &Spread| [s.median, s.min, s.max].map(rounded);
        let entry = |m: &Measured| Entry {
            unit: m.claim.unit.name().to_owned(),
            ours: three(&m.ours),
            ceiling: m.ceiling.as_ref().map(three),
            ratio: m.ratio().map(rounded),
            noise: m.noise.map(rounded),
            met: m.is_met(),
        };
        Results { claims: measured.iter().map(|m| (m.claim.name.to_owned(), entry(m))).collect() }
    }

    /// Reads a file of results.
    ///
    /// # Errors
    /// It is not there, or none of ours.
    pub fn read(path: &std::path::Path) -> Result<Results> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no results", path.display()))
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &std::path::Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot serialise the results")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The claims whose ratio is worse than in the baseline by more than the noise of both. Claims that only one of them
/// has are left out.
pub fn regressions(baseline: &Results, measured: &[Measured]) -> Vec<Regression> {
    let worse = |now: &Measured| {
        let before = baseline.claims.get(now.claim.name)?;
        let (was, is) = (before.ratio?, now.ratio()?);
        let noise = [before.noise, now.noise].into_iter().flatten().fold(LEAST_NOISE, f64::max);
        let is_worse = match now.claim.better {
            Better::Higher => is < was / (1.0 + noise),
            Better::Lower => is > was * (1.0 + noise),
        };
        is_worse.then(|| Regression { name: now.claim.name.to_owned(), was, is, allowed: noise })
    };
    measured.iter().filter_map(worse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Claim, Floor, Unit};

    fn now(name: &'static str, better: Better, ratio: f64, noise: Option<f64>) -> Measured {
        let same = |n| Spread { median: n, min: n, max: n };
        let claim = Claim { name, what: "", unit: Unit::PerSecond, better, floor: Floor::OfCeiling(0.5) };
        Measured { claim, ours: same(ratio * 100.0), ceiling: Some(same(100.0)), noise }
    }

    fn was(name: &str, ratio: f64, noise: f64) -> Results {
        let entry = Entry { ratio: Some(ratio), noise: Some(noise), ..Entry::default() };
        Results { claims: [(name.to_owned(), entry)].into() }
    }

    #[test]
    fn a_ratio_worse_by_more_than_the_noise_is_a_regression_in_either_direction() {
        let quiet = Some(0.0);
        let is_worse = |before: &Results, measured: Measured| !regressions(before, &[measured]).is_empty();
        let before = was("c", 0.8, 0.1);
        assert!(is_worse(&before, now("c", Better::Higher, 0.72, quiet)), "11 % worse, 10 % is noise");
        assert!(!is_worse(&before, now("c", Better::Higher, 0.73, quiet)));
        assert!(!is_worse(&before, now("c", Better::Higher, 1.6, quiet)), "better");
        assert!(is_worse(&before, now("c", Better::Lower, 0.89, quiet)));
        assert!(!is_worse(&before, now("c", Better::Lower, 0.4, quiet)), "better");
        assert!(!is_worse(&before, now("c", Better::Higher, 0.65, Some(0.3))), "this run's own noise counts");
    }

    #[test]
    fn the_noise_of_a_quiet_run_is_never_taken_for_nothing() {
        assert_eq!(regressions(&was("c", 1.0, 0.0), &[now("c", Better::Lower, 1.04, None)]), []);
        let found = regressions(&was("c", 1.0, 0.0), &[now("c", Better::Lower, 1.06, None)]);
        assert_eq!(found.iter().map(|r| r.allowed).collect::<Vec<_>>(), [LEAST_NOISE]);
    }

    #[test]
    fn a_claim_that_the_baseline_lacks_is_no_regression() {
        assert_eq!(regressions(&was("other", 1.0, 0.0), &[now("c", Better::Lower, 9.0, None)]), []);
    }

    #[test]
    fn results_are_read_back_as_written() {
        let results = Results::of(&[now("c", Better::Higher, 0.8, Some(0.1))]);
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        assert_eq!(results.claims["c"].ratio, Some(0.8));
    }
}
