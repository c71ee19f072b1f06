//! `ringback webhooks`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::client::Client;
use ringback_daemon::config;
use ringback_daemon::config::edit::{self, NewEntry};
use ringback_daemon::record::percent_encoded;
use serde_json::{Value, json};

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// List the configured endpoints and their health; test, switch, add and remove them
///
/// Examples: ringback webhooks; ringback webhooks test phone; ringback webhooks add desk http://localhost:8080/
#[derive(clap::Args)]
pub(crate) struct Webhooks {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List endpoints (the default)
    List,
    /// Send a test event to one endpoint and wait for its outcome
    Test {
        /// The endpoint's name
        name: String,
    },
    /// Queue events for an endpoint again that was disabled by hand, by its receiver or after long failure
    Enable {
        /// The endpoint's name
        name: String,
    },
    /// Queue nothing for an endpoint until it is enabled; what is pending becomes dead and can be replayed
    Disable {
        /// The endpoint's name
        name: String,
    },
    /// Add an endpoint to the configuration file; comments and formatting stay
    Add(Add),
    /// Remove an endpoint from the configuration file; comments and formatting stay
    Rm {
        /// The endpoint's name
        name: String,
    },
}

#[derive(clap::Args)]
struct Add {
    /// A name that no other endpoint has
    name: String,
    /// Where to send events, http or https
    url: String,
    /// Only changes to this activity; can be given several times
    #[arg(long = "event", value_name = "ACTIVITY")]
    events: Vec<String>,
    /// The environment variable that holds the secret; without it, events are not signed
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Option<String>,
}

impl Webhooks {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        match self.command.unwrap_or(Command::List) {
            Command::List => list(&context.client()?, self.json).await,
            Command::Test { name } => test(&context.client()?, &name, self.json).await,
            Command::Enable { name } => switch(&context.client()?, &name, "enable", self.json).await,
            Command::Disable { name } => switch(&context.client()?, &name, "disable", self.json).await,
            Command::Add(add) => {
                let entry = NewEntry {
                    name: &add.name,
                    url: &add.url,
                    events: &add.events,
                    secret_env: add.secret_env.as_deref(),
                };
                told(edit::add(&file(context)?, &entry, &context.env), self.json)
            }
            Command::Rm { name } => told(edit::remove(&file(context)?, &name, &context.env), self.json),
        }
    }
}

/// The configuration file, there or not.
fn file(context: &Context) -> Result<PathBuf, Error> {
    let found = config::find(context.given.as_deref(), &context.env);
    let default = || Some(config::directory(&context.env)?.join("config.toml"));
    let path = found.or_else(default);
    path.ok_or_else(|| Error::usage("HOME is not set").mend("name the file with --config"))
}

/// Prints what became of an edit of the configuration.
fn told(edited: Result<edit::Report, edit::Error>, json: bool) -> Result<(), Error> {
    let report = edited.map_err(|error| {
        let what = error.to_string();
        match error {
            edit::Error::Config(error) => error.into(),
            edit::Error::Json { path } => {
                Error::usage(what).mend(format!("edit the \"webhooks\" list in {} by hand", path.display()))
            }
            edit::Error::Taken { .. } => {
                Error::usage(what).mend("choose another name, or remove that entry first")
            }
            edit::Error::Missing { .. } => Error::usage(what).mend("`ringback webhooks` lists the names"),
            edit::Error::BadEntry(_) => {
                Error::usage(what).mend("nothing was changed; correct that and try again")
            }
            edit::Error::Layout { path } => {
                Error::usage(what).mend(format!("nothing was changed; edit {} by hand", path.display()))
            }
            edit::Error::File(_) => Error::failed(what),
        }
    })?;
    for warning in &report.warnings {
        output::complain(&format!("warning: {warning}"));
    }
    if json {
        let diff: Vec<&str> = report.diff.lines().collect();
        return Ok(output::json(&json!({ "path": report.path, "diff": diff }))?);
    }
    for line in report.diff.lines() {
        output::line(line)?;
    }
    let path = report.path.display();
    Ok(output::line(&format!("changed {path}; a running ringback follows within a second"))?)
}

async fn switch(client: &Client, name: &str, how: &str, json: bool) -> Result<(), Error> {
    let path = format!("/api/webhooks/{}/{how}", percent_encoded(name));
    let answer = client.call(Method::POST, &path, None).await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let text = match answer["dead"].as_u64() {
        None => format!("{name}: enabled"),
        Some(0) => format!("{name}: disabled"),
        Some(dead) => format!(
            "{name}: disabled; {dead} pending ended dead, `ringback deliveries replay --dead` brings them back"
        ),
    };
    Ok(output::line(&text)?)
}

async fn list(client: &Client, json: bool) -> Result<(), Error> {
    let answer = client.list("/api/webhooks", &[]).await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Ok(output::line("no endpoint is configured; `ringback init` writes an example")?);
    }
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|w| {
            let state = match (w["enabled"].as_bool(), w["disabled_reason"].as_str()) {
                (Some(true), _) => match w["paused_until"].as_str() {
                    Some(until) => format!("paused until {until}"),
                    None => "on".to_owned(),
                },
                (_, Some(why)) => format!("off: {why}"),
                _ => "off".to_owned(),
            };
            [
                "name",
                "pending",
                "delivered",
                "failed",
                "dead",
                "dropped",
                "last_status",
                "latency_p50_ms",
                "latency_p99_ms",
            ]
            .iter()
            .map(|key| output::cell(&w[*key]))
            .chain([state, rules(w), output::cell(&w["url"])])
            .collect()
        })
        .collect();
    let head = [
        "NAME",
        "PENDING",
        "DELIVERED",
        "FAILED",
        "DEAD",
        "DROPPED",
        "LAST",
        "P50 MS",
        "P99 MS",
        "STATE",
        "RULES",
        "URL",
    ];
    Ok(output::table(&head, &rows, output::width())?)
}

/// What an endpoint has beyond the defaults: order, rate, and which addresses it may have.
fn rules(w: &Value) -> String {
    let mut rules = Vec::new();
    if w["ordered"] == true {
        rules.push("ordered".to_owned());
    }
    rules.extend(w["rate"].as_str().map(str::to_owned));
    if w["network"] == "server" {
        rules.push("public addresses".to_owned());
    }
    let allow = w["allow"].as_array().map(Vec::as_slice).unwrap_or_default();
    rules.extend(allow.iter().filter_map(Value::as_str).map(|net| format!("allow {net}")));
    if rules.is_empty() { "-".to_owned() } else { rules.join(", ") }
}

async fn test(client: &Client, name: &str, json: bool) -> Result<(), Error> {
    let path = format!("/api/webhooks/{}/test", percent_encoded(name));
    let sent = client.call(Method::POST, &path, None).await?;
    let id = output::cell(&sent["delivery"]);
    let outcome = wait_for(client, &id).await?;
    if json {
        output::json(&outcome)?;
    }
    let attempts = outcome["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = attempts.last().cloned().unwrap_or(Value::Null);
    if outcome["state"] == "delivered" {
        if !json {
            output::line(&format!(
                "{name}: delivered, status {} in {} ms",
                last["status"], last["duration_ms"]
            ))?;
        }
        return Ok(());
    }
    let why = last["error"].as_str().unwrap_or("no attempt was made in time").to_owned();
    let excerpt =
        last["excerpt"].as_str().filter(|e| !e.is_empty()).map(|e| format!(": {e}")).unwrap_or_default();
    Err(Error::failed(format!("{name}: {why}{excerpt}")).mend(format!("see `ringback deliveries show {id}`")))
}

/// Follows one delivery until its first attempt is over.
async fn wait_for(client: &Client, id: &str) -> Result<Value, Error> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let delivery = client.get(&format!("/api/deliveries/{id}"), &[]).await?;
        let tried = delivery["attempts"].as_array().is_some_and(|a| !a.is_empty());
        if tried || delivery["state"] != "pending" || Instant::now() > until {
            return Ok(delivery);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
