//! Runs and what belongs to them: pending updates, the ping budget, main sessions.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringback_model::SessionId;
use ringback_model::inbound;
use ringback_model::run::{Run, RunId};
use ringback_store::RunQuery;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path, Query};
use super::{App, Error, page};
use crate::run::NotRetried;

const LISTING: &str = "runs";
/// Files of a run's output, in the order in which they are looked for.
const OUTPUT: [&str; 2] = ["output.jsonl", "stdout.log"];

#[derive(Deserialize, Default)]
pub(super) struct Listing {
    state: Option<String>,
    source: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn list(State(app): State<App>, Query(query): Query<Listing>) -> Result<Json<Value>, Error> {
    let limit = page::limit(query.limit.as_deref())?;
    let state = query.state.map(|s| s.parse()).transpose();
    let cursor = page::cursor(LISTING, query.cursor.as_deref())?;
    let page = app
        .runs
        .ledger()
        .runs(RunQuery {
            state: state.map_err(|e: ringback_model::ids::UnknownWord| Error::BadRequest(e.to_string()))?,
            source: query.source,
            limit,
            cursor,
        })
        .await?;
    let items = app.runs.shown_with_waits(&page.items).await?;
    Ok(Json(json!({ "items": items, "next": page::told(LISTING, page.next) })))
}

async fn find(app: &App, id: &str) -> Result<Run, Error> {
    const MISSING: Error = Error::NotFound("run not found");
    let id: RunId = id.parse().map_err(|_| MISSING)?;
    app.runs.run(id).await?.ok_or(MISSING)
}

pub(super) async fn show(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let run = find(&app, &id).await?;
    let shown = app.runs.shown_with_waits(&[run]).await?;
    Ok(Json(shown.into_iter().next().unwrap_or_default()))
}

/// What `POST /hook/agent` does, for whoever has the API's token.
pub(super) async fn trigger(State(app): State<App>, headers: HeaderMap, Body(body): Body) -> Response {
    let call = match inbound::parse_call(&body, app.runs.known()) {
        Ok(call) => call,
        Err(refusal) => return refused(refusal),
    };
    let key = headers.get("idempotency-key").and_then(|v| inbound::idempotency_key(v.as_bytes()));
    match app.runs.accept(call, "/api/runs", key).await {
        Ok(id) => (StatusCode::ACCEPTED, Json(json!({ "status": "accepted", "id": id }))).into_response(),
        Err(refusal) => refused(refusal),
    }
}

/// A refused call has the same status and body as at the hook listener.
pub(super) fn refused(refusal: inbound::Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], refusal.body()).into_response();
    if let Some(seconds) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A new run with the request of one that has ended.
pub(super) async fn retry(State(app): State<App>, Path(id): Path) -> Result<Response, Error> {
    let run = find(&app, &id).await?;
    match app.runs.retry(&run).await {
        Ok(new) => {
            let accepted = json!({ "status": "accepted", "id": new, "retry_of": run.id });
            Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
        }
        Err(NotRetried::Refused(refusal)) => Ok(refused(refusal)),
        Err(error) => Err(Error::Conflict(error.to_string())),
    }
}

pub(super) async fn cancel(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let run = find(&app, &id).await?;
    if !app.runs.cancel(run.id).await? {
        return Err(Error::Conflict("the run has ended".to_owned()));
    }
    Ok(Json(json!({ "id": run.id, "cancelling": true })))
}

/// The output so far, from `?from=` bytes on; `X-Ringback-Run-State` says whether more may come.
pub(super) async fn log(
    State(app): State<App>,
    Path(id): Path,
    Query(from): Query<From>,
) -> Result<Response, Error> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let from = from.byte()?;
    let run = find(&app, &id).await?;
    let dir = app.runs.output(run.id);
    let mut bytes = Vec::new();
    for name in OUTPUT {
        let Ok(mut file) = tokio::fs::File::open(dir.join(name)).await else { continue };
        let read = async {
            file.seek(std::io::SeekFrom::Start(from)).await?;
            file.take(1 << 20).read_to_end(&mut bytes).await
        };
        read.await.map_err(|e| Error::Store(ringback_store::Error::Io(e.kind().to_string())))?;
        break;
    }
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (STATE, run.state.as_str())];
    Ok((headers, axum::body::Body::from(bytes)).into_response())
}

const STATE: header::HeaderName = header::HeaderName::from_static("x-ringback-run-state");

#[derive(Deserialize)]
pub(super) struct From {
    from: Option<String>,
}

impl From {
    fn byte(self) -> Result<u64, Error> {
        let byte = self.from.map(|text| text.parse()).transpose();
        let byte = byte.map_err(|_| Error::BadRequest("from must be a whole number of bytes".to_owned()))?;
        Ok(byte.unwrap_or(0))
    }
}

#[derive(Deserialize, Default)]
pub(super) struct InWorkspace {
    workspace: Option<String>,
}

impl InWorkspace {
    fn name(self, app: &App) -> Result<String, Error> {
        let name = self.workspace.unwrap_or_else(|| app.runs.default_workspace().to_owned());
        if app.runs.known().workspaces.contains(&name) {
            Ok(name)
        } else {
            Err(Error::NotFound("workspace not found"))
        }
    }
}

pub(super) async fn updates(
    State(app): State<App>,
    Query(query): Query<InWorkspace>,
    Query(asked): Query<page::Asked>,
) -> Result<Json<Value>, Error> {
    let workspace = query.name(&app)?;
    let pending = app.runs.updates(&workspace).await;
    let (items, next) = asked.of("updates", pending.updates().collect())?;
    Ok(Json(json!({ "workspace": workspace, "items": items, "omitted": pending.omitted(), "next": next })))
}

pub(super) async fn pop(
    State(app): State<App>,
    Query(query): Query<InWorkspace>,
) -> Result<Json<Value>, Error> {
    let workspace = query.name(&app)?;
    let pending = app.runs.pop_updates(&workspace).await?;
    let items: Vec<_> = pending.updates().collect();
    Ok(Json(json!({ "workspace": workspace, "items": items, "omitted": pending.omitted(), "next": null })))
}

#[derive(Deserialize)]
pub(super) struct HandOver {
    session_id: String,
    /// What was shown before went out.
    #[serde(default)]
    done: bool,
}

/// The updates for a session's next prompt: only if it is a workspace's main session. They are taken by a second
/// call with `done`.
pub(super) async fn hand_over(State(app): State<App>, Body(body): Body) -> Result<Json<Value>, Error> {
    let asked: HandOver =
        serde_json::from_slice(&body).map_err(|_| Error::BadRequest("invalid JSON body".to_owned()))?;
    let Some(workspace) = app.runs.workspace_of(&SessionId::new(asked.session_id)).await else {
        return Ok(Json(json!({ "block": null })));
    };
    if asked.done {
        app.runs.handed_over(&workspace).await?;
        return Ok(Json(json!({ "block": null })));
    }
    let pending = app.runs.hand_over(&workspace).await;
    Ok(Json(json!({ "workspace": workspace, "block": pending.for_main_session((app.now)()) })))
}

pub(super) async fn budget(State(app): State<App>) -> Json<Value> {
    let level = app.runs.level().await;
    Json(json!({
        "available": level.available,
        "capacity": level.capacity,
        "next_refill_minutes": level.next_refill_minutes,
        "used_today": level.used_today,
        "critical_today": level.critical_today,
        "status": level.full_status(),
    }))
}

#[derive(Deserialize)]
struct NewLevel {
    available: u32,
}

/// Fills or empties the bucket by hand.
pub(super) async fn set_budget(State(app): State<App>, Body(body): Body) -> Result<Json<Value>, Error> {
    let level: NewLevel = serde_json::from_slice(&body)
        .map_err(|_| Error::BadRequest("expected {\"available\": a whole number}".to_owned()))?;
    app.runs.set_level(level.available).await?;
    Ok(budget(State(app)).await)
}

pub(super) async fn main(
    State(app): State<App>,
    Query(query): Query<InWorkspace>,
) -> Result<Json<Value>, Error> {
    let workspace = query.name(&app)?;
    let main = app.runs.main_session(&workspace, None).await;
    Ok(Json(json!({
        "workspace": workspace,
        "session_id": main.as_ref().map(|m| &m.id),
        "pinned": main.as_ref().is_some_and(|m| m.is_pinned),
        "busy": main.as_ref().is_some_and(crate::run::Main::is_busy),
        "cwd": main.as_ref().and_then(|m| m.shown.as_ref()).map(|s| &s.about.cwd),
    })))
}

#[derive(Deserialize)]
struct NewMain {
    session_id: Option<String>,
}

pub(super) async fn set_main(
    State(app): State<App>,
    Query(query): Query<InWorkspace>,
    Body(body): Body,
) -> Result<Json<Value>, Error> {
    let workspace = query.name(&app)?;
    let new: NewMain = serde_json::from_slice(&body)
        .map_err(|_| Error::BadRequest("expected {\"session_id\": an id or null}".to_owned()))?;
    let id = new.session_id.filter(|id| !id.is_empty()).map(SessionId::new);
    app.runs.set_main(&workspace, id).await?;
    main(State(app), Query(InWorkspace { workspace: Some(workspace) })).await
}

pub(super) async fn test_notifiers(State(app): State<App>) -> Result<(StatusCode, Json<Value>), Error> {
    app.runs.test_message().await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "status": "accepted" }))))
}
