//! `ringback main`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, updates};
use crate::exit_code::Error;
use crate::output::{self, cell};

/// Show, set or unset a workspace's main session: the one that background runs fork and report to
///
/// Examples: ringback main; ringback main set SESSION --workspace site; ringback main unset
#[derive(clap::Args)]
pub(crate) struct MainSession {
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
    /// Show it (the default)
    Show,
    /// Pin a session
    Set {
        /// The session's id
        id: String,
    },
    /// Follow the session you prompted last again
    Unset,
}

impl MainSession {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        let path = format!("/api/main{}", updates::query(self.workspace.as_deref()));
        let set = |id: Value| json!({ "session_id": id });
        let main = match self.command.unwrap_or(Command::Show) {
            Command::Show => client.get(&path, &[]).await?,
            Command::Set { id } => client.call(Method::PUT, &path, Some(&set(json!(id)))).await?,
            Command::Unset => client.call(Method::PUT, &path, Some(&set(Value::Null))).await?,
        };
        if self.json {
            return Ok(output::json(&main)?);
        }
        if !main["session_id"].is_string() {
            return Ok(output::line(&format!(
                "{}: no main session yet; runs start without history",
                cell(&main["workspace"])
            ))?);
        }
        let how = if main["pinned"] == true { "pinned" } else { "latest" };
        let busy = if main["busy"] == true { ", busy" } else { "" };
        Ok(output::line(&format!(
            "{}: {} ({how}{busy})",
            cell(&main["workspace"]),
            cell(&main["session_id"])
        ))?)
    }
}
