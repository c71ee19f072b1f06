//! Everything that is read to be shown, or once at the start.

use bytes::Bytes;
use ringback_model::transition::LastEvent;
use ringback_model::{
    Attempt, Delivery, DeliveryId, EndpointName, Event, EventId, SessionId, SessionState, Timestamp,
};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use uuid::Uuid;

use super::answers::Answers;
use super::rows::{count, instant, instant_if_any, state, state_code, unreadable, word, word_if_any};
use crate::{DeliveryDetail, DeliveryQuery, DeliveryRow, EndpointCounts, EndpointStatus, Page, Totals};

const ROW_COLUMNS: &str = "d.delivery, e.id, p.name, d.state, d.attempts,
    coalesce(d.replayed_at, e.recorded_at), d.due_at, e.session_id, e.agent, e.from_activity, e.to_activity,
    e.at, a.status, a.error";
const LAST_ATTEMPT: &str = "LEFT JOIN attempt a ON a.delivery = d.delivery AND a.number = d.tries";

pub(super) fn sessions(conn: &Connection) -> Result<Vec<SessionState>> {
    conn.prepare_cached(
        "SELECT session_id, agent, activity, reason, since, sequence, last_from, last_to, last_at
         FROM session ORDER BY session_id",
    )?
    .query_map([], |row| {
        let last = (word_if_any(row, 6)?, word_if_any(row, 7)?, instant_if_any(row, 8)?);
        Ok(SessionState {
            session_id: SessionId::new(row.get::<_, String>(0)?),
            agent: word(row, 1)?,
            activity: word(row, 2)?,
            reason: word_if_any(row, 3)?,
            since: instant(row, 4)?,
            sequence: count(row, 5)?,
            last_event: match last {
                (Some(from), Some(to), Some(at)) => Some(LastEvent { from, to, at }),
                _ => None,
            },
        })
    })?
    .collect()
}

pub(super) fn deliveries(conn: &Connection, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
    let size = query.page_size();
    // One more row than the page tells whether there is another page.
    let limit = size as i64 + 1;
    let endpoint = query.endpoint.as_ref().map(|e| e.as_str());
    let state = query.state.map(state_code);
    let session = query.session.as_ref().map(|s| s.as_str());
    let before = query.cursor.map(|c| c.0);

    let mut conditions = Vec::new();
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit)];
    if let Some(endpoint) = &endpoint {
        conditions.push("d.endpoint = (SELECT endpoint FROM endpoint WHERE name = :endpoint)");
        values.push((":endpoint", endpoint));
    }
    if let Some(state) = &state {
        // The literal lets the partial index serve the states that are rare.
        conditions.push(if *state > 1 { "d.state = :state AND d.state > 1" } else { "d.state = :state" });
        values.push((":state", state));
    }
    if let Some(before) = &before {
        conditions.push("d.delivery < :before");
        values.push((":before", before));
    }
    // A session has few events among many deliveries: start from them, whatever the planner thinks.
    let from = match &session {
        Some(session) => {
            conditions.push("e.session_id = :session");
            values.push((":session", session));
            "event e CROSS JOIN delivery d ON d.event = e.event"
        }
        None => "delivery d CROSS JOIN event e ON e.event = d.event",
    };
    let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    let sql = format!(
        "SELECT {ROW_COLUMNS} FROM {from} CROSS JOIN endpoint p ON p.endpoint = d.endpoint {LAST_ATTEMPT}
         WHERE {conditions} ORDER BY d.delivery DESC LIMIT :limit"
    );
    let rows = conn.prepare_cached(&sql)?.query_map(&values[..], read_row)?.collect::<Result<_>>()?;
    Ok(Page::cut(rows, size, |row: &DeliveryRow| row.delivery.id.0))
}

pub(super) fn delivery(conn: &Connection, id: DeliveryId) -> Result<Option<DeliveryDetail>> {
    let found = conn
        .prepare_cached(&format!(
            "SELECT {ROW_COLUMNS}, e.body FROM delivery d JOIN event e ON e.event = d.event
                 JOIN endpoint p ON p.endpoint = d.endpoint {LAST_ATTEMPT} WHERE d.delivery = ?1"
        ))?
        .query_row([id.0], |row| Ok((read_row(row)?, Bytes::from(row.get::<_, Vec<u8>>(14)?))))
        .optional()?;
    let Some((row, body)) = found else { return Ok(None) };
    let attempts = conn
        .prepare_cached(
            "SELECT number, started_at, duration_ms, status, error, excerpt FROM attempt
             WHERE delivery = ?1 ORDER BY number",
        )?
        .query_map([id.0], |row| {
            Ok(Attempt {
                number: row.get(0)?,
                started_at: instant(row, 1)?,
                duration_ms: count(row, 2)?,
                status: row.get(3)?,
                error: row.get(4)?,
                excerpt: row.get(5)?,
            })
        })?
        .collect::<Result<_>>()?;
    Ok(Some(DeliveryDetail { row, body, attempts }))
}

fn read_row(row: &Row<'_>) -> Result<DeliveryRow> {
    Ok(DeliveryRow {
        delivery: Delivery {
            id: DeliveryId(row.get(0)?),
            event_id: EventId(Uuid::from_bytes(row.get(1)?)),
            endpoint: endpoint_name(row, 2)?,
            state: state(row, 3)?,
            attempts: row.get(4)?,
            created_at: instant(row, 5)?,
            due_at: instant(row, 6)?,
        },
        session_id: SessionId::new(row.get::<_, String>(7)?),
        agent: word(row, 8)?,
        from: word(row, 9)?,
        to: word(row, 10)?,
        at: instant(row, 11)?,
        last_status: row.get(12)?,
        last_error: row.get(13)?,
    })
}

fn endpoint_name(row: &Row<'_>, column: usize) -> Result<EndpointName> {
    row.get::<_, String>(column).map(EndpointName::new)
}

pub(super) fn pending_endpoints(conn: &Connection) -> Result<Vec<EndpointName>> {
    conn.prepare_cached(
        "SELECT name FROM endpoint p WHERE EXISTS (
             SELECT 1 FROM delivery d INDEXED BY delivery_pending WHERE d.endpoint = p.endpoint AND d.state = 0
         ) ORDER BY name",
    )?
    .query_map([], |row| endpoint_name(row, 0))?
    .collect()
}

pub(super) fn transitions(conn: &Connection, session: &str, limit: usize) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = conn
        .prepare_cached(
            "SELECT coalesce(json, body) FROM event
             WHERE session_id = ?1 AND kind = 'state_transition' ORDER BY event DESC LIMIT ?2",
        )?
        .query_map(params![session, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            let json = row.get_ref(0)?.as_blob().map_err(|e| unreadable(0, e))?;
            serde_json::from_slice(json).map_err(|e| unreadable(0, e))
        })?
        .collect::<Result<_>>()?;
    events.reverse();
    Ok(events)
}

pub(super) fn endpoint_counts(conn: &Connection, answers: &Answers) -> Result<Vec<EndpointCounts>> {
    conn.prepare_cached(
        "SELECT name, pending, delivered, failed, dead, cancelled, last_status, last_error, last_attempt_at,
             endpoint
         FROM endpoint ORDER BY name",
    )?
    .query_map([], |row| {
        Ok(EndpointCounts {
            endpoint: endpoint_name(row, 0)?,
            pending: count(row, 1)?,
            delivered: count(row, 2)?,
            failed: count(row, 3)?,
            dead: count(row, 4)?,
            cancelled: count(row, 5)?,
            dropped: 0,
            last_status: row.get(6)?,
            last_error: row.get(7)?,
            last_attempt_at: instant_if_any(row, 8)?,
            latency: answers.latency(conn, row.get(9)?)?,
        })
    })?
    .collect()
}

pub(super) fn endpoint_status(conn: &Connection, endpoint: &str) -> Result<Option<EndpointStatus>> {
    conn.prepare_cached(
        "SELECT disabled_at, disabled_reason, entry_fingerprint FROM endpoint
         WHERE name = ?1 AND disabled_at IS NOT NULL",
    )?
    .query_row([endpoint], |row| {
        Ok(EndpointStatus {
            disabled_at: row.get(0).map(Timestamp::from_millis)?,
            reason: row.get(1)?,
            entry_fingerprint: row.get(2)?,
        })
    })
    .optional()
}

pub(super) fn names(conn: &Connection) -> Result<Vec<(SessionId, String)>> {
    conn.prepare_cached("SELECT session_id, name FROM name ORDER BY session_id")?
        .query_map([], |row| Ok((SessionId::new(row.get::<_, String>(0)?), row.get(1)?)))?
        .collect()
}

pub(super) fn totals(conn: &Connection) -> Result<Totals> {
    conn.prepare_cached(
        "SELECT (SELECT events FROM tally), coalesce(sum(pending), 0), coalesce(sum(delivered), 0),
             coalesce(sum(failed), 0), coalesce(sum(dead), 0), coalesce(sum(cancelled), 0)
         FROM endpoint",
    )?
    .query_row([], |row| {
        Ok(Totals {
            events: count(row, 0)?,
            pending: count(row, 1)?,
            delivered: count(row, 2)?,
            failed: count(row, 3)?,
            dead: count(row, 4)?,
            cancelled: count(row, 5)?,
            dropped: 0,
        })
    })
}

pub(super) fn newest_delivery(conn: &Connection) -> Result<i64> {
    conn.query_row("SELECT coalesce(max(delivery), 0) FROM delivery", [], |row| row.get(0))
}
