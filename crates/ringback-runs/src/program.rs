//! Where an agent's program is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::environment::Environment;

/// Where programs are looked for when there is no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a program may take to say its version, and how much it may say.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);
const VERSION_BYTES: u64 = 4096;

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

/// Asks a program for its `--version`: the first line of what it writes, at most 100 characters.
///
/// `None` = it says nothing, fails, or takes longer than ten seconds; it is ended then.
pub async fn version(program: &Path, env: &Environment) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "agents are started in this crate, and for this too")]
    let mut command = std::process::Command::new(program);
    command.arg("--version").env_clear().envs(env.iter());
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let out = child.stdout.take()?;
    let mut said = Vec::new();
    let asked = async {
        out.take(VERSION_BYTES).read_to_end(&mut said).await.ok()?;
        child.wait().await.ok().filter(std::process::ExitStatus::success)
    };
    tokio::time::timeout(VERSION_PATIENCE, asked).await.ok()??;
    let text = String::from_utf8_lossy(&said);
    let line: String = text.lines().next()?.trim().chars().take(100).collect();
    Some(line).filter(|line| !line.is_empty())
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_version_is_the_first_line_of_a_program_that_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let says = async |script: &str| {
            let path = dir.path().join("agent");
            let draft = dir.path().join("draft");
            fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&draft, &path).unwrap();
            version(&path, &Environment::default()).await
        };
        assert_eq!(says("echo \"1.2 $1\"; echo more").await.as_deref(), Some("1.2 --version"));
        for script in ["echo 1.2; exit 3", "exit 0", "echo"] {
            assert_eq!(says(script).await, None, "{script}");
        }
        let long = says("printf %01000d 7").await.map(|v| v.len());
        assert_eq!(long, Some(100));
    }

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
