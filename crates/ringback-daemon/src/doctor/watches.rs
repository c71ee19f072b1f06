//! How many file watches there may be, how many there are, and how many a daemon needs.

use std::path::{Path, PathBuf};

use super::facts::Watches;

/// As deep as the observer looks.
const DEPTH: usize = 8;
/// Beyond this the answer is clear.
const ENOUGH: u64 = 1_000_000;

/// The limits, and what is in use by this user's programs. `None` = this system has no such limits.
pub(super) fn look(roots: &[PathBuf], has_daemon: bool) -> Option<Watches> {
    let limit = |name: &str| -> Option<u64> {
        std::fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(name)).ok()?.trim().parse().ok()
    };
    let mut watches = Watches {
        max_watches: limit("max_user_watches")?,
        max_instances: limit("max_user_instances")?,
        ..Watches::default()
    };
    for process in entries(Path::new("/proc")) {
        for descriptor in entries(&process.join("fd")) {
            // Others' processes cannot be looked into, and their watches do not count for us.
            let is_inotify =
                std::fs::read_link(&descriptor).is_ok_and(|to| to.as_os_str() == "anon_inode:inotify");
            if let Some(number) = descriptor.file_name().filter(|_| is_inotify) {
                let info = std::fs::read_to_string(process.join("fdinfo").join(number)).unwrap_or_default();
                watches.used_instances += 1;
                watches.used_watches += info.lines().filter(|l| l.starts_with("inotify ")).count() as u64;
            }
        }
    }
    if !has_daemon {
        watches.needed_watches =
            roots.iter().fold(0, |sum, root| sum + directories(root, DEPTH, ENOUGH - sum));
    }
    Some(watches)
}

/// The directories at and below `path`, itself included; links are not followed.
fn directories(path: &Path, depth: usize, enough: u64) -> u64 {
    if depth == 0 || enough == 0 || !std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        return 0;
    }
    let mut count = 1;
    for entry in entries(path) {
        count += directories(&entry, depth - 1, enough.saturating_sub(count));
    }
    count
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_needed_for_each_directory_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/file"), "").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("a/loop")).unwrap();
        assert_eq!(directories(dir.path(), DEPTH, ENOUGH), 3);
        assert_eq!(directories(dir.path(), DEPTH, 2), 2, "no further than enough");
        assert_eq!(directories(&dir.path().join("none"), DEPTH, ENOUGH), 0);
    }
}
