//! Pages of listings: how long one is, and where the next begins.

use ringback_store::{Cursor, NotACursor};
use serde::Deserialize;

use super::Error;

const ROWS: usize = 100;
const MOST_ROWS: usize = 1000;

/// Which page of a listing is wanted.
#[derive(Deserialize, Default)]
pub(super) struct Asked {
    limit: Option<String>,
    cursor: Option<String>,
}

impl Asked {
    /// The page of a listing that is in memory, and the cursor of the next. Such a listing is short and changes by an
    /// edit of a file: its cursor is a number of rows.
    pub(super) fn of<T>(self, listing: &str, all: Vec<T>) -> Result<(Vec<T>, Option<String>), Error> {
        let limit = limit(self.limit.as_deref())?;
        let start = self.cursor.map(|text| position(listing, &text)).transpose()?.unwrap_or(0);
        let end = start.saturating_add(limit);
        let next = (end < all.len()).then(|| format!("{listing}-{end:x}"));
        Ok((all.into_iter().skip(start).take(limit).collect(), next))
    }
}

/// Rows of one page: `limit`, 1 to 1000.
pub(super) fn limit(given: Option<&str>) -> Result<usize, Error> {
    match given.map(str::parse::<usize>) {
        None => Ok(ROWS),
        Some(Ok(limit)) if (1..=MOST_ROWS).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::BadRequest(format!("limit must be a whole number from 1 to {MOST_ROWS}"))),
    }
}

/// The journal's cursor out of a listing's; that of another listing is none.
pub(super) fn cursor(listing: &str, given: Option<&str>) -> Result<Option<Cursor>, Error> {
    let read = |text| own(listing, text).and_then(str::parse);
    given.map(read).transpose().map_err(refused)
}

/// The cursor as the listing tells it.
pub(super) fn told(listing: &str, next: Option<Cursor>) -> Option<String> {
    next.map(|cursor| format!("{listing}-{cursor}"))
}

fn position(listing: &str, text: &str) -> Result<usize, Error> {
    let number = own(listing, text).and_then(|n| usize::from_str_radix(n, 16).map_err(|_| NotACursor));
    number.map_err(refused)
}

fn own<'a>(listing: &str, text: &'a str) -> Result<&'a str, NotACursor> {
    text.strip_prefix(listing).and_then(|rest| rest.strip_prefix('-')).ok_or(NotACursor)
}

fn refused(error: NotACursor) -> Error {
    Error::BadRequest(error.to_string())
}
