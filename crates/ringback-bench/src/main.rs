//! Measures ringback; `cargo xtask bench` builds both and starts this.
#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use ringback_bench::baseline::{Results, regressions};
use ringback_bench::{Bench, ROWS, Size, table};

/// Measures ringback, and beside it what a program could do at best.
#[derive(Parser)]
struct Args {
    /// The program to measure
    #[arg(long)]
    binary: PathBuf,
    /// Small numbers: shows that every row works, and says nothing about speed
    #[arg(long)]
    quick: bool,
    /// How often the program and its ceiling take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Writes the results to a file, in the form of the baseline
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Prints a table of markdown
    #[arg(long)]
    markdown: bool,
    /// Fails when a ratio is worse than in this file by more than the noise
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    check: Option<PathBuf>,
    /// The rows, by name; none = all of them
    rows: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // Read before anything is measured: a file that is not there shall not be found out an hour later.
    let baseline = args.check.as_deref().map(Results::read).transpose()?;
    let bench = Bench::new(&args.binary, if args.quick { Size::Quick } else { Size::Full })?;
    let all = || ROWS.iter().map(|row| row.name.to_owned()).collect();
    let names: Vec<String> = if args.rows.is_empty() { all() } else { args.rows };
    let show = if args.markdown { table::markdown } else { table::plain };

    let (mut measured, mut void) = (Vec::new(), Vec::new());
    for name in &names {
        match bench.measure(name, if args.quick { 1 } else { args.rounds }) {
            Ok(row) => {
                if names.len() > 1 {
                    println!("{}", table::plain(&row));
                }
                measured.extend(row);
            }
            Err(error) => {
                println!("{name}: VOID: {error:#}\n");
                void.push(name.clone());
            }
        }
    }
    println!("{}", show(&measured));
    if let Some(path) = args.json {
        Results::of(&measured).write(&path)?;
    }
    if !void.is_empty() {
        bail!("void: {}", void.join(", "));
    }
    let worse = baseline.map(|baseline| regressions(&baseline, &measured)).unwrap_or_default();
    for r in &worse {
        println!("WORSE: {}: {:.2}x, was {:.2}x; {:.0} % is noise", r.name, r.is, r.was, r.allowed * 100.0);
    }
    if !worse.is_empty() {
        bail!("{} claims are worse than the baseline", worse.len());
    }
    Ok(())
}
