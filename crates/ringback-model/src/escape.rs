//! Characters that a reader does not see, and how text from outside is shown without them.
//!
//! Owns: which characters are hidden, and the two ways to make text safe to put on a line. Does not know where the
//! text goes: JSON, terminals and prompts keep their own quoting.

use std::fmt::Write as _;

/// `text` with every hidden character written as `\uXXXX`, the way JSON writes it; characters outside the basic
/// plane become a surrogate pair. Put over JSON text it leaves the JSON's meaning as it was.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    out
}

/// `text` as part of one line: every run of line breaks, tabs and spaces becomes one space, none at either end, and
/// what is hidden is [`escaped`].
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        for c in word.chars() {
            push_escaped(&mut out, c);
        }
    }
    out
}

/// [`escaped`] text of at most `chars` characters; an escape that does not fit is left out whole.
pub fn escaped_and_cut(text: &str, chars: usize) -> String {
    let mut out = String::new();
    let mut left = chars;
    for c in text.chars() {
        let before = out.len();
        push_escaped(&mut out, c);
        let added = out[before..].chars().count();
        if added > left {
            out.truncate(before);
            break;
        }
        left -= added;
    }
    out
}

/// `text` itself when it has at most `chars` characters, else its beginning and a closing ellipsis, `chars`
/// characters together.
pub fn cut_with_mark(text: &str, chars: usize) -> String {
    if text.chars().nth(chars).is_none() {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(chars.saturating_sub(1)).collect();
    out.push('\u{2026}');
    out
}

/// Whether a character shows nothing of itself or reorders its neighbours: controls, format characters (Unicode
/// category Cf), line and paragraph separators, blank fillers, and the variation selectors that can carry a
/// message (all but the two that choose between text and emoji).
pub const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0d}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn push_escaped(out: &mut String, c: char) {
    if !is_hidden(c) {
        out.push(c);
        return;
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hidden_characters_are_shown_as_json_escapes() {
        assert_eq!(escaped("a\u{1b}[31m\u{202e}b\u{e0041}"), "a\\u001b[31m\\u202eb\\udb40\\udc41");
        assert_eq!(
            escaped("plain \"text\" \u{fc}\u{1f600}\u{fe0f}"),
            "plain \"text\" \u{fc}\u{1f600}\u{fe0f}"
        );
    }

    #[test]
    fn escaping_over_json_text_keeps_its_meaning() {
        let value = serde_json::json!({"k\u{200b}": "a\u{7f}\u{2028}\u{e0041}\n"});
        let shown = escaped(&value.to_string());
        assert!(shown.is_ascii());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_cut_never_splits_an_escape() {
        assert_eq!(escaped_and_cut("ab\ncd", 7), "ab");
        assert_eq!(escaped_and_cut("ab\ncd", 8), "ab\\u000a");
        assert_eq!(escaped_and_cut("ab\ncd", 9), "ab\\u000ac");
        assert_eq!(cut_with_mark("abcd", 4), "abcd");
        assert_eq!(cut_with_mark("abcde", 4), "abc\u{2026}");
    }

    proptest! {
        #[test]
        fn one_line_is_one_line_whatever_comes(text in any::<String>()) {
            let line = one_line(&text);
            prop_assert!(!line.chars().any(is_hidden));
            prop_assert!(!line.chars().any(|c| c.is_whitespace() && c != ' '));
            prop_assert!(!line.contains("  ") && line.trim() == line);
        }

        #[test]
        fn a_cut_is_a_beginning_of_the_whole(text in any::<String>(), chars in 0usize..80) {
            let cut = escaped_and_cut(&text, chars);
            prop_assert!(cut.chars().count() <= chars);
            prop_assert!(escaped(&text).starts_with(&cut));
        }
    }
}
