//! Writing states and events, and the small settings.

use std::collections::HashSet;

use ringback_model::{Event, SessionState};
use rusqlite::{Result, params};

use super::rows::{integer, kind_word};
use super::writer::Batch;
use crate::{EndpointStatus, Entry, Recorded, Told};

/// An entry made ready on the caller's side, so that the writing thread does nothing but write.
pub(super) struct Ready {
    state: Option<SessionState>,
    told: Option<(Told, Option<Vec<u8>>)>,
}

impl Ready {
    /// Finds out whether the event has to be kept beside its body.
    pub(super) fn new(entry: Entry) -> Self {
        let told = entry.told.map(|told| {
            let json = event_json(&told.event).filter(|json| **json != *told.body);
            (told, json)
        });
        Ready { state: entry.state, told }
    }
}

fn event_json(event: &Event) -> Option<Vec<u8>> {
    serde_json::to_vec(event).ok()
}

impl Batch<'_> {
    pub(super) fn record(&mut self, entries: &[Ready]) -> Result<Recorded> {
        // Of a session's states the last counts: a burst changes one many times.
        let mut put = HashSet::with_capacity(entries.len());
        for state in entries.iter().rev().filter_map(|entry| entry.state.as_ref()) {
            if put.insert(&state.session_id) {
                self.put_state(state)?;
            }
        }
        for (told, json) in entries.iter().filter_map(|entry| entry.told.as_ref()) {
            self.put_event(told, json.as_deref())?;
        }
        Ok(Recorded { dropped: 0 })
    }

    fn put_state(&mut self, state: &SessionState) -> Result<()> {
        let last = state.last_event;
        self.statement(
            "INSERT INTO session
                     (session_id, agent, activity, reason, since, sequence, last_from, last_to, last_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (session_id) DO UPDATE SET
                     agent = excluded.agent, activity = excluded.activity, reason = excluded.reason,
                     since = excluded.since, sequence = excluded.sequence, last_from = excluded.last_from,
                     last_to = excluded.last_to, last_at = excluded.last_at",
        )?
        .execute(params![
            state.session_id.as_str(),
            state.agent.as_str(),
            state.activity.as_str(),
            state.reason.map(|r| r.as_str()),
            state.since.as_millis(),
            integer(state.sequence),
            last.map(|l| l.from.as_str()),
            last.map(|l| l.to.as_str()),
            last.map(|l| l.at.as_millis()),
        ])?;
        Ok(())
    }

    fn put_event(&mut self, told: &Told, json: Option<&[u8]>) -> Result<()> {
        let Told { event, body, endpoints, at } = told;
        let is_new =
            self.statement(
                "INSERT INTO event
                     (id, session_id, kind, agent, from_activity, to_activity, at, recorded_at, body, json)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                event.id.0.as_bytes(),
                event.session_id.as_str(),
                kind_word(event.event),
                event.agent.as_str(),
                event.from.as_str(),
                event.to.as_str(),
                event.timestamp.as_millis(),
                at.as_millis(),
                &body[..],
                json,
            ])? == 1;
        if !is_new {
            return Ok(());
        }
        self.tally.event();
        let key = self.conn.last_insert_rowid();
        let mut queued = HashSet::with_capacity(endpoints.len());
        for name in endpoints {
            let endpoint = self.endpoints.id(self.conn, name)?;
            if !queued.insert(endpoint) {
                continue;
            }
            self.statement(
                "INSERT INTO delivery (event, endpoint, state, attempts, tries, due_at)
                     VALUES (?1, ?2, 0, 0, 0, ?3)",
            )?
            .execute(params![key, endpoint, at.as_millis()])?;
            self.tally.queued(endpoint);
        }
        Ok(())
    }

    pub(super) fn set_endpoint_status(&mut self, name: &str, status: Option<&EndpointStatus>) -> Result<()> {
        let sql = match status {
            Some(_) => {
                "INSERT INTO endpoint (name, disabled_at, disabled_reason, entry_fingerprint)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET disabled_at = excluded.disabled_at,
                     disabled_reason = excluded.disabled_reason, entry_fingerprint = excluded.entry_fingerprint"
            }
            None => {
                "UPDATE endpoint SET disabled_at = ?2, disabled_reason = ?3, entry_fingerprint = ?4
                 WHERE name = ?1"
            }
        };
        self.conn.prepare_cached(sql)?.execute(params![
            name,
            status.map(|s| s.disabled_at.as_millis()),
            status.map(|s| &s.reason),
            status.map(|s| &s.entry_fingerprint),
        ])?;
        Ok(())
    }

    pub(super) fn set_name(&mut self, session: &str, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) => self
                .conn
                .prepare_cached(
                    "INSERT INTO name (session_id, name) VALUES (?1, ?2)
                     ON CONFLICT (session_id) DO UPDATE SET name = excluded.name",
                )?
                .execute([session, name])?,
            None => self.conn.prepare_cached("DELETE FROM name WHERE session_id = ?1")?.execute([session])?,
        };
        Ok(())
    }
}
