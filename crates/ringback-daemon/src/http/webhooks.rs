//! Endpoints: their health, the test event, and the switch by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringback_model::event::EventKind;
use ringback_model::{Activity, Agent, EndpointName, Event, EventId, SessionId, Timestamp};
use ringback_store::{DeliveryQuery, Ending, EndpointCounts, EndpointStatus, Entry, Told};
use ringback_webhook::guard::Network;
use serde_json::{Value, json};
use uuid::Uuid;

use super::extract::{Path, Query};
use super::{App, Error, page};
use crate::lane::{Lane, Table};
use crate::record::body_of;

const MISSING: Error = Error::NotFound("webhook not found");

pub(super) async fn list(
    State(app): State<App>,
    Query(asked): Query<page::Asked>,
) -> Result<Json<Value>, Error> {
    let lanes = app.lanes.now();
    let (lanes, next) = asked.of("webhooks", lanes.iter().collect())?;
    let counts = app.store.endpoint_counts().await?;
    let network = match app.network {
        Network::Local => "local",
        Network::Server => "server",
    };
    let mut items = Vec::new();
    for lane in lanes {
        let status = disabled(&app, lane).await?;
        let counts = counts.iter().find(|c| c.endpoint == lane.endpoint.name);
        items.push(row(lane, network, counts, status));
    }
    Ok(Json(json!({ "items": items, "next": next })))
}

fn row(
    lane: &Lane,
    network: &'static str,
    counts: Option<&EndpointCounts>,
    disabled: Option<String>,
) -> Value {
    let endpoint = &lane.endpoint;
    let count = |get: fn(&EndpointCounts) -> u64| counts.map_or(0, get);
    let latency = counts.and_then(|c| c.latency);
    json!({
        "name": endpoint.name,
        "url": endpoint.shown_url(),
        "format": endpoint.format,
        "enabled": disabled.is_none(),
        "disabled_reason": disabled,
        "paused_until": lane.paused_until(),
        "signed": !endpoint.secrets.is_empty(),
        "events": endpoint.events,
        "agents": endpoint.agents,
        "reasons": endpoint.reasons,
        "runs": endpoint.runs,
        "concurrency": endpoint.concurrency,
        "ordered": endpoint.ordered,
        "rate": endpoint.rate.map(|rate| rate.to_string()),
        "network": network,
        "allow": endpoint.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
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

/// Why nothing is queued for an endpoint; `None` = it is enabled.
async fn disabled(app: &App, lane: &Lane) -> Result<Option<String>, Error> {
    let name = &lane.endpoint.name;
    if !lane.endpoint.enabled {
        return Ok(Some("enabled = false".to_owned()));
    }
    if !lane.is_disabled() {
        return Ok(None);
    }
    let by_hand = app.names.endpoint_status(name).await?;
    let status = if by_hand.is_some() { by_hand } else { app.store.endpoint_status(name).await? };
    // The deliverer disables first and writes the reason down a moment later.
    Ok(Some(status.map_or_else(|| "the receiver wants nothing more".to_owned(), |s| s.reason)))
}

/// The lane that takes an endpoint's deliveries.
///
/// # Errors
/// The endpoint is not configured, or disabled.
pub(super) async fn open_lane<'a>(
    app: &App,
    lanes: &'a Table,
    name: &EndpointName,
) -> Result<&'a Arc<Lane>, Error> {
    let Some(lane) = lanes.get(name) else {
        return Err(Error::Conflict(format!("the webhook {:?} is not in the configuration", name.as_str())));
    };
    match disabled(app, lane).await? {
        None => Ok(lane),
        Some(why) => Err(Error::Conflict(format!("the webhook {:?} is disabled: {why}", name.as_str()))),
    }
}

/// The lane of an endpoint that can be switched while the daemon runs.
fn switchable<'a>(lanes: &'a Table, name: &EndpointName) -> Result<&'a Arc<Lane>, Error> {
    let lane = lanes.get(name).ok_or(MISSING)?;
    if !lane.endpoint.enabled {
        return Err(Error::Conflict("enabled = false in the configuration".to_owned()));
    }
    Ok(lane)
}

/// Opens the queue again, whoever closed it.
pub(super) async fn enable(State(app): State<App>, Path(name): Path) -> Result<Json<Value>, Error> {
    let name = EndpointName::new(name);
    let lanes = app.lanes.hold().await;
    let lane = switchable(&lanes, &name)?;
    let _whole = lane.switching.lock().await;
    app.names.set_endpoint_status(&name, None).await?;
    app.store.set_endpoint_status(&name, None).await?;
    lane.set_disabled(false);
    lane.wake.notify_one();
    tracing::info!(endpoint = %name, "endpoint enabled by hand");
    Ok(Json(json!({ "name": name, "enabled": true })))
}

/// Closes the queue until it is opened by hand: nothing new comes in, and what is pending becomes dead.
pub(super) async fn disable(State(app): State<App>, Path(name): Path) -> Result<Json<Value>, Error> {
    let name = EndpointName::new(name);
    let lanes = app.lanes.hold().await;
    let lane = switchable(&lanes, &name)?;
    let _whole = lane.switching.lock().await;
    let now = (app.now)();
    app.names.set_endpoint_status(&name, Some(by_hand(now))).await?;
    lane.set_disabled(true);
    let dead = app.store.close_pending(&name, Ending::Dead, now).await?;
    lane.wake.notify_one();
    tracing::info!(endpoint = %name, dead, "endpoint disabled by hand");
    Ok(Json(json!({ "name": name, "enabled": false, "dead": dead })))
}

/// Without a fingerprint: it holds whatever becomes of the entry.
fn by_hand(now: Timestamp) -> EndpointStatus {
    EndpointStatus {
        disabled_at: now,
        reason: "disabled by hand".to_owned(),
        entry_fingerprint: String::new(),
    }
}

/// Queues a `ping` for one endpoint, filters aside, and answers with its delivery's id.
pub(super) async fn test(
    State(app): State<App>,
    Path(name): Path,
) -> Result<(StatusCode, Json<Value>), Error> {
    let name = EndpointName::new(name);
    let lanes = app.lanes.hold().await;
    if lanes.get(&name).is_none() {
        return Err(MISSING);
    }
    let lane = open_lane(&app, &lanes, &name).await?;
    let now = (app.now)();
    let id = EventId(Uuid::now_v7());
    // A session of its own, of which it is the first event: numbers go on within a session, and no order holds it up.
    let session_id = SessionId::new(format!("ringback-test-{id}"));
    let event = Event {
        id,
        event: EventKind::Ping,
        api: app.origin.links(&session_id),
        session_id,
        agent: Agent::Claude,
        from: Activity::Thinking,
        to: Activity::Waiting,
        project_path: "/".to_owned(),
        timestamp: now,
        sequence: 1,
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
