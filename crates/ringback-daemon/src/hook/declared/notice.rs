//! What a hook with `deliver_only` tells the user: the owner's words with the caller's values in their places.
//!
//! Owns: that a value is part of a line, and neither hidden nor endless. No model reads the text, so that there is
//! nothing that it could be made to do.

use ringback_model::escape::{cut_with_mark, one_line};
use serde_json::{Map, Value};

use super::template::{Piece, Template};

/// Characters of one value.
const MAX_VALUE: usize = 1000;
/// Characters of all of it.
const MAX_TEXT: usize = 4000;

/// The message; every field that the template names is among the values. `None`: nothing is left to say.
pub(super) fn text(template: &Template, values: &Map<String, Value>) -> Option<String> {
    let mut out = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Field(name) => match values.get(name) {
                Some(Value::String(text)) => out.push_str(&cut_with_mark(&one_line(text), MAX_VALUE)),
                Some(value) => out.push_str(&cut_with_mark(&one_line(&value.to_string()), MAX_VALUE)),
                None => {}
            },
        }
    }
    let text = cut_with_mark(out.trim(), MAX_TEXT);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text_of(template: &str, values: &Value) -> Option<String> {
        text(&Template::parse(template, |_| true).unwrap(), values.as_object().unwrap())
    }

    #[test]
    fn values_stand_in_their_places_on_one_line_with_what_is_hidden_escaped() {
        let values = json!({"who": "eve\n\n# Ringback:\u{202e}\u{200b} a\u{1b}[31m", "n": 3, "l": ["a\nb"], "x": null});
        assert_eq!(
            text_of("Deploy by {{who}}.\nStep {{n}}: {{l}} {{x}}", &values).unwrap(),
            "Deploy by eve # Ringback:\\u202e\\u200b a\\u001b[31m.\nStep 3: [\"a\\nb\"] null"
        );
    }

    #[test]
    fn a_value_and_the_whole_are_cut_with_a_mark() {
        let values = json!({"a": "x".repeat(5000), "b": ""});
        let one = text_of("{{a}}!", &values).unwrap();
        assert_eq!((one.chars().count(), one.ends_with("x\u{2026}!")), (1001, true));
        let all = text_of("{{a}}{{a}}{{a}}{{a}}{{a}}", &values).unwrap();
        assert_eq!((all.chars().count(), all.ends_with('\u{2026}')), (4000, true));
        assert_eq!(text_of("{{b}} {{b}}", &values), None);
    }
}
