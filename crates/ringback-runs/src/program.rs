//! Where an agent's program is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Finds the program of an argv: an absolute path as it stands, a bare name in the directories of `path`.
///
/// `None` = there is no such program, or it may not be run. Relative paths and relative entries of `path` are not
/// looked at: they would mean something else in each directory that a run has.
pub fn find_program(name: &str, path: Option<&str>) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| p.is_absolute() && is_program(p));
    }
    if name.is_empty() {
        return None;
    }
    std::env::split_paths(path.unwrap_or(DEFAULT_PATH))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_program_is_found_by_its_name_or_its_absolute_path_and_only_if_it_may_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("agent"), "").unwrap();
            fs::set_permissions(place.join("agent"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = format!("relative::{}:{}", first.display(), second.display());
        let agent = second.join("agent");
        assert_eq!(find_program("agent", Some(&path)), Some(agent.clone()));
        assert_eq!(find_program(agent.to_str().unwrap(), None), Some(agent));
        assert_eq!(find_program("sh", None).map(|p| p.ends_with("sh")), Some(true));
        for missing in ["", "no-such-agent", "second/agent", "./agent", first.join("agent").to_str().unwrap()]
        {
            assert_eq!(find_program(missing, Some(&path)), None, "{missing}");
        }
    }
}
