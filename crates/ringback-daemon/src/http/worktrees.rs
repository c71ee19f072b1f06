//! Worktrees of isolated runs.

use axum::Json;
use axum::extract::State;
use ringback_model::run::RunId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Path, Query};
use super::{App, Error, page};
use crate::run::Removal;

pub(super) async fn list(
    State(app): State<App>,
    Query(asked): Query<page::Asked>,
) -> Result<Json<Value>, Error> {
    let (items, next) = asked.of("worktrees", app.runs.worktrees().await?)?;
    Ok(Json(json!({ "items": items, "next": next })))
}

/// Removes those that hold nothing any more that is nowhere else.
pub(super) async fn prune(State(app): State<App>) -> Result<Json<Value>, Error> {
    Ok(Json(json!({ "removed": app.runs.prune_worktrees().await? })))
}

#[derive(Deserialize)]
pub(super) struct How {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(app): State<App>,
    Path(run): Path,
    Query(how): Query<How>,
) -> Result<Json<Value>, Error> {
    const MISSING: Error = Error::NotFound("worktree not found");
    let id: RunId = run.parse().map_err(|_| MISSING)?;
    match app.runs.remove_worktree(id, how.force, false).await? {
        Removal::Removed => Ok(Json(json!({ "run": id, "removed": true }))),
        Removal::Unknown => Err(MISSING),
        Removal::InUse => Err(Error::Conflict("the run goes on".to_owned())),
        Removal::Kept(why) if how.force => Err(Error::Conflict(why)),
        Removal::Kept(why) => Err(Error::Conflict(format!("{why}; force discards it"))),
    }
}
