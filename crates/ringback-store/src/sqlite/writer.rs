//! The one connection that writes, on its own thread.
//!
//! Whatever waits when the thread looks becomes one transaction and so one fsync: a write costs its callers the
//! same whether one of them is there or five hundred. A write that the database refuses does not fail the others: then
//! the transaction is made once more, with a savepoint for each write. Answers go out after the commit.
//!
//! It knows nothing of what is written; see `record`, `settle`, `prune`, `accept` and `save`.

use std::path::PathBuf;

use rusqlite::{CachedStatement, Connection};
use tokio::sync::oneshot;

use super::answers::Answers;
use super::failure::classify;
use super::file;
use super::statements::Statements;
use super::tally::{Endpoints, Tally};
use super::thread::{Jobs, Message, Thread};
use super::trouble::{Trouble, Who};
use crate::Error;

/// Writes that go into one transaction at most.
const DRAIN: usize = 512;

/// A write that somebody waits for.
trait Job: Send {
    /// Writes; more than once if the transaction is made again. Says what went wrong.
    fn write(&mut self, batch: &mut Batch<'_>, savepoints: Savepoints) -> Result<(), Error>;
    /// Tells how it ended, after the end of the transaction. `failure`: what went wrong with the whole of it.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// Whether each write of a transaction has a savepoint, to be undone for itself: that costs two statements and a copy of
/// each page that it touches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Savepoints {
    None,
    Each,
}

struct Asked<W, T, C> {
    write: W,
    result: Result<T, Error>,
    committed: C,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<W, T, C> Job for Asked<W, T, C>
where
    W: FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
    C: FnOnce() + Send,
{
    fn write(&mut self, batch: &mut Batch<'_>, savepoints: Savepoints) -> Result<(), Error> {
        self.result = batch.one(&mut self.write, savepoints);
        self.result.as_ref().map(|_| ()).map_err(Error::clone)
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let Asked { result, committed, reply, .. } = *self;
        let result = match failure {
            Some(failure) => Err(failure.clone()),
            None => result.inspect(|_| committed()),
        };
        // Whoever asked may have gone.
        let _ = reply.send(result);
    }
}

/// The other end of the writing thread.
pub(super) struct Writer(Thread<Box<dyn Job>>);

impl Writer {
    /// Starts the thread with an open connection to the file at `path`.
    pub(super) fn start(
        path: PathBuf,
        conn: Connection,
        answers: Answers,
        trouble: Trouble,
    ) -> Result<Self, Error> {
        let desk = Desk { path, conn: Some(conn), endpoints: Endpoints::default(), answers, trouble };
        Thread::start("store-write", move |jobs| desk.run(jobs)).map(Writer)
    }

    /// Runs one write, and returns after its commit. `write` may be run again, on the state that it began with.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        write: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_then(write, || ()).await
    }

    /// The same; `committed` is run between the commit and the answer.
    pub(super) async fn write_then<T: Send + 'static>(
        &self,
        write: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
        committed: impl FnOnce() + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // Closed: what is told where it was never run.
        self.0.send(Box::new(Asked { write, result: Err(Error::Closed), committed, reply })).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Finishes what was asked before, moves the log into the file and closes the connection.
    pub(super) async fn stop(&self) {
        self.0.stop().await;
    }
}

/// A transaction in the making.
pub(super) struct Batch<'c> {
    /// The connection, inside a transaction.
    pub(super) conn: &'c Connection,
    /// Ids of endpoints.
    pub(super) endpoints: &'c mut Endpoints,
    statements: Statements<'c>,
    /// What the write at hand counts.
    pub(super) tally: Tally,
    /// What the writes before it counted.
    pub(super) whole: Tally,
}

impl<'c> Batch<'c> {
    /// Returns a statement that is run many times in a transaction.
    pub(super) fn statement(&mut self, sql: &'static str) -> rusqlite::Result<&mut CachedStatement<'c>> {
        self.statements.get(self.conn, sql)
    }

    fn one<T>(
        &mut self,
        write: &mut impl FnMut(&mut Self) -> rusqlite::Result<T>,
        savepoints: Savepoints,
    ) -> Result<T, Error> {
        self.tally = Tally::default();
        let result = match savepoints {
            Savepoints::None => write(self),
            Savepoints::Each => self.run("SAVEPOINT one").and_then(|()| write(self)).and_then(|value| {
                self.run("RELEASE one")?;
                Ok(value)
            }),
        };
        match result {
            Ok(value) => {
                self.whole.add(std::mem::take(&mut self.tally));
                Ok(value)
            }
            Err(error) => Err(classify(error)),
        }
    }

    /// Undoes the write at hand alone. Says whether it could.
    fn undo(&mut self) -> bool {
        let is_undone = !self.conn.is_autocommit()
            && self.run("ROLLBACK TO one").and_then(|()| self.run("RELEASE one")).is_ok();
        self.endpoints.forget();
        is_undone
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }
}

/// Lives on the thread.
struct Desk {
    path: PathBuf,
    /// `None` after an error that the connection may not have survived.
    conn: Option<Connection>,
    endpoints: Endpoints,
    answers: Answers,
    trouble: Trouble,
}

impl Desk {
    fn run(mut self, mut jobs: Jobs<Box<dyn Job>>) {
        let mut stop = None;
        while stop.is_none()
            && let Some(first) = jobs.next()
        {
            let mut writes = Vec::new();
            let mut message = Some(first);
            while let Some(next) = message {
                match next {
                    Message::Job(write) => writes.push(write),
                    Message::Stop(stopped) => {
                        stop = Some(stopped);
                        break;
                    }
                }
                message = if writes.len() < DRAIN { jobs.waiting() } else { None };
            }
            if !writes.is_empty() {
                self.transact(writes);
            }
        }
        if let Some(conn) = self.conn.take() {
            if let Err(error) = self.answers.save_all(&conn) {
                tracing::debug!(%error, "the last answers' durations are lost");
            }
            // The last connection to close moves the log into the file and removes it.
            drop(conn);
        }
        if let Some(stopped) = stop {
            let _ = stopped.send(());
        }
    }

    fn transact(&mut self, mut writes: Vec<Box<dyn Job>>) {
        let mut done = self.try_transact(&mut writes, Savepoints::None);
        if let Err(error) = &done {
            self.recover(error);
            // Only what the database refuses is one write's own trouble. After any other error the next one would
            // meet it too.
            if matches!(error, Error::Refused(_)) {
                done = self.try_transact(&mut writes, Savepoints::Each);
                if let Err(error) = &done {
                    self.recover(error);
                }
            }
        }
        let failure = done.err();
        if let Some(error) = &failure {
            tracing::debug!(%error, "a transaction failed");
        }
        self.trouble.saw(Who::Writer, failure.as_ref());
        for write in writes {
            write.answer(failure.as_ref());
        }
    }

    fn try_transact(&mut self, writes: &mut [Box<dyn Job>], savepoints: Savepoints) -> Result<(), Error> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            closed => closed.insert(file::open_writer(&self.path)?),
        };
        let mut batch = Batch {
            conn,
            endpoints: &mut self.endpoints,
            statements: Statements::default(),
            tally: Tally::default(),
            whole: Tally::default(),
        };
        batch.run("BEGIN IMMEDIATE").map_err(classify)?;
        for write in writes {
            if let Err(error) = write.write(&mut batch, savepoints) {
                let is_its_own = savepoints == Savepoints::Each && matches!(error, Error::Refused(_));
                if !(is_its_own && batch.undo()) {
                    return Err(error);
                }
            }
        }
        let mut whole = std::mem::take(&mut batch.whole);
        whole.write(conn, &self.answers).map_err(classify)?;
        batch.run("COMMIT").map_err(classify)?;
        whole.committed(&self.answers);
        Ok(())
    }

    fn recover(&mut self, error: &Error) {
        self.endpoints.forget();
        if let Some(conn) = &self.conn {
            let rolled_back = conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok();
            if !rolled_back || matches!(error, Error::Io(_) | Error::Corrupt(_)) {
                self.conn = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ringback_model::EndpointName;
    use rusqlite::ffi;

    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::{Store, Totals};

    fn open(directory: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&directory.path().join("ringback.db")).unwrap()
    }

    fn name(batch: &mut Batch<'_>, name: &str, size: usize) -> rusqlite::Result<()> {
        let filler = "x".repeat(size);
        batch.set_name(name, Some(&filler))
    }

    /// Runs `second` and `third` in one transaction: both wait while the thread is busy with a first one.
    async fn together<A: Send + 'static, B: Send + 'static>(
        store: &SqliteStore,
        second: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<A> + Send + 'static,
        third: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<B> + Send + 'static,
    ) -> (Result<A, Error>, Result<B, Error>) {
        let (open_gate, gate) = channel::<()>();
        let (begin, begun) = oneshot::channel();
        let mut begin = Some(begin);
        let first = store.writer.write(move |_| {
            begin.take().unwrap().send(()).unwrap();
            gate.recv().unwrap();
            Ok(())
        });
        let others = async {
            begun.await.unwrap();
            tokio::join!(store.writer.write(second), store.writer.write(third), async {
                open_gate.send(()).unwrap();
            })
        };
        let (first, (second, third, ())) = tokio::join!(first, others);
        assert_eq!(first, Ok(()));
        (second, third)
    }

    #[tokio::test]
    async fn a_write_that_is_refused_does_not_fail_the_others_of_its_transaction() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let endpoint = EndpointName::new("e");
        let known = endpoint.clone();
        let refused = move |batch: &mut Batch<'_>| {
            let id = batch.endpoints.id(batch.conn, &known)?;
            batch.tally.event();
            batch.tally.queued(id);
            let orphan = "INSERT INTO delivery (event, endpoint, state, attempts, tries, due_at)
                VALUES (777, ?1, 0, 0, 0, 0)";
            batch.conn.execute(orphan, [id])
        };
        let (refused, written) = together(&store, refused, |batch| {
            // The endpoint that the refused write made is gone again, and so is the memory of it.
            let id = batch.endpoints.id(batch.conn, &EndpointName::new("e"))?;
            batch.tally.queued(id);
            name(batch, "a", 1)
        })
        .await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert_eq!(written, Ok(()));
        assert_eq!(store.names().await.unwrap().len(), 1);
        let totals = Totals { pending: 1, ..Totals::default() };
        assert_eq!(store.totals().await, Ok(totals), "what the refused write counted counts");
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_whole_transaction_and_writing_goes_on_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let limit = |pages: u64| {
            store.writer.write(move |batch| {
                batch.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            })
        };
        limit(60).await.unwrap();
        let (small, big) =
            together(&store, |batch| name(batch, "a", 1), |batch| name(batch, "b", 1 << 20)).await;
        assert_eq!((small, big), (Err(Error::Full), Err(Error::Full)));
        assert_eq!(store.names().await, Ok(vec![]));
        limit(1 << 20).await.unwrap();
        store.writer.write(|batch| name(batch, "b", 1 << 20)).await.unwrap();
        assert_eq!(store.names().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn after_an_input_output_error_the_file_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let failing = |batch: &mut Batch<'_>| -> rusqlite::Result<()> {
            name(batch, "lost", 1)?;
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), None))
        };
        assert!(matches!(store.writer.write(failing).await, Err(Error::Io(_))));
        // The settings are the connection's and must be made again.
        let settings = store.writer.write(|batch| {
            name(batch, "kept", 1)?;
            let of = |name| batch.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            Ok((of("synchronous")?, of("foreign_keys")?, of("auto_vacuum")?))
        });
        assert_eq!(settings.await, Ok((2, 1, 2)), "FULL, ON, INCREMENTAL");
        let names = store.names().await.unwrap();
        assert_eq!(names.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["kept"]);
    }
}
