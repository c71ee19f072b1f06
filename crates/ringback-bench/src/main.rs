//! What the documentation claims of ringback's speed, measured on the program as it is released.
//!
//! Owns: loads, receivers and clocks around a real `ringback up`. `cargo xtask bench` builds both and starts it. It
//! knows nothing of the program's inside.
#![expect(clippy::print_stdout, reason = "a measurement is for reading")]

mod isolation;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Measures ringback.
#[derive(Parser)]
struct Args {
    /// The program to measure
    #[arg(long)]
    binary: PathBuf,
    #[command(subcommand)]
    row: Row,
}

#[derive(Subcommand)]
enum Row {
    /// What dead endpoints cost the healthy ones beside them
    Isolation {
        /// How often the two loads take turns
        #[arg(long)]
        rounds: usize,
        /// Deliveries to healthy endpoints that one round measures
        #[arg(long)]
        deliveries: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let Args { binary, row } = Args::parse();
    // It is started in other directories than this one.
    let binary = binary.canonicalize().with_context(|| format!("cannot find {}", binary.display()))?;
    match row {
        Row::Isolation { rounds, deliveries } => isolation::run(&binary, rounds, deliveries),
    }
}
