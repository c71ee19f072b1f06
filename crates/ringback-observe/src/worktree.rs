//! Whether a directory lies in a linked git worktree, by git's own files.

use std::fs;
use std::path::Path;

/// Longest `.git` file read.
const FILE_BYTES: usize = 4096;

/// The repository that the linked worktree around `dir` belongs to; `None` when it is in none.
pub(crate) fn main_repo(dir: &Path) -> Option<String> {
    let git = dir.ancestors().map(|a| a.join(".git")).find(|git| git.exists())?;
    if !git.is_file() || git.metadata().is_ok_and(|m| m.len() > FILE_BYTES as u64) {
        return None;
    }
    let text = fs::read_to_string(&git).ok()?;
    let target = Path::new(text.trim().strip_prefix("gitdir:")?.trim());
    let target = git.parent()?.join(target);
    // REPOSITORY/.git/worktrees/NAME; a submodule points into .git/modules.
    let worktrees = target.parent()?;
    if worktrees.file_name()? != "worktrees" {
        return None;
    }
    let dot_git = worktrees.parent()?;
    Some(dot_git.parent()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_worktree_names_its_main_repository() {
        let home = tempfile::tempdir().unwrap();
        let (main, linked) = (home.path().join("main"), home.path().join("linked"));
        fs::create_dir_all(main.join(".git/worktrees/linked")).unwrap();
        fs::create_dir_all(linked.join("src/deep")).unwrap();
        fs::write(linked.join(".git"), format!("gitdir: {}/.git/worktrees/linked\n", main.display()))
            .unwrap();
        assert_eq!(main_repo(&linked.join("src/deep")).as_deref(), main.to_str());
        assert_eq!(main_repo(&main), None);
    }

    #[test]
    fn a_submodule_is_no_worktree() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(".git"), "gitdir: ../.git/modules/x\n").unwrap();
        assert_eq!(main_repo(home.path()), None);
    }
}
