//! Calls of hooks in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use ringback_model::Timestamp;
use ringback_model::hook_call::HookCall;

use super::MemoryStore;
use crate::{CallId, CallQuery, Calls, Error, MAX_CALLS, Page};

#[derive(Default)]
pub(super) struct Remembered {
    /// By a number that rises with each call.
    calls: BTreeMap<i64, HookCall>,
    newest: i64,
}

#[async_trait]
impl Calls for MemoryStore {
    async fn keep_call(&self, call: HookCall) -> Result<CallId, Error> {
        let mut tables = self.tables()?;
        let Remembered { calls, newest } = &mut tables.calls;
        *newest += 1;
        let of_hook = calls.iter().rev().filter(|(_, other)| other.hook == call.hook);
        // With the new one they are as many as may be.
        let too_old: Vec<i64> = of_hook.map(|(number, _)| *number).skip(MAX_CALLS - 1).collect();
        for number in too_old {
            calls.remove(&number);
        }
        calls.insert(*newest, call);
        Ok(CallId(*newest))
    }

    async fn calls(&self, query: CallQuery) -> Result<Page<(CallId, HookCall)>, Error> {
        let tables = self.tables()?;
        let size = query.page_size();
        let before = query.cursor.map_or(i64::MAX, |c| c.0);
        let all = tables.calls.calls.range(..before).rev();
        let rows = all
            .filter(|(_, call)| query.hook.as_ref().is_none_or(|h| *h == call.hook))
            .take(size + 1)
            .collect();
        let page = Page::cut(rows, size, |(number, _): &(&i64, &HookCall)| **number);
        Ok(page.map(|(number, call)| (CallId(*number), HookCall { body: None, ..call.clone() })))
    }

    async fn call(&self, id: CallId) -> Result<Option<HookCall>, Error> {
        Ok(self.tables()?.calls.calls.get(&id.0).cloned())
    }

    async fn prune_calls(&self, before: Timestamp) -> Result<u64, Error> {
        let mut tables = self.tables()?;
        let calls = &mut tables.calls.calls;
        let count = calls.len();
        calls.retain(|_, call| call.at >= before);
        Ok((count - calls.len()) as u64)
    }
}
