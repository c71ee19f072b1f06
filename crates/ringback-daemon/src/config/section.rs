//! Reads one table of the configuration key by key, and remembers what was asked for: what is left over is
//! unknown.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use super::node::{Node, Value};
use super::units;

/// What was found wrong while reading. Values from the file are never part of a message unless they are words of
/// a closed set; secrets could stand anywhere.
#[derive(Default, Debug)]
pub(crate) struct Problems {
    /// The configuration cannot be used.
    pub(crate) errors: Vec<String>,
    /// It can, with this said once.
    pub(crate) warnings: Vec<String>,
    /// Files that were looked at for values.
    pub(crate) files: Vec<PathBuf>,
}

/// One table.
pub(crate) struct Section<'a> {
    path: String,
    entries: &'a [(String, Node)],
    known: RefCell<Vec<&'static str>>,
    problems: &'a RefCell<Problems>,
}

impl<'a> Section<'a> {
    /// The file's top level, or any other table. A value that is no table is an error and reads as empty.
    pub(crate) fn new(path: &str, node: &'a Node, problems: &'a RefCell<Problems>) -> Self {
        let entries: &'a [(String, Node)] = match &node.value {
            Value::Table(entries) => entries,
            Value::Nothing => &[],
            other => {
                let name = if path.is_empty() { "the configuration" } else { path };
                problems.borrow_mut().errors.push(format!(
                    "{name}{}: expected a table, found {}",
                    place(node),
                    other.kind()
                ));
                &[]
            }
        };
        Section { path: path.to_owned(), entries, known: RefCell::default(), problems }
    }

    fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        let (_, node) = self.entries.iter().find(|(k, _)| k == key)?;
        (!matches!(node.value, Value::Nothing)).then_some(node)
    }

    /// The full name of a key.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// Notes an error at a key.
    pub(crate) fn error(&self, key: &str, what: &str) {
        let line = self.entries.iter().find(|(k, _)| k == key).map(|(_, n)| place(n)).unwrap_or_default();
        self.problems.borrow_mut().errors.push(format!("{}{line}: {what}", self.name(key)));
    }

    fn wrong(&self, key: &str, node: &Node, expected: &str) {
        self.error(key, &format!("expected {expected}, found {}", node.value.kind()));
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        let node = self.node(key)?;
        match &node.value {
            Value::Text(s) => Some(s.clone()),
            _ => {
                self.wrong(key, node, "a string");
                None
            }
        }
    }

    /// A string, or a whole number as one.
    pub(crate) fn text_or_number(&self, key: &'static str) -> Option<String> {
        match self.node(key)?.value {
            Value::Whole(number) => Some(number.to_string()),
            _ => self.text(key),
        }
    }

    pub(crate) fn flag(&self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Flag(b) => Some(b),
            _ => {
                self.wrong(key, node, "true or false");
                None
            }
        }
    }

    pub(crate) fn whole(&self, key: &'static str, from: i64, to: i64) -> Option<i64> {
        let node = self.node(key)?;
        match node.value {
            Value::Whole(n) if (from..=to).contains(&n) => Some(n),
            Value::Whole(n) => {
                self.error(key, &format!("expected a whole number from {from} to {to}, found {n}"));
                None
            }
            _ => {
                self.wrong(key, node, &format!("a whole number from {from} to {to}"));
                None
            }
        }
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Duration> {
        let node = self.node(key)?;
        self.as_duration(key, node)
    }

    fn as_duration(&self, key: &str, node: &Node) -> Option<Duration> {
        const EXPECTED: &str = "a duration such as \"30s\", \"5m\" or \"1h30m\"";
        match &node.value {
            Value::Text(s) => units::duration(s).or_else(|| {
                self.error(key, &format!("expected {EXPECTED}, found {:?}", short(s)));
                None
            }),
            _ => {
                self.wrong(key, node, EXPECTED);
                None
            }
        }
    }

    pub(crate) fn durations(&self, key: &'static str) -> Option<Vec<Duration>> {
        self.list(key, "a list of durations")?.iter().map(|n| self.as_duration(key, n)).collect()
    }

    pub(crate) fn size(&self, key: &'static str) -> Option<u64> {
        const EXPECTED: &str = "a size such as \"10 KiB\" or \"1 GiB\"";
        let node = self.node(key)?;
        let bytes = match &node.value {
            Value::Text(s) => units::size(s),
            Value::Whole(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        if bytes.is_none() {
            self.wrong(key, node, EXPECTED);
        }
        bytes
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let list = self.list(key, "a list of strings")?;
        let texts: Option<Vec<String>> = list
            .iter()
            .map(|n| match &n.value {
                Value::Text(s) => Some(s.clone()),
                _ => None,
            })
            .collect();
        if texts.is_none() {
            self.error(key, "expected a list of strings");
        }
        texts
    }

    /// One string, or a list of them.
    pub(crate) fn text_or_texts(&self, key: &'static str) -> Option<Vec<String>> {
        match &self.node(key)?.value {
            Value::Text(s) => Some(vec![s.clone()]),
            _ => self.texts(key),
        }
    }

    pub(crate) fn list(&self, key: &'static str, expected: &str) -> Option<&'a [Node]> {
        let node = self.node(key)?;
        match &node.value {
            Value::List(list) => Some(list),
            _ => {
                self.wrong(key, node, expected);
                None
            }
        }
    }

    /// A table below this one; absent = empty.
    pub(crate) fn table(&self, key: &'static str) -> Option<Section<'a>> {
        let node = self.node(key)?;
        Some(Section::new(&self.name(key), node, self.problems))
    }

    /// An amount of money or the like: zero or more.
    pub(crate) fn amount(&self, key: &'static str) -> Option<f64> {
        const EXPECTED: &str = "a number, zero or more";
        let node = self.node(key)?;
        match node.value {
            Value::Whole(n) if n >= 0 => u32::try_from(n).ok().map(f64::from),
            Value::Real(n) if n.is_finite() && n >= 0.0 => Some(n),
            _ => {
                self.wrong(key, node, EXPECTED);
                None
            }
        }
    }

    /// The tables below a key whose names the user chose.
    pub(crate) fn tables(&self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Table(entries) = &node.value else {
            self.wrong(key, node, "a table of tables");
            return Vec::new();
        };
        let path = self.name(key);
        entries
            .iter()
            .map(|(name, node)| (name.clone(), Section::new(&format!("{path}.{name}"), node, self.problems)))
            .collect()
    }

    /// The tables of a list.
    pub(crate) fn tables_of_list(&self, key: &'static str) -> Vec<Section<'a>> {
        let path = self.name(key);
        let list = self.list(key, "a list of tables").unwrap_or_default();
        let named = |(i, node)| Section::new(&format!("{path}[{i}]"), node, self.problems);
        list.iter().enumerate().map(named).collect()
    }

    /// Names and strings that the user chose.
    pub(crate) fn pairs(&self, key: &'static str) -> std::collections::BTreeMap<String, String> {
        let Some(node) = self.node(key) else { return Default::default() };
        let Value::Table(entries) = &node.value else {
            self.wrong(key, node, "a table of names and strings");
            return Default::default();
        };
        entries
            .iter()
            .filter_map(|(name, node)| match &node.value {
                Value::Text(text) => Some((name.clone(), text.clone())),
                _ => {
                    self.error(key, "expected a table of names and strings");
                    None
                }
            })
            .collect()
    }

    /// The keys and values of a free-form table of flags.
    pub(crate) fn flags(&self, key: &'static str) -> Vec<(String, bool)> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Table(entries) = &node.value else {
            self.wrong(key, node, "a table of names and true or false");
            return Vec::new();
        };
        entries
            .iter()
            .filter_map(|(name, node)| match node.value {
                Value::Flag(b) => Some((name.clone(), b)),
                _ => {
                    self.error(key, &format!("expected true or false for `{name}`"));
                    None
                }
            })
            .collect()
    }

    /// Keys that nothing asked for, each with where it stands and the nearest known one.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let known = self.known.borrow();
        self.entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()))
            .map(|(key, node)| {
                let shown: String = key.chars().take(64).flat_map(char::escape_default).collect();
                let nearest = known
                    .iter()
                    .map(|k| (strsim::damerau_levenshtein(k, key), *k))
                    .min()
                    .filter(|(distance, _)| *distance <= 3);
                match nearest {
                    Some((_, k)) => {
                        format!("unknown key {}{}; did you mean `{k}`?", self.name(&shown), place(node))
                    }
                    None => format!("unknown key {}{}", self.name(&shown), place(node)),
                }
            })
            .collect()
    }

    /// Ends the reading: unknown keys become warnings.
    pub(crate) fn finish(self) {
        let unknown = self.unknown();
        self.problems.borrow_mut().warnings.extend(unknown);
    }
}

/// The beginning of a value for a message about it.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(32).collect()
}

fn place(node: &Node) -> String {
    node.line.map(|l| format!(" (line {l})")).unwrap_or_default()
}
