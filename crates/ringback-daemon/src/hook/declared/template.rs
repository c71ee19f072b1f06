//! The template below the front matter: the owner's instructions, with places for fields.
//!
//! Owns: `{{name}}`, and `{name}` where a field has that name. Does not know expressions, and never sees a value: a
//! piece is text or the name of a field, so that no value can be taken for a template.

/// A template, in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// The value of a field, or a reference to it.
    Field(String),
}

impl Template {
    /// Reads a template. White space around it is not part of it.
    ///
    /// # Errors
    /// It is empty, or it has a placeholder that is no name.
    pub(super) fn parse(text: &str, is_field: impl Fn(&str) -> bool) -> Result<Template, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(
                "the template below the front matter is empty; write what the agent is to do".to_owned()
            );
        }
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            plain.push_str(before);
            let (name, length) = match from.strip_prefix("{{") {
                Some(inner) => {
                    let inside = inner.split_once("}}").map(|(inside, _)| inside);
                    let inside = inside.ok_or("a placeholder {{ in the template is not closed by }}")?;
                    if !is_name(inside.trim()) {
                        return Err(
                            "a placeholder in the template is {{name}}; expressions belong in map".to_owned()
                        );
                    }
                    (inside.trim(), inside.len() + 4)
                }
                None => match from[1..].split_once('}') {
                    Some((name, _)) if is_name(name) && is_field(name) => (name, name.len() + 2),
                    _ => {
                        plain.push('{');
                        rest = &from[1..];
                        continue;
                    }
                },
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Field(name.to_owned()));
            rest = &from[length..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template(pieces))
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The fields it names, each once, in order.
    pub(super) fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for piece in &self.0 {
            if let Piece::Field(name) = piece
                && !names.contains(&name.as_str())
            {
                names.push(name.as_str());
            }
        }
        names
    }
}

/// Whether a text can be the name of a field in a template.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_names_in_double_braces_or_declared_names_in_single_ones() {
        let template =
            Template::parse("\nA {{ repo }}{repo} {other} {\"x\": {{n}}}\n", |n| n == "repo").unwrap();
        let (text, field) = (|t: &str| Piece::Text(t.to_owned()), |t: &str| Piece::Field(t.to_owned()));
        assert_eq!(
            template.pieces(),
            [text("A "), field("repo"), field("repo"), text(" {other} {\"x\": "), field("n"), text("}")]
        );
        assert_eq!(template.fields(), ["repo", "n"]);
    }

    #[test]
    fn what_is_no_placeholder_is_told() {
        for (text, what) in [
            (" \n ", "is empty"),
            ("a {{repo", "not closed"),
            ("a {{ repo | upper }}", "expressions belong in map"),
            ("a {{}}", "is {{name}}"),
            ("{{{a}}}", "is {{name}}"),
        ] {
            assert!(Template::parse(text, |_| true).unwrap_err().contains(what), "{text}");
        }
    }
}
