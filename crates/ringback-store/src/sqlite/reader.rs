//! A connection that only reads, on its own thread.

use std::path::PathBuf;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::failure::classify;
use super::file;
use super::thread::{Jobs, Message, Thread};
use super::trouble::{Trouble, Who};
use crate::Error;

/// Run with the connection, or with the reason why there is none; gives what went wrong.
type Read = Box<dyn FnOnce(Result<&Connection, Error>) -> Option<Error> + Send>;

/// Runs reads one after the other. Each sees everything committed before it was asked for.
pub(super) struct Reader(Thread<Read>);

impl Reader {
    /// Starts the thread with a connection to the file at `path`.
    pub(super) fn start(name: &str, path: PathBuf, who: Who, trouble: Trouble) -> Result<Self, Error> {
        let conn = file::open_reader(&path)?;
        let desk = Desk { path, conn: Some(conn), who, trouble };
        Thread::start(name, move |jobs| desk.run(jobs)).map(Reader)
    }

    /// Runs one read, all of it on one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job = move |conn: Result<&Connection, Error>| {
            let result = conn.and_then(|conn| on_one_state(conn, read).map_err(classify));
            let error = result.as_ref().err().cloned();
            // Whoever asked may have gone.
            let _ = reply.send(result);
            error
        };
        self.0.send(Box::new(job)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Finishes what was asked before and closes the connection.
    pub(super) async fn stop(&self) {
        self.0.stop().await;
    }
}

/// Runs a read within a transaction whose ends are compiled once: most reads are short.
fn on_one_state<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let run = |sql| conn.prepare_cached(sql)?.execute([]).map(|_| ());
    run("BEGIN")?;
    let result = read(conn);
    // An error may have ended it already. Nothing was written, so that either end is the same.
    let ended = if conn.is_autocommit() { Ok(()) } else { run("COMMIT").or_else(|_| run("ROLLBACK")) };
    result.and_then(|read| ended.map(|()| read))
}

/// Lives on the thread.
struct Desk {
    path: PathBuf,
    /// `None` after an error that what the connection remembers may have caused.
    conn: Option<Connection>,
    who: Who,
    trouble: Trouble,
}

impl Desk {
    fn run(mut self, mut jobs: Jobs<Read>) {
        while let Some(message) = jobs.next() {
            match message {
                Message::Job(read) => self.read(read),
                Message::Stop(stopped) => {
                    drop(self.conn.take());
                    let _ = stopped.send(());
                    return;
                }
            }
        }
    }

    fn read(&mut self, read: Read) {
        let error = match self.open() {
            Ok(conn) => read(Ok(conn)),
            Err(error) => read(Err(error)),
        };
        self.trouble.saw(self.who, error.as_ref());
        if matches!(error, Some(Error::Io(_) | Error::Corrupt(_))) {
            self.conn = None;
        }
    }

    fn open(&mut self) -> Result<&Connection, Error> {
        match &mut self.conn {
            Some(conn) => Ok(conn),
            closed => Ok(closed.insert(file::open_reader(&self.path)?)),
        }
    }
}
