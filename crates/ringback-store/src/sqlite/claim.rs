//! Finding what is due.

use bytes::Bytes;
use ringback_model::{Delivery, DeliveryId, DeliveryState, EndpointName, EventId, SessionId, Timestamp};
use rusqlite::{Connection, Result, Row};
use uuid::Uuid;

use super::rows::{instant, kind};
use crate::leases::Leases;
use crate::{Claim, Turn, order};

/// Pending deliveries of an endpoint in the order in which they are due. Reads the index alone.
const PENDING: &str = "SELECT due_at, delivery FROM delivery INDEXED BY delivery_pending
    WHERE endpoint = (SELECT endpoint FROM endpoint WHERE name = ?1) AND state = 0
    ORDER BY due_at, delivery";

/// Takes what is due under a lease. The caller holds the lock on the leases from before this transaction's view of
/// the database was fixed: a lease dropped after a commit that this view does not show would be claimed twice.
pub(super) fn claim(
    conn: &Connection,
    leases: &mut Leases,
    endpoint: &EndpointName,
    now: Timestamp,
    limit: usize,
    until: Timestamp,
) -> Result<Turn> {
    let mut statement = conn.prepare_cached(PENDING)?;
    let pending =
        statement.query_map([endpoint.as_str()], |row| Ok((instant(row, 0)?, DeliveryId(row.get(1)?))))?;
    let chosen = leases.held(endpoint, now).choose(pending, now, limit, until)?;
    let claims = take(conn, leases, endpoint, &chosen.ids, until)?;
    Ok(Turn { claims, next_due: chosen.next_due })
}

/// The same where the order of events within a session counts.
pub(super) fn claim_in_order(
    conn: &Connection,
    leases: &mut Leases,
    endpoint: &EndpointName,
    now: Timestamp,
    limit: usize,
    until: Timestamp,
) -> Result<Turn> {
    let pending = conn
        .prepare_cached(PENDING)?
        .query_map([endpoint.as_str()], |row| Ok((DeliveryId(row.get(1)?), instant(row, 0)?)))?
        .collect::<Result<Vec<_>>>()?;
    let mut session = conn.prepare_cached(
        "SELECT session_id FROM event WHERE event = (SELECT event FROM delivery WHERE delivery = ?1)",
    )?;
    let session_of =
        |id: DeliveryId| session.query_row([id.0], |row| Ok(SessionId::new(row.get::<_, String>(0)?)));
    let chosen = order::choose(pending, leases.held(endpoint, now), now, limit, session_of)?;
    let claims = take(conn, leases, endpoint, &chosen.ids, until)?;
    Ok(Turn { claims, next_due: chosen.next_due })
}

fn take(
    conn: &Connection,
    leases: &mut Leases,
    endpoint: &EndpointName,
    ids: &[DeliveryId],
    until: Timestamp,
) -> Result<Vec<Claim>> {
    let mut find = conn.prepare_cached(
        "SELECT d.delivery, e.id, d.attempts, coalesce(d.replayed_at, e.recorded_at), d.due_at, d.tries,
             e.session_id, e.kind, e.body
         FROM delivery d JOIN event e ON e.event = d.event WHERE d.delivery = ?1",
    )?;
    let claims: Vec<Claim> = ids
        .iter()
        .map(|id| find.query_row([id.0], |row| read_claim(row, endpoint)))
        .collect::<Result<_>>()?;
    leases.take(endpoint, claims.iter().map(|c| c.delivery.id), until);
    Ok(claims)
}

fn read_claim(row: &Row<'_>, endpoint: &EndpointName) -> Result<Claim> {
    let delivery = Delivery {
        id: DeliveryId(row.get(0)?),
        event_id: EventId(Uuid::from_bytes(row.get(1)?)),
        endpoint: endpoint.clone(),
        state: DeliveryState::Pending,
        attempts: row.get(2)?,
        created_at: instant(row, 3)?,
        due_at: instant(row, 4)?,
    };
    Ok(Claim {
        delivery,
        tries: row.get(5)?,
        session_id: SessionId::new(row.get::<_, String>(6)?),
        kind: kind(row, 7)?,
        body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn looking_for_due_deliveries_reads_the_index_alone_and_sorts_nothing() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn).unwrap();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {PENDING}")).unwrap();
        let plan: Vec<String> =
            statement.query_map(["e"], |row| row.get(3)).unwrap().collect::<Result<_>>().unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains("USING COVERING INDEX delivery_pending (endpoint=?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
