//! What runs know of declared hooks: the files' bounds, hooks that are paused, and messages that need no run.
//!
//! A streak of failures is written in the same transaction as the end of the run that it counts, so that a pause is
//! told once and survives whatever comes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use ringback_model::Timestamp;
use ringback_model::flow::{MAX_WAITING, Streak};
use ringback_model::hook_call::CallOutcome;
use ringback_model::inbound::bounds::{Bounds, Caller};
use ringback_model::inbound::{IdempotencyKey, Refusal};
use ringback_model::run::{Run, RunState};
use ringback_store::{Binding, Error, RunQuery, Save};

use super::{Books, HOOK, KEY_TTL, Runs, call_key};
use crate::hook::declared::Loaded;

/// What the hook files in force say, as far as runs go.
#[derive(Debug)]
pub(super) struct HookFiles {
    /// Of sources and of hooks.
    pub(super) bounds: Arc<Bounds>,
    /// Tells each hook's file from an edited one, by slug.
    fingerprints: BTreeMap<String, String>,
}

impl HookFiles {
    pub(super) fn new(of_sources: &Bounds, loaded: &Loaded) -> HookFiles {
        let hooks = loaded.hooks.values();
        let of_hooks = hooks.clone().map(|hook| (Caller::Hook(hook.slug.clone()), hook.flow.bound));
        HookFiles {
            bounds: Arc::new(of_sources.clone().into_iter().chain(of_hooks).collect()),
            fingerprints: hooks.map(|hook| (hook.slug.clone(), hook.fingerprint.clone())).collect(),
        }
    }
}

impl Runs {
    /// Goes by these files from now on: their bounds hold, their variables reach no agent, and hooks that are paused
    /// and whose files were edited go on.
    pub(crate) fn follow(&self, loaded: &Loaded) {
        self.withhold(&loaded.variables);
        let files = Arc::new(HookFiles::new(&self.0.bounds, loaded));
        *self.0.hook_files.write().unwrap_or_else(PoisonError::into_inner) = files;
        self.0.wake.notify_one();
    }

    pub(super) fn hook_files(&self) -> Arc<HookFiles> {
        Arc::clone(&self.0.hook_files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The failures of a hook's runs.
    pub(crate) fn streak(&self, slug: &str) -> Streak {
        self.streaks().get(slug).cloned().unwrap_or_default()
    }

    pub(super) fn is_paused(&self, slug: &str) -> bool {
        self.streaks().get(slug).is_some_and(|streak| streak.paused_at.is_some())
    }

    /// Since when hooks are paused.
    pub(super) fn paused(&self) -> BTreeMap<String, Timestamp> {
        let streaks = self.streaks();
        streaks.iter().filter_map(|(slug, streak)| Some((slug.clone(), streak.paused_at?))).collect()
    }

    /// How many runs of a hook are queued, as far as it matters.
    pub(super) async fn waiting_of(&self, slug: &str) -> Result<usize, Error> {
        let mut query = RunQuery {
            state: Some(RunState::Queued),
            source: Some(slug.to_owned()),
            limit: MAX_WAITING,
            cursor: None,
        };
        let mut waiting = 0;
        // Others may call themselves like the hook.
        loop {
            let page = self.0.ledger.runs(query.clone()).await?;
            waiting += page.items.iter().filter(|run| run.request.hook.as_deref() == Some(slug)).count();
            if waiting >= MAX_WAITING || page.next.is_none() {
                return Ok(waiting);
            }
            query.cursor = page.next;
        }
    }

    /// Lets a paused hook go on. `false` = it was not paused.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub(crate) async fn resume(&self, slug: &str) -> Result<bool, Error> {
        let books = self.0.books.lock().await;
        if !self.is_paused(slug) {
            return Ok(false);
        }
        let value = (format!("{HOOK}{slug}"), None);
        self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await?;
        self.set_streak(&books, slug, Streak::default());
        drop(books);
        self.0.wake.notify_one();
        Ok(true)
    }

    /// Lets the paused hooks go on whose files were edited.
    pub(super) async fn resume_edited(&self) -> Result<(), Error> {
        let files = self.hook_files();
        let is_edited = |(slug, streak): &(&String, &Streak)| {
            streak.is_outdated(files.fingerprints.get(*slug).map(String::as_str))
        };
        let edited: Vec<String> =
            self.streaks().iter().filter(is_edited).map(|(slug, _)| slug.clone()).collect();
        for slug in edited {
            self.resume(&slug).await?;
            tracing::info!(hook = slug, "its file was edited: the hook is paused no longer");
        }
        Ok(())
    }

    /// What follows for its hook from the end of a run: the hook's slug, the streak to be written, and whether the hook
    /// is paused from now on. `None`: nothing. The lock is held until it is written.
    pub(super) fn streak_after(&self, _books: &Books, run: &Run) -> Option<(String, Streak, bool)> {
        let slug = run.request.hook.clone()?;
        let before = self.streak(&slug);
        let mut streak = before.clone();
        let files = self.hook_files();
        let is_paused =
            streak.ended(run, files.fingerprints.get(&slug).map(String::as_str), self.moment().at);
        (streak != before).then_some((slug, streak, is_paused))
    }

    /// Takes in what was written.
    pub(super) fn set_streak(&self, _books: &Books, slug: &str, streak: Streak) {
        let mut streaks = self.streaks();
        if streak == Streak::default() {
            streaks.remove(slug);
        } else {
            streaks.insert(slug.to_owned(), streak);
        }
    }

    /// Tells the user what a hook has to say, once per call. Says whether it did.
    ///
    /// # Errors
    /// What the caller is told instead.
    pub(crate) async fn tell_of_hook(
        &self,
        slug: &str,
        text: &str,
        route: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<CallOutcome, Refusal> {
        let told = self.message_from(Some(slug), None, text, None, false);
        let call = call_key(route, key).map(|key| Binding { key, now: self.moment().at, ttl: KEY_TTL });
        match self.0.ledger.tell(told, call).await {
            Ok(true) => {
                self.wake_outlets();
                Ok(CallOutcome::Told)
            }
            Ok(false) => Ok(CallOutcome::Repeated),
            Err(error) => {
                tracing::debug!(%error, "a message cannot be journaled");
                Err(Refusal::StorageUnavailable)
            }
        }
    }

    fn streaks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Streak>> {
        self.0.streaks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
