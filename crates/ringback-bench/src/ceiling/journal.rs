//! A file that records are appended to, or tables that they are rows of. Those that come while others are being written
//! wait for one sync together.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

use super::rows::{Rows, Tables};

/// Bytes of the file from the beginning: more than any row writes.
const ROOM: usize = 32 * 1024 * 1024;

/// The file's only writer is a thread; this is the way to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal(mpsc::UnboundedSender<(Vec<u8>, oneshot::Sender<()>)>);

impl Journal {
    /// `thread`: the name of the thread that writes.
    pub(crate) fn open(path: &Path, thread: &str) -> Result<Journal> {
        let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        // A sync is cheaper where the file does not grow, and the program's log does not grow either.
        file.write_all(&vec![0; ROOM]).and_then(|()| file.sync_all()).and_then(|()| file.rewind())?;
        let mut bytes = Vec::new();
        Journal::start(thread, move |records| {
            bytes.clear();
            for record in records {
                bytes.extend_from_slice(record);
                bytes.push(b'\n');
            }
            file.write_all(&bytes).and_then(|()| file.sync_data()).context("the journal cannot be written")
        })
    }

    /// The same with the records as rows.
    pub(crate) fn of_rows(path: &Path, thread: &str, tables: Tables) -> Result<Journal> {
        let mut rows = Rows::open(path, tables)?;
        Journal::start(thread, move |records| rows.write(records))
    }

    fn start(
        thread: &str,
        mut write: impl FnMut(&[Vec<u8>]) -> Result<()> + Send + 'static,
    ) -> Result<Journal> {
        let (sender, mut records) = mpsc::unbounded_channel::<(Vec<u8>, oneshot::Sender<()>)>();
        let run = move || {
            let (mut together, mut waiting) = (Vec::new(), Vec::new());
            while let Some(first) = records.blocking_recv() {
                let others = std::iter::from_fn(|| records.try_recv().ok());
                for (record, done) in std::iter::once(first).chain(others) {
                    together.push(record);
                    waiting.push(done);
                }
                if write(&together).is_err() {
                    // Whoever waits is told by what is dropped here.
                    return;
                }
                together.clear();
                for done in waiting.drain(..) {
                    let _ = done.send(());
                }
            }
        };
        std::thread::Builder::new().name(thread.to_owned()).spawn(run)?;
        Ok(Journal(sender))
    }

    /// Appends a record; it is on the disk when this returns.
    pub(crate) async fn append(&self, record: Vec<u8>) -> Result<()> {
        let (done, on_disk) = oneshot::channel();
        self.0.send((record, done)).ok().context("the journal is closed")?;
        on_disk.await.context("the journal cannot be written")
    }
}
