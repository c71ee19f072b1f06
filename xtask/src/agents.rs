//! The real agent CLIs, pinned in `agents/`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::{command, output, root, run};
use crate::setup::{installed, npm_ci};

/// The directory whose `node_modules/.bin` holds the CLIs.
pub(crate) fn provide() -> Result<PathBuf> {
    let lists = ["package.json", "package-lock.json"].map(|list| root().join("agents").join(list));
    installed("agents", &lists, |dir| {
        npm_ci(dir)?;
        if !works(dir, "claude") {
            // npm may be set up to run no install scripts; this one puts the native binary in its place.
            let place = dir.join("node_modules/@anthropic-ai/claude-code");
            run(command("node", &["install.cjs"]).current_dir(place))?;
        }
        for name in ["claude", "codex"] {
            if !works(dir, name) {
                bail!("{name} is installed in {}, but does not run", dir.display());
            }
        }
        Ok(())
    })
}

fn works(dir: &Path, name: &str) -> bool {
    output(&mut command(dir.join("node_modules/.bin").join(name), &["--version"])).is_some()
}
