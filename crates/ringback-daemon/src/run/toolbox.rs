//! What a run's tools do.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use ringback_model::budget::{Budget, Level};
use ringback_model::ping::{self, Decision, Embed, EmbedInput, PingCheck};
use ringback_model::run::RunId;
use ringback_model::updates::{self, PendingUpdates, Update};
use ringback_store::Save;

use super::{BUDGET, Books, Runs, UPDATES};
use crate::mcp::{ToolFailure, Toolbox};

#[async_trait]
impl Toolbox for Runs {
    async fn ping_user(&self, run: RunId, message: &str, critical: bool) -> Result<String, ToolFailure> {
        let text = ping::message_text(message).map_err(|e| ToolFailure { message: e.to_string() })?;
        self.ping(run, &text, None, critical, ping::MESSAGE_SENT).await
    }

    async fn discord_embed(
        &self,
        run: RunId,
        embed: EmbedInput,
        critical: bool,
    ) -> Result<String, ToolFailure> {
        let embed = Embed::from_input(&embed).map_err(|e| ToolFailure { message: e.to_string() })?;
        self.ping(run, &embed.as_text(), Some(&embed), critical, ping::EMBED_SENT).await
    }

    async fn report_updates(&self, run: RunId, message: &str) -> Result<String, ToolFailure> {
        if message.trim().is_empty() {
            return Err(ToolFailure { message: "message is empty".to_owned() });
        }
        // Looked up under the lock under which a run's end is written: a late call must not bring it back to life.
        let mut books = self.0.books.lock().await;
        let active = self.active(run).ok_or_else(over)?;
        if !active.run().request.update_main_session.may_report() {
            return Ok(updates::REPORTING_DISABLED.to_owned());
        }
        let mut run = active.run().clone();
        let workspace = run.request.workspace.clone();
        let mut pending = books.updates.get(&workspace).cloned().unwrap_or_default();
        pending.push(Update {
            at: self.moment().at,
            source: run.request.source.clone(),
            message: message.trim().to_owned(),
        });
        run.reported = true;
        let value = (format!("{UPDATES}{workspace}"), serde_json::to_string(&pending).ok());
        let save = Save { runs: vec![run.clone()], values: vec![value], told: Vec::new() };
        self.0.ledger.save(save).await.map_err(unwritten)?;
        active.run().reported = true;
        books.updates.insert(workspace, pending);
        self.0.feed.push("run", || self.shown(&run).to_string());
        Ok(updates::REPORTED.to_owned())
    }
}

impl Runs {
    async fn ping(
        &self,
        id: RunId,
        text: &str,
        embed: Option<&Embed>,
        critical: bool,
        sent: &str,
    ) -> Result<String, ToolFailure> {
        let mut books = self.0.books.lock().await;
        let active = self.active(id).ok_or_else(over)?;
        let mut run = active.run().clone();
        let busy = active
            .main
            .as_ref()
            .and_then(|main| self.0.view.get(main))
            .is_some_and(|s| s.activity.is_active());
        let mut budget = self.budget(&books);
        let now = self.moment();
        let level = budget.level(self.0.limits, now);
        let decision = ping::decide(&PingCheck {
            allow_ping: run.request.allow_ping,
            already_sent: active.pings.load(Ordering::Relaxed),
            busy,
            budget: &level,
            may_report: run.request.update_main_session.may_report(),
            critical,
        });
        let is_paid = match decision {
            Decision::Refuse(why) => return Ok(why),
            Decision::SendCritical => {
                budget.count_critical(self.0.limits, now);
                false
            }
            Decision::Send => {
                // The level above was of this very budget at this very moment, under the lock.
                let taken = budget.take(self.0.limits, now);
                taken.map_err(|e| ToolFailure { message: e.to_string() })?;
                true
            }
        };
        run.pinged = true;
        // A report covers what was sent before it; what is sent after it has to be reported again.
        run.reported = false;
        let save = Save {
            runs: vec![run.clone()],
            values: vec![(BUDGET.to_owned(), serde_json::to_string(&budget).ok())],
            told: vec![self.message(Some(&run), text, embed, is_paid)],
        };
        self.0.ledger.save(save).await.map_err(unwritten)?;
        books.budget = Some(budget);
        {
            let mut now = active.run();
            now.pinged = true;
            now.reported = false;
        }
        if is_paid {
            active.pings.fetch_add(1, Ordering::Relaxed);
        }
        self.wake_outlets();
        self.0.feed.push("run", || self.shown(&run).to_string());
        Ok(sent.to_owned())
    }

    /// The bucket, full where there never was one.
    pub(crate) fn budget(&self, books: &Books) -> Budget {
        books.budget.clone().unwrap_or_else(|| Budget::full(self.0.limits, self.moment()))
    }

    /// What is left of the ping budget.
    pub async fn level(&self) -> Level {
        let books = self.0.books.lock().await;
        self.budget(&books).level(self.0.limits, self.moment())
    }

    /// Sets how many pings are left, at most the capacity.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn set_level(&self, available: u32) -> Result<(), ringback_store::Error> {
        let mut books = self.0.books.lock().await;
        let mut budget = self.budget(&books);
        budget.set(available, self.0.limits, self.moment());
        let value = (BUDGET.to_owned(), serde_json::to_string(&budget).ok());
        self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await?;
        books.budget = Some(budget);
        Ok(())
    }

    /// The updates that wait for a workspace's main session.
    pub async fn updates(&self, workspace: &str) -> PendingUpdates {
        self.0.books.lock().await.updates.get(workspace).cloned().unwrap_or_default()
    }

    /// The same, to be shown to the main session. They stay until [`handed_over`](Runs::handed_over) says that they
    /// went out: a hook that came too late is not heard, and its updates must not be lost.
    pub async fn hand_over(&self, workspace: &str) -> PendingUpdates {
        let mut books = self.0.books.lock().await;
        let pending = books.updates.get(workspace).cloned().unwrap_or_default();
        books.handed.insert(workspace.to_owned(), pending.clone());
        pending
    }

    /// What was shown last went out: takes it.
    ///
    /// # Errors
    /// The ledger cannot be written; nothing is taken then.
    pub async fn handed_over(&self, workspace: &str) -> Result<(), ringback_store::Error> {
        let mut books = self.0.books.lock().await;
        let Some(shown) = books.handed.remove(workspace) else { return Ok(()) };
        let mut left = books.updates.get(workspace).cloned().unwrap_or_default();
        left.forget(&shown);
        let text = if left.is_empty() { None } else { serde_json::to_string(&left).ok() };
        let value = (format!("{UPDATES}{workspace}"), text);
        self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await?;
        books.updates.insert(workspace.to_owned(), left);
        Ok(())
    }

    /// Takes them: whoever gets them hands them over.
    ///
    /// # Errors
    /// The ledger cannot be written; nothing is taken then.
    pub async fn pop_updates(&self, workspace: &str) -> Result<PendingUpdates, ringback_store::Error> {
        let mut books = self.0.books.lock().await;
        let Some(pending) = books.updates.get_mut(workspace).filter(|p| !p.is_empty()) else {
            return Ok(PendingUpdates::default());
        };
        let value = (format!("{UPDATES}{workspace}"), None);
        self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await?;
        Ok(pending.take())
    }

    /// Sends a test message by every notifier.
    ///
    /// # Errors
    /// It cannot be journaled.
    pub async fn test_message(&self) -> Result<(), ringback_store::Error> {
        let told = self.message(None, "ringback: this is a test message", None, false);
        self.0.ledger.save(Save { told: vec![told], ..Save::default() }).await?;
        self.wake_outlets();
        Ok(())
    }
}

fn over() -> ToolFailure {
    ToolFailure { message: "this run is over".to_owned() }
}

fn unwritten(error: ringback_store::Error) -> ToolFailure {
    tracing::debug!(%error, "a tool's call cannot be journaled");
    ToolFailure { message: "not sent: the journal cannot be written; try again later".to_owned() }
}
