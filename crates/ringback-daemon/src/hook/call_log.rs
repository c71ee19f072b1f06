//! What is remembered of calls: for whoever looks why a hook did what it did, and to start a run once more.
//!
//! Owns: what of a believed call is kept, and that keeping it neither delays nor fails its answer: calls wait in a
//! bounded queue for the task that writes them, and what finds it full is counted and left out. Calls that are not
//! believed are counted alone. The runs are the journal's of `run`; nothing follows from what is kept here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::request::Parts as Head;
use futures_util::future::join_all;
use ringback_model::Timestamp;
use ringback_model::hook_call::{CallOutcome, HookCall, MAX_KEPT_BODY};
use ringback_model::inbound::Refusal;
use ringback_model::run::RunId;
use ringback_store::Calls;
use ringback_webhook::senders;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::declared::{self, Declared, Filled, Hook, Sent};
use super::{Answered, Refused};
use crate::run::Runs;

/// Calls that wait to be written; with the longest bodies 16 MiB.
const WAITING: usize = 64;

/// The log of calls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CallLog(Arc<Parts>);

struct Parts {
    calls: Arc<dyn Calls>,
    queue: mpsc::Sender<HookCall>,
    dropped: AtomicU64,
    /// By slug; only those of files, so that no caller makes it grow.
    unbelieved: Mutex<BTreeMap<String, u64>>,
}

/// Writes what is remembered.
pub(crate) struct Keeper {
    calls: Arc<dyn Calls>,
    queue: mpsc::Receiver<HookCall>,
}

impl CallLog {
    pub(crate) fn new(calls: Arc<dyn Calls>) -> (CallLog, Keeper) {
        let (send, queue) = mpsc::channel(WAITING);
        let parts = Parts {
            calls: Arc::clone(&calls),
            queue: send,
            dropped: AtomicU64::new(0),
            unbelieved: Mutex::default(),
        };
        (CallLog(Arc::new(parts)), Keeper { calls, queue })
    }

    /// What is written.
    pub(crate) fn calls(&self) -> &dyn Calls {
        &*self.0.calls
    }

    /// Remembers a call with what it was answered.
    pub(super) fn keep(&self, noted: HookCall, answered: &Result<Answered, Refused>) {
        if self.0.queue.try_send(settled(noted, answered)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_unbelieved(&self, hook: &Hook) {
        let mut counts = self.0.unbelieved.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(hook.slug.clone()).or_default() += 1;
    }

    /// Calls of a hook, since the start, whose sender was not believed.
    pub(crate) fn unbelieved(&self, slug: &str) -> u64 {
        let counts = self.0.unbelieved.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(slug).copied().unwrap_or_default()
    }

    /// The same of all hooks.
    pub(crate) fn all_unbelieved(&self) -> u64 {
        self.0.unbelieved.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Believed calls, since the start, that were answered and not remembered.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Keeper {
    /// Writes until `stop` turns true, and then what waits.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let first = tokio::select! {
                // Where nobody serves hooks there is nobody to send either.
                Some(call) = self.queue.recv() => Some(call),
                _ = stop.changed() => None,
            };
            let others = std::iter::from_fn(|| self.queue.try_recv().ok()).take(WAITING);
            let waiting = first.into_iter().chain(others).collect();
            self.write(waiting).await;
        }
    }

    /// Writes them at once: the store makes one transaction of what comes together.
    async fn write(&self, waiting: Vec<HookCall>) {
        let written = join_all(waiting.into_iter().map(|call| self.calls.keep_call(call))).await;
        let lost = written.iter().filter(|written| written.is_err()).count();
        if let Some(Err(error)) = written.into_iter().find(Result::is_err) {
            tracing::warn!(%error, lost, "calls of hooks cannot be remembered; their runs are not touched by that");
        }
    }
}

/// A believed call before its answer. Without `body` it was refused before that was read.
pub(super) fn note(
    hook: &Hook,
    head: &Head,
    at: Timestamp,
    body: Option<&[u8]>,
    call: &senders::Call,
) -> HookCall {
    let headers = declared::headers(hook, &head.headers).into_iter();
    HookCall {
        hook: hook.slug.clone(),
        at,
        event: call.event.clone(),
        delivery_id: call.delivery_id.clone(),
        outcome: CallOutcome::Refused,
        status: 0,
        error: None,
        run: None,
        headers: headers.map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect(),
        query: head.uri.query().map(str::to_owned),
        body_bytes: body.map_or(0, |body| body.len() as u64),
        body: body.filter(|body| body.len() <= MAX_KEPT_BODY).map(<[u8]>::to_vec),
    }
}

fn settled(noted: HookCall, answered: &Result<Answered, Refused>) -> HookCall {
    let status = |answer: &Option<senders::Answer>| answer.as_ref().map_or(202, |a| a.status.as_u16());
    match answered {
        Ok(Answered::Accepted { run, outcome, answer }) => {
            HookCall { outcome: *outcome, status: status(answer), run: Some(*run), ..noted }
        }
        Ok(Answered::Told { outcome, answer }) => {
            HookCall { outcome: *outcome, status: status(answer), ..noted }
        }
        Ok(Answered::Ignored(answer)) => {
            HookCall { outcome: CallOutcome::Ignored, status: status(answer), ..noted }
        }
        Ok(Answered::Challenge(answer)) => {
            HookCall { outcome: CallOutcome::Challenge, status: answer.status.as_u16(), ..noted }
        }
        Err(refused) => HookCall {
            outcome: CallOutcome::Refused,
            status: refused.status.as_u16(),
            error: Some(refused.body.clone()),
            ..noted
        },
    }
}

/// Why a remembered call starts no run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReplayed {
    #[error("no hook is called {0} now")]
    NoHook(String),
    #[error("its body was not kept")]
    NoBody,
    #[error("it asked about the endpoint and is no call")]
    Challenge,
    #[error("the hook is not interested in it: its `when` does not hold")]
    Ignored,
    /// The body of the answer that its caller would get.
    #[error("it does not fit the hook's file as it is now: {0}")]
    Unfit(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Does once more what a remembered call asked for, with the hook's file as it is now: starts a run, or tells the user
/// (`None`). The operator asks, so that neither the time nor an earlier run of it matters.
pub(crate) async fn replay(
    declared: &Declared,
    runs: &Runs,
    call: HookCall,
    route: &str,
) -> Result<Option<RunId>, NotReplayed> {
    if call.outcome == CallOutcome::Challenge {
        return Err(NotReplayed::Challenge);
    }
    let hook = declared.now().hooks.get(&call.hook).cloned();
    let hook = hook.ok_or_else(|| NotReplayed::NoHook(call.hook.clone()))?;
    let body = call.body.as_deref().ok_or(NotReplayed::NoBody)?;
    let headers: HeaderMap = call
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect::<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>>()
        .into_iter()
        .collect();
    let sent = Sent { headers: &headers, query: call.query.as_deref(), body, event: call.event.as_deref() };
    let filled = declared::fill(&hook, sent, &Uuid::new_v4().simple().to_string());
    match filled.map_err(|unfit| NotReplayed::Unfit(unfit.body()))? {
        Filled::Ignored => Err(NotReplayed::Ignored),
        Filled::Notice(text) => {
            runs.tell_of_hook(&hook.slug, &text, route, None).await?;
            Ok(None)
        }
        // It is not gathered with others: the operator wants to see what comes of this one.
        Filled::Message { text, .. } => {
            let request = runs.request_of_hook(&hook.slug, &hook.run, text);
            let (run, _) = runs.accept_of_hook(request, None, route, None).await?;
            Ok(Some(run))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringback_store::{CallQuery, MemoryStore};

    #[tokio::test]
    async fn a_full_queue_leaves_the_call_out_and_counts_it() {
        let (send, mut queue) = mpsc::channel(1);
        let log = CallLog(Arc::new(Parts {
            calls: Arc::new(MemoryStore::new()),
            queue: send,
            dropped: AtomicU64::new(0),
            unbelieved: Mutex::default(),
        }));
        let noted = HookCall {
            hook: "ci".to_owned(),
            at: Timestamp::from_millis(1),
            event: None,
            delivery_id: None,
            outcome: CallOutcome::Refused,
            status: 0,
            error: None,
            run: None,
            headers: Vec::new(),
            query: None,
            body_bytes: 2,
            body: Some(b"{}".to_vec()),
        };
        let ignored = Ok(Answered::Ignored(None));
        log.keep(noted.clone(), &ignored);
        log.keep(noted.clone(), &ignored);
        assert_eq!(log.dropped(), 1);
        let kept = queue.recv().await.unwrap();
        assert_eq!((kept.outcome, kept.status), (CallOutcome::Ignored, 202));
        drop(queue);
        let refused = Err(Refusal::PayloadTooLarge.into());
        log.keep(noted, &refused);
        assert_eq!(log.dropped(), 2, "nobody writes any more");
        assert!(log.calls().calls(CallQuery::default()).await.unwrap().items.is_empty());
    }
}
