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

/// What the thread has to do.
///
/// A sender may have its place in the channel already and not yet put its job there when the receiver is dropped. Such a
/// job would lie there, and whoever asked would wait for it, as long as the channel has a sender. So the end is to
/// close the channel and to take out everything that still comes.
pub(super) struct Jobs<J>(mpsc::Receiver<Message<J>>);

impl<J> Jobs<J> {
    /// Waits for the next one. `None`: nobody can send one any more.
    pub(super) fn next(&mut self) -> Option<Message<J>> {
        self.0.blocking_recv()
    }

    /// The next one, if it is there.
    pub(super) fn waiting(&mut self) -> Option<Message<J>> {
        self.0.try_recv().ok()
    }
}

impl<J> Drop for Jobs<J> {
    fn drop(&mut self) {
        self.0.close();
        while self.next().is_some() {}
    }
}

/// The other end of the thread. Dropping it waits until the jobs sent before are done and the file is closed.
pub(super) struct Thread<J> {
    jobs: Option<mpsc::Sender<Message<J>>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Thread<J> {
    /// Starts the thread. `run` ends after [`Message::Stop`] or when the channel is closed.
    pub(super) fn start(name: &str, run: impl FnOnce(Jobs<J>) + Send + 'static) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let waiting = Jobs(waiting);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_job_that_meets_the_end_of_the_thread_is_dropped() {
        let run = |mut jobs: Jobs<oneshot::Sender<()>>| {
            if let Some(Message::Stop(stopped)) = jobs.next() {
                let _ = stopped.send(());
            }
        };
        let thread = Thread::start("meets", run).unwrap();
        let jobs = thread.jobs.as_ref().unwrap();
        // Its place is taken before the end, and the job put there after it.
        let place = jobs.reserve().await.unwrap();
        thread.stop().await;
        jobs.closed().await;
        let (reply, answer) = oneshot::channel();
        place.send(Message::Job(reply));
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        assert!(answer.expect("a job that is forgotten").is_err());
    }
}
