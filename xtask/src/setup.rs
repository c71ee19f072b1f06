//! A directory below `target/` that is filled from pinned lists, once per content of those lists.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{command, run, say, target_dir};

/// Makes `target/NAME` hold what `install` puts there. The lists are copied in first, so that the tools work beside
/// them and the repository stays clean. When the same lists are installed already, nothing is done.
pub(crate) fn installed(
    name: &str,
    lists: &[PathBuf],
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let dir = target_dir().join(name);
    let stamp = dir.join("installed.stamp");
    let mut pinned = String::new();
    for list in lists {
        let text = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
        pinned.push_str(&text);
    }
    if fs::read_to_string(&stamp).is_ok_and(|done| done == pinned) {
        return Ok(dir);
    }
    say(&format!("installing {name} into {}", dir.display()));
    let _ = fs::remove_file(&stamp);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for list in lists {
        let copy = dir.join(list.file_name().context("a list has a file name")?);
        fs::copy(list, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    install(&dir)?;
    fs::write(&stamp, pinned).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(dir)
}

/// Installs exactly what the `package-lock.json` in `dir` says.
pub(crate) fn npm_ci(dir: &Path) -> Result<()> {
    let args = ["ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=5"];
    run(command("npm", &args).current_dir(dir))
}
