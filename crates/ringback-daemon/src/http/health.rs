//! Probes, metrics and the settings in force.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::{App, Error};

pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 when the store can be written and the sessions in the window are read.
pub(super) async fn ready(State(app): State<App>) -> Result<Json<Value>, Error> {
    if let Some(problem) = app.health.problem() {
        return Err(Error::NotReady(format!("the store fails: {problem}")));
    }
    if !*app.first_scan.borrow() {
        return Err(Error::NotReady("sessions are being read".to_owned()));
    }
    Ok(Json(json!({ "status": "ready" })))
}

/// What is in force, without secrets.
pub(super) async fn config(State(app): State<App>) -> Json<Value> {
    let config = app.config.borrow();
    Json(json!({
        "path": config.path,
        "claude_dirs": config.claude_dirs,
        "codex_homes": config.codex_homes,
        "agents": config.agents,
        "window_minutes": config.window.as_secs() / 60,
        "exclude_cwd_substrings": config.exclude_cwd_substrings,
        "delivery": {
            "durability": if config.delivery.durable { "disk" } else { "memory" },
            "retention_seconds": config.delivery.retention.as_secs(),
            "retention_size_bytes": config.delivery.retention_size,
        },
        "webhooks": config.endpoints.iter().map(|e| json!({"name": e.name, "url": e.shown_url()})).collect::<Vec<_>>(),
        "warnings": config.warnings,
    }))
}

/// Prometheus text. Endpoints are the only label: they are few and named by the operator.
pub(super) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, Error> {
    let (sessions, active) = app.view.counts(app.window, (app.now)());
    let totals = app.store.totals().await?;
    let mut text = String::new();
    let mut plain = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP ringback_{name} {help}\n# TYPE ringback_{name} {kind}\nringback_{name} {value}\n"
        );
    };
    plain("sessions", "gauge", "Sessions inside the window.", sessions as u64);
    plain("sessions_active", "gauge", "Sessions that are neither idle nor waiting.", active as u64);
    plain("events_total", "counter", "Events journaled.", totals.events);
    plain("events_lost_total", "counter", "Events lost while the store failed.", app.health.lost());
    plain(
        "events_waiting",
        "gauge",
        "Events in memory that the store has not taken yet.",
        app.health.waiting(),
    );
    plain("store_ok", "gauge", "1 when the store can be written.", u64::from(app.health.problem().is_none()));
    plain(
        "hook_calls_unbelieved_total",
        "counter",
        "Calls of declared hooks whose sender was not believed.",
        app.calls.all_unbelieved(),
    );
    plain(
        "hook_calls_dropped_total",
        "counter",
        "Calls of declared hooks that were answered and not remembered.",
        app.calls.dropped(),
    );
    let counts = app.store.endpoint_counts().await?;
    for (name, kind, help, get) in [
        (
            "deliveries_pending",
            "gauge",
            "Deliveries waiting.",
            (|c| c.pending) as fn(&ringback_store::EndpointCounts) -> u64,
        ),
        ("deliveries_delivered_total", "counter", "Deliveries answered 2xx.", |c| c.delivered),
        ("deliveries_failed_total", "counter", "Deliveries refused for good.", |c| c.failed),
        ("deliveries_dead_total", "counter", "Deliveries whose attempts were used up.", |c| c.dead),
        ("deliveries_dropped_total", "counter", "Deliveries never queued for want of room.", |c| c.dropped),
    ] {
        let _ = write!(text, "# HELP ringback_{name} {help}\n# TYPE ringback_{name} {kind}\n");
        for c in &counts {
            let _ =
                writeln!(text, "ringback_{name}{{endpoint=\"{}\"}} {}", label(c.endpoint.as_str()), get(c));
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// A label's value as the text format wants it; every other character stands for itself.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_escapes_the_backslash_the_quote_and_the_line_end_and_nothing_else() {
        assert_eq!(label("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
        assert_eq!(label("büro\u{200b}\t'"), "büro\u{200b}\t'");
    }
}
