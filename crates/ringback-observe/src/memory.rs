//! What a stopped observer leaves to the next one, so that a restart reads only what was written meanwhile.
//!
//! Owns: its shape as JSON, and which of it can be trusted. It is a shortcut and nothing else: what is missing, of
//! another version or about another file is read again from the agents' own files.

use std::collections::HashSet;

use ringback_model::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::observer::Observer;
use crate::session::{self, Look, Session};
use crate::transcript::{self, Transcript};

/// Files that are kept, those written last. Older ones rest, and their ends are read again quickly enough.
const FILES: usize = 2000;
/// Raised whenever what is kept, or what it means, changes.
const FORMAT: u32 = 1;

/// Sessions and places in files.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    format: u32,
    version: String,
    sessions: Vec<session::Kept>,
    files: Vec<transcript::Kept>,
}

impl Memory {
    /// As JSON. `None` = something in it has no words there.
    pub fn to_json(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// What [`Memory::to_json`] of this very version wrote.
    pub fn from_json(json: &str) -> Option<Memory> {
        let memory: Memory = serde_json::from_str(json).ok()?;
        let is_ours = memory.format == FORMAT && memory.version == env!("CARGO_PKG_VERSION");
        is_ours.then_some(memory)
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
