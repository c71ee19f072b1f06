//! Whether a database file is sound, and a new one in place of one that is not.
//!
//! The damaged file is never written, only moved. Nothing here may run while a store has the file open: whoever
//! calls holds the daemon's lock. What is taken over and how is in `salvage`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::failure::classify;
use super::file::{self, io_error};
use super::{salvage, schema};
use crate::Error;

/// Problems that are named.
const NAMED: usize = 20;
/// What lies beside a database that was not closed: its log, and the log's index.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What became of a damaged database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where the damaged file is now: beside the new one, named `ringback.db.corrupt`, or `ringback.db.corrupt-2`
    /// and so on. Its log, if it had one, lies beside it.
    pub aside: PathBuf,
    /// Everything was readable and is in the new file; otherwise some of it is lost.
    pub is_whole: bool,
    /// Sessions in the new file.
    pub sessions: u64,
    /// Events in the new file.
    pub events: u64,
    /// Pending deliveries in the new file: the next start sends them. One whose outcome was lost is sent again.
    pub pending: u64,
    /// Runs in the new file.
    pub runs: u64,
}

/// Reads the whole file and returns what is wrong with it, a line each, at most 20; empty = it is sound, or there is
/// no file. Changes nothing, and blocks as long as reading everything takes.
///
/// The caller holds the daemon's lock: nothing else may have the file open.
///
/// # Errors
/// [`Error::Exposed`], [`Error::NewerSchema`], and whatever keeps the file from being opened that is no damage.
pub fn check(path: &Path) -> Result<Vec<String>, Error> {
    let Some(path) = file::existing(path)? else { return Ok(Vec::new()) };
    match problems(&path) {
        Err(Error::Corrupt(problem)) => Ok(vec![problem]),
        found => found,
    }
}

/// Moves a damaged file and its log aside and puts a new one in its place, with every row that can still be read.
/// `None` = the file is sound (see [`check`]) or there is none, and nothing was done. Blocks.
///
/// The caller holds the daemon's lock: nothing else may have the file open. A crash in the middle leaves the damaged
/// file where it was, or aside and whole. Needs room for a second file of the same size.
///
/// # Errors
/// As [`check`], and whatever writing can meet ([`Error::Full`]). The damaged file is then where it was.
pub fn repair(path: &Path) -> Result<Option<Repaired>, Error> {
    let Some(path) = file::existing(path)? else { return Ok(None) };
    if check(&path)?.is_empty() {
        return Ok(None);
    }
    let draft = beside(&path, ".repairing");
    remove(&draft)?;
    let (kept, is_whole) = salvage_into(&path, &draft)?;
    let aside = free_name(&path);
    // The database goes first: a log without its database is ignored, a database without its log is an older one.
    fs::rename(&path, &aside).map_err(io_error)?;
    for suffix in BESIDE {
        match fs::rename(beside(&path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
    }
    fs::rename(&draft, &path).map_err(io_error)?;
    sync_directory(&path)?;
    let [sessions, events, pending, runs] = kept;
    Ok(Some(Repaired { aside, is_whole, sessions, events, pending, runs }))
}

fn problems(path: &Path) -> Result<Vec<String>, Error> {
    // An empty file becomes a database at the next start.
    if fs::metadata(path).map_err(io_error)?.len() == 0 {
        return Ok(Vec::new());
    }
    let conn = file::open_reader(path)?;
    schema::version(&conn)?;
    let check = |conn: &Connection| -> rusqlite::Result<Vec<String>> {
        let mut statement = conn.prepare(&format!("PRAGMA integrity_check({NAMED})"))?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        found.filter(|line| !line.as_ref().is_ok_and(|line| line == "ok")).collect()
    };
    let mut problems = check(&conn).map_err(classify)?;
    if problems.is_empty() {
        problems = salvage::unreadable_rows(&conn).map_err(classify)?;
    }
    Ok(problems)
}

/// Fills a new file with what can be read of the old one; counts what is there, and says whether it is everything.
fn salvage_into(old: &Path, draft: &Path) -> Result<([u64; 4], bool), Error> {
    let draft = file::prepare(draft)?;
    let new = file::open_writer(&draft)?;
    // It may be too damaged to be opened at all, or to be ours.
    let old = file::open_reader(old).and_then(|conn| schema::version(&conn).map(|_| conn));
    let is_whole = match old {
        Ok(old) => salvage::copy_all(&old, &new)?,
        Err(Error::Corrupt(_)) => false,
        Err(error) => return Err(error),
    };
    let count = |sql| new.query_row(sql, [], |row| super::rows::count(row, 0)).map_err(classify);
    let kept = [
        count("SELECT count(*) FROM session")?,
        count("SELECT count(*) FROM event")?,
        count("SELECT count(*) FROM delivery WHERE state = 0")?,
        count("SELECT count(*) FROM run")?,
    ];
    // All of it must be in the one file that is moved.
    new.pragma_update(None, "journal_mode", "DELETE").map_err(classify)?;
    new.close().map_err(|(_, error)| classify(error))?;
    Ok((kept, is_whole))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The first name that nothing has, so that what was moved aside before stays.
fn free_name(path: &Path) -> PathBuf {
    let first = beside(path, ".corrupt");
    let more = (2..=u32::MAX).map(|n| beside(path, &format!(".corrupt-{n}")));
    let mut names = std::iter::once(first.clone()).chain(more);
    names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or(first)
}

/// Removes what an attempt that was cut off left.
fn remove(draft: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(beside(draft, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    let Some(directory) = path.parent() else { return Ok(()) };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error)
}
