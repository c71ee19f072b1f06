//! Which session is a workspace's main session, and whether the user is in the middle of it.

use ringback_model::{Agent, SessionId};
use ringback_store::Save;

use super::{MAIN, Runs};
use crate::view::Shown;

/// The main session of a workspace.
#[derive(Clone, Debug)]
pub struct Main {
    /// The session.
    pub id: SessionId,
    /// What is known of it; a pinned one may not have been seen.
    pub shown: Option<Shown>,
    /// The user named it, in the configuration or by hand.
    pub is_pinned: bool,
}

impl Main {
    /// Its agent, where it is known.
    pub fn agent(&self) -> Option<Agent> {
        self.shown.as_ref().map(|s| s.about.agent)
    }

    /// Neither idle nor waiting.
    pub fn is_busy(&self) -> bool {
        self.shown.as_ref().is_some_and(|s| s.activity.is_active())
    }
}

impl Runs {
    /// The main session of a workspace: pinned, else the one of `agent` at or below the workspace's path that a
    /// person prompted last. Never a run, a sub-agent or a headless session.
    pub async fn main_session(&self, workspace: &str, agent: Option<Agent>) -> Option<Main> {
        let entry = self.0.config.workspaces.get(workspace)?;
        let set = self.0.books.lock().await.pinned.get(workspace).cloned();
        if let Some(id) = set.or_else(|| entry.main_session.clone()) {
            let shown = self.0.view.get(&id);
            return Some(Main { id, shown, is_pinned: true });
        }
        let newest = self.0.view.all().into_iter().filter(|s| {
            s.about.interactive == Some(true)
                && s.about.last_prompt_at.is_some()
                && agent.is_none_or(|agent| s.about.agent == agent)
                && std::path::Path::new(&s.about.cwd).starts_with(&entry.path)
                && !self.is_run(&s.about.session_id)
        });
        let newest = newest.max_by_key(|s| s.about.last_prompt_at)?;
        Some(Main { id: newest.about.session_id.clone(), shown: Some(newest), is_pinned: false })
    }

    /// Pins a workspace's main session, or with `None` lets the latest be it again. `false` = no such workspace.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn set_main(
        &self,
        workspace: &str,
        id: Option<SessionId>,
    ) -> Result<bool, ringback_store::Error> {
        if !self.0.config.workspaces.contains_key(workspace) {
            return Ok(false);
        }
        let mut books = self.0.books.lock().await;
        let value = (format!("{MAIN}{workspace}"), id.as_ref().map(|id| id.as_str().to_owned()));
        self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await?;
        match id {
            Some(id) => books.pinned.insert(workspace.to_owned(), id),
            None => books.pinned.remove(workspace),
        };
        Ok(true)
    }

    /// The workspace whose main session this is.
    pub async fn workspace_of(&self, session: &SessionId) -> Option<String> {
        if self.is_run(session) {
            return None;
        }
        for workspace in self.0.config.workspaces.keys() {
            let agent = self.0.view.get(session).map(|s| s.about.agent);
            if self.main_session(workspace, agent).await.is_some_and(|main| main.id == *session) {
                return Some(workspace.clone());
            }
        }
        None
    }

    /// The default workspace's name.
    pub fn default_workspace(&self) -> &str {
        &self.0.config.workspace
    }
}
