//! `ringback trigger`.

use clap::ValueEnum;
use reqwest::Method;
use serde_json::json;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Start a background run: what POST /hook/agent does, from a shell
///
/// Example: ringback trigger "The nightly build failed, look into it" --source cron
#[derive(clap::Args)]
pub(crate) struct Trigger {
    /// What the agent is to do
    message: String,
    /// Who calls: letters, digits, dot, dash, underscore
    #[arg(long, default_value = "cli")]
    source: String,
    /// Start without the main session's history
    #[arg(long)]
    isolated: bool,
    /// haiku, sonnet, opus or a model's id
    #[arg(long)]
    model: Option<String>,
    /// Run without thinking
    #[arg(long)]
    no_thinking: bool,
    /// Give the run no tools that reach you
    #[arg(long)]
    no_ping: bool,
    /// What the run owes the main session
    #[arg(long, value_name = "WHEN", default_value = "on_ping")]
    update_main_session: When,
    /// A configured agent
    #[arg(long)]
    agent: Option<String>,
    /// A configured workspace
    #[arg(long)]
    workspace: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum When {
    /// A report, whatever happens
    Always,
    /// A report if it pinged you
    OnPing,
    /// A report if it likes
    Freely,
    /// No report
    Blocked,
}

impl Trigger {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let when = self.update_main_session.to_possible_value();
        let mut call = json!({
            "message": self.message,
            "source": self.source,
            "isolated": self.isolated,
            "thinking": !self.no_thinking,
            "allow_ping": !self.no_ping,
            "update_main_session": when.map(|w| w.get_name().to_owned()),
        });
        for (key, value) in [("model", self.model), ("agent", self.agent), ("workspace", self.workspace)] {
            if let Some(value) = value {
                call[key] = json!(value);
            }
        }
        let answer = context.client()?.call(Method::POST, "/api/runs", Some(&call)).await?;
        if self.json {
            return Ok(output::json(&answer)?);
        }
        let id = output::cell(&answer["id"]);
        Ok(output::line(&format!("accepted   {id}   (ringback runs show {id})"))?)
    }
}
