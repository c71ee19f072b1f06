//! `ringback budget`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Show how many times background runs may still ping you, or set it
///
/// Capacity and refill are the configuration's `ping_budget`.
///
/// Examples: ringback budget; ringback budget set 3
#[derive(clap::Args)]
pub(crate) struct Budget {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show it (the default)
    Show,
    /// Set how many pings are left, at most the capacity
    Set {
        /// Pings
        available: u32,
    },
}

impl Budget {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        let level = match self.command.unwrap_or(Command::Show) {
            Command::Show => client.get("/api/budget", &[]).await?,
            Command::Set { available } => {
                client.call(Method::PUT, "/api/budget", Some(&json!({ "available": available }))).await?
            }
        };
        if self.json {
            return Ok(output::json(&level)?);
        }
        let (text, width) = (level["status"].as_str().unwrap_or_default(), output::width());
        Ok(text.lines().try_for_each(|line| output::text(line, width))?)
    }
}
