//! Declared hooks: which are in force, which files are not, and which hooks are paused.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::extract::{Path, Query};
use super::{App, Error, page};
use crate::hook::declared::Hook;

pub(super) async fn list(
    State(app): State<App>,
    Query(asked): Query<page::Asked>,
) -> Result<Json<Value>, Error> {
    let loaded = app.declared.now();
    let (hooks, next) = asked.of("hooks", loaded.hooks.values().collect())?;
    let items: Vec<Value> = hooks.into_iter().map(|hook| row(&app, hook)).collect();
    Ok(Json(json!({
        "items": items, "next": next, "problems": loaded.problems, "warnings": loaded.warnings,
    })))
}

/// Lets a paused hook go on.
pub(super) async fn resume(State(app): State<App>, Path(slug): Path) -> Result<Json<Value>, Error> {
    let is_resumed = app.runs.resume(&slug).await?;
    if !is_resumed && !app.declared.now().hooks.contains_key(&slug) {
        return Err(Error::NotFound("hook not found"));
    }
    Ok(Json(json!({ "slug": slug, "resumed": is_resumed })))
}

fn row(app: &App, hook: &Hook) -> Value {
    let (run, flow) = (&hook.run, &hook.flow);
    let unbelieved = app.calls.unbelieved(&hook.slug);
    let streak = app.runs.streak(&hook.slug);
    let window = flow.rule.and_then(|rule| rule.window);
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
        "rate": flow.bound.rate.map(|rate| rate.to_string()),
        "concurrency": flow.bound.concurrency,
        "coalesce": window.map(|w| json!({
            "quiet_ms": w.quiet.as_millis() as u64, "max_wait_ms": w.max_wait.as_millis() as u64,
        })),
        "on_newer": flow.rule.map(|rule| rule.on_newer),
        "deliver_only": flow.is_deliver_only,
        "failed_in_a_row": streak.failed,
        "paused_at": streak.paused_at,
        "paused_because": streak.why(),
    })
}
