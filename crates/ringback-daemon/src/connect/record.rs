//! What is remembered of a connection until it is undone: `connect/claude.json` in the state directory (0600).
//!
//! Owns: that file. It holds places and a checksum, never the settings themselves, which may hold secrets. An
//! unreadable or missing record costs only the exact way back: entries are then found by their shape.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::file;
use super::{Containers, Error};

/// All settings files that hold an entry of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    connected: Vec<Connected>,
}

/// One settings file after our change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connected {
    /// Absolute path, as the agent names it.
    pub(super) settings: PathBuf,
    /// SHA-256 of the text after our change, in hexadecimal.
    pub(super) sha256: String,
    /// What to take out to get the text before; `None` = it was changed by others between our changes.
    pub(super) inserted: Option<Inserted>,
    pub(super) created: Created,
}

/// The span that is ours, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inserted {
    pub(super) at: usize,
    pub(super) len: usize,
}

/// What was made for the entry and may go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Created {
    /// The settings file itself.
    pub(super) file: bool,
    /// Directories around it, outermost first.
    pub(super) directories: Vec<PathBuf>,
    pub(super) containers: Containers,
}

impl Connected {
    /// The text before our change, if this is the text after it.
    pub(super) fn original(&self, text: &str) -> Option<String> {
        let Inserted { at, len } = self.inserted?;
        let (before, after) = (text.get(..at)?, text.get(at.checked_add(len)?..)?);
        (sha256(text) == self.sha256).then(|| [before, after].concat())
    }
}

impl Record {
    pub(super) fn read(state_dir: &Path) -> Result<Record, Error> {
        let path = place(state_dir);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Record::default()),
            Err(e) => Err(file::io(&path)(e)),
        }
    }

    /// Makes the file what the record says; without a connection there is no file.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let path = place(state_dir);
        let directory = state_dir.join("connect");
        if self.connected.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(file::io(&path)(e)),
                _ => {
                    file::delete_empty(&[directory]);
                    Ok(())
                }
            };
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(file::io(&directory))?;
        let text = serde_json::to_string_pretty(self)
            .map_err(|_| Error::Io { path: path.clone(), kind: ErrorKind::InvalidData })?;
        file::write_private(&path, &text)
    }

    pub(super) fn get(&self, settings: &Path) -> Option<&Connected> {
        self.connected.iter().find(|c| c.settings == settings)
    }

    pub(super) fn with(&self, connected: Connected) -> Record {
        let mut record = self.without(&connected.settings);
        record.connected.push(connected);
        record
    }

    pub(super) fn without(&self, settings: &Path) -> Record {
        let others = self.connected.iter().filter(|c| c.settings != settings);
        Record { connected: others.cloned().collect() }
    }
}

pub(super) fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn place(state_dir: &Path) -> PathBuf {
    state_dir.join("connect/claude.json")
}
