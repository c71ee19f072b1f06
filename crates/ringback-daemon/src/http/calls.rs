//! What is remembered of the calls of hooks, and a run out of one of them once more.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringback_model::hook_call::HookCall;
use ringback_store::{CallId, CallQuery};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Path, Query};
use super::{App, Error, page};
use crate::hook::call_log::{self, NotReplayed};

const LISTING: &str = "calls";
/// Keys of runs that are started so are none: the route is told for the log.
const ROUTE: &str = "/api/hooks/deliveries";

#[derive(Deserialize, Default)]
pub(super) struct Listing {
    hook: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// The calls of all hooks, or with `?hook=` those of one, the newest first.
pub(super) async fn list(State(app): State<App>, Query(query): Query<Listing>) -> Result<Json<Value>, Error> {
    let limit = page::limit(query.limit.as_deref())?;
    let cursor = page::cursor(LISTING, query.cursor.as_deref())?;
    let page = app.calls.calls().calls(CallQuery { hook: query.hook, limit, cursor }).await?;
    let items: Vec<Value> = page.items.iter().map(|(id, call)| row(*id, call)).collect();
    Ok(Json(json!({
        "items": items,
        "next": page::told(LISTING, page.next),
        "dropped": app.calls.dropped(),
    })))
}

/// The calls of one hook. One that is gone still has those that are remembered.
pub(super) async fn of_hook(
    State(app): State<App>,
    Path(slug): Path,
    Query(query): Query<Listing>,
) -> Result<Json<Value>, Error> {
    let unbelieved = app.calls.unbelieved(&slug);
    let is_known = app.declared.now().hooks.contains_key(&slug);
    let Json(mut listed) = list(State(app), Query(Listing { hook: Some(slug), ..query })).await?;
    if !is_known && listed["items"].as_array().is_none_or(Vec::is_empty) {
        return Err(Error::NotFound("hook not found"));
    }
    listed["unbelieved"] = unbelieved.into();
    Ok(Json(listed))
}

/// One call with its body: as text, or where it is none in base64.
pub(super) async fn show(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let (id, call) = find(&app, &id).await?;
    let mut shown = row(id, &call);
    shown["headers"] = call.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    shown["query"] = json!(call.query);
    match call.body.as_deref().map(str::from_utf8) {
        Some(Ok(text)) => shown["body"] = json!(text),
        Some(Err(_)) => shown["body_base64"] = json!(STANDARD.encode(call.body.unwrap_or_default())),
        None => shown["body"] = Value::Null,
    }
    Ok(Json(shown))
}

/// Starts a run out of a call, with the hook's file as it is now; `id` is null where the hook only tells the user.
pub(super) async fn replay(State(app): State<App>, Path(id): Path) -> Result<Response, Error> {
    let (id, call) = find(&app, &id).await?;
    match call_log::replay(&app.declared, &app.runs, call, ROUTE).await {
        Ok(run) => {
            let accepted = json!({ "status": "accepted", "id": run, "replay_of": id.to_string() });
            Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
        }
        Err(NotReplayed::Refused(refusal)) => Ok(super::runs::refused(refusal)),
        Err(NotReplayed::Unfit(body)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            Ok((StatusCode::BAD_REQUEST, json, body).into_response())
        }
        Err(error) => Err(Error::Conflict(format!("the call cannot be replayed: {error}"))),
    }
}

async fn find(app: &App, id: &str) -> Result<(CallId, HookCall), Error> {
    const MISSING: Error = Error::NotFound("call not found");
    let id: CallId = id.parse().map_err(|_| MISSING)?;
    Ok((id, app.calls.calls().call(id).await?.ok_or(MISSING)?))
}

fn row(id: CallId, call: &HookCall) -> Value {
    json!({
        "id": id.to_string(),
        "hook": call.hook,
        "at": call.at,
        "event": call.event,
        "delivery_id": call.delivery_id,
        "outcome": call.outcome,
        "status": call.status,
        "error": call.error,
        "run": call.run,
        "body_bytes": call.body_bytes,
    })
}
