//! Worktrees of isolated runs, where the workspace asks for them: made before the agent, settled after it.
//!
//! Each is a named value in the ledger from before it is made until it is removed, so that what a crash leaves is
//! found, and so that one with changes outlives the history of its run.

use std::path::{Path, PathBuf};

use ringback_model::Timestamp;
use ringback_model::run::{self, Run, RunId};
use ringback_runs::{Environment, Settled, Worktree};
use ringback_store::{Error, Save};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Active, Runs};
use crate::config::Workspace;

/// Names of the values: this and the run's id.
const WORKTREE: &str = "worktree:";

/// A worktree, as the ledger keeps it.
#[derive(Serialize, Deserialize)]
struct Entry {
    run: RunId,
    workspace: String,
    source: String,
    created_at: Timestamp,
    /// Why it was kept; `None` = its run goes on.
    kept: Option<String>,
    worktree: Worktree,
}

/// What became of a worktree that was to be removed.
pub(crate) enum Removal {
    /// There is none of this run.
    Unknown,
    /// Its run goes on.
    InUse,
    /// It is gone.
    Removed,
    /// It stays, for this reason.
    Kept(String),
}

impl Runs {
    /// The directory of an isolated run in a workspace with `worktree = true`; `None` = the run has no worktree.
    ///
    /// # Errors
    /// Why there can be none, for the user.
    pub(super) async fn make_worktree(
        &self,
        active: &Active,
        workspace: &Workspace,
    ) -> Result<Option<PathBuf>, String> {
        let run = active.run().clone();
        if !(run.request.isolated && workspace.worktree) {
            return Ok(None);
        }
        make_private(&self.0.worktrees)
            .map_err(|e| format!("cannot make {}: {e}", self.0.worktrees.display()))?;
        let env = self.git_environment();
        let place = &self.0.worktrees;
        let plan = Worktree::plan(&workspace.path, place, run.id.0, &env).await.map_err(|e| e.to_string())?;
        let shown = run::Worktree {
            path: plan.path.to_string_lossy().into_owned(),
            branch: plan.branch.clone(),
            is_kept: false,
        };
        active.run().worktree = Some(shown);
        let entry = Entry {
            run: run.id,
            workspace: run.request.workspace,
            source: run.request.source,
            created_at: self.moment().at,
            kept: None,
            worktree: plan,
        };
        {
            let _books = self.0.books.lock().await;
            let run = active.run().clone();
            self.keep_entry(&entry, vec![run]).await.map_err(|e| e.to_string())?;
        }
        match entry.worktree.create(&env).await {
            Ok(cwd) => Ok(Some(cwd)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Settles the worktree of a run whose agent is gone, and notes in the run whether it was kept.
    pub(super) async fn settle_worktree(&self, active: Option<&Active>, run: &Run) -> Option<run::Worktree> {
        let noted = run.worktree.clone()?;
        let removal = self.remove_worktree(run.id, false, true).await;
        let is_kept = match removal {
            Ok(Removal::Kept(_) | Removal::InUse) => true,
            Ok(Removal::Removed | Removal::Unknown) => false,
            Err(error) => {
                tracing::warn!(run = %run.id, %error, "the worktree of a run cannot be settled");
                true
            }
        };
        let noted = run::Worktree { is_kept, ..noted };
        if let Some(active) = active {
            active.run().worktree = Some(noted.clone());
        }
        Some(noted)
    }

    /// Removes the worktree of a run that is over, with whatever is in it if `force`.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub(crate) async fn remove_worktree(
        &self,
        id: RunId,
        force: bool,
        is_over: bool,
    ) -> Result<Removal, Error> {
        let _tidying = self.0.tidying.lock().await;
        let Some(text) = self.0.ledger.value(&name(id)).await? else { return Ok(Removal::Unknown) };
        if !is_over && self.0.ledger.run(id).await?.is_some_and(|run| !run.state.is_terminal()) {
            return Ok(Removal::InUse);
        }
        let Ok(mut entry) = serde_json::from_str::<Entry>(&text) else { return Ok(Removal::Unknown) };
        let env = self.git_environment();
        let why = if force {
            entry.worktree.discard(&env).await.err().map(|e| e.to_string())
        } else {
            match entry.worktree.settle(&env).await {
                Settled::Removed => None,
                Settled::Kept(why) => Some(why),
            }
        };
        match why {
            None => {
                let save = Save { values: vec![(name(id), None)], ..Save::default() };
                self.0.ledger.save(save).await?;
                Ok(Removal::Removed)
            }
            Some(why) => {
                entry.kept = Some(why.clone());
                self.keep_entry(&entry, Vec::new()).await?;
                Ok(Removal::Kept(why))
            }
        }
    }

    /// The worktrees that are there, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn worktrees(&self) -> Result<Vec<Value>, Error> {
        let entries = self.worktree_entries().await?;
        let shown = |entry: &Entry| {
            json!({
                "run": entry.run,
                "workspace": entry.workspace,
                "source": entry.source,
                "repository": entry.worktree.repository,
                "path": entry.worktree.path,
                "branch": entry.worktree.branch,
                "created_at": entry.created_at,
                "kept": entry.kept,
            })
        };
        Ok(entries.iter().map(shown).collect())
    }

    /// Removes the worktrees of ended runs that hold nothing any more that is nowhere else, and gives their runs.
    ///
    /// # Errors
    /// The ledger cannot be read or written; what was removed until then is gone.
    pub(crate) async fn prune_worktrees(&self) -> Result<Vec<RunId>, Error> {
        let mut removed = Vec::new();
        for entry in self.worktree_entries().await? {
            if let Removal::Removed = self.remove_worktree(entry.run, false, false).await? {
                removed.push(entry.run);
            }
        }
        Ok(removed)
    }

    async fn worktree_entries(&self) -> Result<Vec<Entry>, Error> {
        let values = self.0.ledger.values(WORKTREE).await?;
        let mut entries: Vec<Entry> =
            values.iter().filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
        entries.sort_by_key(|entry| entry.created_at);
        Ok(entries)
    }

    async fn keep_entry(&self, entry: &Entry, runs: Vec<Run>) -> Result<(), Error> {
        let value = (name(entry.run), serde_json::to_string(entry).ok());
        self.0.ledger.save(Save { runs, values: vec![value], told: Vec::new() }).await
    }

    fn git_environment(&self) -> Environment {
        Environment::select(&self.0.env.all(), &[], &self.withheld())
    }
}

fn name(run: RunId) -> String {
    format!("{WORKTREE}{run}")
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The directories that a run in `cwd` may not read, without those that lead to it: of one that `cwd` is in, every
/// other entry is named instead.
pub(super) fn denied_around(cwd: &Path, denied: &[PathBuf]) -> Vec<PathBuf> {
    let mut named = Vec::new();
    for directory in denied {
        let Ok(rest) = cwd.strip_prefix(directory) else {
            named.push(directory.clone());
            continue;
        };
        let mut here = directory.clone();
        for step in rest.components() {
            let on_the_way = here.join(step);
            let entries = std::fs::read_dir(&here).into_iter().flatten().flatten();
            named.extend(entries.map(|entry| entry.path()).filter(|path| *path != on_the_way));
            here = on_the_way;
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_the_state_directory_is_denied_all_of_it_but_its_own_worktree() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        for below in ["runs", "worktrees/a/src", "worktrees/b"] {
            std::fs::create_dir_all(state.join(below)).unwrap();
        }
        std::fs::write(state.join("api-token"), "").unwrap();
        let config = PathBuf::from("/elsewhere/config");
        let mut named = denied_around(&state.join("worktrees/a"), &[state.to_owned(), config.clone()]);
        named.sort();
        let mut expected: Vec<PathBuf> =
            ["api-token", "runs", "worktrees/b"].map(|below| state.join(below)).into();
        expected.insert(0, config.clone());
        expected.sort();
        assert_eq!(named, expected);
        assert_eq!(denied_around(Path::new("/home"), &[state.to_owned()]), [state.to_owned()]);
    }
}
