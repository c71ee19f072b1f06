//! The state directory: where ringback keeps its own files, and the lock that keeps the daemon single.
//!
//! Everything in it is readable by its owner only, and no link is followed into or out of it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use ringback_model::{Secret, Timestamp};
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::filesystem;

const TOKEN: &str = "api-token";
/// Empty; there while the token is one that was derived from a passphrase.
const DERIVED: &str = "api-token-derived";
const SALT: &str = "api-salt";
const OBSERVED: &str = "observed";
const RUNS: &str = "runs";
const WORKTREES: &str = "worktrees";
/// What `connect` remembers.
const CONNECT: &str = "connect";

/// An opened state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where it is.
    #[error("HOME is not set; set it, or name a directory with RINGBACK_STATE_DIR")]
    NoHome,
    /// It is a link, belongs to somebody else, or lies on a network file system.
    #[error("the state directory {path} {why}; name another one with RINGBACK_STATE_DIR")]
    Unfit {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A directory in it is a link.
    #[error("{path} is a link, and none is followed out of the state directory; move it away")]
    Linked {
        /// Which directory.
        path: PathBuf,
    },
    /// Something in it cannot be read or written.
    #[error("cannot use {path}: {kind}; name another state directory with RINGBACK_STATE_DIR")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// Another daemon runs.
    #[error("another ringback runs already: process {}{}; stop it first", holder.pid, holder.shown_api())]
    Held {
        /// Who.
        holder: Holder,
    },
}

/// What the lock file says about the daemon that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Address of the API (`http://127.0.0.1:7421`); `None` = it has none.
    pub api: Option<String>,
    /// When it started, RFC 3339.
    pub started_at: Option<Timestamp>,
}

impl Holder {
    fn shown_api(&self) -> String {
        self.api.as_deref().map(|api| format!(", {api}")).unwrap_or_default()
    }
}

/// The held lock; dropping it, or dying, lets it go.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl StateDir {
    /// Where the directory is: `$RINGBACK_STATE_DIR`, else `$XDG_STATE_HOME/ringback`, else
    /// `~/.local/state/ringback`.
    ///
    /// # Errors
    /// None of the three is set.
    pub fn locate(env: &Env) -> Result<PathBuf, Error> {
        if let Some(path) = env.get("RINGBACK_STATE_DIR") {
            return Ok(plain(&env.expand(path)));
        }
        let base = env.path("XDG_STATE_HOME").or_else(|| Some(env.home()?.join(".local/state")));
        Ok(base.ok_or(Error::NoHome)?.join("ringback"))
    }

    /// Opens the directory, making it (0700) where it is missing.
    ///
    /// # Errors
    /// It is a link or holds one in the place of a directory, is not ours, on a network file system, or cannot be made.
    pub fn open(path: &Path) -> Result<StateDir, Error> {
        let path = &*plain(path);
        let io = |e: std::io::Error| Error::Io { path: path.to_owned(), kind: e.kind() };
        let unfit = |why| Error::Unfit { path: path.to_owned(), why };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let meta = std::fs::symlink_metadata(path).map_err(io)?;
        if meta.file_type().is_symlink() {
            return Err(unfit("is a link"));
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(unfit("belongs to another user"));
        }
        if filesystem::remote(path).is_some_and(|remote| remote.is_network()) {
            return Err(unfit("is on a network file system, where locks and the journal are not safe"));
        }
        for name in [RUNS, WORKTREES, CONNECT] {
            let path = path.join(name);
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_symlink()) {
                return Err(Error::Linked { path });
            }
        }
        if meta.mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        Ok(StateDir { path: path.to_owned() })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the output of runs is kept, one directory each.
    pub fn runs(&self) -> PathBuf {
        self.path.join(RUNS)
    }

    /// Where the worktrees of isolated runs are.
    pub fn worktrees(&self) -> PathBuf {
        self.path.join(WORKTREES)
    }

    /// The journal's file.
    pub fn database(&self) -> PathBuf {
        self.path.join("ringback.db")
    }

    /// The API's token, made at first use: 32 random bytes, base64url without padding. One that was derived from a
    /// passphrase is not used on without it.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn token(&self) -> Result<Secret, Error> {
        let mark = self.path.join(DERIVED);
        let is_derived = mark.try_exists().map_err(io(&mark))?;
        if !is_derived && let Some(token) = read_token(&self.path)? {
            return Ok(token);
        }
        let token = random_token().map_err(io(&self.path.join(TOKEN)))?;
        self.put(TOKEN, token.as_bytes())?;
        if is_derived {
            std::fs::remove_file(&mark).map_err(io(&mark))?;
        }
        Ok(Secret::new(token))
    }

    /// Makes a token that was derived from a passphrase the API's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_derived(&self, token: &Secret) -> Result<(), Error> {
        // The mark goes first: a crash in between then costs a random token, not a wrong one that stays.
        self.put(DERIVED, b"")?;
        self.put(TOKEN, token.reveal().as_bytes())
    }

    /// The salt for passphrases where none is configured, made at first use: `ringback-v1-` and 16 random bytes,
    /// base64url without padding.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn salt(&self) -> Result<String, Error> {
        if let Some(salt) = read(&self.path.join(SALT))? {
            return Ok(salt);
        }
        let salt = format!("ringback-v1-{}", random::<16>().map_err(io(&self.path.join(SALT)))?);
        self.put(SALT, salt.as_bytes())?;
        Ok(salt)
    }

    /// What the observer knew when it was stopped, as it was kept; `None` = nothing.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn observed(&self) -> Result<Option<Vec<u8>>, Error> {
        read_bytes(&self.path.join(OBSERVED))
    }

    /// Removes what was kept.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget_observed(&self) -> Result<(), Error> {
        let path = self.path.join(OBSERVED);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(e)),
            _ => Ok(()),
        }
    }

    /// Keeps what the observer knows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_observed(&self, bytes: &[u8]) -> Result<(), Error> {
        self.put(OBSERVED, bytes)
    }

    /// Writes a file beside and moves it into place, so that a reader never sees half of it.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let mut file = private(OpenOptions::new().write(true).create(true).truncate(true))
            .open(&draft)
            .map_err(io(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&path))?;
        std::fs::rename(&draft, &path).map_err(io(&path))
    }

    /// Takes the daemon's lock. The lock of a dead process needs no cleaning.
    ///
    /// # Errors
    /// Another daemon holds it, or the file cannot be written.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.path.join("lock");
        let io = |e: std::io::Error| Error::Io { path: path.clone(), kind: e.kind() };
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(&path)
            .map_err(io)?;
        // A client that looks whether the lock is held holds it itself for an instant.
        let patience = Instant::now() + Duration::from_millis(300);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { file, path }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => std::thread::yield_now(),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Held { holder: read_holder(&file).unwrap_or_default() });
                }
                Err(TryLockError::Error(e)) => return Err(io(e)),
            }
        }
    }
}

impl Lock {
    /// Writes who holds the lock.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&mut self, holder: &Holder) -> Result<(), Error> {
        let text = serde_json::to_string(holder).unwrap_or_default();
        self.file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .map_err(|e| Error::Io { path: self.path.clone(), kind: e.kind() })
    }
}

/// The running daemon, if one holds the lock in this state directory.
pub fn running(path: &Path) -> Option<Holder> {
    let file = private(OpenOptions::new().read(true)).open(path.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_holder(&file),
        _ => None,
    }
}

/// The token of the API in this state directory, if there is one.
///
/// # Errors
/// The file is there but cannot be read.
pub fn read_token(path: &Path) -> Result<Option<Secret>, Error> {
    Ok(read(&path.join(TOKEN))?.map(Secret::new))
}

/// The text of a small file of ours; `None` = it is not there, or empty.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| io(path)(std::io::ErrorKind::InvalidData.into()))?;
    Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty()))
}

/// A file of ours; `None` = it is not there.
fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match private(OpenOptions::new().read(true)).open(path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(io(path))?;
            Ok(Some(bytes))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(path)(e)),
    }
}

/// The path without what says nothing: a slash or a dot behind the name of a link would have the link followed.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Io { path: path.to_owned(), kind: e.kind() }
}

/// 32 bytes from the system's random source, base64url without padding.
///
/// # Errors
/// The system has no random source.
pub fn random_token() -> std::io::Result<String> {
    random::<32>()
}

fn random<const BYTES: usize>() -> std::io::Result<String> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes).map_err(|_| std::io::ErrorKind::Unsupported)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
}

fn read_holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_learns_who_holds_the_lock_and_a_dead_one_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let mut lock = state.lock().unwrap();
        let holder = Holder { pid: 7, api: Some("http://127.0.0.1:1".into()), started_at: None };
        lock.announce(&holder).unwrap();
        assert_eq!(running(&dir.path().join("state")), Some(holder));
        let refused = state.lock().unwrap_err().to_string();
        assert!(refused.contains("process 7, http://127.0.0.1:1"), "{refused}");
        drop(lock);
        assert_eq!(running(&dir.path().join("state")), None);
        assert!(state.lock().is_ok());
    }

    #[test]
    fn the_directory_and_its_files_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let state = StateDir::open(&path).unwrap();
        let token = state.token().unwrap();
        assert_eq!(token.reveal().len(), 43);
        assert_eq!(state.token().unwrap(), token);
        let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("api-token"))), (0o700, 0o600));
    }

    #[test]
    fn the_salt_is_made_once_and_a_derived_token_goes_with_its_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = StateDir::open(&path).unwrap();
        let salt = state.salt().unwrap();
        assert_eq!(salt.strip_prefix("ringback-v1-").map(str::len), Some(22), "{salt}");
        assert_eq!(state.salt().unwrap(), salt);
        let derived = Secret::new("derived");
        state.keep_derived(&derived).unwrap();
        assert_eq!(read_token(&path).unwrap(), Some(derived.clone()));
        let random = state.token().unwrap();
        assert_ne!(random, derived);
        assert_eq!(state.token().unwrap(), random);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for end in ["", "/", "/.", "//./"] {
            let link = PathBuf::from(format!("{}{end}", link.display()));
            assert!(matches!(StateDir::open(&link), Err(Error::Unfit { .. })), "{link:?}");
            let env = Env::of([("RINGBACK_STATE_DIR".to_owned(), link.display().to_string())]);
            assert_eq!(StateDir::locate(&env).unwrap(), dir.path().join("link"));
        }
        let state = StateDir::open(&real).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", real.join("api-token")).unwrap();
        assert!(state.token().is_err());
        for name in ["runs", "worktrees", "connect"] {
            let link = real.join(name);
            std::os::unix::fs::symlink(dir.path(), &link).unwrap();
            let refused = StateDir::open(&real).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("{} is a link", link.display())), "{refused}");
            std::fs::remove_file(&link).unwrap();
        }
        assert!(StateDir::open(&real).is_ok());
    }
}
