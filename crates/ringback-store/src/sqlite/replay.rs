//! Making finished deliveries pending again, a step at a time.
//!
//! They are looked for on the reading thread, where a long search delays no delivery, and changed on the writing
//! one, which looks at each again: it may have been replayed or pruned meanwhile.

use ringback_model::{DeliveryId, DeliveryState, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, named_params, params};

use super::rows::{state, state_code};
use super::writer::Batch;
use crate::Replay;

/// How many deliveries one step makes pending.
const REPLAYED_AT_ONCE: i64 = 500;

/// The next finished deliveries that are meant, by id, none up to `after` and none above `up_to`.
pub(super) fn finished(
    conn: &Connection,
    replay: &Replay,
    after: i64,
    up_to: i64,
) -> Result<Vec<DeliveryId>> {
    let Replay::Of { endpoint, state, from, to } = replay else { return Ok(Vec::new()) };
    let wanted = state.map(state_code);
    // The literal lets the partial index serve the states that are rare.
    let (index, condition) = match wanted {
        Some(2..) => ("delivery_undelivered", "d.state = :state AND d.state > 1"),
        _ => ("delivery_of_endpoint", "d.state > 0 AND (:state IS NULL OR d.state = :state)"),
    };
    conn.prepare_cached(&format!(
        "SELECT d.delivery FROM delivery d INDEXED BY {index} CROSS JOIN event e ON e.event = d.event
         WHERE d.endpoint = (SELECT endpoint FROM endpoint WHERE name = :endpoint) AND {condition}
             AND d.delivery > :after AND d.delivery <= :up_to
             AND e.at >= :from AND (:to IS NULL OR e.at < :to)
         ORDER BY d.delivery LIMIT :limit"
    ))?
    .query_map(
        named_params! {
            ":endpoint": endpoint.as_str(),
            ":state": wanted,
            ":after": after,
            ":up_to": up_to,
            ":from": from.unwrap_or(Timestamp::MIN).as_millis(),
            ":to": to.map(Timestamp::as_millis),
            ":limit": REPLAYED_AT_ONCE,
        },
        |row| row.get(0).map(DeliveryId),
    )?
    .collect()
}

impl Batch<'_> {
    /// Makes those of the deliveries pending that are finished, in this state if one is given. Returns how many.
    pub(super) fn replay(
        &mut self,
        ids: &[DeliveryId],
        wanted: Option<DeliveryState>,
        now: Timestamp,
    ) -> Result<u64> {
        let mut replayed = 0;
        for id in ids {
            let found = self
                .conn
                .prepare_cached("SELECT endpoint, state FROM delivery WHERE delivery = ?1")?
                .query_row([id.0], |row| Ok((row.get(0)?, state(row, 1)?)))
                .optional()?;
            let Some((endpoint, was)): Option<(i64, DeliveryState)> = found else { continue };
            if was == DeliveryState::Pending || wanted.is_some_and(|wanted| wanted != was) {
                continue;
            }
            self.conn
                .prepare_cached(
                    "UPDATE delivery SET state = 0, attempts = 0, due_at = ?2, replayed_at = ?2
                     WHERE delivery = ?1",
                )?
                .execute(params![id.0, now.as_millis()])?;
            self.tally.reopened(endpoint, was);
            replayed += 1;
        }
        Ok(replayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn finished_deliveries_are_found_by_an_index_in_the_order_of_their_ids() {
        let mut conn = Connection::open_in_memory().unwrap();
        schema::migrate(&mut conn).unwrap();
        for state in std::iter::once(None).chain(DeliveryState::ALL.iter().copied().map(Some)) {
            let endpoint = ringback_model::EndpointName::new("e");
            let replay = Replay::Of { endpoint, state, from: None, to: None };
            assert_eq!(finished(&conn, &replay, 0, i64::MAX), Ok(vec![]), "{state:?}");
        }
    }
}
