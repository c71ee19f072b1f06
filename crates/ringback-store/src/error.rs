//! What can go wrong in a store, as far as a caller can act on it.

use std::path::PathBuf;

/// The store could not do its job. No engine's own error type shows here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No room on the disk. Worth another try once there is room.
    #[error("the disk is full")]
    Full,
    /// The file cannot be written.
    #[error("the database is read-only")]
    ReadOnly,
    /// Another process holds the file. Worth another try.
    #[error("the database is locked by another process")]
    Locked,
    /// The operating system failed a read or a write. Worth another try.
    #[error("input or output failed: {0}")]
    Io(String),
    /// The file is no database of ringback, or it is damaged. It is left as it is.
    #[error("the database is corrupt: {0}")]
    Corrupt(String),
    /// The file was written by a newer ringback. It is left as it is.
    #[error("the database has schema {found}, newer than {known}, the newest that this version knows")]
    NewerSchema {
        /// The file's schema version.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// Others may read the file, or it is a link. It is left as it is.
    #[error("{} is not a private file: {problem}", path.display())]
    Exposed {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The engine cannot hold this value; nothing of the call was stored and trying again will not help.
    #[error("the store cannot hold this: {0}")]
    Refused(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
