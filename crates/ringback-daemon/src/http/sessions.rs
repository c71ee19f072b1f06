//! Sessions: listing, detail, names, counts.

use axum::Json;
use axum::extract::State;
use ringback_model::{Agent, SessionId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path, Query};
use super::{App, Error};
use crate::view::{self, Filter};

/// Longest name that is kept, in characters.
const NAME_CHARS: usize = 200;
/// Transitions shown with a session.
const TRANSITIONS: usize = 100;

#[derive(Deserialize, Default)]
pub(super) struct Listing {
    dir: Option<String>,
    filter: Option<String>,
    agent: Option<String>,
    search: Option<String>,
}

fn filter(query: Listing) -> Result<Filter, Error> {
    let given = |text: Option<String>| text.filter(|t| !t.is_empty());
    let dir = given(query.dir);
    if dir.as_deref().is_some_and(|d| !d.starts_with('/')) {
        return Err(Error::BadRequest("dir must be an absolute path".to_owned()));
    }
    let activity = given(query.filter).map(|f| f.parse()).transpose().map_err(bad_word)?;
    let agent = given(query.agent).map(|a| a.parse::<Agent>()).transpose().map_err(bad_word)?;
    Ok(Filter { dir, activity, agent, search: given(query.search) })
}

fn bad_word(error: ringback_model::ids::UnknownWord) -> Error {
    Error::BadRequest(error.to_string())
}

pub(super) async fn list(
    State(app): State<App>,
    Query(query): Query<Listing>,
) -> Result<Json<Vec<Value>>, Error> {
    Ok(Json(app.view.list(&filter(query)?, app.window, (app.now)())))
}

pub(super) async fn show(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let id = SessionId::new(id);
    let shown = app.view.get(&id).ok_or(Error::NotFound("session not found"))?;
    let mut value = view::detail(&shown, app.view.custom_name(&id).as_deref());
    let transitions = app.store.transitions(&id, TRANSITIONS).await?;
    if let Value::Object(map) = &mut value {
        map.insert("transitions".to_owned(), json!(transitions));
        let run = app.runs.run_of(&id).map(|(run, _)| run);
        map.insert("run_id".to_owned(), json!(run));
    }
    Ok(Json(value))
}

#[derive(Deserialize)]
struct NewName {
    name: String,
}

pub(super) async fn rename(
    State(app): State<App>,
    Path(id): Path,
    Body(body): Body,
) -> Result<Json<Value>, Error> {
    let body: NewName =
        serde_json::from_slice(&body).map_err(|_| Error::BadRequest("invalid JSON body".to_owned()))?;
    set_name(&app, id, Some(body.name)).await
}

pub(super) async fn unname(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    set_name(&app, id, None).await
}

async fn set_name(app: &App, id: String, name: Option<String>) -> Result<Json<Value>, Error> {
    let id = SessionId::new(id);
    if app.view.get(&id).is_none() {
        return Err(Error::NotFound("session not found"));
    }
    let name = name.map(|n| ringback_model::session::cut(n.trim(), NAME_CHARS)).filter(|n| !n.is_empty());
    app.names.set_name(&id, name.clone()).await?;
    app.view.name(&id, name.clone());
    Ok(Json(json!({ "session_id": id, "custom_name": name.unwrap_or_default() })))
}

pub(super) async fn stats(State(app): State<App>) -> Result<Json<Value>, Error> {
    Ok(Json(counts(&app).await?))
}

/// The counts that `/api/stats` and the event stream show.
pub(super) async fn counts(app: &App) -> Result<Value, Error> {
    let (total, active) = app.view.counts(app.window, (app.now)());
    let totals = app.store.totals().await?;
    let mut counts = json!({
        "total_sessions": total,
        "active_sessions": active,
        "window_minutes": app.window.as_secs() / 60,
        "events": totals.events,
        "deliveries_pending": totals.pending,
        "deliveries_delivered": totals.delivered,
        "deliveries_failed": totals.failed,
        "deliveries_dead": totals.dead,
        "deliveries_dropped": totals.dropped,
    });
    for (state, count) in app.runs.ledger().run_counts().await? {
        counts[format!("runs_{state}")] = count.into();
    }
    Ok(counts)
}
