//! The project's chores, one verb each: `cargo xtask VERB`.
//!
//! Owns: everything that a build server or a newcomer has to run. Nothing is needed beforehand but cargo: what a
//! verb lacks, it fetches into `target/` and says so.
#![expect(clippy::print_stdout, reason = "a chore says on standard output what it does")]

mod agents;
mod bench;
mod contract;
mod crash;
mod docs;
mod fuzz;
mod judges;
mod machine;
mod run;
mod setup;
mod test;

use clap::{Parser, Subcommand};

/// The chores of ringback's workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Sets up what the tests need and runs them
    Test {
        /// Arguments for `cargo test` in place of `--workspace`, for example `-p ringback-webhook`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        only: Vec<String>,
    },
    /// Measures what the documentation states
    Bench(bench::Options),
    /// Feeds the readers of outside bytes with generated ones, again and again
    Fuzz {
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Kills the daemon under load, again and again, and counts what was lost and what came twice
    Crash {
        /// How many kills
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Checks that every promise of the outgoing half names tests that are there
    Contract,
    /// Builds the API documentation, with broken links denied
    Docs,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Test { only } => test::run(&only),
        Verb::Bench(options) => bench::measure(options),
        Verb::Fuzz { seconds } => fuzz::run(std::time::Duration::from_secs(seconds)),
        Verb::Crash { rounds } => crash::run(rounds),
        Verb::Contract => contract::run(),
        Verb::Docs => docs::run(),
    }
}
