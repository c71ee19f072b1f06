//! The observer's thread, and what it leaves to the next one.
//!
//! The observer's memory is kept in a file between two starts. It is a shortcut: without it the agents' files are read
//! again, and after a kill from where the last stop left them. Does not know what the observer sees.

use std::io;
use std::ops::ControlFlow;
use std::thread::JoinHandle;
use std::time::Duration;

use ringback_observe::watch::{self, Handle};
use ringback_observe::{Config, Memory, Observer, ProcFs, Seen};
use tokio::sync::{mpsc, watch as state};

use crate::clock;
use crate::state_dir::StateDir;

/// Batches of sightings between the observer and the recorder; a full channel holds the observer back.
const SIGHTINGS: usize = 64;
/// How long the thread may take to end.
const KEEP_TIME: Duration = Duration::from_secs(5);

/// The running thread. Dropping it makes the thread end soon.
pub(crate) struct Watching {
    handle: StopOnDrop,
    thread: JoinHandle<Memory>,
    /// Where the memory is kept; `None` = sessions leave nothing on disk.
    state_dir: Option<StateDir>,
}

struct StopOnDrop(Handle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Watching {
    /// Starts the thread. Returns also what it sees, and what turns true once the sessions in the window are read.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        config: Config,
        state_dir: Option<StateDir>,
    ) -> io::Result<(Watching, mpsc::Receiver<Vec<Seen>>, state::Receiver<bool>)> {
        let (scanned, first_scan) = state::channel(false);
        let (sightings, seen) = mpsc::channel(SIGHTINGS);
        let handle = Handle::new();
        let watching = {
            let (handle, state_dir) = (handle.clone(), state_dir.clone());
            move || {
                let now = clock::now();
                let mut observer = Observer::new(config, Box::new(ProcFs), now);
                if let Some(memory) = state_dir.as_ref().and_then(recalled) {
                    observer.recall(memory, now);
                }
                watch::run(observer, &handle, clock::now, |batch| {
                    let is_heard = batch.is_empty() || sightings.blocking_send(batch).is_ok();
                    scanned.send_replace(true);
                    if is_heard { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
            }
        };
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(watching)?;
        Ok((Watching { handle: StopOnDrop(handle), thread, state_dir }, seen, first_scan))
    }

    /// Makes the thread end soon.
    pub(crate) fn stop(&self) {
        self.handle.0.stop();
    }

    /// Waits for the thread's end, though not for ever if it reads from a dead file system, and keeps what it leaves.
    pub(crate) async fn keep(self) {
        let kept = tokio::task::spawn_blocking(move || {
            let Ok(memory) = self.thread.join() else {
                tracing::error!("the observer failed");
                return;
            };
            let (Some(state_dir), Some(bytes)) = (self.state_dir, memory.to_bytes()) else { return };
            if let Err(error) = state_dir.keep_observed(&bytes) {
                tracing::debug!(%error, "what is known of sessions is not kept");
            }
        });
        if tokio::time::timeout(KEEP_TIME, kept).await.is_err() {
            tracing::warn!("the observer does not end; the next start reads again what it knew");
        }
    }
}

fn recalled(state_dir: &StateDir) -> Option<Memory> {
    let bytes = state_dir.observed().unwrap_or_else(|error| {
        tracing::debug!(%error, "what was known of sessions cannot be read");
        None
    });
    bytes.as_deref().and_then(Memory::from_bytes)
}
