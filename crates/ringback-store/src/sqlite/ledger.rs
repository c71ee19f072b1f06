//! The [`Ledger`] on disk: through the same writing thread, and so in the same group commits, as the rest.

use async_trait::async_trait;
use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{SessionId, Timestamp};

use super::record::Ready;
use super::save::{ReadySave, run_json};
use super::{SqliteStore, runs};
use crate::{Accept, Accepted, Binding, Entry, Error, Ledger, PRUNED_AT_ONCE, Page, RunQuery, Save, Told};

#[async_trait]
impl Ledger for SqliteStore {
    async fn accept(&self, accept: Accept) -> Result<Accepted, Error> {
        accept.check()?;
        let json = run_json(&accept.run)?;
        self.writer.write(move |batch| batch.accept(&accept, &json)).await
    }

    async fn tell(&self, told: Told, call: Option<Binding>) -> Result<bool, Error> {
        let id = told.event.id;
        let ready = Ready::new(Entry { state: None, told: Some(told) });
        self.writer.write(move |batch| batch.tell(&ready, id, call.as_ref())).await
    }

    async fn save(&self, save: Save) -> Result<(), Error> {
        save.check()?;
        let save = ReadySave::new(save)?;
        self.writer.write(move |batch| batch.save(&save)).await
    }

    async fn value(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        self.listings.read(move |conn| runs::value(conn, &name)).await
    }

    async fn values(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        let prefix = prefix.to_owned();
        self.listings.read(move |conn| runs::values(conn, &prefix)).await
    }

    async fn queued(&self, limit: usize) -> Result<Vec<Run>, Error> {
        self.listings.read(move |conn| runs::queued(conn, limit)).await
    }

    async fn first_queued_on(&self, subject: &str) -> Result<Option<RunId>, Error> {
        let subject = subject.to_owned();
        self.listings.read(move |conn| runs::first_queued_on(conn, &subject)).await
    }

    async fn queued_count(&self) -> Result<u64, Error> {
        self.listings.read(runs::queued_count).await
    }

    async fn run_counts(&self) -> Result<Vec<(RunState, u64)>, Error> {
        self.listings.read(runs::run_counts).await
    }

    async fn unfinished(&self) -> Result<Vec<Run>, Error> {
        self.listings.read(runs::unfinished).await
    }

    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        self.listings.read(move |conn| runs::run(conn, id)).await
    }

    async fn runs(&self, query: RunQuery) -> Result<Page<Run>, Error> {
        self.listings.read(move |conn| runs::runs(conn, &query)).await
    }

    async fn run_of_session(&self, session: &SessionId) -> Result<Option<RunId>, Error> {
        let session = session.clone();
        self.listings.read(move |conn| runs::run_of_session(conn, session.as_str())).await
    }

    async fn run_sessions(&self, since: Timestamp) -> Result<Vec<(SessionId, RunId, String)>, Error> {
        self.listings.read(move |conn| runs::run_sessions(conn, since)).await
    }

    async fn prune_runs(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        // One transaction and no second step: an error in it would lose the ids of the first.
        let limit = limit.min(PRUNED_AT_ONCE);
        self.writer.write(move |batch| batch.prune_runs(before, limit)).await
    }

    async fn cost_since(&self, since: Timestamp) -> Result<f64, Error> {
        self.listings.read(move |conn| runs::cost_since(conn, since)).await
    }
}
