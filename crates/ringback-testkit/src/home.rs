//! A home directory of its own, with an environment that inherits nothing but the search path.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::Daemon;
use crate::program::Program;

/// A temporary home in which ringback and the agents run. It goes away when dropped.
///
/// Below it: `project` (a git repository with one commit), `.config`, `.local/state`, `.claude`, `.codex`, `tmp`.
pub struct Home {
    /// Keeps the directory.
    _dir: TempDir,
    /// With every link resolved, as agents write it into their files.
    path: PathBuf,
    env: BTreeMap<String, String>,
}

impl Home {
    /// Makes the directories and the git repository. Needs `git`.
    #[expect(
        clippy::new_without_default,
        reason = "it makes directories and starts git: more than a default"
    )]
    pub fn new() -> Home {
        let dir = TempDir::with_prefix("ringback-").expect("a temporary directory can be made");
        let path = dir.path().canonicalize().expect("a new directory can be resolved");
        let env = environment(&path);
        let home = Home { _dir: dir, path, env };
        for below in ["project", ".config/ringback", ".local/state", ".claude", ".codex", "tmp"] {
            fs::create_dir_all(home.path.join(below)).expect("a directory can be made in a new home");
        }
        home.write("project/README.md", "# demo\n");
        for args in [
            &["init", "--quiet", "--initial-branch", "main"][..],
            &["add", "README.md"],
            &["commit", "--quiet", "--message", "first"],
        ] {
            home.git(args);
        }
        home
    }

    /// The home directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The git repository in it.
    pub fn project(&self) -> PathBuf {
        self.path.join("project")
    }

    /// Where ringback keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.path.join(".local/state/ringback")
    }

    /// Where ringback looks for its configuration.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(".config/ringback/config.toml")
    }

    /// The whole environment that programs get.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Adds a variable to the environment of programs started from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Writes ringback's configuration (TOML), readable by its owner alone.
    pub fn write_config(&self, text: &str) -> PathBuf {
        let path = self.config_path();
        // Renamed into place: a running daemon watches the file and must never see half of it.
        let half = path.with_extension("toml.new");
        fs::write(&half, text).expect("the configuration can be written");
        fs::set_permissions(&half, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        fs::rename(&half, &path).expect("it can be moved into place");
        path
    }

    /// Writes a file below the home, with the directories that it needs.
    pub fn write(&self, below: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(below);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory can be made in the home");
        }
        fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }

    /// Makes a named pipe below the home, in a directory that is there, and returns its path.
    pub fn fifo(&self, below: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(below);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
        path
    }

    /// Reads a file below the home; `None` when it is not there.
    pub fn read(&self, below: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path.join(below)).ok()
    }

    /// Starts a program in the project, with this home's environment and nothing else.
    pub fn spawn<A: AsRef<str>>(&self, program: impl AsRef<Path>, args: &[A]) -> Program {
        self.spawn_with(program, args, &[])
    }

    /// The same, with more variables.
    pub fn spawn_with<A: AsRef<str>>(
        &self,
        program: impl AsRef<Path>,
        args: &[A],
        more: &[(&str, &str)],
    ) -> Program {
        let mut command = Command::new(program.as_ref());
        command.args(args.iter().map(AsRef::as_ref)).current_dir(self.project());
        command.env_clear().envs(&self.env).envs(more.iter().copied());
        Program::start(command)
    }

    /// Starts `ringback up` with this home's configuration and waits until it is ready. The binary is
    /// `env!("CARGO_BIN_EXE_ringback")` in the tests of its own crate.
    pub async fn up(&self, binary: impl AsRef<Path>) -> Daemon {
        Daemon::start(self, binary.as_ref()).await
    }

    fn git(&self, args: &[&str]) {
        #[expect(clippy::disallowed_methods, reason = "a short-lived git, started by a test")]
        let mut command = std::process::Command::new("git");
        command.args(args).current_dir(self.project()).env_clear().envs(&self.env);
        let status = command.status().unwrap_or_else(|e| panic!("cannot start git: {e}"));
        assert!(status.success(), "git {args:?} failed: {status}");
    }
}

fn environment(home: &Path) -> BTreeMap<String, String> {
    let at = |below: &str| home.join(below).to_string_lossy().into_owned();
    let search = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    [
        ("PATH", search),
        ("HOME", home.to_string_lossy().into_owned()),
        ("TMPDIR", at("tmp")),
        ("XDG_CONFIG_HOME", at(".config")),
        ("XDG_STATE_HOME", at(".local/state")),
        ("XDG_DATA_HOME", at(".local/share")),
        ("XDG_CACHE_HOME", at(".cache")),
        ("CLAUDE_CONFIG_DIR", at(".claude")),
        ("CODEX_HOME", at(".codex")),
        ("LANG", "C.UTF-8".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("NO_COLOR", "1".to_owned()),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ("GIT_AUTHOR_NAME", "Test".to_owned()),
        ("GIT_AUTHOR_EMAIL", "test@example.com".to_owned()),
        ("GIT_COMMITTER_NAME", "Test".to_owned()),
        ("GIT_COMMITTER_EMAIL", "test@example.com".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
