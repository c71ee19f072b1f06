//! Expressions of `when` and `map`, over what a caller sent.
//!
//! Owns: what an expression can do. It sees the payload and nothing else: no file, no other template, no macro. Its
//! steps are counted, its output is bounded, and no filter makes much out of little. A value of the payload is never
//! read as a template. What is missing is undefined, at any depth.

use std::io;
use std::sync::LazyLock;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::config::node::{Node, Value as Yaml};

use super::yaml::to_json;

/// Steps of one expression.
const FUEL: u64 = 100_000;
/// Bytes that one expression puts out.
const MAX_OUTPUT: usize = 64 << 10;
/// Bytes that a filter may build.
const MAX_BUILT: usize = 4 << 20;

/// What cannot be evaluated. The parser's and the engine's words are for the owner's log: they may quote the payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be evaluated")]
pub(super) struct Failed;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(64);
    // Their output is as large as an argument says.
    for filter in ["indent", "format", "batch", "slice", "pprint"] {
        env.remove_filter(filter);
    }
    for function in ["range", "namespace", "debug", "dict"] {
        env.remove_global(function);
    }
    env.add_filter("replace", replace);
    env.add_filter("join", join);
    env
});

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the result is too large")
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let grown = text.matches(from).count().saturating_mul(to.len()).saturating_add(text.len());
    if grown > MAX_BUILT { Err(too_large()) } else { Ok(text.replace(from, to)) }
}

fn join(list: &Value, between: Option<&str>) -> Result<String, Error> {
    if list.is_undefined() || list.is_none() {
        return Ok(String::new());
    }
    let mut out = String::new();
    for (n, item) in list.try_iter()?.enumerate() {
        if n > 0 {
            out.push_str(between.unwrap_or_default());
        }
        out.push_str(&item.to_string());
        if out.len() > MAX_BUILT {
            return Err(too_large());
        }
    }
    Ok(out)
}

/// What expressions see.
pub(super) struct Context(Value);

impl Context {
    pub(super) fn new(names: &serde_json::Map<String, serde_json::Value>) -> Context {
        Context(Value::from(Serde(names)))
    }
}

/// `when`: whether a call starts a run.
#[derive(Debug)]
pub(super) struct Condition(String);

impl Condition {
    /// # Errors
    /// It is no expression.
    pub(super) fn new(text: &str) -> Result<Condition, String> {
        ENVIRONMENT.compile_expression(text).map_err(|e| told(&e))?;
        Ok(Condition(text.to_owned()))
    }

    pub(super) fn holds(&self, context: &Context) -> Result<bool, Failed> {
        Ok(evaluate(&self.0, context)?.is_true())
    }
}

/// One value of `map`.
#[derive(Debug)]
pub(super) enum Mapped {
    /// As it stands in the file.
    Constant(serde_json::Value),
    /// Keeps its JSON type.
    Expression(String),
    /// Becomes text.
    Text(String),
    List(Vec<Mapped>),
    Object(Vec<(String, Mapped)>),
}

impl Mapped {
    /// # Errors
    /// A text in it is no template.
    pub(super) fn new(node: &Node) -> Result<Mapped, String> {
        Ok(match &node.value {
            Yaml::Text(text) => match single(text) {
                Some(expression) => Mapped::Expression(expression.to_owned()),
                None => {
                    ENVIRONMENT.template_from_str(text).map_err(|e| told(&e))?;
                    Mapped::Text(text.clone())
                }
            },
            Yaml::List(list) => Mapped::List(list.iter().map(Mapped::new).collect::<Result<_, _>>()?),
            Yaml::Table(entries) => Mapped::Object(
                entries
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), Mapped::new(v)?)))
                    .collect::<Result<_, String>>()?,
            ),
            _ => Mapped::Constant(to_json(node)),
        })
    }

    /// A text with braces is read as [`Mapped::new`] reads it, another one is an expression.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn of_key(text: &str) -> Result<Mapped, String> {
        if text.contains("{{") || text.contains("{%") {
            return Mapped::new(&Node { value: Yaml::Text(text.to_owned()), line: None });
        }
        ENVIRONMENT.compile_expression(text).map_err(|e| told(&e))?;
        Ok(Mapped::Expression(text.to_owned()))
    }

    /// The value, or `None` where it is undefined.
    pub(super) fn value(&self, context: &Context) -> Result<Option<serde_json::Value>, Failed> {
        Ok(Some(match self {
            Mapped::Constant(value) => value.clone(),
            Mapped::Expression(text) => {
                let value = evaluate(text, context)?;
                if value.is_undefined() {
                    return Ok(None);
                }
                json(&value)?
            }
            Mapped::Text(text) => render(text, context)?.into(),
            Mapped::List(list) => {
                let values: Result<Vec<_>, _> = list.iter().map(|item| item.value(context)).collect();
                values?.into_iter().flatten().collect()
            }
            Mapped::Object(entries) => {
                let mut object = serde_json::Map::new();
                for (key, item) in entries {
                    if let Some(value) = item.value(context)? {
                        object.insert(key.clone(), value);
                    }
                }
                object.into()
            }
        }))
    }
}

/// The expression of a text that is `{{ expression }}` and nothing else.
fn single(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inside = inside.strip_prefix('-').unwrap_or(inside);
    let inside = inside.strip_suffix('-').unwrap_or(inside).trim();
    ENVIRONMENT.compile_expression(inside).is_ok().then_some(inside)
}

fn evaluate(text: &str, context: &Context) -> Result<Value, Failed> {
    let evaluated = ENVIRONMENT.compile_expression(text).and_then(|e| e.eval(context.0.clone()));
    evaluated.map_err(|error| {
        tracing::debug!(kind = ?error.kind(), "an expression of a hook cannot be evaluated");
        Failed
    })
}

/// A value as JSON: what is no data (a function, raw bytes) is not handed on.
fn json(value: &Value) -> Result<serde_json::Value, Failed> {
    if matches!(value.kind(), ValueKind::Bytes | ValueKind::Invalid | ValueKind::Plain) {
        return Err(Failed);
    }
    serde_json::to_value(value).map_err(|_| Failed)
}

fn render(text: &str, context: &Context) -> Result<String, Failed> {
    let mut out = Bounded(Vec::new());
    let template = ENVIRONMENT.template_from_str(text).map_err(|_| Failed)?;
    template.render_captured_to(context.0.clone(), &mut out).map_err(|error| {
        tracing::debug!(kind = ?error.kind(), "a template of a hook's map cannot be rendered");
        Failed
    })?;
    String::from_utf8(out.0).map_err(|_| Failed)
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is wrong with an expression of the file.
fn told(error: &Error) -> String {
    let what = error.detail().unwrap_or("it cannot be read");
    format!("not a usable expression: {}", ringback_model::escape::escaped_and_cut(what, 200))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn context(payload: Json) -> Context {
        let Json::Object(names) = payload else { panic!("an object") };
        Context::new(&names)
    }

    fn mapped(text: &str, payload: Json) -> Result<Option<Json>, Failed> {
        let node = Node { value: Yaml::Text(text.to_owned()), line: None };
        Mapped::new(&node).unwrap().value(&context(payload))
    }

    #[test]
    fn a_missing_path_is_undefined_at_any_depth_and_leaves_the_field_out() {
        let holds = |text: &str| Condition::new(text).unwrap().holds(&context(json!({"a": {"b": 1}})));
        assert_eq!(holds("a.b == 1"), Ok(true));
        for missing in ["x", "x.y", "a.b.c.d == 'failure'", "x.y.z[0] > 3", "a.x is defined", "'k' in x.y"] {
            assert_eq!(holds(missing), Ok(false), "{missing}");
        }
        assert_eq!(holds("x.y.z is undefined and not x.y.z"), Ok(true));
        assert_eq!(mapped("{{ x.y.z }}", json!({"a": 1})), Ok(None));
        assert_eq!(mapped("<{{ x.y.z }}>", json!({"a": 1})), Ok(Some(json!("<>"))));
    }

    #[test]
    fn a_single_expression_keeps_its_json_type_and_anything_else_is_text() {
        let payload =
            || json!({"n": 7, "x": 1.5, "b": false, "none": null, "list": [1, {"k": "v"}], "s": "t"});
        for (text, value) in [
            ("{{ n }}", json!(7)),
            (" {{n}} ", json!(7)),
            ("{{- x -}}", json!(1.5)),
            ("{{ b }}", json!(false)),
            ("{{ none }}", Json::Null),
            ("{{ list }}", json!([1, {"k": "v"}])),
            ("{{ s | upper }}", json!("T")),
            ("{{ list[1].k ~ '}}' }}", json!("v}}")),
            ("{{ n }}{{ n }}", json!("77")),
            ("#{{ n }}", json!("#7")),
            ("{% if b %}yes{% else %}no{% endif %}", json!("no")),
            ("plain", json!("plain")),
        ] {
            assert_eq!(mapped(text, payload()), Ok(Some(value)), "{text}");
        }
    }

    #[test]
    fn values_of_the_payload_are_never_parsed_as_templates() {
        for evil in ["{{ 7 * 7 }}", "{% for x in y %}", "{# x #}", "{{ headers }}"] {
            assert_eq!(mapped("{{ t }}", json!({"t": evil})), Ok(Some(json!(evil))));
            assert_eq!(mapped("a {{ t }}", json!({"t": evil})), Ok(Some(json!(format!("a {evil}")))));
        }
    }

    #[test]
    fn no_expression_reads_anything_else() {
        for text in [
            "{% include 'x' %}",
            "{% import 'x' as x %}",
            "{% from 'x' import y %}",
            "{% extends 'x' %}",
            "{% macro m() %}{% endmacro %}",
            "{% block b %}{% endblock %}",
            "{{ a b }}",
        ] {
            let node = Node { value: Yaml::Text(text.to_owned()), line: None };
            assert!(Mapped::new(&node).is_err(), "{text}");
        }
        assert!(Condition::new("a ==").is_err());
        for text in ["{{ debug() }}", "{{ range(9) }}", "{{ 'x' | indent(9) }}", "{{ namespace() }}"] {
            assert_eq!(mapped(text, json!({})), Err(Failed), "{text}");
        }
    }

    #[test]
    fn steps_and_output_are_bounded() {
        let items: Vec<u32> = (0..2000).collect();
        let text = "x".repeat(1 << 20);
        let payload = || json!({"l": items.clone(), "big": 99_000_000, "text": text.clone()});
        for hungry in [
            "{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}",
            "{{ 'x' * big }}!",
            "{{ text }}!",
            "{{ text | replace('x', text) }}",
            "{{ l | join(text) }}",
        ] {
            assert_eq!(mapped(hungry, payload()), Err(Failed), "{hungry}");
        }
        assert_eq!(
            mapped("{{ 'aXb' | replace('X', '-') }}{{ [1,2] | join(',') }}", json!({})),
            Ok(Some(json!("a-b1,2")))
        );
    }
}
