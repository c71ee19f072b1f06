//! The arguments of a call, read leniently.
//!
//! Owns: which odd forms of an argument are still understood, and what the agent is told about the others. Agents
//! write a bool as `"True"`, an absent argument as null and a list as a string with JSON in it; numbers turn up where
//! a text was asked for. What is unknown is left alone. Does not know what a tool makes of the values.

use ringback_model::ping::EmbedInput;
use ringback_model::ping::embed::{Button, FieldInput};
use rmcp::model::JsonObject;
use serde_json::Value;

/// An argument that cannot be understood; the text tells the agent how to mend the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidArguments {
    #[error("{path} is missing; call the tool again with {path} as {expected}")]
    Missing { path: String, expected: &'static str },
    #[error("{path} is {found}; call the tool again with {path} as {expected}")]
    WrongType { path: String, found: &'static str, expected: &'static str },
}

const STRING: &str = "a string";
const BOOLEAN: &str = "true or false";

/// An object of arguments; reading one takes it out.
pub(super) struct Arguments {
    /// Where the object stands: empty for the call's own, else as in `fields[2].`.
    prefix: String,
    values: JsonObject,
}

impl Arguments {
    pub(super) fn of_call(values: JsonObject) -> Self {
        Arguments { prefix: String::new(), values }
    }

    /// All that `discord_embed` takes.
    pub(super) fn embed(&mut self) -> Result<EmbedInput, InvalidArguments> {
        Ok(EmbedInput {
            title: self.text("title")?,
            description: self.optional_text("description")?,
            color: self.optional_text("color")?,
            fields: self.list("fields", "an array of objects with name and value", Arguments::field)?,
            buttons: self.list("buttons", "an array of objects with label and url", Arguments::button)?,
            critical: self.flag("critical")?.unwrap_or(false),
        })
    }

    fn field(mut self) -> Result<FieldInput, InvalidArguments> {
        Ok(FieldInput { name: self.text("name")?, value: self.text("value")?, inline: self.flag("inline")? })
    }

    fn button(mut self) -> Result<Button, InvalidArguments> {
        Ok(Button { label: self.text("label")?, url: self.text("url")? })
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, InvalidArguments> {
        self.optional_text(name)?
            .ok_or_else(|| InvalidArguments::Missing { path: self.path(name), expected: STRING })
    }

    /// A text that may be missing or null.
    fn optional_text(&mut self, name: &str) -> Result<Option<String>, InvalidArguments> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(scalar @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(scalar.to_string())),
            Some(other) => Err(wrong_type(self.path(name), &other, STRING)),
        }
    }

    /// A bool that may be missing or null.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, InvalidArguments> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(wrong_type(self.path(name), &other, BOOLEAN)),
        }
    }

    /// A list of objects that may be missing or null.
    fn list<T>(
        &mut self,
        name: &str,
        expected: &'static str,
        read: fn(Arguments) -> Result<T, InvalidArguments>,
    ) -> Result<Vec<T>, InvalidArguments> {
        let path = self.path(name);
        let items = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(Vec::new()),
            Some(Value::String(text)) => match serde_json::from_str(&text) {
                Ok(Value::Array(items)) => items,
                _ => return Err(wrong_type(path, &Value::String(text), expected)),
            },
            Some(other) => return Err(wrong_type(path, &other, expected)),
        };
        let read_item = |(at, item): (usize, Value)| match item {
            Value::Object(values) => read(Arguments { prefix: format!("{path}[{at}]."), values }),
            other => Err(wrong_type(format!("{path}[{at}]"), &other, "an object")),
        };
        items.into_iter().enumerate().map(read_item).collect()
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn wrong_type(path: String, found: &Value, expected: &'static str) -> InvalidArguments {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string that cannot be read as such",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    InvalidArguments::WrongType { path, found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn arguments(value: Value) -> Arguments {
        match value {
            Value::Object(values) => Arguments::of_call(values),
            other => panic!("not an object: {other}"),
        }
    }

    fn embed(value: Value) -> Result<EmbedInput, String> {
        arguments(value).embed().map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn an_embed_is_read_as_the_model_knows_it() {
        let value = json!({
            "title": "Build failed", "description": "main is red", "color": "red", "critical": true,
            "fields": [{"name": "branch", "value": "main", "inline": false}, {"name": "job", "value": "test"}],
            "buttons": [{"label": "Log", "url": "https://ci.example.com/1"}],
        });
        assert_eq!(embed(value.clone()), Ok(serde_json::from_value(value).unwrap()));
        assert_eq!(
            embed(json!({"title": "t"})),
            Ok(EmbedInput { title: "t".to_owned(), ..EmbedInput::default() })
        );
    }

    #[test]
    fn the_odd_forms_that_agents_write_are_understood() {
        let odd = json!({
            "title": 404, "description": null, "color": null, "critical": "True", "unknown": [1],
            "fields": "[{\"name\": \"up\", \"value\": false, \"inline\": \"false\"}]", "buttons": "",
        });
        let fields = vec![FieldInput { name: "up".into(), value: "false".into(), inline: Some(false) }];
        assert_eq!(
            embed(odd),
            Ok(EmbedInput { title: "404".into(), fields, critical: true, ..EmbedInput::default() })
        );
    }

    #[test]
    fn what_cannot_be_understood_is_told_with_its_place_and_how_to_mend_it() {
        for (value, told) in [
            (json!({}), "title is missing; call the tool again with title as a string"),
            (json!({"title": null}), "title is missing; call the tool again with title as a string"),
            (json!({"title": ["t"]}), "title is an array; call the tool again with title as a string"),
            (
                json!({"title": "t", "critical": "very"}),
                "critical is a string that cannot be read as such; call the tool again with critical as true or \
                 false",
            ),
            (
                json!({"title": "t", "critical": 1}),
                "critical is a number; call the tool again with critical as true or false",
            ),
            (
                json!({"title": "t", "fields": {"name": "n"}}),
                "fields is an object; call the tool again with fields as an array of objects with name and value",
            ),
            (
                json!({"title": "t", "buttons": "[{"}),
                "buttons is a string that cannot be read as such; call the tool again with buttons as an array of \
                 objects with label and url",
            ),
            (
                json!({"title": "t", "fields": [{"name": "n", "value": "v"}, {"name": "n"}]}),
                "fields[1].value is missing; call the tool again with fields[1].value as a string",
            ),
            (
                json!({"title": "t", "buttons": [true]}),
                "buttons[0] is a boolean; call the tool again with buttons[0] as an object",
            ),
        ] {
            assert_eq!(embed(value.clone()), Err(told.to_owned()), "{value}");
        }
    }
}
