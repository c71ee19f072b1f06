//! Finds, inserts and removes the entry in the text of Claude Code's settings.
//!
//! Owns: the shape of the entry, where it goes, and what it looks like among its neighbours. Pure: text in, text
//! out. Every byte outside the inserted or removed span is kept. Does not know files or what is remembered.

use std::ops::Range;

use super::scan::{self, Node, Value};

/// The words by which an entry of ours is known, whatever path stands before them.
pub(super) const MARKER: &str = "hand-over claude";
/// The hook event whose output can add context to a prompt.
const EVENT: &str = "UserPromptSubmit";
/// After this many seconds the agent goes on without the answer.
const TIMEOUT_SECONDS: u32 = 1;

/// Settings after [`insert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole text.
    pub text: String,
    /// What differs from the text before.
    pub change: Change,
}

/// How [`insert`] changed the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry was there already, with this command.
    None,
    /// One span was inserted; without it the text is what it was.
    Inserted {
        /// Byte offsets in the new text.
        span: Range<usize>,
        /// What was made to hold the entry.
        containers: Containers,
    },
    /// The command of the entry that was there was replaced.
    Updated {
        /// Byte offsets of the command's string in the text before.
        old: Range<usize>,
        /// Byte offsets of the command's string in the new text.
        new: Range<usize>,
    },
    /// Several entries of ours became one.
    Merged,
}

/// Which containers were made for the entry, and may go with it once they are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Containers {
    /// The object `hooks`.
    pub hooks: bool,
    /// The array `hooks.UserPromptSubmit`.
    pub event: bool,
}

/// The text is not settings that the agent would read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// It is not JSON.
    #[error("not valid JSON: line {line}, column {column}: {problem}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// It is JSON, but a part that holds hooks is of the wrong type.
    #[error("not in the shape of settings: line {line}, column {column}: {part} is not {expected}")]
    Shape {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// Which part.
        part: &'static str,
        /// Which type it should have.
        expected: &'static str,
    },
}

impl InvalidSettings {
    pub(super) fn syntax(text: &str, at: usize, problem: &'static str) -> InvalidSettings {
        let (line, column) = place(text, at);
        InvalidSettings::Syntax { line, column, problem }
    }
}

/// Adds a handler that runs `command` to `hooks.UserPromptSubmit`, written as its neighbours are.
///
/// A handler of ours that is there already gets this command instead; several become one.
///
/// # Errors
/// The text is not JSON, or the parts on the way to the handler are not objects and an array.
pub fn insert(text: &str, command: &str) -> Result<Edited, InvalidSettings> {
    let root = parse(text)?;
    let shape = |node: &Node, part, expected| {
        let (line, column) = place(text, node.span.start);
        InvalidSettings::Shape { line, column, part, expected }
    };
    let Value::Object(_) = root.value else { return Err(shape(&root, "the whole", "an object")) };
    let hooks = root.member("hooks").map(|m| &m.node);
    if let Some(hooks) = hooks.filter(|n| !matches!(n.value, Value::Object(_))) {
        return Err(shape(hooks, "hooks", "an object"));
    }
    let groups = hooks.and_then(|n| n.member(EVENT)).map(|m| &m.node);
    if let Some(groups) = groups.filter(|n| !matches!(n.value, Value::Array(_))) {
        return Err(shape(groups, "hooks.UserPromptSubmit", "an array"));
    }
    let ours: Vec<&Node> = groups.into_iter().flat_map(our_commands).collect();
    match ours.as_slice() {
        [] => {}
        [only] if only.text() == Some(command) => {
            return Ok(Edited { text: text.to_owned(), change: Change::None });
        }
        [only] => return Ok(update(text, only.span.clone(), command)),
        [..] => {
            let cleared = remove(text, Containers::default())?;
            let text = insert(&cleared, command)?.text;
            return Ok(Edited { text, change: Change::Merged });
        }
    }

    let handlers = Piece::Array(vec![Piece::Object(vec![
        ("type", Piece::Text("command")),
        ("command", Piece::Text(command)),
        ("timeout", Piece::Number(TIMEOUT_SECONDS)),
    ])]);
    let group = Piece::Object(vec![("hooks", handlers)]);
    let (container, key, piece) = match (hooks, groups) {
        (_, Some(groups)) => (groups, None, group),
        (Some(hooks), None) => (hooks, Some(EVENT), Piece::Array(vec![group])),
        (None, None) => (&root, Some("hooks"), Piece::Object(vec![(EVENT, Piece::Array(vec![group]))])),
    };
    let containers = Containers { hooks: hooks.is_none(), event: groups.is_none() };
    let (at, addition) = Style::of(text, &root).addition(text, container, key, &piece);
    let mut edited = text.to_owned();
    edited.insert_str(at, &addition);
    let change = Change::Inserted { span: at..at + addition.len(), containers };
    Ok(Edited { text: edited, change })
}

/// Removes every handler of ours, groups that held nothing else, and then those of `made` that are empty.
///
/// # Errors
/// The text is not JSON.
pub fn remove(text: &str, made: Containers) -> Result<String, InvalidSettings> {
    let mut text = text.to_owned();
    // One at a time: a removal moves the places of all the others.
    while let Some(span) = next_of_ours(&parse(&text)?) {
        text.replace_range(span, "");
    }
    if made.event {
        let root = parse(&text)?;
        let hooks = root.member("hooks").map(|m| &m.node);
        if let Some(span) = hooks.and_then(|hooks| cut_if_empty(hooks, EVENT)) {
            text.replace_range(span, "");
        }
    }
    if made.hooks
        && let Some(span) = cut_if_empty(&parse(&text)?, "hooks")
    {
        text.replace_range(span, "");
    }
    Ok(text)
}

/// Whether the settings say nothing at all.
pub(super) fn is_empty(text: &str) -> Result<bool, InvalidSettings> {
    let root = parse(text)?;
    Ok(matches!(&root.value, Value::Object(members) if members.is_empty()))
}

fn parse(text: &str) -> Result<Node, InvalidSettings> {
    scan::parse(text).map_err(|fault| InvalidSettings::syntax(text, fault.at, fault.problem))
}

fn update(text: &str, old: Range<usize>, command: &str) -> Edited {
    let literal = literal(command);
    let mut edited = text.to_owned();
    edited.replace_range(old.clone(), &literal);
    let new = old.start..old.start + literal.len();
    Edited { text: edited, change: Change::Updated { old, new } }
}

/// The command strings of our handlers in the groups of one event.
fn our_commands(groups: &Node) -> impl Iterator<Item = &Node> {
    groups
        .items()
        .iter()
        .filter_map(|group| group.member("hooks"))
        .flat_map(|handlers| handlers.node.items())
        .filter(|handler| is_ours(handler))
        .filter_map(|handler| handler.member("command"))
        .map(|command| &command.node)
}

fn is_ours(handler: &Node) -> bool {
    handler.member("command").and_then(|m| m.node.text()).is_some_and(|c| c.contains(MARKER))
}

/// The span to cut for the first handler of ours, in whatever event it stands.
fn next_of_ours(root: &Node) -> Option<Range<usize>> {
    let all_hooks = root.members().iter().filter(|m| m.key == "hooks");
    for event in all_hooks.flat_map(|hooks| hooks.node.members()) {
        for (place, group) in event.node.items().iter().enumerate() {
            for member in group.members().iter().filter(|m| m.key == "hooks") {
                let handlers = member.node.items();
                let Some(first) = handlers.iter().position(is_ours) else { continue };
                let nothing_else = group.members().len() == 1 && handlers.iter().all(is_ours);
                return Some(if nothing_else { cut(&event.node, place) } else { cut(&member.node, first) });
            }
        }
    }
    None
}

/// The span to cut for a member of `parent` whose container is empty.
fn cut_if_empty(parent: &Node, key: &str) -> Option<Range<usize>> {
    let place = parent.members().iter().rposition(|m| m.key == key)?;
    let node = &parent.members()[place].node;
    let is_container = matches!(node.value, Value::Object(_) | Value::Array(_));
    (is_container && node.entries().is_empty()).then(|| cut(parent, place))
}

/// The span that takes one entry out of its container, with one comma where there is one.
fn cut(container: &Node, place: usize) -> Range<usize> {
    let entries = container.entries();
    match (entries.get(place + 1), place.checked_sub(1)) {
        (Some(next), _) => entries[place].start..next.start,
        (None, Some(previous)) => entries[previous].end..entries[place].end,
        (None, None) => container.inside(),
    }
}

/// How the text is laid out.
struct Style<'t> {
    /// Where each entry has a line of its own: the line break and one step of indentation.
    lines: Option<(&'static str, &'t str)>,
    /// What stands between a key and its value.
    colon: &'t str,
}

impl<'t> Style<'t> {
    fn of(text: &'t str, root: &Node) -> Style<'t> {
        let Some(first) = root.members().first() else {
            let line_break = line_break(text).unwrap_or("\n");
            return Style { lines: Some((line_break, "  ")), colon: ": " };
        };
        let blank = &text[root.inside().start..first.key_span.start];
        let lines = line_break(blank).map(|line_break| (line_break, after_line_break(blank)));
        let colon = &text[first.key_span.end..first.node.span.start];
        Style { lines, colon: if colon.len() > 3 || line_break(colon).is_some() { ": " } else { colon } }
    }

    /// Where a new last entry of the container goes, and the text to put there.
    fn addition(
        &self,
        text: &str,
        container: &Node,
        key: Option<&str>,
        piece: &Piece<'_>,
    ) -> (usize, String) {
        let mut out = String::new();
        let Some(last) = container.entries().last().cloned() else {
            let inside = &text[container.inside()];
            let at = container.inside().start;
            let Some((line_break_here, step)) = self.lines else {
                self.write_entry(&mut out, None, key, piece);
                return (at, out);
            };
            let outer = format!("{line_break_here}{}", indent_of_line(text, container.span.start));
            let line = format!("{outer}{step}");
            out.push_str(&line);
            self.write_entry(&mut out, Some((&line, step)), key, piece);
            if line_break(inside).is_none() {
                out.push_str(&outer);
            }
            return (at, out);
        };
        let before = &text[..last.start];
        let blank = &before[before.trim_end_matches([' ', '\t', '\n', '\r']).len()..];
        out.push(',');
        match line_break(blank) {
            Some(line_break) => {
                let line = format!("{line_break}{}", after_line_break(blank));
                out.push_str(&line);
                let step = self.lines.map_or("  ", |(_, step)| step);
                self.write_entry(&mut out, Some((&line, step)), key, piece);
            }
            None => {
                out.push_str(blank);
                self.write_entry(&mut out, None, key, piece);
            }
        }
        (last.end, out)
    }

    /// `lines`: the line break with the entry's own indentation, and one step more.
    fn write_entry(
        &self,
        out: &mut String,
        lines: Option<(&str, &str)>,
        key: Option<&str>,
        piece: &Piece<'_>,
    ) {
        if let Some(key) = key {
            out.push_str(&literal(key));
            out.push_str(self.colon);
        }
        match piece {
            Piece::Text(text) => out.push_str(&literal(text)),
            Piece::Number(number) => out.push_str(&number.to_string()),
            Piece::Object(members) => {
                let entries = members.iter().map(|(key, piece)| (Some(*key), piece));
                self.write_container(out, lines, ('{', '}'), entries);
            }
            Piece::Array(items) => {
                let entries = items.iter().map(|piece| (None, piece));
                self.write_container(out, lines, ('[', ']'), entries);
            }
        }
    }

    fn write_container<'p>(
        &self,
        out: &mut String,
        lines: Option<(&str, &str)>,
        (open, close): (char, char),
        entries: impl Iterator<Item = (Option<&'p str>, &'p Piece<'p>)>,
    ) {
        out.push(open);
        let inner = lines.map(|(line, step)| (format!("{line}{step}"), step));
        let inner = inner.as_ref().map(|(line, step)| (line.as_str(), *step));
        for (place, (key, piece)) in entries.enumerate() {
            if place > 0 {
                out.push(',');
            }
            match inner {
                Some((line, _)) => out.push_str(line),
                None if place > 0 && self.colon.ends_with(' ') => out.push(' '),
                None => {}
            }
            self.write_entry(out, inner, key, piece);
        }
        if let Some((line, _)) = lines {
            out.push_str(line);
        }
        out.push(close);
    }
}

/// A value to be written.
enum Piece<'a> {
    Object(Vec<(&'a str, Piece<'a>)>),
    Array(Vec<Piece<'a>>),
    Text(&'a str),
    Number(u32),
}

fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The kind of line break in the text, if it has one.
fn line_break(text: &str) -> Option<&'static str> {
    let at = text.find(['\r', '\n'])?;
    Some(match &text[at..] {
        rest if rest.starts_with("\r\n") => "\r\n",
        rest if rest.starts_with('\r') => "\r",
        _ => "\n",
    })
}

fn after_line_break(blank: &str) -> &str {
    blank.rfind(['\r', '\n']).map_or(blank, |at| &blank[at + 1..])
}

/// The white space that the line of this place begins with.
fn indent_of_line(text: &str, at: usize) -> &str {
    let line = after_line_break(&text[..at]).trim_start_matches('\u{feff}');
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// Line and column (in characters) of a byte offset, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text).trim_start_matches('\u{feff}');
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
