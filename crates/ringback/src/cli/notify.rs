//! `ringback notify`.

use clap::Subcommand;
use reqwest::Method;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Send a test message to yourself by every configured notifier
///
/// Example: ringback notify test
#[derive(clap::Args)]
pub(crate) struct Notify {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send it
    Test,
}

impl Notify {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let Command::Test = self.command;
        context.client()?.call(Method::POST, "/api/notify/test", None).await?;
        Ok(output::line("queued; `ringback deliveries` shows what became of it")?)
    }
}
