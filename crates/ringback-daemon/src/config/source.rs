//! Where the configuration comes from, to read it again while the daemon runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Config, Error, directory, find, load, load_text, text_of};
use crate::env::Env;

/// Where the configuration comes from.
#[derive(Clone)]
pub struct Source {
    given: Option<PathBuf>,
    env: Env,
}

impl Source {
    /// As [`load`] finds it.
    pub fn new(given: Option<&Path>, env: &Env) -> Source {
        Source { given: given.map(Path::to_owned), env: env.clone() }
    }

    /// Reads it again.
    ///
    /// # Errors
    /// As [`load`]; and the file that `present` came from is gone or empty: a program that replaces it may have got
    /// that far.
    pub fn load(&self, present: &Config) -> Result<Config, Error> {
        let Some(path) = find(self.given.as_deref(), &self.env) else {
            return match &present.path {
                Some(path) => {
                    Err(Error::Unreadable { path: path.clone(), kind: std::io::ErrorKind::NotFound })
                }
                None => load(None, &self.env),
            };
        };
        // Read once: another look could see what the next program writes.
        let text = text_of(&path)?;
        // Many programs empty a file before they write it.
        if text.trim().is_empty() {
            return Err(Error::Empty { path });
        }
        load_text(&text, &path, &self.env)
    }

    /// The files whose change may change the configuration, whether they are there or not. Links are named and
    /// followed.
    pub fn files(&self, present: &Config) -> BTreeSet<PathBuf> {
        let mut files: BTreeSet<PathBuf> = present.files.iter().cloned().collect();
        let found = present.path.clone().or_else(|| find(self.given.as_deref(), &self.env));
        match found {
            Some(path) => {
                files.insert(path.with_file_name(".env"));
                files.insert(path);
            }
            None => {
                let directory = directory(&self.env).into_iter();
                files.extend(directory.flat_map(|d| ["config.toml", "config.json"].map(|name| d.join(name))));
            }
        }
        let ends: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
        files.extend(files.iter().filter_map(|file| std::path::absolute(file).ok()).collect::<Vec<_>>());
        files.extend(ends);
        files.retain(|file| file.is_absolute());
        files
    }
}

impl Config {
    /// The sections in which `new` differs from this in a way that only the next start takes in.
    pub fn fixed_at_start(&self, new: &Config) -> Vec<&'static str> {
        let sections = |c: &Config| {
            [
                ("server", format!("{:?} {:?}", c.listen, c.allowed_hosts)),
                ("api_salt", format!("{:?}", c.salt)),
                (
                    "the observed agents",
                    format!(
                        "{:?} {:?} {:?} {:?}",
                        c.agents, c.claude_dirs, c.codex_homes, c.exclude_cwd_substrings
                    ),
                ),
                ("sessions", format!("{:?}", c.window)),
                ("activity", format!("{:?}", c.rules)),
                ("delivery", format!("{:?}", c.delivery)),
                ("inbound", format!("{:?}", c.inbound)),
                ("runs", format!("{:?}", c.runs)),
                ("ping_budget", format!("{:?}", c.ping_budget)),
                ("notify", format!("{:?}", c.notify)),
            ]
        };
        let (old, new) = (sections(self), sections(new));
        old.into_iter().zip(new).filter(|(old, new)| old.1 != new.1).map(|(old, _)| old.0).collect()
    }
}
