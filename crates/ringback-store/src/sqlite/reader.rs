//! A connection that only reads, on its own thread.

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::failure::classify;
use super::thread::{Message, Thread};
use crate::Error;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Runs reads one after the other. Each sees everything committed before it was asked for.
pub(super) struct Reader(Thread<Read>);

impl Reader {
    /// Starts the thread.
    pub(super) fn start(name: &str, conn: Connection) -> Result<Self, Error> {
        Thread::start(name, move |jobs| run(jobs, conn)).map(Reader)
    }

    /// Runs one read, all of it on one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job = move |conn: &Connection| {
            let result = conn.unchecked_transaction().and_then(|_snapshot| read(conn)).map_err(classify);
            // Whoever asked may have gone.
            let _ = reply.send(result);
        };
        self.0.send(Box::new(job)).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Finishes what was asked before and closes the connection.
    pub(super) async fn stop(&self) {
        self.0.stop().await;
    }
}

fn run(mut jobs: mpsc::Receiver<Message<Read>>, conn: Connection) {
    while let Some(message) = jobs.blocking_recv() {
        match message {
            Message::Job(read) => read(&conn),
            Message::Stop(stopped) => {
                drop(conn);
                let _ = stopped.send(());
                return;
            }
        }
    }
}
