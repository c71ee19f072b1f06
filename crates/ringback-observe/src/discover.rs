//! Which files under the agents' directories matter, and what each one is, by its path alone.
//!
//! Owns: the layout of the agents' directories. Does not know: what is in the files, except that it never lists a
//! file whose name it does not recognise.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ringback_model::{SessionId, Timestamp};

use crate::registry::is_registry_file;

/// Directories are followed this deep below a root; agents nest at most five.
const DEPTH: usize = 8;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    // In the order in which several changed files are taken in: the registry tells before the transcripts do.
    Registry,
    ClaudeTranscript(SessionId),
    Rollout,
    /// With the session that the sub-agent belongs to.
    ClaudeSubAgent(SessionId),
    Sidecar,
}

/// The directories of the agents that are observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roots {
    claude: Vec<PathBuf>,
    codex: Vec<PathBuf>,
    desktop: Vec<PathBuf>,
}

/// A file that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) modified: Timestamp,
}

impl Roots {
    pub(crate) fn new(claude: &[PathBuf], codex: &[PathBuf], desktop: &[PathBuf]) -> Self {
        Roots { claude: distinct(claude), codex: distinct(codex), desktop: distinct(desktop) }
    }

    /// The directories to watch, whether they exist or not.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let claude = self.claude.iter().flat_map(|root| [root.join("projects"), root.join("sessions")]);
        let codex = self.codex.iter().map(|root| root.join("sessions"));
        claude.chain(codex).chain(self.desktop.iter().cloned()).collect()
    }

    /// What the file at `path` is; `None` = not ours to read.
    pub(crate) fn classify(&self, path: &Path) -> Option<Kind> {
        let under = |root: &PathBuf| path.strip_prefix(root).ok().map(Path::to_owned);
        if let Some(rest) = self.claude.iter().find_map(under) {
            return claude_file(&rest);
        }
        if let Some(rest) = self.codex.iter().find_map(under) {
            let name = path.file_name()?.to_str()?;
            let is_rollout = name.starts_with("rollout-") && name.ends_with(".jsonl");
            return (rest.starts_with("sessions") && is_rollout).then_some(Kind::Rollout);
        }
        let is_sidecar = self.desktop.iter().any(|root| path.starts_with(root))
            && path.extension().is_some_and(|e| e == "json");
        is_sidecar.then_some(Kind::Sidecar)
    }

    /// Every file of ours at or below `path`.
    pub(crate) fn walk(&self, path: &Path, out: &mut Vec<Found>) {
        self.walk_to(path, DEPTH, out);
    }

    fn walk_to(&self, path: &Path, depth: usize, out: &mut Vec<Found>) {
        // Links to files are followed, links to directories are not: a loop has no end.
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        if metadata.is_dir() {
            if depth == 0 {
                return;
            }
            let Ok(entries) = fs::read_dir(path) else { return };
            for entry in entries.flatten() {
                self.walk_to(&entry.path(), depth - 1, out);
            }
            return;
        }
        if let Some(kind) = self.classify(path)
            && let Ok(metadata) = fs::metadata(path)
            && metadata.is_file()
        {
            let modified = modified(&metadata);
            out.push(Found { kind, path: path.to_owned(), size: metadata.len(), modified });
        }
    }
}

/// When the file was last written; the beginning of time when the file system does not tell.
pub(crate) fn modified(metadata: &fs::Metadata) -> Timestamp {
    metadata.modified().map_or(Timestamp::MIN, timestamp)
}

/// A file system's time as ours.
pub(crate) fn timestamp(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn claude_file(rest: &Path) -> Option<Kind> {
    let parts: Vec<&str> = rest.iter().map(|part| part.to_str().unwrap_or_default()).collect();
    match *parts.as_slice() {
        ["sessions", name] if is_registry_file(name) => Some(Kind::Registry),
        // Older versions put sub-agents beside their parents.
        ["projects", _, name] if name.starts_with("agent-") => None,
        ["projects", _, name] => {
            let id = name.strip_suffix(".jsonl").filter(|id| !id.is_empty())?;
            Some(Kind::ClaudeTranscript(SessionId::new(id)))
        }
        ["projects", _, parent, "subagents", .., name]
            if name.starts_with("agent-") && name.ends_with(".jsonl") =>
        {
            Some(Kind::ClaudeSubAgent(SessionId::new(parent)))
        }
        _ => None,
    }
}

/// Each directory once, also when two names lead to it.
fn distinct(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    dirs.iter()
        .filter(|dir| seen.insert(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf())))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_files_are_ours_and_a_key_never_is() {
        let roots = Roots::new(&["/h/.claude".into()], &["/h/.codex".into()], &["/h/desk".into()]);
        let id = SessionId::new("abc");
        for (path, kind) in [
            ("/h/.claude/sessions/42.json", Some(Kind::Registry)),
            ("/h/.claude/sessions/42.0a1b.key", None),
            ("/h/.claude/sessions/pid-42.json", None),
            ("/h/.claude/sessions/.json", None),
            ("/h/.claude/projects/p/abc.jsonl", Some(Kind::ClaudeTranscript(id.clone()))),
            ("/h/.claude/projects/p/agent-1.jsonl", None),
            ("/h/.claude/projects/p/abc/subagents/agent-1.jsonl", Some(Kind::ClaudeSubAgent(id))),
            ("/h/.claude/projects/p/abc/subagents/agent-1.meta.json", None),
            ("/h/.claude/history.jsonl", None),
            ("/h/.codex/sessions/2026/11/22/rollout-x.jsonl", Some(Kind::Rollout)),
            ("/h/.codex/sessions/2026/11/22/notes.jsonl", None),
            ("/h/.codex/auth.json", None),
            ("/h/desk/a/b.json", Some(Kind::Sidecar)),
            ("/h/other.jsonl", None),
        ] {
            assert_eq!(roots.classify(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_directory_named_twice_is_read_once() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        fs::create_dir(home.path().join("real")).unwrap();
        std::os::unix::fs::symlink(home.path().join("real"), &link).unwrap();
        assert_eq!(distinct(&[home.path().join("real"), link.clone(), link]).len(), 1);
    }
}
