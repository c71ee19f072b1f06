//! A git worktree for one run: made before it, and removed after it unless the run left something in it.
//!
//! Owns: which git commands that takes, and when a worktree holds nothing that anybody would miss. Nothing that a run
//! wrote can start a program here: hooks and file system monitors are off, and the run's own `.git` file is not
//! believed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::environment::Environment;
use crate::program::find_program;

/// How long one git command may take: a checkout of a large repository takes minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Output that is read of one; a list of files is the longest.
const MOST_OUTPUT: u64 = 64 << 20;

/// A worktree, made or to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worktree {
    /// Its directory, absolute.
    pub path: PathBuf,
    /// Its branch: `ringback/RUN`.
    pub branch: String,
    /// The top directory of the work tree that it was made of.
    pub repository: PathBuf,
    /// Where in the repository the workspace is; empty = it is the repository.
    pub below: PathBuf,
    /// The commit that it starts with.
    pub base: String,
    /// Where git keeps its index and its `HEAD`.
    git_dir: PathBuf,
}

/// What became of a worktree whose run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It held nothing that is not in the repository as well, and is gone with its branch.
    Removed,
    /// It stays, for this reason.
    Kept(String),
}

/// Why there is no worktree.
#[derive(Debug, thiserror::Error)]
pub enum WorktreeError {
    /// There is no git.
    #[error("worktree = true needs git, and no program git is in the PATH")]
    NoGit,
    /// The workspace is not in a repository's work tree.
    #[error("worktree = true needs a git repository, and {} is not in one{why}", path.display())]
    NotARepository {
        /// The workspace.
        path: PathBuf,
        /// What git says, where that is something else.
        why: String,
    },
    /// There is nothing to check out.
    #[error("worktree = true needs a commit to start from, and the repository {} has none", .0.display())]
    NoCommits(PathBuf),
    /// Git leaves submodules of a new worktree empty, and the run would miss them.
    #[error("worktree = true does not work with submodules, and the repository {} has some", .0.display())]
    Submodules(PathBuf),
    /// The workspace is a directory that the last commit does not have.
    #[error("worktree = true: {} is not in the repository's last commit", .0.display())]
    NotCommitted(PathBuf),
    /// Git failed.
    #[error("git {what}: {why}")]
    Git {
        /// Its command.
        what: String,
        /// The end of what it said.
        why: String,
    },
}

impl Worktree {
    /// Looks at the repository that `workspace` is in and says what the worktree of a run would be: the directory
    /// `RUN` in `place`, which must be absolute. Makes nothing.
    ///
    /// # Errors
    /// There can be none.
    pub async fn plan(
        workspace: &Path,
        place: &Path,
        run: Uuid,
        env: &Environment,
    ) -> Result<Worktree, WorktreeError> {
        let git = Git::find(env)?;
        let missing = |why: String| WorktreeError::NotARepository { path: workspace.to_owned(), why };
        if !workspace.is_dir() {
            return Err(missing(": there is no such directory".to_owned()));
        }
        let questions = ["--show-toplevel", "--git-common-dir", "--show-prefix"];
        let answer = git.run(workspace, "rev-parse", ["--path-format=absolute"].into_iter().chain(questions));
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(WorktreeError::Git { why, .. }) if why.contains("not a git repository") => {
                return Err(missing(String::new()));
            }
            Err(WorktreeError::Git { why, .. }) => return Err(missing(format!(" ({why})"))),
            Err(error) => return Err(error),
        };
        let lines = paths(&answer);
        let [repository, common, below] =
            <[PathBuf; 3]>::try_from(lines).map_err(|_| missing(" (a line end in its path)".to_owned()))?;
        // Git ends it with a slash.
        let below = below.components().collect();
        let head = git.run(&repository, "rev-parse", ["--verify", "--quiet", "HEAD^{commit}"]).await;
        let Ok(base) = head.map(|base| String::from_utf8_lossy(&base).trim().to_owned()) else {
            return Err(WorktreeError::NoCommits(repository));
        };
        if git.run(&repository, "cat-file", ["-e", "HEAD:.gitmodules"]).await.is_ok() {
            return Err(WorktreeError::Submodules(repository));
        }
        let branch = format!("ringback/{run}");
        let git_dir = common.join("worktrees").join(run.to_string());
        Ok(Worktree { path: place.join(run.to_string()), branch, repository, below, base, git_dir })
    }

    /// Makes it, and gives the workspace's directory in it.
    ///
    /// # Errors
    /// Git fails, or the last commit does not have that directory.
    pub async fn create(&self, env: &Environment) -> Result<PathBuf, WorktreeError> {
        let git = Git::find(env)?;
        let words: [&OsStr; 5] =
            ["-b".as_ref(), self.branch.as_ref(), "--".as_ref(), self.path.as_ref(), self.base.as_ref()];
        git.run(&self.repository, "worktree", [OsStr::new("add")].into_iter().chain(words)).await?;
        let cwd: PathBuf = self.path.join(&self.below).components().collect();
        if cwd.is_dir() {
            Ok(cwd)
        } else {
            Err(WorktreeError::NotCommitted(self.repository.join(&self.below)))
        }
    }

    /// Removes it unless it holds what is nowhere else: changes that are not committed, files that are not ignored,
    /// or commits that no other branch or tag has. Whatever cannot be found out keeps it.
    pub async fn settle(&self, env: &Environment) -> Settled {
        match self.try_to_settle(env).await {
            Ok(None) => Settled::Removed,
            Ok(Some(why)) => Settled::Kept(why.to_owned()),
            Err(error) => Settled::Kept(error.to_string()),
        }
    }

    async fn try_to_settle(&self, env: &Environment) -> Result<Option<&'static str>, WorktreeError> {
        let mut git = Git::find(env)?;
        if self.path.exists() {
            // By these, and not by the `.git` file that the run could have replaced.
            git.at = Some((self.git_dir.clone(), self.path.clone()));
            // A repository in the repository may say itself which programs git starts in it: it is not looked into.
            let entries = git.run(&self.path, "ls-files", ["--stage", "-z"]).await?;
            if entries.split(|b| *b == 0).any(|entry| entry.starts_with(b"160000 ")) {
                return Ok(Some("it has a repository in it"));
            }
            let status = ["--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=all"];
            if !git.run(&self.path, "status", status).await?.is_empty() {
                return Ok(Some("it has changes that are not committed"));
            }
            if self.has_own_commits(&git, &self.path, "HEAD").await? {
                return Ok(Some("it has commits that no other branch has"));
            }
            git.at = None;
        }
        // The directory may be gone, or its HEAD elsewhere.
        let branch = format!("refs/heads/{}", self.branch);
        let is_there = git.run(&self.repository, "show-ref", ["--verify", "--quiet", &branch]).await.is_ok();
        if is_there && self.has_own_commits(&git, &self.repository, &branch).await? {
            return Ok(Some("its branch has commits that no other one has"));
        }
        self.remove(&git, &[]).await?;
        Ok(None)
    }

    async fn has_own_commits(&self, git: &Git<'_>, dir: &Path, of: &str) -> Result<bool, WorktreeError> {
        let own = format!("--exclude={}", self.branch);
        let elsewhere = ["--not", &own, "--branches", "--tags", "--remotes", &self.base];
        let commits = ["--max-count=1", of].into_iter().chain(elsewhere);
        Ok(!git.run(dir, "rev-list", commits).await?.is_empty())
    }

    /// Removes it with all that is in it, and its branch.
    ///
    /// # Errors
    /// Git fails.
    pub async fn discard(&self, env: &Environment) -> Result<(), WorktreeError> {
        // Twice: also one that was being made when the machine went down.
        self.remove(&Git::find(env)?, &["--force", "--force"]).await
    }

    async fn remove(&self, git: &Git<'_>, force: &[&str]) -> Result<(), WorktreeError> {
        if self.git_dir.exists() {
            let words = ["remove"].iter().chain(force).chain(&["--"]).map(OsStr::new);
            git.run(&self.repository, "worktree", words.chain([self.path.as_os_str()])).await?;
        } else if self.path.exists() {
            // Never registered, or no more: empty, or not git's to remove.
            let failed =
                |why: io::Error| WorktreeError::Git { what: "worktree".to_owned(), why: why.to_string() };
            match force {
                [] => std::fs::remove_dir(&self.path).map_err(failed)?,
                _ => std::fs::remove_dir_all(&self.path).map_err(failed)?,
            }
        }
        let branch = format!("refs/heads/{}", self.branch);
        // What it had is elsewhere by now, or not wanted; one that is gone is no failure.
        git.run(&self.repository, "update-ref", ["-d", &branch]).await.map(drop)
    }
}

/// How git is started.
struct Git<'a> {
    program: PathBuf,
    env: &'a Environment,
    /// Git directory and work tree, where they are not to be looked for.
    at: Option<(PathBuf, PathBuf)>,
}

impl<'a> Git<'a> {
    fn find(env: &'a Environment) -> Result<Git<'a>, WorktreeError> {
        let program = find_program("git", env.get("PATH")).ok_or(WorktreeError::NoGit)?;
        Ok(Git { program, env, at: None })
    }

    async fn run<W: AsRef<OsStr>>(
        &self,
        dir: &Path,
        what: &str,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Vec<u8>, WorktreeError> {
        let failed = |why: String| WorktreeError::Git { what: what.to_owned(), why };
        let io = |error: io::Error| failed(error.to_string());
        #[expect(
            clippy::disallowed_methods,
            reason = "processes are started in this crate, and git with them"
        )]
        let mut command = std::process::Command::new(&self.program);
        // Programs that the repository could name.
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", what]).args(words);
        command.current_dir(dir).env_clear().envs(self.env.iter());
        command.envs([("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "0")]);
        if let Some((git_dir, work_tree)) = &self.at {
            command.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", work_tree);
        }
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(io)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let all = async {
            let (said, complained) = tokio::try_join!(read(out), read(err))?;
            Ok((child.wait().await?, said, complained))
        };
        let ended = timeout(PATIENCE, all).await.map_err(|_| failed("it took too long".to_owned()))?;
        let (status, said, complained) = ended.map_err(io)?;
        if status.success() {
            return Ok(said);
        }
        let complained = String::from_utf8_lossy(&complained);
        let last = complained.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed");
        let last = last.trim_start_matches("fatal: ").trim_start_matches("error: ");
        Err(failed(crate::outcome::presentable(last, None)))
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(from) = from {
        from.take(MOST_OUTPUT).read_to_end(&mut all).await?;
    }
    Ok(all)
}

/// The paths of an output, one a line; the last one may be empty.
fn paths(output: &[u8]) -> Vec<PathBuf> {
    let output = output.strip_suffix(b"\n").unwrap_or(output);
    output.split(|b| *b == b'\n').map(|path| OsString::from_vec(path.to_vec()).into()).collect()
}
