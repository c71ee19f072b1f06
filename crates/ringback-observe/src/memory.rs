//! What a stopped observer leaves to the next one, so that a restart reads only what was written meanwhile.
//!
//! Owns: its bytes, and which of them can be trusted. It is a shortcut and nothing else: what is missing, of
//! another version or about another file is read again from the agents' own files.

use std::collections::HashSet;

use ringback_model::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::observer::Observer;
use crate::session::{self, Look, Session};
use crate::transcript::{self, Transcript};

/// Files that are kept, those written last. Older ones rest, and their ends are read again quickly enough.
const FILES: usize = 2000;
/// Raised whenever what is kept, or what it means, changes: the bytes do not say what they are.
const FORMAT: u32 = 2;

/// Sessions and places in files.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    format: u32,
    version: String,
    sessions: Vec<session::Kept>,
    files: Vec<transcript::Kept>,
}

impl Memory {
    /// As bytes: JSON took longer to read than the files' ends. `None` = something in it cannot be written.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(self).ok()
    }

    /// What [`Memory::to_bytes`] of this very version wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Memory> {
        // The first fields.
        let ((format, version), _) = postcard::take_from_bytes::<(u32, &str)>(bytes).ok()?;
        let is_ours = format == FORMAT && version == env!("CARGO_PKG_VERSION");
        if is_ours { postcard::from_bytes(bytes).ok() } else { None }
    }
}

impl Observer {
    /// What the next observer needs to go on from here.
    pub fn remember(&self) -> Memory {
        let mut newest: Vec<&Transcript> = self.transcripts.values().collect();
        newest.sort_unstable_by_key(|file| std::cmp::Reverse(file.stamp.1));
        newest.truncate(FILES);
        let kept: HashSet<&SessionId> = newest.iter().filter_map(|file| file.session()).collect();
        let sessions = self.sessions.iter().filter(|(id, _)| kept.contains(*id));
        Memory {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: sessions.map(|(_, session)| session.remember()).collect(),
            files: newest.into_iter().filter_map(Transcript::remember).collect(),
        }
    }

    /// Goes on where another observer ended: to be called before the first scan, which reads on.
    pub fn recall(&mut self, memory: Memory, now: Timestamp) {
        let files: Vec<Transcript> = memory.files.into_iter().filter_map(Transcript::recall).collect();
        let own_files = files.iter().filter(|file| !file.is_sub_agent());
        let with_file: HashSet<SessionId> = own_files.filter_map(|file| file.session().cloned()).collect();
        let look = Look { rules: &self.config.rules, now, since: self.since };
        for kept in memory.sessions.into_iter().filter(|kept| with_file.contains(kept.id())) {
            let id = kept.id().clone();
            // Nothing is told yet: the first scan does.
            let session = Session::recall(kept, look, &mut Vec::new());
            self.touched.insert(id.clone());
            self.sessions.insert(id, session);
        }
        for file in files {
            // A file without its session would leave it without what the file said.
            let Some(id) = file.session().filter(|id| self.sessions.contains_key(*id)).cloned() else {
                continue;
            };
            self.files_of.entry(id).or_default().insert(file.path().to_owned());
            self.transcripts.insert(file.path().to_owned(), file);
        }
    }
}
