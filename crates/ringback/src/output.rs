//! Printing: lines to stdout, complaints to stderr, tables that fit the terminal.

use std::io::{self, IsTerminal, Write};

use ringback_model::Timestamp;
use serde_json::Value;

/// What an error says when the reader of our output went away.
pub(crate) const CLOSED: &str = "output closed";

/// Narrower than this is no terminal that somebody reads.
const NARROWEST: usize = 20;

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

/// Columns of the terminal: what COLUMNS says, else what the terminal has, else 80. A pipe gets lines as long as they
/// are.
pub(crate) fn width() -> usize {
    if !is_terminal() {
        return usize::MAX;
    }
    let of_terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    columns(std::env::var("COLUMNS").ok().as_deref(), of_terminal)
}

fn columns(wanted: Option<&str>, of_terminal: impl FnOnce() -> Option<usize>) -> usize {
    // A terminal that was not told its size has none.
    let is_size = |columns: &usize| *columns > 0;
    let wanted = wanted.and_then(|text| text.parse().ok()).filter(is_size);
    wanted.or_else(|| of_terminal().filter(is_size)).map_or(80, |columns| columns.max(NARROWEST))
}

/// Prints names with their values, each in as many lines as it needs.
pub(crate) fn fields(fields: &[(&str, String)], width: usize) -> io::Result<()> {
    laid_out(fields, width).iter().try_for_each(|line| raw(&format!("{line}\n")))
}

fn laid_out(fields: &[(&str, String)], width: usize) -> Vec<String> {
    let longest_name = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let column = longest_name.min((width / 3).max(10)) + 2;
    let mut lines = Vec::new();
    for (name, value) in fields {
        let value = safe(value);
        let longest = value.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
        // An id that does not fit beside its name stands below it: one in two halves cannot be copied.
        if column + longest > width || name.chars().count() + 2 > column {
            lines.push((*name).to_owned());
            lines.extend(wrapped("  ", &value, width));
        } else {
            lines.extend(wrapped(&format!("{name:<column$}"), &value, width));
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Prints text in lines that fit the terminal.
pub(crate) fn text(text: &str, width: usize) -> io::Result<()> {
    wrapped("", &safe(text), width).iter().try_for_each(|line| raw(&format!("{line}\n")))
}

/// The text in lines of at most `width` columns where its words allow, the later ones indented as far as the first.
pub(crate) fn wrapped(head: &str, text: &str, width: usize) -> Vec<String> {
    let indent = head.chars().count();
    let mut lines = vec![head.to_owned()];
    let mut columns = indent;
    let mut is_first = true;
    for word in text.split(' ') {
        let long = word.chars().count();
        if !is_first && columns + 1 + long > width {
            lines.push(" ".repeat(indent));
            columns = indent;
            is_first = true;
        }
        let space = if is_first { "" } else { " " };
        if let Some(line) = lines.last_mut() {
            line.push_str(space);
            line.push_str(word);
        }
        columns += space.len() + long;
        is_first = false;
    }
    lines
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
        let names: Vec<String> = head.iter().map(|name| name.to_lowercase()).collect();
        for row in &rows {
            let named = names.iter().map(String::as_str).zip(row.iter().cloned());
            let named: Vec<(&str, String)> = named.filter(|(_, cell)| !cell.is_empty()).collect();
            fields(&named, width)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_fit_forty_columns_and_long_words_stay_whole() {
        let text = "state: /a/long/path is on NFS, where locks and the journal are not safe at all";
        let lines = wrapped("BROKEN ", text, 40);
        assert!(lines.len() > 2 && lines.iter().all(|l| l.chars().count() <= 40), "{lines:#?}");
        assert!(
            lines[1..].iter().all(|l| l.starts_with("       ") && !l.starts_with("        ")),
            "{lines:#?}"
        );
        let path = format!("/{}", "x".repeat(60));
        assert_eq!(wrapped("ok     ", &format!("a {path} b"), 40)[1], format!("       {path}"));
        assert_eq!(wrapped("ok     ", text, usize::MAX), [format!("ok     {text}")]);
    }

    #[test]
    fn fields_fit_forty_columns_and_ids_stay_whole() {
        let id = "01900000-0000-7000-8000-000000000000";
        let fields = [
            ("state", "completed".to_owned()),
            ("run", id.to_owned()),
            ("message, error or wait", "it waits for the day's money, and for its turn".to_owned()),
        ];
        let lines = laid_out(&fields, 40);
        assert_eq!(
            lines,
            [
                "state          completed",
                "run",
                &format!("  {id}"),
                "message, error or wait",
                "  it waits for the day's money, and for",
                "  its turn",
            ]
        );
        let lines = laid_out(&fields, usize::MAX);
        assert_eq!(lines[1], format!("{:<24}{id}", "run"));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn the_width_is_what_columns_says_else_the_terminals_else_eighty() {
        assert_eq!(columns(Some("132"), || Some(40)), 132);
        assert_eq!(columns(None, || Some(40)), 40);
        assert_eq!(columns(Some("wide"), || Some(40)), 40);
        assert_eq!(columns(Some("0"), || Some(0)), 80);
        assert_eq!(columns(None, || None), 80);
        assert_eq!(columns(Some("3"), || None), NARROWEST);
    }
}
