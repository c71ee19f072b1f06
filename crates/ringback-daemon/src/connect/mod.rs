//! Puts ringback's entry into an agent's own hook settings, and takes it out again.
//!
//! Owns: the steps of `ringback connect claude` and `ringback disconnect claude`, and what is remembered between
//! the two. Settings are edited as text, never written anew from a parsed value, so every byte that is not ours
//! stays. Does not know what the hook does when the agent calls it: its rules are in [`hand_over`], and the
//! command asks the daemon.

use std::path::{Path, PathBuf};

use file::Found;
use record::{Connected, Inserted, Record};
pub use settings::{Change, Containers, Edited, InvalidSettings, insert, remove};

pub(crate) mod file;
pub mod hand_over;
mod record;
mod scan;
mod settings;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// What the agent is told to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Absolute path of the ringback binary.
    pub binary: PathBuf,
    /// Absolute path of the configuration in force; `None` = the default one.
    pub config: Option<PathBuf>,
}

/// What was done, or with a dry run would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The agent's settings file, as the agent names it (a link stays a link).
    pub path: PathBuf,
    /// Unified diff of the settings; empty when nothing changes. `/dev/null` stands for a file that is not there.
    pub diff: String,
    /// Whether there was anything to do.
    pub changed: bool,
}

/// The settings cannot be edited; they are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not what the agent itself could read.
    #[error("{path} is {cause}; mend it first, nothing was changed")]
    Invalid {
        /// The settings file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: InvalidSettings,
    },
    /// The file is of a kind that is not edited.
    #[error("{path} {why}; nothing was changed")]
    Unfit {
        /// The settings file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another program wrote the file while it was being edited.
    #[error("{path} was changed by another program at the same moment; run the command again")]
    Raced {
        /// The settings file.
        path: PathBuf,
    },
    /// The path of the binary or of the configuration cannot be written into the settings.
    #[error("the path {path:?} {why}, so the agent could not call it")]
    Uncallable {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot use {path}: {kind}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
}

impl HandOver {
    /// The command line, each path quoted for the shell: `'/bin/ringback' --config '/etc/r.toml' hand-over claude`.
    ///
    /// # Errors
    /// A path is relative or not UTF-8.
    pub fn shell_line(&self) -> Result<String, Error> {
        let mut line = quote(&self.binary)?;
        if let Some(config) = &self.config {
            line.push_str(" --config ");
            line.push_str(&quote(config)?);
        }
        line.push(' ');
        line.push_str(settings::MARKER);
        Ok(line)
    }
}

/// Puts the entry into `settings.json` of Claude Code's directory, or brings the one that is there up to date.
///
/// A missing file is made (0600; directories 0700). With `dry_run` nothing is written anywhere.
///
/// # Errors
/// The settings are not valid JSON or of another shape, another program writes them, or a file cannot be used;
/// the settings are then unchanged.
pub fn connect(
    agent_dir: &Path,
    state_dir: &Path,
    command: &HandOver,
    dry_run: bool,
) -> Result<Report, Error> {
    let line = command.shell_line()?;
    let path = settings_path(agent_dir)?;
    let found = file::read(&path)?;
    let before = found.as_ref().map(|f| f.text.as_str());
    let edited = insert(before.unwrap_or(EMPTY_SETTINGS), &line)
        .map_err(|cause| Error::Invalid { path: path.clone(), cause })?;
    if edited.change == Change::None {
        return Ok(Report::nothing(path));
    }
    let report = Report::of(&path, before, Some(&edited.text));
    if dry_run {
        return Ok(report);
    }
    let old = Record::read(state_dir)?;
    let missing = if found.is_none() { file::missing_directories(agent_dir) } else { Vec::new() };
    let connected = describe(&path, &edited, old.get(&path), before, &missing);
    // The record goes first: a crash in between then leaves a record of nothing, which harms nobody, and not an
    // entry whose surroundings nobody remembers.
    old.with(connected).write(state_dir)?;
    let written = match &found {
        Some(found) => file::replace(found, &edited.text),
        None => file::create(&path, &missing, &edited.text),
    };
    if let Err(error) = written {
        old.write(state_dir)?;
        return Err(error);
    }
    Ok(report)
}

/// Takes the entry out of `settings.json` of Claude Code's directory.
///
/// Settings untouched since [`connect`] become what they were, byte for byte; of others exactly our handlers go,
/// with the containers that were made for them. With `dry_run` nothing is written anywhere.
///
/// # Errors
/// As [`connect`].
pub fn disconnect(agent_dir: &Path, state_dir: &Path, dry_run: bool) -> Result<Report, Error> {
    let path = settings_path(agent_dir)?;
    let record = Record::read(state_dir)?;
    let connected = record.get(&path);
    let Some(found) = file::read(&path)? else {
        forget(&record, &path, state_dir, dry_run)?;
        return Ok(Report::nothing(path));
    };
    let after =
        without_entry(&found, connected).map_err(|cause| Error::Invalid { path: path.clone(), cause })?;
    if after.as_deref() == Some(found.text.as_str()) {
        forget(&record, &path, state_dir, dry_run)?;
        return Ok(Report::nothing(path));
    }
    let report = Report::of(&path, Some(&found.text), after.as_deref());
    if dry_run {
        return Ok(report);
    }
    match &after {
        Some(text) => file::replace(&found, text)?,
        None => {
            file::delete(&found)?;
            file::delete_empty(connected.map_or(&[], |c| c.created.directories.as_slice()));
        }
    }
    forget(&record, &path, state_dir, dry_run)?;
    Ok(report)
}

/// What a settings file holds that is not there yet.
const EMPTY_SETTINGS: &str = "{}\n";

/// The settings as they were before the entry; `None` = there was no file.
fn without_entry(found: &Found, connected: Option<&Connected>) -> Result<Option<String>, InvalidSettings> {
    // A link in place of the file we made is somebody's arrangement: the file behind it stays.
    let may_delete = connected.is_some_and(|c| c.created.file) && !found.is_link;
    if let Some(original) = connected.and_then(|c| c.original(&found.text)) {
        return Ok(Some(original).filter(|_| !may_delete));
    }
    let containers = connected.map(|c| c.created.containers).unwrap_or_default();
    let text = remove(&found.text, containers)?;
    let empty = may_delete && settings::is_empty(&text)?;
    Ok(Some(text).filter(|_| !empty))
}

/// What has to be remembered of an edit.
fn describe(
    path: &Path,
    edited: &Edited,
    old: Option<&Connected>,
    before: Option<&str>,
    missing: &[PathBuf],
) -> Connected {
    let mut created = old.map(|c| c.created.clone()).unwrap_or_default();
    let inserted = match &edited.change {
        Change::Inserted { span, containers } => {
            created.containers = *containers;
            created.file = before.is_none();
            created.directories.extend_from_slice(missing);
            Some(Inserted { at: span.start, len: span.len() })
        }
        // What was inserted first only grows or shrinks, if nobody touched the file in between.
        Change::Updated { old: was, new: is } => old
            .filter(|c| before.is_some_and(|b| c.original(b).is_some()))
            .and_then(|c| c.inserted)
            .filter(|i| i.at <= was.start && was.end <= i.at + i.len)
            .map(|i| Inserted { at: i.at, len: i.len - was.len() + is.len() }),
        Change::None | Change::Merged => None,
    };
    Connected { settings: path.to_owned(), sha256: record::sha256(&edited.text), inserted, created }
}

fn forget(record: &Record, path: &Path, state_dir: &Path, dry_run: bool) -> Result<(), Error> {
    if dry_run || record.get(path).is_none() {
        return Ok(());
    }
    record.without(path).write(state_dir)
}

fn settings_path(agent_dir: &Path) -> Result<PathBuf, Error> {
    let path = agent_dir.join("settings.json");
    std::path::absolute(&path).map_err(|e| Error::Io { path, kind: e.kind() })
}

/// One word of a POSIX shell, whatever it holds.
fn quote(path: &Path) -> Result<String, Error> {
    let refused = |why| Error::Uncallable { path: path.to_owned(), why };
    if !path.is_absolute() {
        return Err(refused("is relative"));
    }
    let text = path.to_str().ok_or_else(|| refused("is not UTF-8"))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

impl Report {
    fn nothing(path: PathBuf) -> Report {
        Report { path, diff: String::new(), changed: false }
    }

    fn of(path: &Path, before: Option<&str>, after: Option<&str>) -> Report {
        let name = |text: Option<&str>| match text {
            Some(_) => path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        let diff = similar::TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default())
            .unified_diff()
            .context_radius(3)
            .header(&name(before), &name(after))
            .to_string();
        Report { path: path.to_owned(), diff, changed: true }
    }
}
