//! `ringback sessions`.

use std::ops::ControlFlow;

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::client::{Client, Error as ClientError};
use ringback_daemon::record::percent_encoded;
use ringback_daemon::{clock, supervise, view};
use ringback_model::ids::UnknownWord;
use ringback_model::{Agent, SessionId};
use serde_json::{Value, json};

use super::Context;
use crate::exit_code::Error;
use crate::output::{self, age, cell, instant};

/// Show what your agents are doing
///
/// Examples: ringback sessions; ringback sessions --dir ~/code; ringback sessions watch
#[derive(clap::Args)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    command: Option<Command>,

    /// Only sessions in this directory or below
    #[arg(long)]
    dir: Option<std::path::PathBuf>,

    /// Only sessions of this agent
    #[arg(long)]
    agent: Option<String>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List sessions inside the window (the default)
    List,
    /// Show one session
    Show {
        /// The session's id
        id: String,
    },
    /// Name a session; an empty name takes it away
    Rename {
        /// The session's id
        id: String,
        /// Its new name
        name: String,
    },
    /// Print a line for every transition
    Watch,
}

impl Sessions {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        match self.command {
            None | Some(Command::List) => {
                let dir = self.dir.map(absolute).transpose()?;
                let agent = self.agent.map(|agent| agent.parse()).transpose().map_err(unknown)?;
                let rows = list(context, dir, agent).await?;
                print(&rows, self.json)
            }
            Some(Command::Show { id }) => show(context, &id, self.json).await,
            Some(Command::Rename { id, name }) => {
                let path = format!("/api/sessions/{}/name", percent_encoded(&id));
                let answer =
                    context.client()?.call(Method::PUT, &path, Some(&json!({ "name": name }))).await?;
                if self.json {
                    return Ok(output::json(&answer)?);
                }
                match answer["custom_name"].as_str().filter(|n| !n.is_empty()) {
                    Some(name) => Ok(output::line(&format!("{id} is now called {name}"))?),
                    None => Ok(output::line(&format!("{id} has no name of its own any more"))?),
                }
            }
            Some(Command::Watch) => watch(&context.client()?, self.json).await,
        }
    }
}

fn unknown(error: UnknownWord) -> Error {
    Error::usage(error.to_string()).mend("name one of these with --agent, or leave it out")
}

fn absolute(path: std::path::PathBuf) -> Result<String, Error> {
    let full = std::path::absolute(&path).map_err(|e| {
        Error::usage(format!("--dir {:?}: {e}", path.display())).mend("name a directory, as in --dir ~/code")
    })?;
    Ok(full.to_string_lossy().trim_end_matches('/').to_owned())
}

/// From the daemon; without one by looking at the agents' files ourselves.
async fn list(context: &Context, dir: Option<String>, agent: Option<Agent>) -> Result<Vec<Value>, Error> {
    match Client::connect(&context.state()?) {
        Ok(client) => {
            let mut query = Vec::new();
            query.extend(dir.as_deref().map(|d| ("dir", d)));
            query.extend(agent.map(|a| ("agent", a.as_str())));
            let answer = client.get("/api/sessions", &query).await?;
            Ok(answer.as_array().cloned().unwrap_or_default())
        }
        Err(why) => {
            let filter = view::Filter { dir, agent, ..view::Filter::default() };
            let (view, window) = look(context, &why)?;
            Ok(view.list(&filter, window, clock::now()))
        }
    }
}

/// One look at the agents' files, read-only, where no daemon can be asked.
fn look(context: &Context, why: &ClientError) -> Result<(view::View, std::time::Duration), Error> {
    let config = context.config()?;
    // A daemon that cannot be asked delivers all the same.
    let nothing = if matches!(why, ClientError::NotRunning) { "; nothing is being delivered" } else { "" };
    output::complain(&format!("{why}; sessions are read from the agents' files{nothing}"));
    Ok((supervise::look_once(&config), config.window))
}

async fn show(context: &Context, id: &str, json: bool) -> Result<(), Error> {
    let session = match Client::connect(&context.state()?) {
        Ok(client) => client.get(&format!("/api/sessions/{}", percent_encoded(id)), &[]).await?,
        Err(why) => {
            let (view, _) = look(context, &why)?;
            let shown = view.get(&SessionId::new(id)).ok_or_else(Error::no_session)?;
            view::detail(&shown, None)
        }
    };
    if json {
        return Ok(output::json(&session)?);
    }
    let Value::Object(fields) = &session else { return Err(Error::failed("the answer is no session")) };
    let keys = [
        "session_id",
        "custom_name",
        "title",
        "agent",
        "activity",
        "reason",
        "current_tool",
        "cwd",
        "git_branch",
        "model",
        "version",
        "last_activity",
        "cost_usd",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "user_messages",
        "assistant_messages",
        "last_file_write",
        "resume_command",
    ];
    let known = keys.iter().filter_map(|key| Some((*key, cell(fields.get(*key).filter(|v| !v.is_null())?))));
    let messages = session["recent_messages"].as_array().into_iter().flatten();
    let messages = messages.map(|m| (m["role"].as_str().unwrap_or("-"), cell(&m["text"])));
    let width = output::width();
    output::fields(&known.chain(messages).collect::<Vec<_>>(), width)?;
    for event in fields.get("transitions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        output::text(&transition(event), width)?;
    }
    Ok(())
}

fn print(rows: &[Value], json: bool) -> Result<(), Error> {
    if json {
        return Ok(output::json(&Value::Array(rows.to_vec()))?);
    }
    if rows.is_empty() {
        return Ok(output::line("no session was active lately; start an agent, or raise window_minutes")?);
    }
    let now = clock::now();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|s| {
            let name = s["custom_name"]
                .as_str()
                .filter(|n| !n.is_empty())
                .or(s["short_name"].as_str())
                .unwrap_or("-");
            vec![
                cell(&s["activity"]),
                s["reason"].as_str().unwrap_or_default().to_owned(),
                age(instant(&s["last_activity"]), now),
                cell(&s["agent"]),
                name.to_owned(),
                cell(&s["session_id"]),
                cell(&s["cwd"]),
            ]
        })
        .collect();
    Ok(output::table(
        &["ACTIVITY", "REASON", "AGE", "AGENT", "NAME", "SESSION", "DIRECTORY"],
        &cells,
        output::width(),
    )?)
}

async fn watch(client: &Client, json: bool) -> Result<(), Error> {
    let mut failed = None;
    let followed = client.follow("transition", |kind, event| {
        // A stream begins with the snapshot, whatever is selected.
        if kind != "transition" {
            return ControlFlow::Continue(());
        }
        let printed = if json { output::line(&event.to_string()) } else { output::line(&transition(event)) };
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    });
    tokio::select! {
        outcome = followed => match outcome {
            // The daemon stopped: that ends the watching, and is no failure of it.
            Err(ClientError::Silent(_)) => output::complain("ringback stopped"),
            other => other?,
        },
        _ = tokio::signal::ctrl_c() => {}
    }
    failed.map_or(Ok(()), |e| Err(e.into()))
}

/// One line about a transition.
pub(crate) fn transition(event: &Value) -> String {
    let time = cell(&event["timestamp"]);
    let reason = event["reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
    let project = event["project_path"].as_str().and_then(|p| p.rsplit('/').next()).unwrap_or("-");
    format!(
        "{}  {:<8} {:<10} > {:<10}{reason}  {project}",
        time.get(11..19).unwrap_or("-"),
        cell(&event["agent"]),
        cell(&event["from"]),
        cell(&event["to"]),
    )
}
