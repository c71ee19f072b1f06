//! `ringback up`: the daemon in the foreground.

use ringback_daemon::config::Source;
use ringback_daemon::supervise::Daemon;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Start the daemon in the foreground: observe sessions and deliver webhooks
///
/// Prints one line per thing it started. SIGTERM or Ctrl-C stops it in order; a second one ends it at once.
///
/// Examples: ringback up; ringback up --log json 2>> ringback.log
#[derive(clap::Args)]
pub(crate) struct Up {}

impl Up {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let config = context.config()?;
        let source = Source::new(context.given.as_deref(), &context.env);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Where the parent ignored it, so would we, and the end of the first agent could not be seen.
        let _child = signal(SignalKind::child())?;
        let daemon = Daemon::start(config, Some(source), &context.env, &context.state()?).await?;
        for line in &daemon.lines {
            output::line(line)?;
        }
        output::line("ready      Ctrl-C stops it")?;
        daemon
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tokio::spawn(async move {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    // Asked twice: everything that matters is journaled already.
                    std::process::exit(0);
                });
            })
            .await;
        Ok(())
    }
}
