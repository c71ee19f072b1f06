//! Between the model's values and columns.

use std::error::Error as StdError;
use std::str::FromStr;

use ringback_model::event::EventKind;
use ringback_model::{DeliveryState, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Error as Sql, Result, Row};

/// The number of a delivery's state. The partial indexes of the schema know 0 and 1.
pub(super) const fn state_code(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Failed => 2,
        DeliveryState::Dead => 3,
        DeliveryState::Cancelled => 4,
    }
}

/// The state of a number.
pub(super) fn state(row: &Row<'_>, column: usize) -> Result<DeliveryState> {
    let code: i64 = row.get(column)?;
    let known = DeliveryState::ALL.iter().copied().find(|s| state_code(*s) == code);
    known.ok_or(Sql::IntegralValueOutOfRange(column, code))
}

/// The word of an event's kind.
pub(super) const fn kind_word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::StateTransition => "state_transition",
        EventKind::Ping => "ping",
        EventKind::Message => "message",
    }
}

/// The kind of an event.
pub(super) fn kind(row: &Row<'_>, column: usize) -> Result<EventKind> {
    let word = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    let known = [EventKind::StateTransition, EventKind::Ping, EventKind::Message];
    let found = known.into_iter().find(|kind| kind_word(*kind) == word);
    found.ok_or_else(|| unreadable(column, UnknownKind))
}

/// The word is no event's kind that this version knows.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind of event")]
struct UnknownKind;

/// A word of a closed set.
pub(super) fn word<T>(row: &Row<'_>, column: usize) -> Result<T>
where
    T: FromStr<Err: StdError + Send + Sync + 'static>,
{
    parse(column, row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?)
}

/// The same, or NULL.
pub(super) fn word_if_any<T>(row: &Row<'_>, column: usize) -> Result<Option<T>>
where
    T: FromStr<Err: StdError + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str_or_null().map_err(|e| unreadable(column, e))?;
    text.map(|text| parse(column, text)).transpose()
}

fn parse<T>(column: usize, text: &str) -> Result<T>
where
    T: FromStr<Err: StdError + Send + Sync + 'static>,
{
    text.parse().map_err(|e| unreadable(column, e))
}

/// What stands in the column is not what this crate writes there.
pub(super) fn unreadable(column: usize, why: impl StdError + Send + Sync + 'static) -> Sql {
    Sql::FromSqlConversionFailure(column, Type::Text, Box::new(why))
}

/// An instant.
pub(super) fn instant(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

/// An instant or NULL.
pub(super) fn instant_if_any(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

/// A number that is never negative; a column that says otherwise reads as 0.
pub(super) fn count(row: &Row<'_>, column: usize) -> Result<u64> {
    row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0))
}

/// For a column; saturates, because no count or length of ours comes near.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
