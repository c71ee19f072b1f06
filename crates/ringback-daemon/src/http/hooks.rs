//! Declared hooks: which are in force, and which files are not.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use crate::hook::declared::Hook;

pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    let loaded = app.declared.now();
    let items: Vec<Value> =
        loaded.hooks.values().map(|hook| row(hook, app.calls.unbelieved(&hook.slug))).collect();
    Json(json!({ "items": items, "next": null, "problems": loaded.problems, "warnings": loaded.warnings }))
}

fn row(hook: &Hook, unbelieved: u64) -> Value {
    let run = &hook.run;
    json!({
        "slug": hook.slug,
        "file": hook.file,
        "auth": hook.sender().unwrap_or("bearer"),
        "has_secret": hook.has_secret(),
        "unbelieved": unbelieved,
        "agent": run.agent,
        "workspace": run.workspace,
        "isolated": run.isolated,
        "model": run.model,
        "thinking": run.thinking,
        "allow_ping": run.allow_ping,
        "update_main_session": run.update_main_session,
        "allowed_tools": run.allowed_tools,
    })
}
