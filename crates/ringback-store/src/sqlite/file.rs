//! The database file as a file, and the connections to it.
//!
//! The caller makes the directory, private to its owner. This module makes the file private too and follows no
//! link to it. It knows the settings of connections and nothing of tables.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::classify;
use super::schema;
use crate::Error;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// More than the number of different statements, so that each is compiled once.
const STATEMENTS: usize = 64;

/// Makes the file if there is none, looks at it if there is one, and returns its path free of links.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, Error> {
    let path = free_of_links(path)?;
    match create(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => look_at(&path).map(|()| path),
        Err(error) => Err(io_error(error)),
    }
}

/// The path of a file that is there and private; `None` = there is none.
pub(super) fn existing(path: &Path) -> Result<Option<PathBuf>, Error> {
    let path = free_of_links(path)?;
    match fs::symlink_metadata(&path) {
        Ok(_) => look_at(&path).map(|()| Some(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(error)),
    }
}

/// Only the last part must not be a link: a home directory may well be one.
fn free_of_links(path: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().ok_or_else(|| Error::Io("the path names no file".to_owned()))?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(directory.canonicalize().map_err(io_error)?.join(name))
}

fn look_at(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(io_error)?;
    let problem = if !metadata.is_file() {
        "it is a link or no regular file".to_owned()
    } else if let Some(mode) = mode_for_others(&metadata) {
        format!("its mode is {mode:03o}, which lets others in; 600 is right")
    } else {
        return Ok(());
    };
    Err(Error::Exposed { path: path.to_owned(), problem })
}

/// Opens the connection that writes, takes the file to the newest schema, and leaves a newer or foreign file as it
/// is.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    // A connection that can write would change a file in the mere act of closing it. An empty one is new.
    if fs::metadata(path).map_err(io_error)?.len() > 0 {
        schema::version(&connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)?;
    }
    let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if conn.is_readonly("main").map_err(classify)? {
        return Err(Error::ReadOnly);
    }
    let set = |name, value: &str| conn.pragma_update(None, name, value).map_err(classify);
    // Only has an effect before the first page is written.
    set("auto_vacuum", "INCREMENTAL")?;
    set("journal_mode", "WAL")?;
    set("synchronous", "FULL")?;
    set("foreign_keys", "ON")?;
    // A checkpoint every 16 MB: at the default of 4 MB a burst spends much of its time in them.
    set("wal_autocheckpoint", "4096")?;
    set("journal_size_limit", "67108864")?;
    set("cache_size", "-8192")?;
    schema::migrate(&mut conn)?;
    Ok(conn)
}

/// Opens a connection that reads beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Error> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, Error> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let conn = Connection::open_with_flags(path, flags).map_err(classify)?;
    conn.busy_timeout(BUSY).map_err(classify)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Making a file that must be new follows no link.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn mode_for_others(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn mode_for_others(_: &fs::Metadata) -> Option<u32> {
    None
}

pub(super) fn io_error(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full,
        ErrorKind::ReadOnlyFilesystem => Error::ReadOnly,
        _ => Error::Io(error.to_string()),
    }
}
