//! What an agent writes: kept in a file up to a size, its end remembered, its lines handed on.
//!
//! Reading never stops before the stream ends, so that an agent cannot hang on a full pipe; memory is bounded by the
//! longest line that is handed on.

use std::collections::VecDeque;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::spec::StartError;

/// Most bytes of a kept file.
const MOST_KEPT: usize = 10 << 20;
/// Longest line that is handed on whole.
const LONGEST_LINE: usize = 1 << 20;
/// Most bytes of the end that is remembered.
const TAIL: usize = 8 << 10;

/// Makes the directory of a run, for its owner alone.
pub(crate) fn make_dir(dir: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)))
        .map_err(|source| StartError::Output { path: dir.to_owned(), source })
}

/// A file that takes what fits and then says that there was more.
pub(crate) struct Kept {
    path: PathBuf,
    file: File,
    left: usize,
    /// Written once, where the rest was thrown away. Its length is part of the limit.
    mark: &'static [u8],
    is_full: bool,
}

impl Kept {
    /// Makes the file, for its owner alone; what was there is gone.
    pub(crate) fn create(path: PathBuf, mark: &'static [u8]) -> Result<Kept, StartError> {
        Kept::open(path, mark, OpenOptions::new().write(true).truncate(true))
    }

    /// Goes on with the file where it ends. One that is full already stays as it is.
    pub(crate) fn reopen(path: PathBuf, mark: &'static [u8]) -> Result<Kept, StartError> {
        Kept::open(path, mark, OpenOptions::new().append(true))
    }

    fn open(path: PathBuf, mark: &'static [u8], how: &mut OpenOptions) -> Result<Kept, StartError> {
        // Like everything in the state directory, it is no link to somewhere else.
        let opened =
            how.create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(&path).and_then(|file| {
                file.set_permissions(Permissions::from_mode(0o600))?;
                let length = file.metadata()?.len();
                Ok((file, usize::try_from(length).unwrap_or(usize::MAX)))
            });
        match opened {
            Ok((file, length)) => Ok(Kept {
                path,
                file: File::from_std(file),
                left: (MOST_KEPT - mark.len()).saturating_sub(length),
                mark,
                is_full: length >= MOST_KEPT,
            }),
            Err(source) => Err(StartError::Output { path, source }),
        }
    }

    async fn take(&mut self, bytes: &[u8]) {
        if self.is_full {
            return;
        }
        let fits = bytes.len().min(self.left);
        self.left -= fits;
        self.is_full = fits < bytes.len();
        let mut written = self.file.write_all(&bytes[..fits]).await;
        if self.is_full && written.is_ok() {
            written = self.file.write_all(self.mark).await;
        }
        self.note(written);
    }

    async fn finish(&mut self) {
        let flushed = self.file.flush().await;
        self.note(flushed);
    }

    /// A full disk must not end a run: the rest is read and thrown away.
    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the output of a run is no longer kept");
            self.is_full = true;
        }
    }
}

/// The last bytes of a stream. A std mutex: held for a push or a copy, never across an await.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// As text; bytes that are no UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).into_owned()
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let beyond = tail.len().saturating_sub(TAIL);
        tail.drain(..beyond);
    }
}

/// Reads a stream to its end.
pub(crate) async fn capture(
    mut from: impl AsyncRead + Unpin,
    mut kept: Kept,
    tail: Tail,
    mut lines: Option<mpsc::Sender<Vec<u8>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut cutter = Cutter::default();
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => &buffer[..read],
            Err(error) => {
                tracing::warn!(path = %kept.path.display(), %error, "the output of a run cannot be read");
                break;
            }
        };
        kept.take(read).await;
        tail.push(read);
        let mut rest = read;
        while let Some(to) = &lines
            && let Some(line) = cutter.next_line(&mut rest)
        {
            // Nobody listens any more: the run is over, and only the file is still of use.
            if to.send(line).await.is_err() {
                lines = None;
            }
        }
    }
    if let (Some(to), Some(line)) = (lines, cutter.last_line()) {
        let _ = to.send(line).await;
    }
    kept.finish().await;
}

/// Cuts a stream into lines, and the lines at [`LONGEST_LINE`].
#[derive(Default)]
pub(crate) struct Cutter {
    line: Vec<u8>,
}

impl Cutter {
    /// Takes bytes off `from` until a line is complete; `None` = all were taken and the line goes on.
    pub(crate) fn next_line(&mut self, from: &mut &[u8]) -> Option<Vec<u8>> {
        let end = from.iter().position(|byte| *byte == b'\n');
        let (part, rest) = match end {
            Some(at) => (&from[..at], &from[at + 1..]),
            None => (*from, &[][..]),
        };
        let room = LONGEST_LINE - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        *from = rest;
        end.map(|_| std::mem::take(&mut self.line))
    }

    /// What stands after the last line end.
    fn last_line(self) -> Option<Vec<u8>> {
        Some(self.line).filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        let mut lines = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(line) = cutter.next_line(&mut chunk) {
                lines.push(line);
            }
        }
        lines.extend(cutter.last_line());
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        assert_eq!(lines(&[b"one\ntwo\n\nth", b"", b"ree", b"\n"]), [&b"one"[..], b"two", b"", b"three"]);
        assert_eq!(lines(&[b"no end"]), [b"no end"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_line_longer_than_1_mib_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; LONGEST_LINE];
        let read = lines(&[&long, b"yyy", b"zzz\nnext\n"]);
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST_LINE, 4]);
        assert!(read[0].iter().all(|b| *b == b'x'));
    }

    #[test]
    fn the_tail_is_the_end_of_the_stream() {
        let tail = Tail::default();
        tail.push(&vec![b'a'; TAIL * 2]);
        tail.push(b"the end");
        let text = tail.text();
        assert!(text.len() == TAIL && text.starts_with("aa") && text.ends_with("athe end"));
    }
}
