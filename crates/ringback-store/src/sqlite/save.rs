//! Writing what became of runs, and the named values.

use ringback_model::Timestamp;
use ringback_model::run::{Run, RunId, RunState};
use rusqlite::{Error as Sql, OptionalExtension, Result, params};
use uuid::Uuid;

use super::record::Ready;
use super::rows::word;
use super::writer::Batch;
use crate::ledger::{cost_usd, ended_at};
use crate::{Entry, Error, Save};

/// A run was to be replaced that is not there.
#[derive(Debug, thiserror::Error)]
#[error("there is no run {0}")]
struct UnknownRun(RunId);

/// What is saved, made ready on the caller's side, so that the writing thread does nothing but write.
pub(super) struct ReadySave {
    runs: Vec<(Run, String)>,
    values: Vec<(String, Option<String>)>,
    told: Vec<Ready>,
}

impl ReadySave {
    /// Writes all texts.
    pub(super) fn new(save: Save) -> Result<Self, Error> {
        let Save { runs, values, told } = save;
        let with_json = |run: Run| run_json(&run).map(|json| (run, json));
        let runs = runs.into_iter().map(with_json).collect::<Result<_, _>>()?;
        let told = told.into_iter().map(|told| Ready::new(Entry { state: None, told: Some(told) })).collect();
        Ok(ReadySave { runs, values, told })
    }
}

/// The text in which a run is kept.
pub(super) fn run_json(run: &Run) -> Result<String, Error> {
    serde_json::to_string(run).map_err(|e| Error::Refused(e.to_string()))
}

impl Batch<'_> {
    pub(super) fn save(&mut self, save: &ReadySave) -> Result<()> {
        for (run, json) in &save.runs {
            self.replace_run(run, json)?;
        }
        for (name, value) in &save.values {
            self.put_value(name, value.as_deref())?;
        }
        self.record(&save.told).map(|_| ())
    }

    /// Says whether the run is new.
    pub(super) fn insert_run(&mut self, run: &Run, json: &str) -> Result<bool> {
        let rows = self
            .statement(
                "INSERT INTO run (id, state, source, session_id, created_at, ended_at, cost_usd, json, subject)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (id) DO NOTHING",
            )?
            .execute(params![
                run.id.0.as_bytes(),
                run.state.as_str(),
                run.request.source,
                run.session_id.as_ref().map(|id| id.as_str()),
                run.created_at.as_millis(),
                ended_at(run).map(Timestamp::as_millis),
                cost_usd(run),
                json,
                run.subject,
            ])?;
        if rows == 1 {
            self.tally.run_changed(None, run.state);
        }
        Ok(rows == 1)
    }

    pub(super) fn replace_run(&mut self, run: &Run, json: &str) -> Result<()> {
        let found = self
            .conn
            .prepare_cached("SELECT run, state FROM run WHERE id = ?1")?
            .query_row([run.id.0.as_bytes()], |row| Ok((row.get(0)?, word(row, 1)?)))
            .optional()?;
        let Some((number, before)): Option<(i64, RunState)> = found else {
            return Err(Sql::ToSqlConversionFailure(Box::new(UnknownRun(run.id))));
        };
        self.conn
            .prepare_cached(
                "UPDATE run SET state = ?2, source = ?3, session_id = ?4, created_at = ?5, ended_at = ?6,
                     cost_usd = ?7, json = ?8, subject = ?9
                 WHERE run = ?1",
            )?
            .execute(params![
                number,
                run.state.as_str(),
                run.request.source,
                run.session_id.as_ref().map(|id| id.as_str()),
                run.created_at.as_millis(),
                ended_at(run).map(Timestamp::as_millis),
                cost_usd(run),
                json,
                run.subject,
            ])?;
        self.tally.run_changed(Some(before), run.state);
        Ok(())
    }

    fn put_value(&self, name: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => self
                .conn
                .prepare_cached(
                    "INSERT INTO value (name, value) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                )?
                .execute([name, value])?,
            None => self.conn.prepare_cached("DELETE FROM value WHERE name = ?1")?.execute([name])?,
        };
        Ok(())
    }

    /// Removes the runs that ended first, before `before`.
    pub(super) fn prune_runs(&mut self, before: Timestamp, limit: usize) -> Result<Vec<RunId>> {
        let oldest: Vec<(i64, RunId)> = self
            .conn
            .prepare_cached("SELECT run, id FROM run WHERE ended_at < ?1 ORDER BY ended_at, run LIMIT ?2")?
            .query_map(params![before.as_millis(), limit as i64], |row| {
                Ok((row.get(0)?, RunId(Uuid::from_bytes(row.get(1)?))))
            })?
            .collect::<Result<_>>()?;
        let mut remove = self.conn.prepare_cached("DELETE FROM run WHERE run = ?1")?;
        for (number, _) in &oldest {
            remove.execute([number])?;
        }
        Ok(oldest.into_iter().map(|(_, id)| id).collect())
    }
}
