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
    /// As bytes. `None` = something in it cannot be written.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(self).ok()
    }

    /// What [`Memory::to_bytes`] of this very version wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Memory> {
        let memory: Memory = postcard::from_bytes(bytes).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of every part, each with a value of its own; only `earlier`, of the ledger's type, has none.
    const FILLED: &str = r#"{
        "format": 2, "version": "0", "sessions": [{
            "about": {
                "session_id": "s", "agent": "codex", "cwd": "/cwd", "title": "title", "model": "model",
                "git_branch": "branch", "version": "1.2", "is_worktree": true, "main_repo": "/main",
                "interactive": false, "last_activity": "1970-01-01T00:00:00.001Z",
                "last_prompt_at": "1970-01-01T00:00:00.002Z", "last_file_write": "/file",
                "last_file_write_at": "1970-01-01T00:00:00.003Z",
                "recent_tools": [{ "name": "tool", "at": "1970-01-01T00:00:00.004Z" }],
                "recent_messages": [{ "role": "user", "text": "text", "at": "1970-01-01T00:00:00.005Z" }],
                "totals": { "user_messages": 1, "assistant_messages": 2, "input_tokens": 3, "output_tokens": 4,
                            "cache_creation_tokens": 5, "cache_read_tokens": 6, "cost_usd": 0.5 }
            },
            "facts": {
                "turn": { "Ended": { "at": "1970-01-01T00:00:00.006Z", "reason": "turn_end", "stated": true } },
                "open_tools": [{ "id": "t1", "name": "Bash", "kind": "Running",
                                 "since": "1970-01-01T00:00:00.007Z" }],
                "background": [["b1", "1970-01-01T00:00:00.008Z"]],
                "compacting_since": "1970-01-01T00:00:00.009Z", "ended_compacting": true,
                "live": { "status": "Busy", "status_at": "1970-01-01T00:00:00.010Z" },
                "gone_at": "1970-01-01T00:00:00.011Z", "states_turn_end": true
            },
            "verdict": { "activity": "waiting", "reason": "permission", "until": "1970-01-01T00:00:00.012Z" },
            "since": "1970-01-01T00:00:00.013Z", "judged_at": "1970-01-01T00:00:00.014Z",
            "newest_record_at": "1970-01-01T00:00:00.015Z"
        }],
        "files": [{
            "path": "/a", "mark": { "id": [7, 8], "offset": 9, "anchor": [10, 11] },
            "stamp": [12, "1970-01-01T00:00:00.016Z"],
            "adapter": { "Claude": { "queue": [true, false], "last_at": "1970-01-01T00:00:00.017Z" } },
            "session": "s", "is_sub_agent": true, "announce_from": "1970-01-01T00:00:00.018Z", "earlier": null,
            "ledger": {
                "counted": { "user_messages": 13, "assistant_messages": 14, "input_tokens": 15, "output_tokens": 16,
                             "cache_creation_tokens": 17, "cache_read_tokens": 18, "cost_usd": 0.25 },
                "stated_usd": 0.75, "stated_at": "1970-01-01T00:00:00.019Z",
                "running": [{ "input": 19, "output": 20, "cache_write": 21, "cache_read": 22 }, 0.125],
                "recent": [23], "first": [24], "spent": [["1970-01-01T00:00:00.020Z", 1.5]]
            }
        }, {
            "path": "/b", "mark": { "id": [0, 0], "offset": 0, "anchor": [] },
            "stamp": [0, "1970-01-01T00:00:00Z"],
            "adapter": { "Codex": { "has_head": true, "last_at": null } },
            "session": "t", "is_sub_agent": false, "announce_from": "1970-01-01T00:00:00Z", "earlier": null,
            "ledger": {
                "counted": { "user_messages": 0, "assistant_messages": 0, "input_tokens": 0, "output_tokens": 0,
                             "cache_creation_tokens": 0, "cache_read_tokens": 0, "cost_usd": 0.0 },
                "stated_usd": null, "stated_at": null, "running": null, "recent": [], "first": [], "spent": []
            }
        }]
    }"#;

    #[test]
    fn other_bytes_for_the_same_need_another_format() {
        let memory: Memory = serde_json::from_str(FILLED).unwrap();
        assert_eq!(memory.format, FORMAT);
        insta::assert_snapshot!(memory.to_bytes().unwrap().escape_ascii());
    }
}
