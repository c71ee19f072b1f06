//! What a row is: claims, two sides, and rounds in which the sides take turns.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use crate::rows::ROWS;
use crate::statistics::{self, Spread};

/// How much a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the documentation states it.
    Full,
    /// Enough to see that it works; the numbers mean nothing.
    Quick,
}

/// What every row needs.
pub struct Bench {
    /// The program to measure, as an absolute path: it is started in other directories than this one.
    pub binary: PathBuf,
    /// How much a row does.
    pub size: Size,
    /// Runs loads and receivers, on one thread: they are not what is measured.
    pub(crate) runtime: Runtime,
}

/// One number that a row states.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Unique over all rows; the key in a file of results.
    pub name: &'static str,
    /// What is measured, for a reader.
    pub what: &'static str,
    /// Of ours, of the ceiling, and of an absolute floor.
    pub unit: Unit,
    /// Which direction is good.
    pub better: Better,
    /// What is promised.
    pub floor: Floor,
}

/// The unit of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things a second.
    PerSecond,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Mebibytes.
    Mebibytes,
    /// Percent of one core.
    Percent,
    /// One number over another.
    Times,
}

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Such as calls a second.
    Higher,
    /// Such as a time.
    Lower,
}

/// What a claim promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floor {
    /// So many times the ceiling.
    OfCeiling(f64),
    /// A value in the claim's unit.
    Absolute(f64),
    /// So many times the ceiling, or so much beyond it, whichever allows more.
    Beside {
        /// Times the ceiling.
        times: f64,
        /// Beyond the ceiling, in the claim's unit.
        slack: f64,
    },
    /// Nothing: it is there to be read beside the others.
    Shown,
}

/// A row while it is measured.
pub(crate) trait Row {
    /// What it states, in the order of the values below.
    fn claims(&self) -> Vec<Claim>;

    /// One round of the program: a value for each claim. An error voids the row.
    fn ours(&mut self, bench: &Bench) -> Result<Vec<f64>>;

    /// One round of the ceiling: a value for each claim that has one.
    fn ceiling(&mut self, _bench: &Bench) -> Result<Vec<Option<f64>>> {
        Ok(vec![None; self.claims().len()])
    }
}

/// What came of a claim.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What it is.
    pub claim: Claim,
    /// Ours, over the rounds.
    pub ours: Spread,
    /// The ceiling, over the rounds; `None` = the claim has none.
    pub ceiling: Option<Spread>,
    /// How far the ratios of two neighbouring rounds were apart at most, as a share of their median; without a ceiling,
    /// ours. `None` = one round.
    pub noise: Option<f64>,
}

impl Bench {
    /// Ready to measure the program at `binary`.
    ///
    /// # Errors
    /// The program is not there.
    pub fn new(binary: &std::path::Path, size: Size) -> Result<Bench> {
        let binary = binary.canonicalize().with_context(|| format!("cannot find {}", binary.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Bench { binary, size, runtime })
    }

    /// Measures one row in so many rounds, the program and the ceiling in turns.
    ///
    /// # Errors
    /// There is no such row; or a round is void, because something was refused, lost or late beyond all patience.
    pub fn measure(&self, name: &str, rounds: usize) -> Result<Vec<Measured>> {
        let make = ROWS.iter().find(|row| row.name == name).with_context(|| {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            format!("there is no row {name:?}; the rows are: {}", names.join(", "))
        })?;
        ensure!(rounds > 0, "a row needs a round");
        let mut row = (make.make)(self)?;
        let claims = row.claims();
        let (mut ours, mut ceilings) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            ours.push(row.ours(self).with_context(|| format!("{name}, round {round}"))?);
            ceilings.push(row.ceiling(self).with_context(|| format!("{name}, ceiling of round {round}"))?);
        }
        Ok(claims.into_iter().enumerate().map(|(n, claim)| measured(claim, n, &ours, &ceilings)).collect())
    }

    /// What all rows together state.
    ///
    /// # Errors
    /// A row cannot be prepared.
    pub fn claims(&self) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for row in ROWS {
            claims.extend((row.make)(self)?.claims());
        }
        Ok(claims)
    }

    /// The first in a quick round, else the second.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        match self.size {
            Size::Quick => quick,
            Size::Full => full,
        }
    }
}

fn measured(claim: Claim, n: usize, ours: &[Vec<f64>], ceilings: &[Vec<Option<f64>>]) -> Measured {
    let ours: Vec<f64> = ours.iter().filter_map(|round| round.get(n).copied()).collect();
    let ceiling: Vec<f64> = ceilings.iter().filter_map(|round| round.get(n).copied().flatten()).collect();
    // Of what is compared with a baseline: the ceiling's noise is in it as well.
    let ratios: Vec<f64> = ours.iter().zip(&ceiling).map(|(ours, ceiling)| ours / ceiling).collect();
    Measured {
        claim,
        noise: statistics::noise(if ceiling.is_empty() { &ours } else { &ratios }),
        ours: Spread::of(&ours),
        ceiling: (!ceiling.is_empty()).then(|| Spread::of(&ceiling)),
    }
}

impl Measured {
    /// Ours over the ceiling, or over an absolute floor where there is no ceiling. A machine's speed is in neither.
    pub fn ratio(&self) -> Option<f64> {
        let against = match (&self.ceiling, self.claim.floor) {
            (Some(ceiling), _) => ceiling.median,
            (None, Floor::Absolute(floor)) => floor,
            (None, _) => return None,
        };
        (against > 0.0).then(|| self.ours.median / against)
    }

    /// Whether the promise is kept; `None` = none is made.
    pub fn is_met(&self) -> Option<bool> {
        let ceiling = self.ceiling.as_ref().map(|c| c.median);
        let bound = match self.claim.floor {
            Floor::OfCeiling(times) => ceiling? * times,
            Floor::Absolute(bound) => bound,
            Floor::Beside { times, slack } => (ceiling? * times).max(ceiling? + slack),
            Floor::Shown => return None,
        };
        Some(match self.claim.better {
            Better::Higher => self.ours.median >= bound,
            Better::Lower => self.ours.median <= bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(better: Better, floor: Floor, ours: f64, ceiling: Option<f64>) -> Measured {
        let claim = Claim { name: "c", what: "", unit: Unit::Millis, better, floor };
        measured(claim, 0, &[vec![ours]], &[vec![ceiling]])
    }

    #[test]
    fn a_floor_is_kept_or_not_in_the_good_direction() {
        use Better::{Higher, Lower};
        let met = |better, floor, ours, ceiling| one(better, floor, ours, ceiling).is_met();
        assert_eq!(met(Higher, Floor::OfCeiling(0.7), 70.0, Some(100.0)), Some(true));
        assert_eq!(met(Higher, Floor::OfCeiling(0.7), 69.0, Some(100.0)), Some(false));
        assert_eq!(met(Lower, Floor::OfCeiling(3.0), 3.1, Some(1.0)), Some(false));
        assert_eq!(met(Lower, Floor::Absolute(10.0), 10.0, None), Some(true));
        let beside = Floor::Beside { times: 1.2, slack: 5.0 };
        assert_eq!(met(Lower, beside, 6.0, Some(1.0)), Some(true), "5 beyond 1");
        assert_eq!(met(Lower, beside, 121.0, Some(100.0)), Some(false), "1.2 times 100");
        assert_eq!(met(Lower, Floor::Shown, 1.0, None), None);
    }

    #[test]
    fn noise_is_that_of_the_ratio_or_of_ours_where_there_is_no_ceiling() {
        let noise = |ours: [f64; 3], ceilings: [Option<f64>; 3]| {
            let claim = one(Better::Higher, Floor::OfCeiling(0.5), 1.0, None).claim;
            let (ours, ceilings) = (ours.map(|n| vec![n]), ceilings.map(|n| vec![n]));
            measured(claim, 0, &ours, &ceilings).noise
        };
        assert_eq!(
            noise([50.0, 100.0, 50.0], [Some(100.0), Some(200.0), Some(100.0)]),
            Some(0.0),
            "the host's"
        );
        assert_eq!(noise([50.0; 3], [Some(100.0), Some(100.0), Some(50.0)]), Some(1.0), "the ceiling's");
        assert_eq!(noise([50.0, 100.0, 50.0], [None; 3]), Some(1.0));
    }

    #[test]
    fn a_ratio_is_over_the_ceiling_or_over_the_floor_where_there_is_none() {
        assert_eq!(one(Better::Lower, Floor::Absolute(10.0), 5.0, Some(2.0)).ratio(), Some(2.5));
        assert_eq!(one(Better::Lower, Floor::Absolute(10.0), 5.0, None).ratio(), Some(0.5));
        assert_eq!(one(Better::Lower, Floor::Shown, 5.0, None).ratio(), None);
    }
}
