//! Reads what was added to one file since the last look, line by line.
//!
//! Owns: the place reached in a file, what to do when the file shrank or is another one, and the bound on memory
//! per line. Does not know: JSON, sessions, watching or time.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::elide::Elider;

/// Bytes read at a time; the buffer is lent by the caller, so that all cursors share one.
pub const CHUNK: usize = 64 * 1024;
/// Bytes of a half-written line that are kept as they are; beyond, the line is shortened while it is read.
pub const WHOLE_LINE: usize = 256 * 1024;
/// Bytes before the cursor that are compared at each look, to notice a file that was rewritten in place.
const ANCHOR: usize = 64;

/// What a read yields.
#[derive(Debug)]
pub enum Piece<'a> {
    /// The file is another one, or was cut: what follows starts at its beginning.
    Restarted,
    /// One complete line without its newline. Longer ones have their long literals shortened.
    Line(&'a [u8]),
    /// A line was dropped: too long even when shortened.
    Dropped,
}

/// A cursor in one file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    id: Option<(u64, u64)>,
    offset: u64,
    anchor: Vec<u8>,
    line: Partial,
    /// Bytes up to the next newline belong to a line that began before the cursor.
    skip_first: bool,
}

/// Where a cursor stood between two lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    id: (u64, u64),
    offset: u64,
    anchor: Vec<u8>,
}

#[derive(Debug)]
enum Partial {
    Whole(Vec<u8>),
    Long(Box<Elider>),
}

impl Partial {
    fn is_empty(&self) -> bool {
        matches!(self, Partial::Whole(bytes) if bytes.is_empty())
    }

    fn push(&mut self, bytes: &[u8]) {
        match self {
            Partial::Whole(kept) if kept.len() + bytes.len() > WHOLE_LINE => {
                let mut elider = Box::new(Elider::new());
                elider.push(kept);
                elider.push(bytes);
                *self = Partial::Long(elider);
            }
            Partial::Whole(kept) => kept.extend_from_slice(bytes),
            Partial::Long(elider) => elider.push(bytes),
        }
    }

    /// The line so far; leaves nothing.
    fn take(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(self, Partial::Whole(Vec::new())) {
            Partial::Whole(bytes) => Some(bytes),
            Partial::Long(elider) => elider.finish(),
        }
    }
}

impl Tail {
    /// At the beginning of the file at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Tail {
            path: path.to_owned(),
            id: None,
            offset: 0,
            anchor: Vec::new(),
            line: Partial::Whole(Vec::new()),
            skip_first: false,
        }
    }

    /// At the first line that begins at or after `offset` (a line that begins before it is left out).
    pub fn from_offset(path: &Path, offset: u64) -> Self {
        match offset.checked_sub(1) {
            // One byte earlier: if that is a newline, a line begins at `offset` itself.
            Some(before) => Tail { offset: before, skip_first: true, ..Tail::new(path) },
            None => Tail::new(path),
        }
    }

    /// Where it stands; `None` = within a line, or nowhere yet.
    pub fn mark(&self) -> Option<Mark> {
        let is_between = self.line.is_empty() && !self.skip_first;
        let id = self.id.filter(|_| is_between)?;
        Some(Mark { id, offset: self.offset, anchor: self.anchor.clone() })
    }

    /// Where another cursor stood. `None`: the file is another one, or shorter, or not there.
    pub fn at(path: &Path, mark: Mark) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let anchor = mark.anchor.len();
        let is_sane = anchor <= ANCHOR && anchor as u64 <= mark.offset;
        let is_same = mark.id == (metadata.dev(), metadata.ino()) && metadata.len() >= mark.offset;
        (is_sane && is_same).then(|| Tail {
            id: Some(mark.id),
            offset: mark.offset,
            anchor: mark.anchor,
            ..Tail::new(path)
        })
    }

    /// Bytes read so far, the half-written last line included.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on to the end of the file, or until `budget` bytes were read. Returns the bytes read.
    ///
    /// `buffer` must not be empty; [`CHUNK`] bytes are meant. A file that is not there has nothing new.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        budget: u64,
        mut each: impl FnMut(Piece<'_>),
    ) -> io::Result<u64> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(e),
        };
        let metadata = file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        if self.must_restart(&file, id, metadata.len())? {
            *self = Tail::new(&self.path);
            each(Piece::Restarted);
        }
        self.id = Some(id);
        let mut done = 0;
        while done < budget {
            let room = usize::try_from(budget - done).map_or(buffer.len(), |left| left.min(buffer.len()));
            let n = match file.read_at(&mut buffer[..room], self.offset) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let chunk = &buffer[..n];
            self.offset += n as u64;
            done += n as u64;
            self.remember(chunk);
            self.split(chunk, &mut each);
        }
        Ok(done)
    }

    fn must_restart(&self, file: &File, id: (u64, u64), size: u64) -> io::Result<bool> {
        let Some(known) = self.id else { return Ok(false) };
        if known != id || size < self.offset {
            return Ok(true);
        }
        // A file system hands a freed inode to the next file, and an editor may write the same file anew.
        if self.anchor.is_empty() {
            return Ok(false);
        }
        let mut now = [0; ANCHOR];
        let now = &mut now[..self.anchor.len()];
        match file.read_exact_at(now, self.offset - self.anchor.len() as u64) {
            Ok(()) => Ok(*now != *self.anchor),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn remember(&mut self, chunk: &[u8]) {
        if chunk.len() >= ANCHOR {
            self.anchor.clear();
            self.anchor.extend_from_slice(&chunk[chunk.len() - ANCHOR..]);
        } else {
            let surplus = (self.anchor.len() + chunk.len()).saturating_sub(ANCHOR);
            self.anchor.drain(..surplus);
            self.anchor.extend_from_slice(chunk);
        }
    }

    fn split(&mut self, chunk: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if std::mem::take(&mut self.skip_first) {
                continue;
            }
            if self.line.is_empty() {
                each(Piece::Line(head));
                continue;
            }
            self.line.push(head);
            match self.line.take() {
                Some(line) => each(Piece::Line(&line)),
                None => each(Piece::Dropped),
            }
        }
        if !self.skip_first && !rest.is_empty() {
            self.line.push(rest);
        }
    }
}
