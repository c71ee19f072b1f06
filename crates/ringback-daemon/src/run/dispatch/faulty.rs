//! A ledger that fails or takes its time, under the real books and the real dispatcher's look at the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ringback_model::budget::Moment;
use ringback_model::run::{Run, RunId, RunState};
use ringback_model::{SessionId, Timestamp};
use ringback_store::{Accept, Accepted, Binding, Error, Ledger, MemoryStore, Page, RunQuery, Save, Told};
use tokio::sync::Semaphore;

use super::simulation::open;

struct Faulty {
    books: MemoryStore,
    /// So many saves are taken before one is refused; those after it are taken.
    saves_before_full: AtomicUsize,
    /// A call is answered when there is a permit.
    answers: Semaphore,
}

impl Faulty {
    fn new(saves_before_full: usize, answers: usize) -> Arc<Faulty> {
        Arc::new(Faulty {
            books: MemoryStore::new(),
            saves_before_full: AtomicUsize::new(saves_before_full),
            answers: Semaphore::new(answers),
        })
    }
}

#[async_trait]
impl Ledger for Faulty {
    async fn accept(&self, accept: Accept) -> Result<Accepted, Error> {
        let accepted = self.books.accept(accept).await;
        self.answers.acquire().await.unwrap().forget();
        accepted
    }
    async fn save(&self, save: Save) -> Result<(), Error> {
        match self.saves_before_full.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(Error::Full),
            _ => self.books.save(save).await,
        }
    }
    async fn tell(&self, told: Told, call: Option<Binding>) -> Result<bool, Error> {
        self.books.tell(told, call).await
    }
    async fn value(&self, name: &str) -> Result<Option<String>, Error> {
        self.books.value(name).await
    }
    async fn values(&self, prefix: &str) -> Result<Vec<(String, String)>, Error> {
        self.books.values(prefix).await
    }
    async fn queued(&self, limit: usize) -> Result<Vec<Run>, Error> {
        self.books.queued(limit).await
    }
    async fn first_queued_on(&self, subject: &str) -> Result<Option<RunId>, Error> {
        self.books.first_queued_on(subject).await
    }
    async fn queued_count(&self) -> Result<u64, Error> {
        self.books.queued_count().await
    }
    async fn run_counts(&self) -> Result<Vec<(RunState, u64)>, Error> {
        self.books.run_counts().await
    }
    async fn unfinished(&self) -> Result<Vec<Run>, Error> {
        self.books.unfinished().await
    }
    async fn run(&self, id: RunId) -> Result<Option<Run>, Error> {
        self.books.run(id).await
    }
    async fn runs(&self, query: RunQuery) -> Result<Page<Run>, Error> {
        self.books.runs(query).await
    }
    async fn run_of_session(&self, session: &SessionId) -> Result<Option<RunId>, Error> {
        self.books.run_of_session(session).await
    }
    async fn run_sessions(&self, since: Timestamp) -> Result<Vec<(SessionId, RunId, String)>, Error> {
        self.books.run_sessions(since).await
    }
    async fn prune_runs(&self, before: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        self.books.prune_runs(before, limit).await
    }
    async fn cost_since(&self, since: Timestamp) -> Result<f64, Error> {
        self.books.cost_since(since).await
    }
}

fn now() -> Moment {
    Moment { at: Timestamp::from_millis(1_000_000), date: jiff::civil::date(1970, 1, 1) }
}

#[tokio::test]
async fn a_run_that_was_taken_before_the_disk_was_full_is_carried_out() {
    let runs = open(Faulty::new(1, 2), now).await;
    let (a, b) = (runs.call("a", "script").await.unwrap(), runs.call("b", "script").await.unwrap());
    let taken = runs.take_queued(4).await.unwrap();
    assert_eq!(taken.runs.iter().map(|run| run.run().id).collect::<Vec<_>>(), [a]);
    assert!(taken.again_at.is_some());
    let rest = runs.take_queued(4).await.unwrap();
    assert_eq!(rest.runs.iter().map(|run| run.run().id).collect::<Vec<_>>(), [b]);
}

#[tokio::test]
async fn a_call_whose_caller_hangs_up_while_it_is_written_wakes_the_dispatcher() {
    let ledger = Faulty::new(usize::MAX, 0);
    let runs = open(Arc::clone(&ledger) as Arc<dyn Ledger>, now).await;
    let call = tokio::spawn({
        let runs = runs.clone();
        async move { runs.call("a", "script").await }
    });
    while ledger.books.queued_count().await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    ledger.answers.add_permits(1);
    runs.0.wake.notified().await;
}
