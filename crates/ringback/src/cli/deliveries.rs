//! `ringback deliveries`.

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::client::Client;
use ringback_daemon::clock;
use ringback_daemon::record::percent_encoded;
use ringback_model::Timestamp;
use serde_json::{Value, json};

use super::Context;
use crate::exit_code::Error;
use crate::output::{self, age, cell, instant};

/// List deliveries, newest first; show one with its attempts; send again what has ended
///
/// Examples: ringback deliveries list --state dead; ringback deliveries show 42; ringback deliveries replay --dead
#[derive(clap::Args)]
pub(crate) struct Deliveries {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List deliveries (the default)
    List(List),
    /// Show one delivery: its event and every attempt
    Show {
        /// The delivery's id
        id: String,
    },
    /// Send again what has ended: one delivery, all dead ones, or those of a time range
    Replay(Replay),
}

#[derive(clap::Args)]
struct Replay {
    /// The delivery's id
    #[arg(
        required_unless_present_any = ["dead", "from", "to"],
        conflicts_with_all = ["dead", "endpoint", "from", "to"]
    )]
    id: Option<String>,
    /// All whose attempts were used up, or that ended with their endpoint
    #[arg(long)]
    dead: bool,
    /// Only of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Only of events that happened then or later, as in 2026-05-19T14:30:00Z; without --dead also delivered ones
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only of events that happened before
    #[arg(long, value_name = "TIME")]
    to: Option<Timestamp>,
}

#[derive(clap::Args, Default)]
struct List {
    /// Only of this endpoint
    #[arg(long)]
    endpoint: Option<String>,
    /// Only in this state: pending, delivered, failed, dead, cancelled
    #[arg(long)]
    state: Option<String>,
    /// Only of this session
    #[arg(long)]
    session: Option<String>,
    /// How many, 1 to 1000
    #[arg(long, default_value = "30")]
    limit: u16,
}

impl Replay {
    async fn run(self, client: &Client, json: bool) -> Result<(), Error> {
        let answer = match &self.id {
            Some(id) => {
                let path = format!("/api/deliveries/{}/replay", percent_encoded(id));
                client.call(Method::POST, &path, None).await?
            }
            None => {
                let range = json!({
                    "state": self.dead.then_some("dead"),
                    "endpoint": self.endpoint,
                    "from": self.from,
                    "to": self.to,
                });
                client.call(Method::POST, "/api/deliveries/replay", Some(&range)).await?
            }
        };
        if json {
            return Ok(output::json(&answer)?);
        }
        let count = answer["replayed"].as_u64().unwrap_or_default();
        let what = if count == 1 { "delivery" } else { "deliveries" };
        Ok(output::line(&format!("replayed {count} {what}"))?)
    }
}

impl Deliveries {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        match self.command.unwrap_or(Command::List(List { limit: 30, ..List::default() })) {
            Command::List(list) => {
                let limit = list.limit.to_string();
                let mut query = vec![("limit", limit.as_str())];
                for (key, value) in
                    [("endpoint", &list.endpoint), ("state", &list.state), ("session", &list.session)]
                {
                    query.extend(value.as_deref().map(|v| (key, v)));
                }
                let answer = client.get("/api/deliveries", &query).await?;
                if self.json {
                    return Ok(output::json(&answer)?);
                }
                let now = clock::now();
                let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                let rows: Vec<Vec<String>> = items
                    .iter()
                    .map(|d| {
                        let event = &d["event"];
                        vec![
                            cell(&d["id"]),
                            age(instant(&d["created_at"]), now),
                            cell(&d["state"]),
                            d["attempts"].as_array().map_or(0, Vec::len).to_string(),
                            cell(&d["endpoint"]),
                            format!("{} > {}", cell(&event["from"]), cell(&event["to"])),
                            d["last_error"].as_str().unwrap_or_default().to_owned(),
                        ]
                    })
                    .collect();
                if rows.is_empty() {
                    return Ok(output::line("no deliveries")?);
                }
                let head = ["ID", "AGE", "STATE", "TRIES", "ENDPOINT", "CHANGE", "ERROR"];
                Ok(output::table(&head, &rows, output::width())?)
            }
            Command::Replay(replay) => replay.run(&client, self.json).await,
            Command::Show { id } => {
                let id = percent_encoded(&id);
                let delivery = client.get(&format!("/api/deliveries/{id}"), &[]).await?;
                if self.json {
                    return Ok(output::json(&delivery)?);
                }
                show(&delivery)
            }
        }
    }
}

fn show(delivery: &Value) -> Result<(), Error> {
    let mut fields = vec![
        ("delivery", cell(&delivery["id"])),
        ("endpoint", cell(&delivery["endpoint"])),
        ("state", cell(&delivery["state"])),
    ];
    if delivery["next_attempt_at"].is_string() {
        fields.push(("next try", cell(&delivery["next_attempt_at"])));
    }
    fields.push(("event", spaced(&delivery["event"])));
    let attempts: Vec<(String, String)> =
        delivery["attempts"].as_array().into_iter().flatten().map(attempt).collect();
    fields.extend(attempts.iter().map(|(name, text)| (name.as_str(), text.clone())));
    Ok(output::fields(&fields, output::width())?)
}

fn attempt(attempt: &Value) -> (String, String) {
    let status = || format!("status {}", attempt["status"]);
    let outcome = attempt["error"].as_str().map_or_else(status, str::to_owned);
    let text = format!(
        "{}  {} ms  {outcome}  {}",
        cell(&attempt["started_at"]),
        attempt["duration_ms"],
        attempt["excerpt"].as_str().unwrap_or_default()
    );
    (format!("attempt {}", attempt["number"]), text)
}

/// An object's JSON with a space after each value, so that a line can end there.
fn spaced(value: &Value) -> String {
    let Value::Object(fields) = value else { return value.to_string() };
    let pairs: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", pairs.join(", "))
}
