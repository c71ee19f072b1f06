//! The project's chores, one verb each: `cargo xtask VERB`.
//!
//! Owns: everything that a build server or a newcomer has to run. Nothing is needed beforehand but cargo: what a
//! verb lacks, it fetches into `target/` and says so.
#![expect(clippy::print_stdout, reason = "a chore says on standard output what it does")]

mod agents;
mod bench;
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
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Feeds the readers of outside bytes with generated ones, again and again
    Fuzz {
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Builds the API documentation, with broken links denied
    Docs,
}

#[derive(Subcommand)]
enum Bench {
    /// How often the shown activity is the true one, on the recorded sessions in `fixtures/`
    Accuracy,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Test { only } => test::run(&only),
        Verb::Bench { what: Bench::Accuracy } => bench::accuracy(),
        Verb::Fuzz { seconds } => fuzz::run(std::time::Duration::from_secs(seconds)),
        Verb::Docs => docs::run(),
    }
}
