//! A thread that owns a connection and does one job after the other.

use std::thread::{Builder, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use super::file::io_error;
use crate::Error;

/// How many jobs may wait; whoever comes then waits too.
const WAITING: usize = 1024;

/// What goes to the thread.
pub(super) enum Message<J> {
    /// One piece of work.
    Job(J),
    /// Nothing more comes; answered when the connection is closed.
    Stop(oneshot::Sender<()>),
}

/// The other end of the thread. Dropping it waits until the jobs sent before are done and the file is closed.
pub(super) struct Thread<J> {
    jobs: Option<mpsc::Sender<Message<J>>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Thread<J> {
    /// Starts the thread. `run` ends after [`Message::Stop`] or when the channel is closed.
    pub(super) fn start(
        name: &str,
        run: impl FnOnce(mpsc::Receiver<Message<J>>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let thread = Builder::new().name(name.to_owned()).spawn(move || run(waiting)).map_err(io_error)?;
        Ok(Thread { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Hands over a job.
    pub(super) async fn send(&self, job: J) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(Message::Job(job)).await.map_err(|_| Error::Closed)
    }

    /// Waits until everything sent before is done and the connection is closed. A second call does nothing.
    pub(super) async fn stop(&self) {
        let (stopped, wait) = oneshot::channel();
        if let Some(jobs) = &self.jobs
            && jobs.send(Message::Stop(stopped)).await.is_ok()
        {
            // An error means that the thread is gone, which is as good.
            let _ = wait.await;
        }
    }
}

impl<J> Drop for Thread<J> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a store thread panicked");
        }
    }
}
