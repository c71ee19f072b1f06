//! Reads and replaces one settings file, whole.
//!
//! Owns: links, modes, owners and the atomic exchange of a file. Does not know what is in it, except that it is
//! UTF-8. A replaced file keeps mode and owner, and a link to it stays a link.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{Error, InvalidSettings};

/// A settings file as it was read.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file itself, behind all links.
    target: PathBuf,
    pub(crate) text: String,
    /// Whether its name is a link.
    pub(super) is_link: bool,
    meta: Metadata,
}

/// Settings are a few KiB; what is larger is something else.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the file; `None` = there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Found>, Error> {
    let unfit = |why| Error::Unfit { path: path.to_owned(), why };
    let named = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(path)(e)),
    };
    let is_link = named.file_type().is_symlink();
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(unfit("is a link to a file that is not there"));
        }
        Err(e) => return Err(io(path)(e)),
    };
    let meta = std::fs::metadata(&target).map_err(io(path))?;
    if !meta.is_file() {
        return Err(unfit("is not a regular file"));
    }
    if meta.len() > MAX_BYTES {
        return Err(unfit("is larger than 16 MiB"));
    }
    let bytes = read_bytes(&target).map_err(io(path))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        let cause = InvalidSettings::syntax(&valid, valid.len(), "not UTF-8");
        Error::Invalid { path: path.to_owned(), cause }
    })?;
    Ok(Some(Found { target, text, is_link, meta }))
}

/// Puts a new text in place of the one that was read, unless somebody else was faster.
pub(crate) fn replace(found: &Found, text: &str) -> Result<(), Error> {
    let target = &found.target;
    if found.meta.nlink() > 1 {
        // A rename would part this name from the file's other names.
        found.check_unchanged()?;
        let mut file = OpenOptions::new().write(true).open(target).map_err(io(target))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
        return written.and_then(|()| file.sync_all()).map_err(io(target));
    }
    let draft = Draft::beside(target).map_err(io(target))?;
    draft.fill(text, Some(&found.meta)).map_err(io(target))?;
    found.check_unchanged()?;
    draft.become_file(target).map_err(io(target))
}

/// Makes the file (0600) and the directories named (0700, outermost first), unless somebody else was faster.
pub(crate) fn create(path: &Path, directories: &[PathBuf], text: &str) -> Result<(), Error> {
    for directory in directories {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(io(directory)(e)),
            _ => {}
        }
    }
    let draft = Draft::beside(path).map_err(io(path))?;
    draft.fill(text, None).map_err(io(path))?;
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::Raced { path: path.to_owned() });
    }
    draft.become_file(path).map_err(io(path))
}

/// Deletes the file that was read, unless somebody else wrote it since.
pub(super) fn delete(found: &Found) -> Result<(), Error> {
    found.check_unchanged()?;
    std::fs::remove_file(&found.target).map_err(io(&found.target))
}

/// The directories that are missing on the way to this one, itself included, outermost first.
pub(crate) fn missing_directories(directory: &Path) -> Vec<PathBuf> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let missing = |path: &&Path| std::fs::symlink_metadata(path).is_err();
    let mut found: Vec<PathBuf> = directory.ancestors().take_while(missing).map(Path::to_owned).collect();
    found.reverse();
    found
}

/// Deletes those of the directories (outermost first) that are empty.
pub(super) fn delete_empty(directories: &[PathBuf]) {
    for directory in directories.iter().rev() {
        // One that is in use now is somebody else's: it stays, and so do those around it.
        if std::fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

/// Writes a file of our own (0600), whole or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let draft = Draft::beside(path).map_err(io(path))?;
    draft.fill(text, None).map_err(io(path))?;
    draft.become_file(path).map_err(io(path))
}

pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Io { path: path.to_owned(), kind: e.kind() }
}

impl Found {
    fn check_unchanged(&self) -> Result<(), Error> {
        match read_bytes(&self.target) {
            Ok(bytes) if bytes == self.text.as_bytes() => Ok(()),
            Ok(_) => Err(Error::Raced { path: self.target.clone() }),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::Raced { path: self.target.clone() }),
            Err(e) => Err(io(&self.target)(e)),
        }
    }
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file beside the one it will become; dropped before that, it is deleted.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn beside(target: &Path) -> std::io::Result<Draft> {
        let tag = getrandom::u64().map_err(|_| ErrorKind::Unsupported)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.ringback-{tag:016x}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Draft { file, path })
    }

    fn fill(&self, text: &str, like: Option<&Metadata>) -> std::io::Result<()> {
        (&self.file).write_all(text.as_bytes())?;
        if let Some(like) = like {
            let ours = self.file.metadata()?;
            if (ours.uid(), ours.gid()) != (like.uid(), like.gid()) {
                fchown(&self.file, Some(like.uid()), Some(like.gid()))?;
            }
            self.file.set_permissions(Permissions::from_mode(like.mode() & 0o7777))?;
        }
        self.file.sync_all()
    }

    fn become_file(self, target: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, target)?;
        // The new name itself has to survive a power cut too.
        target.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is nothing under this name, and nothing to report.
        let _ = std::fs::remove_file(&self.path);
    }
}
