//! What was measured, for a reader.

use std::fmt::Write;

use crate::row::{Better, Floor, Measured, Unit};
use crate::statistics::Spread;

/// Column widths by content, for a terminal.
pub fn plain(measured: &[Measured]) -> String {
    let rows = rows(measured);
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// The same as a table of markdown.
pub fn markdown(measured: &[Measured]) -> String {
    let mut out = String::new();
    for (n, row) in rows(measured).iter().enumerate() {
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if n == 0 {
            let _ = writeln!(out, "|{}", "---|".repeat(HEAD.len()));
        }
    }
    out
}

const HEAD: [&str; 8] =
    ["claim", "what", "ours (min to max)", "ceiling (min to max)", "ratio", "A/A noise", "floor", "kept"];

fn rows(measured: &[Measured]) -> Vec<[String; 8]> {
    let none = || "-".to_owned();
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(measured.iter().map(|m| {
        let unit = m.claim.unit;
        [
            m.claim.name.to_owned(),
            m.claim.what.to_owned(),
            spread(&m.ours, unit),
            m.ceiling.as_ref().map_or_else(none, |c| spread(c, unit)),
            m.ratio().map_or_else(none, |r| format!("{r:.2}x")),
            m.noise.map_or_else(none, |n| format!("{:.0} %", n * 100.0)),
            floor(m),
            m.is_met().map_or_else(none, |met| (if met { "yes" } else { "NO" }).to_owned()),
        ]
    }));
    rows
}

fn spread(s: &Spread, unit: Unit) -> String {
    format!("{} {} ({} to {})", number(s.median), unit.name(), number(s.min), number(s.max))
}

fn floor(m: &Measured) -> String {
    let sign = match m.claim.better {
        Better::Higher => ">=",
        Better::Lower => "<=",
    };
    let unit = m.claim.unit.name();
    match m.claim.floor {
        Floor::OfCeiling(times) => format!("{sign} {times}x"),
        Floor::Absolute(bound) => format!("{sign} {} {unit}", number(bound)),
        Floor::Beside { times, slack } => format!("{sign} {times}x or + {} {unit}", number(slack)),
        Floor::Shown => "-".to_owned(),
    }
}

/// Three digits that mean something.
fn number(n: f64) -> String {
    match n.abs() {
        0.0 => "0".to_owned(),
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

impl Unit {
    /// As it is written behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::Millis => "ms",
            Unit::Micros => "us",
            Unit::Mebibytes => "MiB",
            Unit::Percent => "%",
            Unit::Times => "x",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Claim;

    #[test]
    fn a_claim_is_a_line_of_the_table() {
        let claim = Claim {
            name: "intake-32",
            what: "calls",
            unit: Unit::PerSecond,
            better: Better::Higher,
            floor: Floor::OfCeiling(0.7),
        };
        let ours = Spread { median: 8123.4, min: 8000.0, max: 8200.0 };
        let ceiling = Some(Spread { median: 10000.0, min: 9900.0, max: 10100.0 });
        let measured = [Measured { claim, ours, ceiling, noise: Some(0.021) }];
        assert_eq!(
            markdown(&measured),
            "| claim | what | ours (min to max) | ceiling (min to max) | ratio | A/A noise | floor | kept |\n\
             |---|---|---|---|---|---|---|---|\n\
             | intake-32 | calls | 8123 /s (8000 to 8200) | 10000 /s (9900 to 10100) | 0.81x | 2 % | >= 0.7x | yes |\n"
        );
        assert_eq!(plain(&measured).lines().count(), 2);
    }
}
