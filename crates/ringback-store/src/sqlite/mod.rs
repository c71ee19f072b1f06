//! The engine on disk: one SQLite file in WAL mode.
//!
//! One thread writes and groups the writes of all callers into transactions (`writer`); one thread claims, and one
//! reads for everybody else (`reader`), so that a long listing delays no delivery. Callers await their answers and
//! never block.
//!
//! Deliberately absent: the process's own lock. Whoever opens the file twice gets no error and two sets of leases.

mod accept;
mod answers;
mod browse;
mod calls;
mod claim;
mod failure;
mod file;
mod ledger;
mod prune;
mod reader;
mod record;
mod repair;
mod replay;
mod rows;
mod runs;
mod salvage;
mod save;
mod schema;
mod settle;
mod statements;
mod tally;
mod thread;
mod trouble;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ringback_model::{DeliveryId, EndpointName, Event, SessionId, SessionState, Timestamp};
use rusqlite::Connection;
use tokio::sync::watch;

pub use self::repair::{Repaired, check, repair};

use self::answers::Answers;
use self::reader::Reader;
use self::record::Ready;
use self::trouble::{Trouble, Who};
use self::writer::Writer;
use crate::leases::Leases;
use crate::{
    DeliveryDetail, DeliveryQuery, DeliveryRow, Ending, EndpointCounts, EndpointStatus, Entry, Error, Page,
    Prune, Pruned, Recorded, Replay, Settled, Store, Totals, Turn,
};

/// A store on disk. Dropping it without [`Store::close`] finishes what was asked before, and blocks until then.
pub struct SqliteStore {
    // In the order of their ends: the writer's connection, closed last, empties and removes the log.
    claims: Reader,
    listings: Reader,
    writer: Writer,
    /// Touched by the claiming thread during a claim and by the writing thread after a commit; never while awaiting.
    leases: Arc<Mutex<Leases>>,
    answers: Answers,
    trouble: Trouble,
}

impl SqliteStore {
    /// Opens the file, making it (mode 0600) if there is none, and takes it to the newest schema. The directory
    /// must be there and private. Blocks; costs the same with any number of rows.
    ///
    /// # Errors
    /// [`Error::Exposed`] for a link or a file that others may read, [`Error::NewerSchema`], [`Error::Corrupt`];
    /// in all three the file is left as it is. And whatever reading and writing can meet.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = file::prepare(path)?;
        let writing = file::open_writer(&path)?;
        let trouble = Trouble::none();
        let reader = |name, who| Reader::start(name, path.clone(), who, trouble.clone());
        let claims = reader("store-claim", Who::Claims)?;
        let listings = reader("store-read", Who::Listings)?;
        let answers = Answers::default();
        let writer = Writer::start(path, writing, answers.clone(), trouble.clone())?;
        Ok(SqliteStore { claims, listings, writer, leases: Arc::default(), answers, trouble })
    }

    async fn claiming<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &mut Leases) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let leases = Arc::clone(&self.leases);
        self.claims.read(move |conn| with(&leases, |leases| read(conn, leases))).await
    }

    /// Removes events that ended before `cutoff`, until the file holds no more than `max_bytes`.
    async fn prune_ended(&self, cutoff: Timestamp, max_bytes: u64, pruned: &mut Pruned) -> Result<(), Error> {
        let mut next = Some(0);
        while let Some(after) = next {
            let look = self.listings.read(move |conn| prune::look(conn, after, cutoff)).await?;
            next = look.next;
            if look.events.is_empty() {
                continue;
            }
            let write = self.writer.write(move |batch| batch.prune(&look.events, cutoff, max_bytes));
            let (some, fits) = write.await?;
            pruned.events += some.events;
            pruned.deliveries += some.deliveries;
            if fits {
                break;
            }
        }
        Ok(())
    }
}

/// A panic while the leases were locked leaves them whole: each change of them is one step.
fn with<T>(leases: &Mutex<Leases>, work: impl FnOnce(&mut Leases) -> T) -> T {
    work(&mut leases.lock().unwrap_or_else(PoisonError::into_inner))
}

#[async_trait]
impl Store for SqliteStore {
    async fn sessions(&self) -> Result<Vec<SessionState>, Error> {
        self.listings.read(browse::sessions).await
    }

    async fn record(&self, entries: Vec<Entry>) -> Result<Recorded, Error> {
        if entries.is_empty() {
            return Ok(Recorded::default());
        }
        let entries: Vec<Ready> = entries.into_iter().map(Ready::new).collect();
        self.writer.write(move |batch| batch.record(&entries)).await
    }

    async fn claim(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error> {
        let endpoint = endpoint.clone();
        self.claiming(move |conn, leases| claim::claim(conn, leases, &endpoint, now, limit, lease_until))
            .await
    }

    async fn claim_in_order(
        &self,
        endpoint: &EndpointName,
        now: Timestamp,
        limit: usize,
        lease_until: Timestamp,
    ) -> Result<Turn, Error> {
        let endpoint = endpoint.clone();
        self.claiming(move |conn, leases| {
            claim::claim_in_order(conn, leases, &endpoint, now, limit, lease_until)
        })
        .await
    }

    async fn settle(&self, settled: Vec<Settled>) -> Result<(), Error> {
        if settled.is_empty() {
            return Ok(());
        }
        let ids: Vec<DeliveryId> = settled.iter().map(|s| s.id).collect();
        let leases = Arc::clone(&self.leases);
        let committed = move || with(&leases, |leases| leases.drop_all(&ids));
        self.writer.write_then(move |batch| batch.settle(&settled), committed).await
    }

    async fn release(&self, deliveries: Vec<DeliveryId>) -> Result<(), Error> {
        self.claiming(move |_, leases| {
            leases.drop_all(&deliveries);
            Ok(())
        })
        .await
    }

    async fn hasten(&self, endpoint: &EndpointName, latest: Timestamp, now: Timestamp) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        self.writer.write(move |batch| batch.hasten(endpoint.as_str(), latest, now)).await
    }

    async fn close_pending(
        &self,
        endpoint: &EndpointName,
        ending: Ending,
        at: Timestamp,
    ) -> Result<u64, Error> {
        // What is recorded from now on is not meant.
        let newest = self.listings.read(browse::newest_delivery).await?;
        let mut closed = 0;
        loop {
            let endpoint = endpoint.clone();
            let step =
                self.writer.write(move |batch| batch.close_pending(endpoint.as_str(), ending, at, newest));
            let (n, may_be_more) = step.await?;
            closed += n;
            if !may_be_more {
                return Ok(closed);
            }
        }
    }

    async fn replay(&self, replay: Replay, now: Timestamp) -> Result<u64, Error> {
        if let Replay::One(id) = replay {
            return self.writer.write(move |batch| batch.replay(&[id], None, now)).await;
        }
        // What is recorded from now on is not meant.
        let up_to = self.listings.read(browse::newest_delivery).await?;
        let (mut after, mut replayed) = (0, 0);
        loop {
            let wanted = replay.clone();
            let read = self.listings.read(move |conn| replay::finished(conn, &wanted, after, up_to));
            let found = read.await?;
            let Some(last) = found.last() else { return Ok(replayed) };
            after = last.0;
            let state = replay.state();
            replayed += self.writer.write(move |batch| batch.replay(&found, state, now)).await?;
        }
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>, Error> {
        self.listings.read(move |conn| browse::deliveries(conn, &query)).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryDetail>, Error> {
        self.listings.read(move |conn| browse::delivery(conn, id)).await
    }

    async fn pending_endpoints(&self) -> Result<Vec<EndpointName>, Error> {
        self.listings.read(browse::pending_endpoints).await
    }

    async fn transitions(&self, session: &SessionId, limit: usize) -> Result<Vec<Event>, Error> {
        let session = session.clone();
        self.listings.read(move |conn| browse::transitions(conn, session.as_str(), limit)).await
    }

    async fn endpoint_counts(&self) -> Result<Vec<EndpointCounts>, Error> {
        let answers = self.answers.clone();
        self.listings.read(move |conn| browse::endpoint_counts(conn, &answers)).await
    }

    async fn endpoint_status(&self, endpoint: &EndpointName) -> Result<Option<EndpointStatus>, Error> {
        let endpoint = endpoint.clone();
        self.listings.read(move |conn| browse::endpoint_status(conn, endpoint.as_str())).await
    }

    async fn set_endpoint_status(
        &self,
        endpoint: &EndpointName,
        status: Option<EndpointStatus>,
    ) -> Result<(), Error> {
        let endpoint = endpoint.clone();
        self.writer.write(move |batch| batch.set_endpoint_status(endpoint.as_str(), status.as_ref())).await
    }

    async fn names(&self) -> Result<Vec<(SessionId, String)>, Error> {
        self.listings.read(browse::names).await
    }

    async fn set_name(&self, session: &SessionId, name: Option<String>) -> Result<(), Error> {
        let session = session.clone();
        self.writer.write(move |batch| batch.set_name(session.as_str(), name.as_deref())).await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        self.prune_ended(prune.now.minus(prune.keep_for), 0, &mut pruned).await?;
        if self.listings.read(prune::used_bytes).await? > prune.max_bytes {
            let any = Timestamp::from_millis(i64::MAX);
            self.prune_ended(any, prune.max_bytes, &mut pruned).await?;
        }
        while self.writer.write(|batch| batch.vacuum()).await? {}
        Ok(pruned)
    }

    async fn totals(&self) -> Result<Totals, Error> {
        self.listings.read(browse::totals).await
    }

    fn trouble(&self) -> watch::Receiver<Option<Error>> {
        self.trouble.watch()
    }

    async fn probe(&self) -> Result<(), Error> {
        let read = |conn: &Connection| conn.query_row("SELECT events FROM tally", [], |_| Ok(()));
        let written = self.writer.write(|batch| {
            // The same value, but a page to be written and synced.
            batch.conn.execute("UPDATE tally SET events = events", []).map(|_| ())
        });
        let (claims, listings) = (self.claims.read(read), self.listings.read(read));
        let (written, claims, listings) = tokio::join!(written, claims, listings);
        written.and(claims).and(listings)
    }

    async fn close(&self) -> Result<(), Error> {
        self.claims.stop().await;
        self.listings.stop().await;
        self.writer.stop().await;
        Ok(())
    }
}
