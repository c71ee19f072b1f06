//! Endpoints: their health, and the test event.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ringback_model::event::EventKind;
use ringback_model::{Activity, Agent, EndpointName, Event, EventId, SessionId};
use ringback_store::{DeliveryQuery, EndpointCounts, Entry, Told};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{App, Error};
use crate::lane::Lane;
use crate::record::body_of;

pub(super) async fn list(State(app): State<App>) -> Result<Json<Value>, Error> {
    let counts = app.store.endpoint_counts().await?;
    let mut items = Vec::new();
    for name in app.lane_order.iter() {
        let Some(lane) = app.lanes.get(name) else { continue };
        let status = app.store.endpoint_status(name).await?;
        let counts = counts.iter().find(|c| c.endpoint == *name);
        items.push(row(lane, counts, status.map(|s| s.reason)));
    }
    Ok(Json(json!({ "items": items, "next": null })))
}

fn row(lane: &Lane, counts: Option<&EndpointCounts>, disabled: Option<String>) -> Value {
    let endpoint = &lane.endpoint;
    let count = |get: fn(&EndpointCounts) -> u64| counts.map_or(0, get);
    let latency = counts.and_then(|c| c.latency);
    json!({
        "name": endpoint.name,
        "url": endpoint.shown_url(),
        "format": endpoint.format,
        "enabled": endpoint.enabled && disabled.is_none(),
        "disabled_reason": if endpoint.enabled { disabled } else { Some("enabled = false".to_owned()) },
        "signed": !endpoint.secrets.is_empty(),
        "events": endpoint.events,
        "agents": endpoint.agents,
        "reasons": endpoint.reasons,
        "runs": endpoint.runs,
        "concurrency": endpoint.concurrency,
        "pending": count(|c| c.pending),
        "delivered": count(|c| c.delivered),
        "failed": count(|c| c.failed),
        "dead": count(|c| c.dead),
        "cancelled": count(|c| c.cancelled),
        "dropped": count(|c| c.dropped),
        "last_status": counts.and_then(|c| c.last_status),
        "last_error": counts.and_then(|c| c.last_error.as_deref()),
        "last_attempt_at": counts.and_then(|c| c.last_attempt_at),
        "latency_p50_ms": latency.map(|l| l.p50_ms),
        "latency_p99_ms": latency.map(|l| l.p99_ms),
    })
}

/// Queues a `ping` for one endpoint, filters aside, and answers with its delivery's id.
pub(super) async fn test(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let name = EndpointName::new(name);
    let lane = app.lanes.get(&name).ok_or(Error::NotFound("webhook not found"))?;
    let now = (app.now)();
    let event = Event {
        id: EventId(Uuid::now_v7()),
        event: EventKind::Ping,
        session_id: SessionId::new("ringback-test"),
        agent: Agent::Claude,
        from: Activity::Thinking,
        to: Activity::Waiting,
        project_path: "/".to_owned(),
        timestamp: now,
        api: None,
        sequence: 0,
        reason: None,
        host: app.origin.host.clone(),
        session_name: Some("ringback test".to_owned()),
        model: None,
        git_branch: None,
        duration_ms: None,
        run_id: None,
        source: None,
    };
    let told = Told { body: body_of(&event), endpoints: vec![name.clone()], at: now, event: event.clone() };
    app.store.record(vec![Entry { state: None, told: Some(told) }]).await?;
    let query = DeliveryQuery { endpoint: Some(name.clone()), limit: 20, ..DeliveryQuery::default() };
    let page = app.store.deliveries(query).await?;
    lane.wake.notify_one();
    let id = page
        .items
        .iter()
        .find(|row| row.delivery.event_id == event.id)
        .map(|row| row.delivery.id.to_string());
    Ok((StatusCode::ACCEPTED, Json(json!({ "event": event.id, "delivery": id, "endpoint": name }))))
}
