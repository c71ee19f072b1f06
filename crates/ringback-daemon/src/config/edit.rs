//! Adds an entry to `webhooks` in the user's file, or takes one out.
//!
//! The text is edited where the entry stands and nowhere else, so that comments and formatting stay. What would not
//! load, or would change more than the one entry, is not written. TOML only: JSON has no comments to keep, and its
//! layout is somebody's own.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, value};

use super::node::{Node, Value, from_toml};
use crate::connect::{self, file};
use crate::env::Env;

/// What is written of a new entry.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// Its name, in no other entry.
    pub name: &'a str,
    /// Where it posts to.
    pub url: &'a str,
    /// Target activities; empty = all.
    pub events: &'a [String],
    /// The variable that holds its secret; `None` = unsigned.
    pub secret_env: Option<&'a str>,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// The changed lines, each after `+` or `-`. Secrets are hidden, URLs shown as scheme and host.
    pub diff: String,
    /// What the file's loader has to say about the new entry.
    pub warnings: Vec<String>,
}

/// The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is JSON.
    #[error("{path} is JSON, and only TOML can be edited")]
    Json {
        /// The file.
        path: PathBuf,
    },
    /// An entry of this name is there.
    #[error("{path} has an entry named {name:?}")]
    Taken {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// No entry of this name is there.
    #[error("{path} has no entry named {name:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The new entry would be skipped.
    #[error("{0}")]
    BadEntry(String),
    /// The entry cannot be told apart from what is around it.
    #[error("{path} is laid out in a way that cannot be edited")]
    Layout {
        /// The file.
        path: PathBuf,
    },
    /// The file does not load, before or after.
    #[error(transparent)]
    Config(#[from] super::Error),
    /// It cannot be read or replaced.
    #[error(transparent)]
    File(#[from] connect::Error),
}

/// Adds an entry at the end; a missing file is made (0600).
///
/// # Errors
/// The name is taken, the entry is no good one, or the file cannot be edited. It is then as it was.
pub fn add(path: &Path, entry: &NewEntry<'_>, env: &Env) -> Result<Report, Error> {
    let found = file::read(path)?;
    let before = found.as_ref().map_or("", |found| found.text.as_str());
    let old = load(path, before, env)?;
    if !places(&parse(path, before)?, entry.name).is_empty() {
        return Err(Error::Taken { path: path.to_owned(), name: entry.name.to_owned() });
    }
    let after = with(path, before, entry)?;
    let new = load(path, &after, env)?;
    let warnings: Vec<String> = new.warnings.into_iter().filter(|w| !old.warnings.contains(w)).collect();
    if !new.endpoints.iter().any(|e| e.name.as_str() == entry.name) {
        return Err(Error::BadEntry(warnings.join("; ")));
    }
    check(path, before, &after, |entries| {
        entries.pop();
    })?;
    match &found {
        Some(found) => file::replace(found, &after)?,
        None => {
            let directories = path.parent().map(file::missing_directories).unwrap_or_default();
            file::create(path, &directories, &after)?;
        }
    }
    Ok(Report { path: path.to_owned(), diff: diff(before, &after), warnings })
}

/// Takes an entry out. The comments around it stay.
///
/// # Errors
/// There is no such entry, or the file cannot be edited. It is then as it was.
pub fn remove(path: &Path, name: &str, env: &Env) -> Result<Report, Error> {
    let missing = || Error::Missing { path: path.to_owned(), name: name.to_owned() };
    let found = file::read(path)?.ok_or_else(missing)?;
    let before = found.text.as_str();
    load(path, before, env)?;
    let places = places(&parse(path, before)?, name);
    let index = match places[..] {
        [] => return Err(missing()),
        [index] => index,
        _ => return Err(Error::Layout { path: path.to_owned() }),
    };
    let after = without(path, before, index)?;
    load(path, &after, env)?;
    // The other way round: what is there now is what was there, less the entry.
    check(path, &after, before, |entries| {
        entries.remove(index);
    })?;
    file::replace(&found, &after)?;
    Ok(Report { path: path.to_owned(), diff: diff(before, &after), warnings: Vec::new() })
}

fn load(path: &Path, text: &str, env: &Env) -> Result<super::Config, Error> {
    if super::is_json(Some(path), text) {
        return Err(Error::Json { path: path.to_owned() });
    }
    Ok(super::load_text(text, path, env)?)
}

fn parse(path: &Path, text: &str) -> Result<Node, Error> {
    let syntax = |message| super::Error::Syntax { path: path.to_owned(), message };
    Ok(from_toml(text).map_err(syntax)?)
}

fn document(path: &Path, text: &str) -> Result<DocumentMut, Error> {
    text.parse().map_err(|_| Error::Layout { path: path.to_owned() })
}

/// Where entries of this name stand among the entries.
fn places(root: &Node, name: &str) -> Vec<usize> {
    let is_named = |entry: &Node| matches!(get(entry, "name"), Some(Value::Text(text)) if text == name);
    match get(root, "webhooks") {
        Some(Value::List(entries)) => {
            (0..).zip(entries).filter(|(_, e)| is_named(e)).map(|(i, _)| i).collect()
        }
        _ => Vec::new(),
    }
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Value> {
    match &node.value {
        Value::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| &node.value),
        _ => None,
    }
}

/// The text with the entry as the last one.
fn with(path: &Path, text: &str, entry: &NewEntry<'_>) -> Result<String, Error> {
    let mut document = document(path, text)?;
    let mut fields = vec![("name", value(entry.name)), ("url", value(entry.url))];
    fields.extend(entry.secret_env.map(|variable| ("secret_env", value(variable))));
    if !entry.events.is_empty() {
        fields.push(("events", value(entry.events.iter().collect::<Array>())));
    }
    if let Some(list) = document.get_mut("webhooks").and_then(Item::as_array_mut) {
        let fields = fields.into_iter().filter_map(|(key, item)| Some((key, item.into_value().ok()?)));
        list.push(fields.collect::<InlineTable>());
        return with_list(path, text, list);
    }
    // At the end of the file: a header may stand anywhere, and the comments above it are then nobody else's.
    let mut block = DocumentMut::new();
    let mut tables = toml_edit::ArrayOfTables::new();
    tables.push(fields.into_iter().collect::<Table>());
    block.insert("webhooks", Item::ArrayOfTables(tables));
    let gap = match text {
        "" => "",
        _ if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let block = format!("{gap}{}", block.to_string().trim_start());
    Ok(format!("{text}{}", block.replace('\n', line_end(text))))
}

/// The text with its list of entries replaced, and every byte around it as it was.
fn with_list(path: &Path, text: &str, list: &mut Array) -> Result<String, Error> {
    let layout = || Error::Layout { path: path.to_owned() };
    let document = Document::parse(text).map_err(|_| layout())?;
    let span = document.get("webhooks").and_then(Item::span).ok_or_else(layout)?;
    // What stands around the brackets is outside the span.
    list.decor_mut().clear();
    let list = list.to_string().replace("\r\n", "\n").replace('\n', line_end(text));
    Ok(format!("{}{list}{}", &text[..span.start], &text[span.end..]))
}

/// How the file ends its lines, by the first.
fn line_end(text: &str) -> &'static str {
    if text.find('\n').is_some_and(|at| text[..at].ends_with('\r')) { "\r\n" } else { "\n" }
}

/// The text without the entry at this place.
fn without(path: &Path, text: &str, index: usize) -> Result<String, Error> {
    let layout = || Error::Layout { path: path.to_owned() };
    let mut document = document(path, text)?;
    if let Some(list) = document.get_mut("webhooks").and_then(Item::as_array_mut) {
        list.remove(index);
        return with_list(path, text, list);
    }
    let document = Document::parse(text).map_err(|_| layout())?;
    let table = document.get("webhooks").and_then(Item::as_array_of_tables).and_then(|t| t.get(index));
    let lines = lines_of(text, table.ok_or_else(layout)?).ok_or_else(layout)?;
    let (head, tail) = (&text[..lines.start], &text[lines.end..]);
    // Of the empty lines on both sides one is enough; at the end of the file there is none.
    let end = line_end(text);
    let is_after_empty = head.ends_with(&end.repeat(2));
    let (head, tail) = match tail.strip_prefix(end) {
        Some(rest) if head.is_empty() || is_after_empty => (head, rest),
        None if tail.is_empty() && is_after_empty => (&head[..head.len() - end.len()], tail),
        _ => (head, tail),
    };
    Ok(format!("{head}{tail}"))
}

/// From the header's line to the last line that holds a value of the table or of a table in it.
fn lines_of(text: &str, table: &Table) -> Option<Range<usize>> {
    let start = text.get(..table.span()?.start)?.rfind('\n').map_or(0, |at| at + 1);
    let end = end_of(table);
    let end = text.get(end..)?.find('\n').map_or(text.len(), |at| end + at + 1);
    Some(start..end)
}

fn end_of(table: &Table) -> usize {
    let own = table.span().map_or(0, |span| span.end);
    let ends = table.iter().map(|(_, item)| match item {
        Item::Table(table) => end_of(table),
        item => item.span().map_or(0, |span| span.end),
    });
    ends.fold(own, usize::max)
}

/// Refuses an edit that changed anything but the one entry: `larger` less what `less` takes out is `smaller`.
fn check(path: &Path, smaller: &str, larger: &str, less: impl FnOnce(&mut Vec<Node>)) -> Result<(), Error> {
    let (smaller, mut larger) = (parse(path, smaller)?, parse(path, larger)?);
    if let Value::Table(keys) = &mut larger.value
        && let Some(at) = keys.iter().position(|(key, _)| key == "webhooks")
        && let Value::List(entries) = &mut keys[at].1.value
    {
        less(entries);
        if entries.is_empty() && get(&smaller, "webhooks").is_none() {
            keys.remove(at);
        }
    }
    if is_same(&smaller, &larger) { Ok(()) } else { Err(Error::Layout { path: path.to_owned() }) }
}

/// Whether two trees hold the same, wherever it stands.
fn is_same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Whole(a), Value::Whole(b)) => a == b,
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (Value::Flag(a), Value::Flag(b)) => a == b,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Table(a), Value::Table(b)) => {
            let find = |key: &str| b.iter().find(|(k, _)| k == key).map(|(_, node)| node);
            a.len() == b.len() && a.iter().all(|(key, a)| find(key).is_some_and(|b| is_same(a, b)))
        }
        (Value::Nothing, Value::Nothing) => true,
        _ => false,
    }
}

fn diff(before: &str, after: &str) -> String {
    let (before, after) = (hidden(before), hidden(after));
    let mut out = String::new();
    for change in similar::TextDiff::from_lines(&before, &after).iter_all_changes() {
        let sign = match change.tag() {
            similar::ChangeTag::Equal => continue,
            similar::ChangeTag::Delete => '-',
            similar::ChangeTag::Insert => '+',
        };
        out.push_str(&format!("{sign}{}\n", change.value().trim_end_matches(['\r', '\n'])));
    }
    out
}

/// The text with secrets, header values and the private part of URLs hidden, as far as they are values of entries.
fn hidden(text: &str) -> String {
    let Ok(document) = Document::parse(text) else { return String::new() };
    let mut spans: Vec<(Range<usize>, String)> = Vec::new();
    match document.get("webhooks") {
        Some(Item::ArrayOfTables(tables)) => {
            for (key, item) in tables.iter().flat_map(Table::iter) {
                match item {
                    Item::Value(value) => hide(key, value, &mut spans),
                    Item::Table(table) => {
                        let values = table.iter().filter_map(|(_, item)| item.as_value());
                        values.for_each(|value| hide(key, value, &mut spans));
                    }
                    Item::None | Item::ArrayOfTables(_) => {}
                }
            }
        }
        Some(Item::Value(list)) => {
            let entries = list.as_array().into_iter().flatten().filter_map(toml_edit::Value::as_inline_table);
            entries.flat_map(InlineTable::iter).for_each(|(key, value)| hide(key, value, &mut spans));
        }
        _ => {}
    }
    spans.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut out = text.to_owned();
    for (span, shown) in spans {
        out.replace_range(span, &shown);
    }
    out
}

fn hide(key: &str, value: &toml_edit::Value, spans: &mut Vec<(Range<usize>, String)>) {
    let shown = match key {
        "secret" | "headers" => "***".to_owned(),
        "url" => shown_url(value.as_str().unwrap_or_default()),
        _ => return,
    };
    spans.extend(value.span().map(|span| (span, format!("\"{shown}\""))));
}

fn shown_url(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => format!("{}/***", url.origin().ascii_serialization()),
        Err(_) => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const FILE: &str = "# mine\nwindow_minutes = 10 # short\n\n# the phone\n[[webhooks]]\nname = \"phone\"\n\
        url = \"https://u:hunter2@h.example/p?q=hunter2\"\nsecret = [\n  \"hunter2hunter2hunter2\", # new\n]\n\
        # events = [\"idle\"]\n\n# the desk\n[[webhooks]]\nname = 'desk'\nurl = \"http://localhost:1/\"\n\n\
        [delivery] # how\nretention = \"1d\"\n# the end";

    fn env() -> Env {
        Env::of(
            [("HOME", "/home/dev"), ("KEY", "sixteen-characters")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        )
    }

    fn entry<'a>(name: &'a str, url: &'a str) -> NewEntry<'a> {
        NewEntry { name, url, events: &[], secret_env: None }
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        (dir, path)
    }

    #[test]
    fn an_added_entry_stands_at_the_end_and_every_other_byte_stays() {
        let (_dir, path) = written(FILE);
        let events = ["waiting".to_owned(), "idle".to_owned()];
        let new =
            NewEntry { events: &events, secret_env: Some("KEY"), ..entry("a \"b\"", "https://x.example/k") };
        let report = add(&path, &new, &env()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let added = text.strip_prefix(FILE).unwrap();
        assert_eq!(
            added,
            "\n\n[[webhooks]]\nname = 'a \"b\"'\nurl = \"https://x.example/k\"\nsecret_env = \"KEY\"\n\
             events = [\"waiting\", \"idle\"]\n"
        );
        assert!(report.diff.contains("+url = \"https://x.example/***\""), "{}", report.diff);
        assert!(!report.diff.contains("hunter2") && report.warnings.is_empty(), "{report:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        // And it goes as it came, but for the line's end that the file did not have.
        remove(&path, "a \"b\"", &env()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), FILE);
    }

    #[test]
    fn a_removed_entry_leaves_the_comments_around_it_and_shows_no_secret() {
        let (_dir, path) = written(FILE);
        let report = remove(&path, "phone", &env()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# mine\nwindow_minutes = 10 # short\n\n# the phone\n# events = [\"idle\"]\n\n# the desk\n\
             [[webhooks]]\nname = 'desk'\nurl = \"http://localhost:1/\"\n\n[delivery] # how\n\
             retention = \"1d\"\n# the end"
        );
        assert!(report.diff.contains("-url = \"https://h.example/***\""), "{}", report.diff);
        assert!(!report.diff.contains("hunter2"), "{}", report.diff);
        remove(&path, "desk", &env()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("# the desk\n\n[delivery] # how\nretention = \"1d\"\n# the end"), "{text}");
        assert!(matches!(remove(&path, "desk", &env()), Err(Error::Missing { .. })));
    }

    #[test]
    fn a_list_on_one_line_stays_one() {
        let (_dir, path) = written("webhooks = [{ name = \"a\", url = \"http://h/\" }] # all\n");
        add(&path, &entry("b", "http://i/"), &env()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "webhooks = [{ name = \"a\", url = \"http://h/\" }, { name = \"b\", url = \"http://i/\" }] # all\n"
        );
        remove(&path, "a", &env()).unwrap();
        let left = super::super::load(Some(&path), &env()).unwrap();
        assert_eq!(left.endpoints.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_added_and_removed_leaves_every_byte_and_every_line_end_as_it_was() {
        let list =
            "# mine\nwebhooks = [ # all\n  { name = \"a\", url = \"http://h/\" }\n] # end\n\n[delivery]\n";
        let block = "# mine\n\n[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\n";
        for text in [list, block, "# mine\n", "# mine\n\n", "", "window_minutes = 5\n"] {
            for text in [text.to_owned(), text.replace('\n', "\r\n")] {
                let (_dir, path) = written(&text);
                let report = add(&path, &entry("b", "http://i/"), &env()).unwrap();
                let with = std::fs::read_to_string(&path).unwrap();
                let lines = |end: &str| with.matches(end).count();
                assert!(lines("\r\n") == if text.contains('\r') { lines("\n") } else { 0 }, "{with:?}");
                assert!(!report.diff.contains('\r'), "{:?}", report.diff);
                remove(&path, "b", &env()).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_would_not_work_is_not_written() {
        let (dir, path) = written(FILE);
        let events = ["sleeping".to_owned()];
        for (bad, part) in [
            (entry("phone", "http://h/"), "has an entry named \"phone\""),
            (entry("x", "ftp://h/"), "scheme \"ftp\" is not supported"),
            (NewEntry { events: &events, ..entry("x", "http://h/") }, "valid: idle waiting"),
            (NewEntry { secret_env: Some("UNSET"), ..entry("x", "http://h/") }, "\"UNSET\" is not set"),
        ] {
            let refused = add(&path, &bad, &env()).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), FILE);

        let json = dir.path().join("config.json");
        std::fs::write(&json, "{}").unwrap();
        assert!(matches!(add(&json, &entry("x", "http://h/"), &env()), Err(Error::Json { .. })));
        // The entry's own table goes with it, and what is in it is not shown.
        let own =
            "[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\n\n[webhooks.headers]\nx-key = \"hunter2\"\n";
        std::fs::write(&path, own).unwrap();
        assert!(!remove(&path, "a", &env()).unwrap().diff.contains("hunter2"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        // The entry's own table stands beyond another one: taking both out would take that one too.
        let apart = "[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\n[delivery]\nretention = \"1d\"\n[webhooks.headers]\nx-y = \"1\"\n";
        std::fs::write(&path, apart).unwrap();
        assert!(matches!(remove(&path, "a", &env()), Err(Error::Layout { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), apart);
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config.toml");
        add(&path, &entry("a", "http://h/"), &env()).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "[[webhooks]]\nname = \"a\"\nurl = \"http://h/\"\n"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        remove(&path, "a", &env()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
