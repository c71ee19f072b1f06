//! The directory of hook files: read at start, and again whenever something in it changes.
//!
//! Owns: which files are hooks, which of two with one slug is in force, and that a file which cannot be used keeps its
//! last good reading. Readers take the table as a whole: an edit never shows them half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::changes::Changes;
use crate::config;
use crate::env::Env;

use super::Hook;
use super::file::{Surroundings, parse};

/// The longest file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// The most files.
const MAX_FILES: usize = 1000;
/// What one look at the directory gave.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Hooks in force, by slug.
    pub(crate) hooks: BTreeMap<String, Arc<Hook>>,
    /// The last good reading of every file that is there, by file name.
    files: BTreeMap<String, Arc<Hook>>,
    /// Files that are not in force as they stand, in words that begin with the file's name.
    pub(crate) problems: Vec<String>,
    /// What else there is to say, likewise.
    pub(crate) warnings: Vec<String>,
    /// Variables that hold secrets, also of files that are not in force.
    pub(crate) variables: BTreeSet<String>,
}

impl Loaded {
    /// One line per hook, for the start.
    pub(crate) fn lines(&self) -> Vec<String> {
        let sender = |hook: &Hook| hook.sender().unwrap_or("bearer").to_owned();
        let hooks = self.hooks.values();
        hooks
            .map(|hook| format!("hook       /hook/{}  {}  {}", hook.slug, sender(hook), shown(&hook.file)))
            .collect()
    }

    fn warn(&self, before: &Loaded) {
        let is_news = |line: &&String| !before.problems.contains(line) && !before.warnings.contains(line);
        for line in self.problems.iter().chain(&self.warnings).filter(is_news) {
            tracing::warn!("hook file {line}");
        }
    }
}

/// The hooks that are in force now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Arc<RwLock<Arc<Loaded>>>);

impl Declared {
    pub(crate) fn now(&self) -> Arc<Loaded> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put(&self, loaded: Arc<Loaded>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }
}

/// Reads the directory; `before` is what the last look gave.
pub(crate) fn load(around: &Surroundings<'_>, before: &Loaded) -> Loaded {
    let mut loaded = Loaded::default();
    let paths = paths(around.directory);
    if paths.len() > MAX_FILES {
        loaded.problems.push(format!("there are {} hook files; the first {MAX_FILES} are read", paths.len()));
    }
    for path in paths.into_iter().take(MAX_FILES) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
        let broken = |errors: &[String]| format!("{}: {}", shown(&name), errors.join("; "));
        let hook = match read(&path) {
            Ok(text) => parse(&name, &text, around),
            Err(error) => Err(super::file::Broken { errors: vec![error], variables: BTreeSet::new() }),
        };
        let hook = match hook {
            Ok(hook) => Arc::new(hook),
            Err(error) => {
                loaded.variables.extend(error.variables);
                let kept = before.files.get(&name);
                let rest = if kept.is_some() { "; its last good version stays in force" } else { "" };
                loaded.problems.push(format!("{}{rest}", broken(&error.errors)));
                let Some(kept) = kept else { continue };
                Arc::clone(kept)
            }
        };
        loaded.variables.extend(hook.variables.iter().cloned());
        loaded.files.insert(name.clone(), Arc::clone(&hook));
        match loaded.hooks.get(&hook.slug) {
            Some(first) => {
                let why =
                    format!("the id {} is taken by {}; this file is not used", hook.slug, shown(&first.file));
                loaded.problems.push(broken(&[why]));
            }
            None => {
                loaded.warnings.extend(hook.warnings.iter().map(|w| format!("{}: {w}", shown(&name))));
                let unset = hook.unset.iter().map(|u| format!("{}: {u}", shown(&name)));
                let end = if hook.has_secret() { "" } else { "; every call gets 401" };
                loaded.warnings.extend(unset.map(|u| format!("{u}{end}")));
                loaded.hooks.insert(hook.slug.clone(), hook);
            }
        }
    }
    loaded
}

/// The directory of hook files; `None`: there is none for configuration.
pub(crate) fn directory(env: &Env) -> Option<PathBuf> {
    Some(config::directory(env)?.join("hooks"))
}

/// Where the hook files are, whether the directory is there or not; `None`: HOME is not set.
pub fn hooks_directory(env: &Env) -> Option<PathBuf> {
    directory(env)
}

/// The file that is the hook of a slug, by its own name.
pub fn file_of(slug: &str, config: &config::Config, env: &Env) -> Option<String> {
    look_once(config, env).hooks.get(slug).map(|hook| shown(&hook.file))
}

/// One look without a daemon.
pub(crate) fn look_once(config: &config::Config, env: &Env) -> Loaded {
    let Some(directory) = directory(env) else { return Loaded::default() };
    let (env, allow_unsigned) = (&config.with_dotenv(env), config.inbound.allow_unsigned);
    load(&Surroundings { env, directory: &directory, allow_unsigned, runs: &config.runs }, &Loaded::default())
}

/// What is wrong and what is odd about one file, wherever it lies.
///
/// # Errors
/// It is no hook.
pub fn check(path: &Path, config: &config::Config, env: &Env) -> Result<Checked, Vec<String>> {
    let hook = read_file(path, config, env)?;
    let warnings = hook.warnings.iter().chain(&hook.unset).cloned().collect();
    Ok(Checked { slug: hook.slug, warnings })
}

/// One file, wherever it lies.
pub(super) fn read_file(path: &Path, config: &config::Config, env: &Env) -> Result<Hook, Vec<String>> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let text = read(path).map_err(|error| vec![error])?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let (env, allow_unsigned) = (&config.with_dotenv(env), config.inbound.allow_unsigned);
    let around = Surroundings { env, directory, allow_unsigned, runs: &config.runs };
    parse(name, &text, &around).map_err(|broken| broken.errors)
}

/// A file that is a hook.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The last part of its path.
    pub slug: String,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// The hook files, by name.
fn paths(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_hook = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // Editors put their own files beside ours; a pipe or a device would never end.
        name.ends_with(".md") && !name.starts_with('.') && path.is_file()
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_hook).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("cannot be read: {}", error.kind());
    if std::fs::metadata(path).map_err(told)?.len() > MAX_FILE {
        return Err("is longer than 256 KiB".to_owned());
    }
    std::fs::read_to_string(path).map_err(told)
}

fn shown(name: &str) -> String {
    ringback_model::escape::escaped_and_cut(name, 100)
}

/// Follows the directory.
pub(crate) struct Follower {
    place: Arc<Place>,
    declared: Declared,
    changes: Changes,
}

/// What files are read with, each time.
struct Place {
    env: Env,
    directory: PathBuf,
    allow_unsigned: bool,
    runs: config::Runs,
}

impl Place {
    fn load(&self, before: &Loaded) -> Loaded {
        let around = Surroundings {
            env: &self.env,
            directory: &self.directory,
            allow_unsigned: self.allow_unsigned,
            runs: &self.runs,
        };
        load(&around, before)
    }
}

impl Follower {
    /// Reads the directory for the first time.
    pub(crate) fn new(directory: PathBuf, allow_unsigned: bool, env: Env, runs: config::Runs) -> Follower {
        let mut follower = Follower {
            place: Arc::new(Place { env, directory, allow_unsigned, runs }),
            declared: Declared::default(),
            changes: Changes::new("the hooks"),
        };
        follower.watch();
        let first = follower.place.load(&Loaded::default());
        first.warn(&Loaded::default());
        follower.declared.put(Arc::new(first));
        follower.watch();
        follower
    }

    /// The table that it keeps.
    pub(crate) fn declared(&self) -> Declared {
        self.declared.clone()
    }

    /// Keeps the table until `stop` turns true. `seen` is told of every reading before it is in force.
    pub(crate) async fn run(mut self, seen: impl Fn(&Loaded) + Send, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = self.changes.settled() => {}
                _ = stop.changed() => continue,
            }
            self.watch();
            let before = self.declared.now();
            let (place, known) = (Arc::clone(&self.place), Arc::clone(&before));
            // A secret may be in a pipe, or on a file system that does not answer.
            let loading = tokio::task::spawn_blocking(move || place.load(&known));
            let loaded = tokio::select! {
                loaded = loading => loaded,
                _ = stop.changed() => continue,
            };
            let Ok(loaded) = loaded.inspect_err(|error| tracing::error!(%error, "hooks could not be loaded"))
            else {
                continue;
            };
            seen(&loaded);
            loaded.warn(&before);
            self.declared.put(Arc::new(loaded));
            self.watch();
        }
    }

    fn secret_files(&self) -> BTreeSet<PathBuf> {
        self.declared.now().files.values().flat_map(|hook| hook.secret_files.iter().cloned()).collect()
    }

    fn watch(&mut self) {
        let mut files = self.secret_files();
        files.insert(self.place.directory.join("any.md"));
        self.changes.watch(files.iter());
    }
}
