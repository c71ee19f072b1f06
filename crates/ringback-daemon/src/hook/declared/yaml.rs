//! Front matter: YAML as the same tree that the configuration is read from.
//!
//! Owns: where the front matter of a file begins and ends, and what of YAML is taken: one document, no anchors, no
//! aliases, no merge keys, each key once, bounded in size and depth. Does not know what the keys mean.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};

use crate::config::node::{Node, Value};

/// The longest front matter, in bytes.
pub(super) const MAX_FRONT_MATTER: usize = 64 << 10;
/// Lists and mappings inside each other.
const MAX_DEPTH: usize = 32;

/// The two parts of a file: the front matter, and what follows it.
///
/// # Errors
/// There is no front matter, it does not end, or it is too long.
pub(super) fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_mark = |line: &str| line.trim_end() == "---";
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| is_mark(line));
    let first = first.ok_or("the first line must be ---, and the front matter ends with another ---")?;
    let mut at = first.len();
    for line in lines {
        if is_mark(line) {
            let front = &text[first.len()..at];
            if front.len() > MAX_FRONT_MATTER {
                return Err("the front matter is longer than 64 KiB".to_owned());
            }
            return Ok((front, &text[at + line.len()..]));
        }
        at += line.len();
    }
    Err("the front matter does not end: a line --- is missing".to_owned())
}

/// Reads front matter.
///
/// # Errors
/// What is wrong, with its line in the file; nothing of the file is repeated.
pub(super) fn read(front: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_nodes: 10_000,
            max_events: 40_000,
            max_total_scalar_bytes: MAX_FRONT_MATTER,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    let Yaml(node) = serde_saphyr::from_str_with_options(front, options).map_err(|error| {
        // The parser's message may quote the file, where a secret may stand by mistake.
        let place = error.location().map(|l| format!("line {}: ", l.line() + 1)).unwrap_or_default();
        format!(
            "{place}not usable YAML: one document of at most {MAX_DEPTH} levels, no anchors, aliases or merge keys, \
             each key once, : and # in quotes"
        )
    })?;
    Ok(node)
}

/// A value of a free-form part, as JSON.
pub(super) fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Text(text) => text.clone().into(),
        Value::Whole(n) => (*n).into(),
        Value::Real(n) => (*n).into(),
        Value::Flag(b) => (*b).into(),
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Table(entries) => {
            serde_json::Value::Object(entries.iter().map(|(k, v)| (k.clone(), to_json(v))).collect())
        }
        Value::Nothing => serde_json::Value::Null,
    }
}

struct Yaml(Node);

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(Tree)?;
        Ok(Yaml(Node { value, line: None }))
    }
}

/// A node and its line.
fn placed(spanned: Spanned<Yaml>) -> Node {
    // The file's first line is the mark before the front matter.
    let line = usize::try_from(spanned.referenced.line()).ok().filter(|l| *l > 0).map(|l| l + 1);
    Node { line, ..spanned.value.0 }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Tree)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Whole).map_err(|_| E::custom("a number out of range"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(placed(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = members.next_entry::<String, Spanned<Yaml>>()? {
            entries.push((key, placed(value)));
        }
        Ok(Value::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_the_kinds_and_the_lines() {
        let (front, rest) =
            split("---\nb: 1\na: [true, 'x', 1.5, ~]\nyes: on\n---\nDo {{a}}\n---\n").unwrap();
        assert_eq!(rest, "Do {{a}}\n---\n");
        let Value::Table(entries) = read(front).unwrap().value else { panic!("a mapping") };
        let keys: Vec<&str> = entries.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["b", "a", "yes"]);
        assert_eq!(entries.iter().map(|(_, n)| n.line).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
        let json: Vec<_> = entries.iter().map(|(_, n)| to_json(n)).collect();
        assert_eq!(
            json,
            [serde_json::json!(1), serde_json::json!([true, "x", 1.5, null]), serde_json::json!("on")]
        );
    }

    #[test]
    fn what_is_no_front_matter_is_told() {
        for (text, what) in [
            ("id: x\n", "the first line must be ---"),
            ("", "the first line must be ---"),
            ("---\nid: x\n", "does not end"),
            ("---\nid: x", "does not end"),
        ] {
            assert!(split(text).unwrap_err().contains(what), "{text:?}");
        }
        let long = format!("---\n{}\n---\nx", "# x\n".repeat(17 << 10));
        assert!(split(&long).unwrap_err().contains("longer than 64 KiB"));
    }

    #[test]
    fn yaml_bombs_are_refused() {
        let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in
            ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"])
        {
            laughs.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
        }
        let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        let wide = format!("a: [{}]", "1,".repeat(30_000));
        for bomb in [
            laughs.as_str(),
            "a: &a 1",
            "a: &a {b: *a}",
            "a: &a {b: 1}\nc: {<<: *a}",
            "a: {<<: {b: 1}}",
            "a: 1\na: 2",
            "a: 1\n--- \nb: 2",
            "a: .nan",
            "{a: ]",
            &deep,
            &wide,
        ] {
            let told = read(bomb).unwrap_err();
            assert!(told.contains("not usable YAML"), "{told}");
        }
        assert!(read(&deep[..deep.len() - 1]).is_err());
    }
}
