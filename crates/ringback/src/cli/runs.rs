//! `ringback runs`.

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::client::Client;
use ringback_daemon::clock;
use ringback_daemon::record::percent_encoded;
use serde_json::Value;

use super::Context;
use crate::exit_code::Error;
use crate::output::{self, age, cell, instant};

/// List background runs, newest first; show one, follow its output, end it, run it again
///
/// Examples: ringback runs; ringback runs logs -f ID; ringback runs cancel ID; ringback runs retry ID;
/// ringback runs worktrees; ringback runs worktrees remove ID
#[derive(clap::Args)]
pub(crate) struct Runs {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List runs (the default)
    List(List),
    /// Show one run
    Show {
        /// The run's id
        id: String,
    },
    /// Print what the run's agent wrote
    Logs {
        /// The run's id
        id: String,
        /// Go on until the run ends
        #[arg(short, long)]
        follow: bool,
    },
    /// End a run
    Cancel {
        /// The run's id
        id: String,
    },
    /// Start a new run with the request of one that has ended
    Retry {
        /// The run's id
        id: String,
    },
    /// List the git worktrees of isolated runs; remove one, or all without changes
    Worktrees {
        #[command(subcommand)]
        command: Option<Worktrees>,
    },
}

#[derive(Subcommand)]
enum Worktrees {
    /// List worktrees, oldest first (the default)
    List,
    /// Remove the worktree and the branch of a run that has ended
    Remove {
        /// The run's id
        id: String,
        /// Also with changes, which are lost
        #[arg(long)]
        force: bool,
    },
    /// Remove those of ended runs that have no changes, or none any more that another branch does not have
    Prune,
}

#[derive(clap::Args)]
struct List {
    /// Only in this state: queued, working, completed, failed, timed_out, cancelled, interrupted, superseded
    #[arg(long)]
    state: Option<String>,
    /// Only of this source
    #[arg(long)]
    source: Option<String>,
    /// How many, 1 to 1000
    #[arg(long, default_value = "30")]
    limit: u16,
}

impl Runs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        let of = |id: &str, rest: &str| format!("/api/runs/{}{rest}", percent_encoded(id));
        match self.command.unwrap_or(Command::List(List { state: None, source: None, limit: 30 })) {
            Command::List(list) => {
                let limit = list.limit.to_string();
                let mut query = vec![("limit", limit.as_str())];
                query.extend(list.state.as_deref().map(|s| ("state", s)));
                query.extend(list.source.as_deref().map(|s| ("source", s)));
                let answer = client.get("/api/runs", &query).await?;
                if self.json {
                    return Ok(output::json(&answer)?);
                }
                print(answer["items"].as_array().map(Vec::as_slice).unwrap_or_default())
            }
            Command::Show { id } => {
                let run = client.get(&of(&id, ""), &[]).await?;
                if self.json {
                    return Ok(output::json(&run)?);
                }
                let Value::Object(fields) = &run else { return Err(Error::failed("the answer is no run")) };
                let plain = fields.iter().filter(|(_, v)| !v.is_null() && !v.is_object());
                let plain = plain.map(|(key, value)| (key.as_str(), cell(value)));
                let nested = [("waiting", &run["waiting"]["text"]), ("worktree", &run["worktree"]["path"])];
                let nested = nested.iter().filter_map(|(key, v)| Some((*key, v.as_str()?.to_owned())));
                Ok(output::fields(&plain.chain(nested).collect::<Vec<_>>(), output::width())?)
            }
            Command::Logs { id, follow } => {
                let mut from = 0;
                loop {
                    let (text, is_open) = client.log(&id, from).await?;
                    from += text.len() as u64;
                    for line in String::from_utf8_lossy(&text).split_inclusive('\n') {
                        output::raw(&output::safe(line.trim_end_matches('\n')))?;
                        if line.ends_with('\n') {
                            output::raw("\n")?;
                        }
                    }
                    if text.is_empty() && !(follow && is_open) {
                        return Ok(());
                    }
                    if text.is_empty() {
                        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    }
                }
            }
            Command::Cancel { id } => {
                let answer = client.call(Method::POST, &of(&id, "/cancel"), None).await?;
                if self.json {
                    return Ok(output::json(&answer)?);
                }
                Ok(output::line(&format!("{id} is told to end"))?)
            }
            Command::Retry { id } => {
                let answer = client.call(Method::POST, &of(&id, "/retry"), None).await?;
                if self.json {
                    return Ok(output::json(&answer)?);
                }
                Ok(output::line(&format!("queued again as {}", cell(&answer["id"])))?)
            }
            Command::Worktrees { command } => {
                worktrees(&client, command.unwrap_or(Worktrees::List), self.json).await
            }
        }
    }
}

async fn worktrees(client: &Client, command: Worktrees, as_json: bool) -> Result<(), Error> {
    let answer = match &command {
        Worktrees::List => client.list("/api/worktrees", &[]).await?,
        Worktrees::Remove { id, force } => {
            let path = format!("/api/worktrees/{}?force={force}", percent_encoded(id));
            client.call(Method::DELETE, &path, None).await?
        }
        Worktrees::Prune => client.call(Method::POST, "/api/worktrees/prune", None).await?,
    };
    if as_json {
        return Ok(output::json(&answer)?);
    }
    let items = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    match command {
        Worktrees::List if items("items").is_empty() => Ok(output::line("no worktrees")?),
        Worktrees::List => {
            let now = clock::now();
            let row = |w: &Value| {
                let state = w["kept"].as_str().unwrap_or("its run goes on").to_owned();
                vec![age(instant(&w["created_at"]), now), cell(&w["branch"]), cell(&w["path"]), state]
            };
            let rows: Vec<Vec<String>> = items("items").iter().map(row).collect();
            Ok(output::table(&["AGE", "BRANCH", "PATH", "STATE"], &rows, output::width())?)
        }
        Worktrees::Remove { id, .. } => Ok(output::line(&format!("the worktree of {id} is removed"))?),
        Worktrees::Prune => Ok(output::line(&format!("{} removed", items("removed").len()))?),
    }
}

fn print(items: &[Value]) -> Result<(), Error> {
    if items.is_empty() {
        return Ok(output::line("no runs")?);
    }
    let now = clock::now();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|r| {
            vec![
                cell(&r["state"]),
                age(instant(&r["created_at"]), now),
                cell(&r["source"]),
                cell(&r["agent"]),
                r["cost_usd"].as_f64().map_or_else(|| "-".to_owned(), |cost| format!("{cost:.2}")),
                cell(&r["id"]),
                r["error"]
                    .as_str()
                    .or(r["waiting"]["text"].as_str())
                    .or(r["message"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
            ]
        })
        .collect();
    Ok(output::table(
        &["STATE", "AGE", "SOURCE", "AGENT", "USD", "RUN", "MESSAGE, ERROR OR WAIT"],
        &rows,
        output::width(),
    )?)
}
