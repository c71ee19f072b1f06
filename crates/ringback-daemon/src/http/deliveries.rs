//! Deliveries, their attempts, and their replay.

use axum::Json;
use axum::extract::State;
use ringback_model::ids::UnknownWord;
use ringback_model::{DeliveryId, DeliveryState, EndpointName, SessionId, Timestamp};
use ringback_store::{DeliveryDetail, DeliveryQuery, Replay};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path, Query};
use super::webhooks::open_lane;
use super::{App, Error, page};

const LISTING: &str = "deliveries";
const MISSING: Error = Error::NotFound("delivery not found");

#[derive(Deserialize, Default)]
pub(super) struct Listing {
    endpoint: Option<String>,
    state: Option<String>,
    session: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn list(State(app): State<App>, Query(query): Query<Listing>) -> Result<Json<Value>, Error> {
    let limit = page::limit(query.limit.as_deref())?;
    let state = query.state.map(|s| s.parse()).transpose();
    let cursor = page::cursor(LISTING, query.cursor.as_deref())?;
    let page = app
        .store
        .deliveries(DeliveryQuery {
            endpoint: query.endpoint.map(EndpointName::new),
            state: state.map_err(|e: UnknownWord| Error::BadRequest(e.to_string()))?,
            session: query.session.map(SessionId::new),
            limit,
            cursor,
        })
        .await?;
    let mut items = Vec::with_capacity(page.items.len());
    for row in &page.items {
        // A row that was pruned since the page was read is left out.
        if let Some(detail) = app.store.delivery(row.delivery.id).await? {
            items.push(shown(&detail));
        }
    }
    Ok(Json(json!({ "items": items, "next": page::told(LISTING, page.next) })))
}

fn shown(detail: &DeliveryDetail) -> Value {
    let row = &detail.row;
    let delivery = &row.delivery;
    let is_pending = delivery.state == DeliveryState::Pending;
    json!({
        "id": delivery.id.to_string(),
        "event": serde_json::from_slice(&detail.body).unwrap_or(Value::Null),
        "endpoint": delivery.endpoint,
        "state": delivery.state,
        "created_at": delivery.created_at,
        "next_attempt_at": is_pending.then_some(delivery.due_at),
        "last_status": row.last_status,
        "last_error": row.last_error,
        "attempts": detail.attempts,
    })
}

pub(super) async fn show(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let id = DeliveryId(id.parse().map_err(|_| MISSING)?);
    let detail = app.store.delivery(id).await?.ok_or(MISSING)?;
    Ok(Json(shown(&detail)))
}

/// Makes one finished delivery pending again.
pub(super) async fn replay(State(app): State<App>, Path(id): Path) -> Result<Json<Value>, Error> {
    let id = DeliveryId(id.parse().map_err(|_| MISSING)?);
    let delivery = app.store.delivery(id).await?.ok_or(MISSING)?.row.delivery;
    if delivery.state == DeliveryState::Pending {
        return Err(Error::Conflict("the delivery is pending".to_owned()));
    }
    let lanes = app.lanes.hold().await;
    let lane = open_lane(&app, &lanes, &delivery.endpoint).await?;
    let replayed = app.store.replay(Replay::One(id), (app.now)()).await?;
    if replayed == 0 {
        return Err(Error::Conflict("the queue of its endpoint is full".to_owned()));
    }
    lane.wake.notify_one();
    Ok(Json(json!({ "replayed": replayed })))
}

/// What is replayed: at least a state or an end of the range is given, so that a slip does not repeat everything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    endpoint: Option<String>,
    state: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// Makes all finished deliveries pending again that pass the filters. Endpoints that take none are passed over,
/// unless one of them is asked for by name.
pub(super) async fn replay_many(State(app): State<App>, Body(body): Body) -> Result<Json<Value>, Error> {
    let bad = |text: &str| Error::BadRequest(text.to_owned());
    const SHAPE: &str = "expected {\"state\": …, \"endpoint\": …, \"from\": …, \"to\": …}";
    let range: Range = serde_json::from_slice(&body).map_err(|_| bad(SHAPE))?;
    let state: Option<DeliveryState> =
        range.state.map(|s| s.parse()).transpose().map_err(|e: UnknownWord| bad(&e.to_string()))?;
    let instant = |text: Option<String>| text.map(|t| t.parse::<Timestamp>()).transpose();
    let from = instant(range.from).map_err(|_| bad("from must be an RFC 3339 time"))?;
    let to = instant(range.to).map_err(|_| bad("to must be an RFC 3339 time"))?;
    if state == Some(DeliveryState::Pending) {
        return Err(bad("what is pending cannot be replayed"));
    }
    if state.is_none() && from.is_none() && to.is_none() {
        return Err(bad("say which: a state, or a time range"));
    }
    let lanes = app.lanes.hold().await;
    let chosen = match range.endpoint.map(EndpointName::new) {
        Some(name) => vec![open_lane(&app, &lanes, &name).await?],
        None => lanes.iter().filter(|lane| lane.is_open()).collect(),
    };
    let mut replayed = 0;
    for lane in chosen {
        let endpoint = lane.endpoint.name.clone();
        let count = app.store.replay(Replay::Of { endpoint, state, from, to }, (app.now)()).await?;
        if count > 0 {
            lane.wake.notify_one();
        }
        replayed += count;
    }
    Ok(Json(json!({ "replayed": replayed })))
}
