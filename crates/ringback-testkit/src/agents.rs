//! The installed agent CLIs, run against a [`ModelServer`].

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::home::Home;
use crate::model_server::ModelServer;
use crate::program::Program;

/// The variable that names the directory whose `node_modules/.bin` holds the CLIs. `cargo xtask test` sets it.
const PLACE: &str = "RINGBACK_AGENTS";

/// Claude Code, Codex and OpenCode, as pinned in `agents/package.json`.
pub struct Agents {
    bin: PathBuf,
}

impl Agents {
    /// The CLIs, or `None` after saying loudly that the test named here is skipped. Panics when they are named but
    /// not there, and on a build server when they are not named either: there nothing may be skipped.
    pub fn installed(test: &str) -> Option<Agents> {
        let Some(place) = std::env::var_os(PLACE) else {
            skipped(test, &format!("{PLACE} is not set; `cargo xtask test` installs the agents and sets it"));
            return None;
        };
        let bin = Path::new(&place).join("node_modules/.bin");
        for name in ["claude", "codex"] {
            assert!(bin.join(name).exists(), "{PLACE} is set, but there is no {}", bin.join(name).display());
        }
        Some(Agents { bin })
    }

    /// Where the CLI `claude` is, for whoever starts it by itself.
    pub fn claude_path(&self) -> PathBuf {
        self.bin.join("claude")
    }

    /// Starts `claude -p PROMPT` with `args` after it, in the home's project and in its usual stream of JSON lines.
    /// Reading, writing, searching and Bash are allowed.
    pub fn claude(&self, home: &Home, model: &ModelServer, prompt: &str, args: &[&str]) -> Program {
        let mut all = vec!["-p", prompt, "--output-format", "stream-json", "--verbose", "--model", "sonnet"];
        all.extend_from_slice(args);
        // The flag takes any number of values: it stays the last one.
        all.extend(["--allowedTools", "Read,Edit,Write,Bash,Grep,Glob"]);
        let url = model.url();
        let env = [
            ("ANTHROPIC_BASE_URL", url.as_str()),
            ("ANTHROPIC_API_KEY", "dummy"),
            ("DISABLE_TELEMETRY", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ];
        home.spawn_with(self.bin.join("claude"), &all, &env)
    }

    /// Where the CLI `codex` is, for whoever starts it by itself.
    pub fn codex_path(&self) -> PathBuf {
        self.bin.join("codex")
    }

    /// Where the CLI `opencode` is; `None` after saying that the test named here is skipped: it is pinned for Linux on
    /// x64 alone.
    pub fn opencode_path(&self, test: &str) -> Option<PathBuf> {
        let path = self.bin.join("../opencode-linux-x64-baseline/bin/opencode");
        match path.canonicalize() {
            Ok(path) => Some(path),
            Err(_) => {
                skipped(test, &format!("there is no {}", path.display()));
                None
            }
        }
    }

    /// Makes Codex in this home talk to `model`, as the model `name`, with the key in the variable `SCRIPTED_KEY`.
    pub fn configure_codex(&self, home: &Home, model: &ModelServer, name: &str) {
        let config = format!(
            "model = \"{name}\"\nmodel_provider = \"scripted\"\n\n[model_providers.scripted]\nname = \"scripted\"\n\
             base_url = \"{}/v1\"\nwire_api = \"responses\"\nenv_key = \"SCRIPTED_KEY\"\n",
            model.url()
        );
        home.write(".codex/config.toml", config);
    }

    /// Starts `codex exec --json PROMPT` with `args` before the prompt, in the home's project. `name` is the model
    /// that Codex believes to talk to: `gpt-6.1-sol` gets its code mode (one tool, `exec`), `gpt-5.5` the plain tools.
    pub fn codex(
        &self,
        home: &Home,
        model: &ModelServer,
        name: &str,
        prompt: &str,
        args: &[&str],
    ) -> Program {
        self.configure_codex(home, model, name);
        let mut all = vec!["exec", "--json", "--sandbox", "danger-full-access"];
        all.extend_from_slice(args);
        all.push(prompt);
        home.spawn_with(self.bin.join("codex"), &all, &[("SCRIPTED_KEY", "dummy")])
    }
}

/// Says on standard error that a test does not run here. Panics on a build server (`CI=true`).
pub fn skipped(test: &str, why: &str) {
    assert!(!is_ci(), "{test} would be skipped, which is not allowed with CI=true: {why}");
    // Written past the capture of the test runner: a skip that nobody sees is a hole in the tests.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

/// Whether this is a build server.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true" || v == "1")
}
