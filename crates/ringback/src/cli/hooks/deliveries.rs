//! `ringback hooks deliveries` and `ringback hooks replay`.

use reqwest::Method;
use ringback_daemon::clock;
use ringback_daemon::record::percent_encoded;
use serde_json::Value;

use crate::cli::Context;
use crate::exit_code::Error;
use crate::output::{self, age, cell, instant};

#[derive(clap::Args)]
pub(super) struct Deliveries {
    /// Only of this hook
    slug: Option<String>,
    /// How many, 1 to 1000
    #[arg(long, default_value = "30")]
    limit: u16,
    /// Show this one, with its headers and its body
    #[arg(long, value_name = "N", conflicts_with_all = ["slug", "limit"])]
    id: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct Replay {
    /// The call's id, as `ringback hooks deliveries` lists it
    id: String,
}

impl Deliveries {
    pub(super) async fn run(self, context: &Context, json: bool) -> Result<(), Error> {
        let client = context.client()?;
        if let Some(id) = &self.id {
            let path = format!("/api/hooks/deliveries/{}", percent_encoded(id));
            let call = client.get(&path, &[]).await?;
            return if json { Ok(output::json(&call)?) } else { shown(&call) };
        }
        let limit = self.limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(self.slug.as_deref().map(|slug| ("hook", slug)));
        let answer = client.get("/api/hooks/deliveries", &query).await?;
        if json {
            return Ok(output::json(&answer)?);
        }
        let now = clock::now();
        let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if items.is_empty() {
            return Ok(output::line("no calls of hooks are remembered")?);
        }
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|call| {
                vec![
                    cell(&call["id"]),
                    age(instant(&call["at"]), now),
                    cell(&call["hook"]),
                    cell(&call["outcome"]),
                    cell(&call["status"]),
                    cell(&call["event"]),
                    // Enough to find it: the whole id is in --json and with --id.
                    cell(&call["run"]).chars().take(8).collect(),
                ]
            })
            .collect();
        let head = ["ID", "AGE", "HOOK", "OUTCOME", "STATUS", "EVENT", "RUN"];
        Ok(output::table(&head, &rows, output::width())?)
    }
}

fn shown(call: &Value) -> Result<(), Error> {
    let keys = [
        ("call", "id"),
        ("hook", "hook"),
        ("at", "at"),
        ("event", "event"),
        ("delivery", "delivery_id"),
        ("outcome", "outcome"),
        ("status", "status"),
        ("error", "error"),
        ("run", "run"),
        ("query", "query"),
    ];
    let known = keys.iter().filter(|(_, key)| !call[key].is_null());
    let known = known.map(|(name, key)| (*name, cell(&call[key])));
    let headers = call["headers"].as_object().into_iter().flatten();
    let headers =
        headers.map(|(name, value)| ("header", format!("{name}: {}", value.as_str().unwrap_or_default())));
    output::fields(&known.chain(headers).collect::<Vec<_>>(), output::width())?;
    output::line("")?;
    let not_kept = || format!("(the body, {} bytes, was not kept)", call["body_bytes"]);
    let body = call["body"].as_str().or(call["body_base64"].as_str()).map_or_else(not_kept, str::to_owned);
    Ok(body.lines().try_for_each(output::line)?)
}

impl Replay {
    pub(super) async fn run(self, context: &Context, json: bool) -> Result<(), Error> {
        let path = format!("/api/hooks/deliveries/{}/replay", percent_encoded(&self.id));
        let answer = context.client()?.call(Method::POST, &path, None).await?;
        if json {
            return Ok(output::json(&answer)?);
        }
        if answer["id"].is_null() {
            return Ok(output::line("accepted   the notifiers have it: this hook starts no run")?);
        }
        let run = cell(&answer["id"]);
        Ok(output::line(&format!("accepted   {run}   (ringback runs show {run})"))?)
    }
}
