//! The statements that a transaction has at hand.

use rusqlite::{CachedStatement, Connection, Result};

/// Statements of one transaction. The connection's cache finds one by hashing its text and puts it away after each
/// use, which costs a third of what a short one does; this finds it by the address of its text.
#[derive(Default)]
pub(super) struct Statements<'c>(Vec<(&'static str, CachedStatement<'c>)>);

impl<'c> Statements<'c> {
    /// Returns a statement, out of the cache of the connection at its first use.
    pub(super) fn get(
        &mut self,
        conn: &'c Connection,
        sql: &'static str,
    ) -> Result<&mut CachedStatement<'c>> {
        let at = match self.0.iter().position(|(text, _)| std::ptr::eq(*text, sql)) {
            Some(at) => at,
            None => {
                self.0.push((sql, conn.prepare_cached(sql)?));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[at].1)
    }
}
