//! `cargo xtask test`: sets up, runs every test, counts.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, is_ci, say, show};
use crate::{agents, contract, judges, machine};

/// Runs the tests with everything they can use. What cannot be set up is skipped and said; on a build server it is
/// a failure.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let began = Instant::now();
    contract::run()?;
    let mut skipped = Vec::new();
    let mut found = |what, result| or_skip(what, result, &mut skipped);
    found("Debian packages", machine::provide().map(|()| PathBuf::new()))?;
    let agents = found("the real agents", agents::provide())?;
    let judges = found("the judges of signatures", judges::provide())?;

    let mut command = cargo(&["test", "--profile", "ci", "--locked", "--no-fail-fast"]);
    if only.is_empty() {
        command.arg("--workspace");
    }
    command.args(only);
    for (name, place) in [("RINGBACK_AGENTS", agents), ("RINGBACK_JUDGES", judges)] {
        if let Some(place) = place {
            say(&format!("{name}={}", place.display()));
            command.env(name, place);
        }
    }
    say(&show(&command));
    let (passed, totals) = count(&mut command)?;

    for what in &skipped {
        say(&format!("SKIPPED: the tests that need {what}"));
    }
    say(&format!(
        "{} tests passed, {} failed, {} ignored, in {} test programs, {} s",
        totals.passed,
        totals.failed,
        totals.ignored,
        totals.programs,
        began.elapsed().as_secs()
    ));
    if !passed {
        bail!("the tests failed");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it prints, and gives whether all went well and what it ran.
pub(crate) fn count(command: &mut Command) -> Result<(bool, Totals)> {
    let shown = show(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {shown}"))?;
    let mut totals = Totals::default();
    for line in BufReader::new(child.stdout.take().context("the output was asked for")?).lines() {
        let line = line.context("cannot read the tests' output")?;
        println!("{line}");
        totals.add(&line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {shown}"))?;
    Ok((status.success(), totals))
}

fn or_skip(
    what: &'static str,
    result: Result<PathBuf>,
    skipped: &mut Vec<&'static str>,
) -> Result<Option<PathBuf>> {
    match result {
        Ok(place) => Ok(Some(place)),
        Err(why) if is_ci() => {
            Err(why.context(format!("cannot set up {what}, and with CI=true nothing is skipped")))
        }
        Err(why) => {
            say(&format!("SKIPPED: cannot set up {what}: {why:#}"));
            skipped.push(what);
            Ok(None)
        }
    }
}

/// What test programs say at their ends, summed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    failed: u64,
    ignored: u64,
    programs: u64,
}

impl Totals {
    /// Adds a line such as `test result: ok. 6 passed; 0 failed; 0 ignored; ...`; any other line counts nothing.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|l| l.split_once(". ")) else {
            return;
        };
        self.programs += 1;
        for count in counts.1.split("; ") {
            match count.split_once(' ').map(|(n, what)| (n.parse().unwrap_or(0), what)) {
                Some((n, "passed")) => self.passed += n,
                Some((n, "failed")) => self.failed += n,
                Some((n, "ignored")) => self.ignored += n,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_summed_over_the_test_programs() {
        let mut totals = Totals::default();
        totals.add(
            "test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        totals.add(
            "test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3s",
        );
        totals.add("test result_of_something ... ok");
        assert_eq!(totals, Totals { passed: 13, failed: 2, ignored: 1, programs: 2 });
    }
}
