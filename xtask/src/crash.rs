//! `cargo xtask crash`: the test that kills the daemon under load, for as many kills as asked.

use anyhow::{Result, bail};

use crate::run::{cargo, say};
use crate::test::count;

/// In the name of the test, and of no other.
const TEST: &str = "kills_under_load";

/// Runs the test with that many kills. Its progress and its last line, a summary, go to standard output; a plain test
/// run makes 50 kills.
pub(crate) fn run(rounds: u32) -> Result<()> {
    say(&format!("{rounds} kills; RINGBACK_SEED repeats a schedule"));
    let args = ["test", "--profile", "ci", "--locked", "-p", "ringback", "--test", "it", TEST];
    let mut test = cargo(&args);
    let (passed, totals) =
        count(test.args(["--", "--nocapture"]).env("RINGBACK_CRASH_ROUNDS", rounds.to_string()))?;
    if !passed {
        bail!("the daemon did not survive {rounds} kills");
    }
    if totals.passed != 1 {
        bail!("there is not one test with {TEST} in its name");
    }
    Ok(())
}
