//! A configuration file as a tree that remembers where each value stands.
//!
//! TOML and JSON become the same tree, so that every rule about keys is written once.

/// A value and the line it stands on (1-based; JSON has none).
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) line: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Whole(i64),
    Real(f64),
    Flag(bool),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
    /// JSON's null: the key counts as absent.
    Nothing,
}

impl Value {
    /// The kind of value, for "expected TYPE, found TYPE".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Whole(_) => "a whole number",
            Value::Real(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Nothing => "nothing",
        }
    }
}

/// Parses TOML. The error is the parser's, with line and column, without the file's text.
pub(crate) fn from_toml(text: &str) -> Result<Node, String> {
    let document: toml_edit::Document<&str> = toml_edit::Document::parse(text).map_err(|e| {
        let place = e.span().map(|s| line_of(text, s.start));
        match place {
            Some(line) => format!("line {line}: {}", e.message()),
            None => e.message().to_owned(),
        }
    })?;
    Ok(of_item(text, document.as_item()))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn of_item(text: &str, item: &toml_edit::Item) -> Node {
    let line = item.span().map(|s| line_of(text, s.start));
    let value = match item {
        toml_edit::Item::None => Value::Nothing,
        toml_edit::Item::Value(v) => return of_value(text, v),
        toml_edit::Item::Table(t) => {
            Value::Table(t.iter().map(|(k, v)| (k.to_owned(), of_item(text, v))).collect())
        }
        toml_edit::Item::ArrayOfTables(list) => Value::List(
            list.iter()
                .map(|t| Node {
                    line: t.span().map(|s| line_of(text, s.start)),
                    value: Value::Table(t.iter().map(|(k, v)| (k.to_owned(), of_item(text, v))).collect()),
                })
                .collect(),
        ),
    };
    Node { value, line }
}

fn of_value(text: &str, value: &toml_edit::Value) -> Node {
    let line = value.span().map(|s| line_of(text, s.start));
    let value = match value {
        toml_edit::Value::String(s) => Value::Text(s.value().clone()),
        toml_edit::Value::Integer(n) => Value::Whole(*n.value()),
        toml_edit::Value::Float(n) => Value::Real(*n.value()),
        toml_edit::Value::Boolean(b) => Value::Flag(*b.value()),
        toml_edit::Value::Datetime(d) => Value::Text(d.value().to_string()),
        toml_edit::Value::Array(list) => Value::List(list.iter().map(|v| of_value(text, v)).collect()),
        toml_edit::Value::InlineTable(t) => {
            Value::Table(t.iter().map(|(k, v)| (k.to_owned(), of_value(text, v))).collect())
        }
    };
    Node { value, line }
}

/// Parses JSON.
pub(crate) fn from_json(text: &str) -> Result<Node, String> {
    // The parser's message may quote the file; line and column are enough to find the place.
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| format!("line {}, column {}: not valid JSON", e.line(), e.column()))?;
    Ok(of_json(value))
}

fn of_json(value: serde_json::Value) -> Node {
    let value = match value {
        serde_json::Value::Null => Value::Nothing,
        serde_json::Value::Bool(b) => Value::Flag(b),
        serde_json::Value::Number(n) => {
            n.as_i64().map_or_else(|| Value::Real(n.as_f64().unwrap_or(f64::NAN)), Value::Whole)
        }
        serde_json::Value::String(s) => Value::Text(s),
        serde_json::Value::Array(list) => Value::List(list.into_iter().map(of_json).collect()),
        serde_json::Value::Object(map) => {
            Value::Table(map.into_iter().map(|(k, v)| (k, of_json(v))).collect())
        }
    };
    Node { value, line: None }
}
