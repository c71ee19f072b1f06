//! `ringback updates`.

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::clock;
use serde_json::Value;

use super::Context;
use crate::exit_code::Error;
use crate::output::{self, age, cell, instant};

/// Show what background runs have reported to a workspace's main session, or take it
///
/// `ringback connect claude` hands updates over with your next message. For other agents: ringback updates pop
///
/// Examples: ringback updates; ringback updates pop --workspace site
#[derive(clap::Args)]
pub(crate) struct Updates {
    #[command(subcommand)]
    command: Option<Command>,

    /// A configured workspace
    #[arg(long, global = true)]
    workspace: Option<String>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show them (the default)
    Show,
    /// Print them and forget them
    Pop,
}

impl Updates {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        let query = query(self.workspace.as_deref());
        let answer = match self.command.unwrap_or(Command::Show) {
            Command::Show => {
                let of: Vec<_> = self.workspace.as_deref().map(|w| ("workspace", w)).into_iter().collect();
                client.list("/api/updates", &of).await?
            }
            Command::Pop => client.call(Method::POST, &format!("/api/updates/pop{query}"), None).await?,
        };
        if self.json {
            return Ok(output::json(&answer)?);
        }
        let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            return Ok(output::line("no updates are pending")?);
        }
        if answer["omitted"].as_u64().is_some_and(|n| n > 0) {
            output::line(&format!("({} earlier omitted)", answer["omitted"]))?;
        }
        let now = clock::now();
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|u: &Value| vec![age(instant(&u["at"]), now), cell(&u["source"]), cell(&u["message"])])
            .collect();
        Ok(output::table(&["AGE", "SOURCE", "UPDATE"], &rows, output::width())?)
    }
}

/// `?workspace=…`, or nothing.
pub(super) fn query(workspace: Option<&str>) -> String {
    workspace
        .map(|w| format!("?workspace={}", ringback_daemon::record::percent_encoded(w)))
        .unwrap_or_default()
}
