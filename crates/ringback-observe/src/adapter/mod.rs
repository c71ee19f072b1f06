//! From one line of an agent's file to what it says: facts for the rules, things to show, sums.
//!
//! Each adapter knows one agent's format and nothing else: no files, no clock, no other line than what its own
//! small state remembers. Unknown record types say nothing; a line that is no JSON object is [`Malformed`].

pub(crate) mod claude;
pub(crate) mod codex;

use std::borrow::Cow;

use ringback_model::session::{About, TEXT_CHARS, cut};
use ringback_model::{Fact, Recorded, Timestamp};
use serde::Deserialize;

use crate::ledger::Ledger;

/// The line is no JSON object; it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub(crate) struct Malformed;

/// Where an adapter puts what a line says.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    /// Facts in the order of the line.
    pub(crate) facts: &'a mut Vec<Recorded>,
    /// What there is to show.
    pub(crate) about: &'a mut About,
    /// Sums.
    pub(crate) ledger: &'a mut Ledger,
}

impl Said<'_> {
    fn fact(&mut self, at: Option<Timestamp>, fact: Fact) {
        self.facts.push(Recorded { at, fact });
    }
}

/// Longest id taken from a file.
const ID_CHARS: usize = 128;

fn id(text: &str) -> String {
    cut(text, ID_CHARS)
}

/// The line as text; bytes that are no UTF-8 are replaced.
fn text(line: &[u8]) -> Cow<'_, str> {
    // The strict check is several times as fast, and passes nearly always.
    std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed)
}

/// Parses one line. A list would pass for a record whose fields come in order, so only objects do.
fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, Malformed> {
    if !line.trim_ascii_start().starts_with('{') {
        return Err(Malformed);
    }
    serde_json::from_str(line).map_err(|_| Malformed)
}

fn set(field: &mut String, value: Option<&str>) {
    if let Some(value) = value
        && field != value
    {
        *field = cut(value, TEXT_CHARS);
    }
}

fn set_some(field: &mut Option<String>, value: Option<&str>) {
    if let Some(value) = value
        && field.as_deref() != Some(value)
    {
        *field = Some(cut(value, TEXT_CHARS));
    }
}
