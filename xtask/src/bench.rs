//! `cargo xtask bench`: the numbers that the documentation states, measured again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use ringback_observe::replay::{Recording, Score, TOLERANCE, replay, score};

use crate::run::{cargo, command, root, run, target_dir};

/// What is measured, and what becomes of it.
#[derive(Args)]
pub(crate) struct Options {
    /// Which rows, and `accuracy`: how often the shown activity is the true one on the recordings in `fixtures/`. None
    /// = all of them
    rows: Vec<String>,
    /// Small numbers: shows that every row works, and says nothing about speed
    #[arg(long)]
    quick: bool,
    /// How often the program and its ceiling take turns
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Writes the results to a file, in the form of the baseline
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Prints the results as a table of markdown
    #[arg(long)]
    markdown: bool,
    /// Compares with the baseline; fails when a ratio is worse by more than the noise
    #[arg(long)]
    check: bool,
}

/// Measures what was asked for.
pub(crate) fn measure(mut options: Options) -> Result<()> {
    let asked = options.rows.len();
    options.rows.retain(|row| row != ACCURACY);
    if asked == 0 || options.rows.len() < asked {
        accuracy()?;
    }
    if asked == 0 || !options.rows.is_empty() { rows(&options) } else { Ok(()) }
}

/// The row that is no matter of time, and needs no program.
const ACCURACY: &str = "accuracy";

/// Replays every recording below `fixtures/` and prints how well what the observer shows agrees with what the agent
/// did: per recording, and per agent weighted by time. Fails when a recording shows the activities out of order.
fn accuracy() -> Result<()> {
    println!(
        "Share of the time in which the true activity is shown. Not scored: the {} ms after each change, and",
        TOLERANCE.as_millis()
    );
    println!("segments that the agent's files do not tell (`untold` in truth.json, counted below).");
    let mut out_of_order = Vec::new();
    for agent in directories_in(root().join("fixtures"))? {
        let name = agent.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut agree_ms, mut total_ms) = (0, 0);
        for case in directories_in(agent)? {
            let case_name = format!("{name}/{}", case.file_name().unwrap_or_default().to_string_lossy());
            let (score, untold) = score_of(&case).with_context(|| format!("cannot replay {case_name}"))?;
            agree_ms += score.agree_ms;
            total_ms += score.total_ms;
            let order = if score.order_ok { "" } else { "  OUT OF ORDER" };
            let agreement = agreement(score.agree_ms, score.total_ms);
            println!("{case_name:<22} {agreement}, {untold} untold{order}");
            if !score.order_ok {
                out_of_order.push(case_name);
            }
        }
        println!("{:<22} {}", format!("{name}, all"), agreement(agree_ms, total_ms));
    }
    if !out_of_order.is_empty() {
        bail!("activities are shown out of order in {}", out_of_order.join(", "));
    }
    Ok(())
}

/// Builds the program and the measurements for release, and runs these.
fn rows(options: &Options) -> Result<()> {
    run(&mut cargo(&["build", "--release", "--locked", "-p", "ringback", "-p", "ringback-bench"]))?;
    let built = target_dir().join("release");
    let mut bench = command(built.join("ringback-bench"), &[]);
    bench.arg("--binary").arg(built.join("ringback")).arg("--rounds").arg(options.rounds.to_string());
    for (name, is_given) in [("--quick", options.quick), ("--markdown", options.markdown)] {
        if is_given {
            bench.arg(name);
        }
    }
    if options.check {
        bench.arg("--check").arg(root().join("crates/ringback-bench/baseline.json"));
    }
    if let Some(file) = &options.json {
        let file = std::path::absolute(file).with_context(|| format!("cannot use {}", file.display()))?;
        bench.arg("--json").arg(file);
    }
    run(bench.args(&options.rows))
}

fn score_of(case: &Path) -> Result<(Score, usize)> {
    let recording = Recording::load(case)?;
    let home = tempfile::tempdir().context("cannot make a home for the replay")?;
    let mut shown = replay(&recording, home.path())?;
    let main = recording.truth.sessions.first().context("the truth tells of no session")?;
    let shown = shown.remove(&main.session_id).unwrap_or_default();
    Ok((score(&recording, &shown), recording.truth.untold.len()))
}

fn agreement(agree_ms: i64, total_ms: i64) -> String {
    let percent = if total_ms == 0 { 100.0 } else { agree_ms as f64 * 100.0 / total_ms as f64 };
    format!("{percent:6.2} % of {:6.1} s", total_ms as f64 / 1000.0)
}

fn directories_in(dir: PathBuf) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut found = paths.with_context(|| format!("cannot list {}", dir.display()))?;
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}
