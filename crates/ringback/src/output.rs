//! Printing: lines to stdout, complaints to stderr, tables that fit the terminal.

use std::io::{self, IsTerminal, Write};

use ringback_model::Timestamp;
use serde_json::Value;

/// What an error says when the reader of our output went away.
pub(crate) const CLOSED: &str = "output closed";

/// Prints one line. Control characters from outside are escaped.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", safe(text))?;
    out.flush()
}

/// Prints text that is ours to the last byte.
pub(crate) fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints JSON.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    raw(&format!("{value:#}\n"))
}

/// Prints to stderr; a closed stderr is nobody's problem.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", safe(text));
}

/// The text with control characters escaped, so that what an agent or a sender wrote cannot move the cursor.
pub(crate) fn safe(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Whether stdout is a person's terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Columns of the terminal; a pipe gets lines as long as they are.
pub(crate) fn width() -> usize {
    if !is_terminal() {
        return usize::MAX;
    }
    let from_env = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    from_env.filter(|w| *w >= 20).unwrap_or(80)
}

/// Prints rows as columns. The last column is cut where the terminal ends; where even the others do not fit, each
/// row becomes one block of lines.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], width: usize) -> io::Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| safe(c)).collect()).collect();
    let columns = head.len();
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let fixed: usize = widths.iter().take(columns - 1).map(|w| w + 2).sum();
    if fixed + 8 > width {
        for row in &rows {
            for (name, cell) in head.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
                let cell: String = cell.chars().take(width.saturating_sub(12)).collect();
                raw(&format!("{:<10}  {cell}\n", name.to_lowercase()))?;
            }
            raw("\n")?;
        }
        return Ok(());
    }
    let print = |cells: Vec<&str>| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            if i + 1 == columns {
                text.extend(cell.chars().take(width.saturating_sub(fixed)));
            } else {
                text.push_str(&format!("{cell:<w$}  ", w = widths[i]));
            }
        }
        raw(&format!("{}\n", text.trim_end()))
    };
    print(head.to_vec())?;
    for row in &rows {
        print(row.iter().map(String::as_str).collect())?;
    }
    Ok(())
}

/// How long ago, in one unit: `now`, `42s`, `5m`, `3h`, `2d`.
pub(crate) fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return "-".to_owned() };
    match now.since(at).as_secs() {
        0..=4 => "now".to_owned(),
        s @ 5..=59 => format!("{s}s"),
        s @ 60..=3_599 => format!("{}m", s / 60),
        s @ 3_600..=86_399 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// A JSON string or number as a cell; anything else is a dash.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(s) if !s.is_empty() => s.clone(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        _ => "-".to_owned(),
    }
}

/// A JSON string as an instant.
pub(crate) fn instant(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
