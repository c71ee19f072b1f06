//! The `ringback` program: one file per command below `cli`.

mod cli;
mod exit_code;
mod fault;
mod output;
mod receiver;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use ringback_daemon::env::Env;

use crate::exit_code::Error;

/// One process of one user: more would only be more memory.
const MOST_WORKERS: usize = 8;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    log(&args);
    // The API client needs a process-wide provider; the delivery client names its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers(std::thread::available_parallelism().map_or(1, usize::from)))
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return Error::failed(format!("cannot start: {e}")).report(),
    };
    let env = match Env::of_process() {
        Ok(env) => env,
        Err(e) => return Error::from(e).report(),
    };
    let outcome = runtime.block_on(args.run(env));
    // Nothing is left to wait for: a blocking read of a dead file system must not hold the exit up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// How many threads the tasks share on so many cores. The store and the observer have threads of their own and need a
/// core: more tasks at once would take it from them, and be woken across threads for little work each.
fn workers(cores: usize) -> usize {
    cores.saturating_sub(1).clamp(1, MOST_WORKERS)
}

fn log(args: &cli::Args) {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("RINGBACK_LOG").unwrap_or_else(|_| EnvFilter::new("warn,ringback=info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match args.log {
        cli::LogFormat::Json => builder.json().init(),
        cli::LogFormat::Human => builder.with_ansi(colour).with_target(false).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_leave_a_core_to_the_threads() {
        assert_eq!([0, 1, 2, 4, 9, 64].map(workers), [1, 1, 1, 3, 8, 8]);
    }
}
