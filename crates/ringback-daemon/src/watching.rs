//! The observer's thread, and what it leaves to the next one.
//!
//! Owns: where the observer's memory is kept between two starts. It is a shortcut: without it, or after a kill, the
//! agents' files are read again. Does not know what the observer sees.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;

use ringback_observe::watch::{self, Handle};
use ringback_observe::{Config, Memory, Observer, ProcFs, Seen};
use ringback_store::{Ledger, Save};
use tokio::sync::{mpsc, watch as state};

use crate::clock;

/// Batches of sightings between the observer and the recorder; a full channel holds the observer back.
const SIGHTINGS: usize = 64;
/// The name under which the memory is kept.
const OBSERVED: &str = "observed";

/// The running thread.
pub(crate) struct Watching {
    handle: Handle,
    thread: JoinHandle<Memory>,
    /// Where the memory is kept; `None` = sessions leave nothing on disk.
    ledger: Option<Arc<dyn Ledger>>,
}

impl Watching {
    /// Starts the thread. Returns also what it sees, and what turns true once the sessions in the window are read.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) async fn start(
        config: Config,
        ledger: Option<Arc<dyn Ledger>>,
    ) -> io::Result<(Watching, mpsc::Receiver<Vec<Seen>>, state::Receiver<bool>)> {
        let left = match &ledger {
            Some(ledger) => ledger.value(OBSERVED).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "what was known of sessions cannot be read");
                None
            }),
            None => None,
        };
        let (scanned, first_scan) = state::channel(false);
        let (sightings, seen) = mpsc::channel(SIGHTINGS);
        let handle = Handle::new();
        let watching = {
            let handle = handle.clone();
            move || {
                let now = clock::now();
                let mut observer = Observer::new(config, Box::new(ProcFs), now);
                if let Some(memory) = left.as_deref().and_then(Memory::from_json) {
                    observer.recall(memory, now);
                }
                drop(left);
                watch::run(observer, &handle, clock::now, |batch| {
                    let is_heard = batch.is_empty() || sightings.blocking_send(batch).is_ok();
                    scanned.send_replace(true);
                    if is_heard { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
            }
        };
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(watching)?;
        Ok((Watching { handle, thread, ledger }, seen, first_scan))
    }

    /// Makes the thread end soon.
    pub(crate) fn stop(&self) {
        self.handle.stop();
    }

    /// Waits for the thread's end, and keeps what it leaves.
    pub(crate) async fn keep(self) {
        let Ok(Ok(memory)) = tokio::task::spawn_blocking(move || self.thread.join()).await else {
            tracing::error!("the observer failed");
            return;
        };
        let (Some(ledger), Some(json)) = (self.ledger, memory.to_json()) else { return };
        let save = Save { values: vec![(OBSERVED.to_owned(), Some(json))], ..Save::default() };
        if let Err(error) = ledger.save(save).await {
            tracing::debug!(%error, "what is known of sessions is not kept");
        }
    }
}
