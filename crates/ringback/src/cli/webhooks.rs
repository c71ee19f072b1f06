//! `ringback webhooks`.

use std::time::{Duration, Instant};

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::client::Client;
use ringback_daemon::record::percent_encoded;
use serde_json::Value;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// List the configured endpoints and their health; send a test event
///
/// Examples: ringback webhooks; ringback webhooks test phone
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
}

impl Webhooks {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        match self.command.unwrap_or(Command::List) {
            Command::List => list(&client, self.json).await,
            Command::Test { name } => test(&client, &name, self.json).await,
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Error> {
    let answer = client.get("/api/webhooks", &[]).await?;
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
                (Some(true), _) => "on".to_owned(),
                (_, Some(why)) => format!("off: {why}"),
                _ => "off".to_owned(),
            };
            [
                "name",
                "pending",
                "delivered",
                "failed",
                "dead",
                "last_status",
                "latency_p50_ms",
                "latency_p99_ms",
            ]
            .iter()
            .map(|key| output::cell(&w[*key]))
            .chain([state, output::cell(&w["url"])])
            .collect()
        })
        .collect();
    let head = ["NAME", "PENDING", "DELIVERED", "FAILED", "DEAD", "LAST", "P50 MS", "P99 MS", "STATE", "URL"];
    Ok(output::table(&head, &rows, output::width())?)
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
