//! Calls of hooks on disk.

use async_trait::async_trait;
use ringback_model::Timestamp;
use ringback_model::hook_call::HookCall;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::SqliteStore;
use super::rows::unreadable;
use super::writer::Batch;
use crate::{CallId, CallQuery, Calls, Error, MAX_CALLS, Page};

/// Calls that one transaction forgets: with their bodies they are large.
const AT_ONCE: i64 = 200;

#[async_trait]
impl Calls for SqliteStore {
    async fn keep_call(&self, call: HookCall) -> std::result::Result<CallId, Error> {
        let json = serde_json::to_string(&call).map_err(|e| Error::Refused(e.to_string()))?;
        self.writer.write(move |batch| batch.keep_call(&call, &json)).await
    }

    async fn calls(&self, query: CallQuery) -> std::result::Result<Page<(CallId, HookCall)>, Error> {
        self.listings.read(move |conn| calls(conn, &query)).await
    }

    async fn call(&self, id: CallId) -> std::result::Result<Option<HookCall>, Error> {
        self.listings.read(move |conn| call(conn, id)).await
    }

    async fn prune_calls(&self, before: Timestamp) -> std::result::Result<u64, Error> {
        let mut forgotten = 0;
        loop {
            let some = self.writer.write(move |batch| batch.prune_calls(before)).await?;
            forgotten += some as u64;
            if some < AT_ONCE as usize {
                return Ok(forgotten);
            }
        }
    }
}

impl Batch<'_> {
    fn keep_call(&mut self, call: &HookCall, json: &str) -> Result<CallId> {
        self.conn
            .prepare_cached("INSERT INTO hook_call (hook, at, json, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![call.hook, call.at.as_millis(), json, call.body])?;
        let id = self.conn.last_insert_rowid();
        self.conn
            .prepare_cached(
                "DELETE FROM hook_call WHERE hook = ?1 AND call <=
                     (SELECT call FROM hook_call WHERE hook = ?1 ORDER BY call DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![call.hook, MAX_CALLS as i64])?;
        Ok(CallId(id))
    }

    fn prune_calls(&mut self, before: Timestamp) -> Result<usize> {
        self.conn
            .prepare_cached(
                "DELETE FROM hook_call WHERE call IN (SELECT call FROM hook_call WHERE at < ?1 LIMIT ?2)",
            )?
            .execute(params![before.as_millis(), AT_ONCE])
    }
}

fn calls(conn: &Connection, query: &CallQuery) -> Result<Page<(CallId, HookCall)>> {
    let size = query.page_size();
    // One more row than the page tells whether there is another page.
    let limit = size as i64 + 1;
    let before = query.cursor.map_or(i64::MAX, |c| c.0);
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":limit", &limit), (":before", &before)];
    let hook = match &query.hook {
        Some(hook) => {
            values.push((":hook", hook));
            "hook = :hook AND"
        }
        None => "",
    };
    let sql = format!(
        "SELECT call, json FROM hook_call WHERE {hook} call < :before ORDER BY call DESC LIMIT :limit"
    );
    let rows = conn
        .prepare_cached(&sql)?
        .query_map(&values[..], |row| Ok((row.get(0)?, read_call(row, 1)?)))?
        .collect::<Result<_>>()?;
    Ok(Page::cut(rows, size, |(number, _): &(i64, HookCall)| *number)
        .map(|(number, call)| (CallId(number), call)))
}

fn call(conn: &Connection, id: CallId) -> Result<Option<HookCall>> {
    conn.prepare_cached("SELECT json, body FROM hook_call WHERE call = ?1")?
        .query_row([id.0], |row| Ok(HookCall { body: row.get(1)?, ..read_call(row, 0)? }))
        .optional()
}

fn read_call(row: &Row<'_>, column: usize) -> Result<HookCall> {
    let json = row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e))?;
    serde_json::from_str(json).map_err(|e| unreadable(column, e))
}
