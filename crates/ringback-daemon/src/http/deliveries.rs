//! Deliveries and their attempts.

use axum::Json;
use axum::extract::{Path, Query, State};
use ringback_model::{DeliveryId, EndpointName, SessionId};
use ringback_store::{DeliveryDetail, DeliveryQuery};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Error};

#[derive(Deserialize, Default)]
pub(super) struct Listing {
    endpoint: Option<String>,
    state: Option<String>,
    session: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn list(State(app): State<App>, Query(query): Query<Listing>) -> Result<Json<Value>, Error> {
    let limit = super::limit(query.limit.as_deref())?;
    let state = query.state.map(|s| s.parse()).transpose();
    let cursor = query.cursor.map(|c| c.parse()).transpose();
    let page = app
        .store
        .deliveries(DeliveryQuery {
            endpoint: query.endpoint.map(EndpointName::new),
            state: state.map_err(|e: ringback_model::ids::UnknownWord| Error::BadRequest(e.to_string()))?,
            session: query.session.map(SessionId::new),
            limit,
            cursor: cursor.map_err(|e: ringback_store::NotACursor| Error::BadRequest(e.to_string()))?,
        })
        .await?;
    let mut items = Vec::with_capacity(page.items.len());
    for row in &page.items {
        // A row that was pruned since the page was read is left out.
        if let Some(detail) = app.store.delivery(row.delivery.id).await? {
            items.push(shown(&detail));
        }
    }
    Ok(Json(json!({ "items": items, "next": page.next.map(|c| c.to_string()) })))
}

fn shown(detail: &DeliveryDetail) -> Value {
    let row = &detail.row;
    let delivery = &row.delivery;
    let is_pending = delivery.state == ringback_model::DeliveryState::Pending;
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

pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    const MISSING: Error = Error::NotFound("delivery not found");
    let id = DeliveryId(id.parse().map_err(|_| MISSING)?);
    let detail = app.store.delivery(id).await?.ok_or(MISSING)?;
    Ok(Json(shown(&detail)))
}
