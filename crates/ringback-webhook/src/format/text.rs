//! Long texts in pieces that a message can hold.
//!
//! Lengths are UTF-16 units unless bytes are named: destinations say "characters", and no way of counting them gives
//! more than this one.

/// Ends what was cut.
const MARK: char = '\u{2026}';

/// The length of `text` in UTF-16 units.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// `text` in at most `most` parts of at most `limit` units each, none of them blank; no part for a blank text. A part
/// ends at a line break, else at a space, if there is one in its last tenth; what is left after the last part is cut
/// off with a mark.
pub fn split(text: &str, limit: usize, most: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && parts.len() < most {
        if parts.len() + 1 == most {
            parts.push(cut(rest, limit));
            break;
        }
        let (part, after) = rest.split_at(part_end(rest, limit));
        parts.push(part.trim_end().to_owned());
        rest = after.trim_start();
    }
    parts
}

/// `text` itself when it has at most `limit` units, else its beginning and a mark, `limit` units together.
pub fn cut(text: &str, limit: usize) -> String {
    if prefix(text, limit) == text.len() {
        return text.to_owned();
    }
    let Some(room) = limit.checked_sub(MARK.len_utf16()) else { return String::new() };
    let mut out = text[..prefix(text, room)].trim_end().to_owned();
    out.push(MARK);
    out
}

/// As [`cut`], for a text of which `escape` rewrites some characters: the limit is on what comes out, and the cut is
/// never inside of what a character became.
pub fn cut_escaped(text: &str, limit: usize, escape: fn(char) -> Option<&'static str>) -> String {
    let length = |c: char| escape(c).map_or(c.len_utf16(), units);
    let is_whole = text.chars().map(length).sum::<usize>() <= limit;
    let mut room = if is_whole { limit } else { limit.saturating_sub(MARK.len_utf16()) };
    let mut out = String::new();
    for c in text.chars() {
        let Some(rest) = room.checked_sub(length(c)) else { break };
        room = rest;
        match escape(c) {
            Some(escaped) => out.push_str(escaped),
            None => out.push(c),
        }
    }
    if !is_whole && limit >= MARK.len_utf16() {
        out.truncate(out.trim_end().len());
        out.push(MARK);
    }
    out
}

/// As [`cut`], with the limit in bytes of UTF-8.
pub fn cut_bytes(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let Some(room) = limit.checked_sub(MARK.len_utf8()) else { return String::new() };
    let mut out = text[..text.floor_char_boundary(room)].trim_end().to_owned();
    out.push(MARK);
    out
}

/// `text` with every run of white space as one space, for a heading.
pub fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where the first part of `text` ends, in bytes.
fn part_end(text: &str, limit: usize) -> usize {
    let longest = prefix(text, limit);
    let Some(next) = text[longest..].chars().next() else { return longest };
    // The character behind the part may be the break: it goes with neither part.
    let from = prefix(text, limit - limit / 10);
    let tail = &text[from..longest + next.len_utf8()];
    match tail.rfind('\n').or_else(|| tail.rfind(char::is_whitespace)) {
        Some(at) if from + at > 0 => from + at,
        _ => longest,
    }
}

/// How many bytes of `text` are at most `limit` units, at a whole character.
fn prefix(text: &str, limit: usize) -> usize {
    let mut left = limit;
    for (at, c) in text.char_indices() {
        match left.checked_sub(c.len_utf16()) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[&str]) {
        assert_eq!(split(text, 10, 3), want, "{text:?}");
    }

    #[test]
    fn a_text_that_fits_is_one_part() {
        check("0123456789", &["0123456789"]);
        check("  a\nb \n", &["a\nb"]);
    }

    #[test]
    fn a_blank_text_has_no_part() {
        check(" \n\t ", &[]);
        check("", &[]);
    }

    #[test]
    fn a_part_ends_at_a_line_break_or_a_space_near_its_end_and_else_anywhere() {
        check("012345678\nabc", &["012345678", "abc"]);
        check("0123456789 abc", &["0123456789", "abc"]);
        check("012345678 abc", &["012345678", "abc"]);
        check("0123 456789abc", &["0123 45678", "9abc"]);
        check("0123456789abc", &["0123456789", "abc"]);
        let text = format!("{}\n{} {}", "a".repeat(1_850), "b".repeat(100), "c".repeat(1_000));
        assert_eq!(units(&split(&text, 2_000, 5)[0]), 1_850);
    }

    #[test]
    fn the_last_part_is_cut_with_a_mark() {
        check("0123456789abcdefghijABCDEFGHIJ", &["0123456789", "abcdefghij", "ABCDEFGHIJ"]);
        check("0123456789abcdefghijABCDEFGHIJK", &["0123456789", "abcdefghij", "ABCDEFGHI\u{2026}"]);
    }

    #[test]
    fn no_part_is_blank_however_much_white_space_there_is() {
        check(&format!("a{}b", " ".repeat(50)), &["a", "b"]);
        check(&format!("a{}b", "\n".repeat(50)), &["a", "b"]);
    }

    #[test]
    fn characters_outside_the_basic_plane_count_twice_and_stay_whole() {
        assert_eq!(split(&"\u{1f600}".repeat(6), 10, 3), ["\u{1f600}".repeat(5), "\u{1f600}".to_owned()]);
        assert_eq!(cut(&"\u{1f600}".repeat(6), 10), format!("{}\u{2026}", "\u{1f600}".repeat(4)));
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn an_escape_is_never_cut_and_counts_in_full() {
        let escape = |c| (c == '&').then_some("&amp;");
        assert_eq!(cut_escaped("a&b", 7, escape), "a&amp;b");
        assert_eq!(cut_escaped("a&b", 6, escape), "a\u{2026}");
        assert_eq!(cut_escaped("&&b", 10, escape), "&amp;\u{2026}");
        assert_eq!(cut_escaped("a&b", 0, escape), "");
    }

    #[test]
    fn bytes_are_cut_between_characters() {
        assert_eq!(cut_bytes("\u{20ac}\u{20ac}\u{20ac}", 9), "\u{20ac}\u{20ac}\u{20ac}");
        assert_eq!(cut_bytes("\u{20ac}\u{20ac}\u{20ac}", 8), "\u{20ac}\u{2026}");
        assert_eq!(cut_bytes("abc", 2), "");
    }

    #[test]
    fn nothing_but_white_space_is_lost_when_the_parts_suffice() {
        let text: String =
            (0..900).map(|n| format!("word{n}{}", if n % 7 == 0 { "\n" } else { " " })).collect();
        let parts = split(&text, 2_000, 5);
        assert!(parts.len() > 2 && parts.iter().all(|part| units(part) <= 2_000));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parts.iter().flat_map(|part| words(part)).collect::<Vec<_>>(), words(&text));
    }
}
