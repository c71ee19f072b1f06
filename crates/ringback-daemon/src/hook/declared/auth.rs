//! `auth` of a hook file: who may call the hook, and where the secret is.
//!
//! Owns: the spellings of `auth`, and the rule that a file names a secret and never holds one. How a sender proves
//! itself is `ringback_webhook::senders`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringback_model::Secret;
use ringback_webhook::senders::{Algorithm, Encoding, HmacSpec, Scheme, TimestampSpec, Unit};
use ringback_webhook::verify::TOLERANCE;

use crate::config::node::{Node, Value};
use crate::config::units;
use crate::env::Env;

/// How a hook is called.
#[derive(Debug)]
pub(in crate::hook) enum Auth {
    /// With the secret of the listener, as `/hook/agent` is.
    Shared,
    /// As its sender does.
    Sender {
        /// `github`, `hmac`, `none`, ...
        name: String,
        scheme: Box<Scheme>,
    },
}

/// What reading `auth` came upon.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Variables that hold secrets: no agent sees them.
    pub(super) variables: BTreeSet<String>,
    /// Files that hold secrets.
    pub(super) files: Vec<PathBuf>,
    /// Secrets that are not there, in words.
    pub(super) unset: Vec<String>,
}

/// What reading `auth` needs.
pub(super) struct Places<'a> {
    pub(super) env: &'a Env,
    /// Relative paths start here.
    pub(super) directory: &'a Path,
    /// `[inbound] allow_unsigned`.
    pub(super) allow_unsigned: bool,
}

/// Reads `auth`.
///
/// # Errors
/// What is wrong, in words that follow "auth: ". Nothing that could be a secret is repeated.
pub(super) fn read(node: Option<&Node>, places: &Places<'_>, found: &mut Found) -> Result<Auth, String> {
    const EXPECTED: &str =
        "expected a sender and its secret, such as { github: GITHUB_WEBHOOK_SECRET }, or none";
    let Some(node) = node else { return Ok(Auth::Shared) };
    let sender = |name: &str, scheme| Ok(Auth::Sender { name: name.to_owned(), scheme: Box::new(scheme) });
    match &node.value {
        Value::Text(text) if text == "none" => {
            if places.allow_unsigned {
                return sender("none", Scheme::unsigned());
            }
            Err("none lets anybody start runs; it needs allow_unsigned = true below [inbound] in the configuration".to_owned())
        }
        Value::Table(entries) => match entries.as_slice() {
            [(name, value)] => {
                let scheme = match name.as_str() {
                    "hmac" => hmac(value, places, found)?,
                    "header" => header(value, places, found)?,
                    preset => {
                        let secrets = secrets(value, places, found)?;
                        Scheme::preset(preset, &secrets).map_err(|e| shown(&e.to_string()))?
                    }
                };
                sender(name, scheme)
            }
            _ => Err(EXPECTED.to_owned()),
        },
        _ => Err(EXPECTED.to_owned()),
    }
}

/// Every secret that is named and there.
fn secrets(node: &Node, places: &Places<'_>, found: &mut Found) -> Result<Vec<Secret>, String> {
    const EXPECTED: &str = "expected the name of a variable such as GITHUB_WEBHOOK_SECRET, { file: PATH }, or a list of them; \
                            a secret itself does not belong into the file";
    let one = match &node.value {
        Value::List(list) if !list.is_empty() => {
            let mut all = Vec::new();
            for item in list {
                if matches!(item.value, Value::List(_)) {
                    return Err(EXPECTED.to_owned());
                }
                all.extend(secrets(item, places, found)?);
            }
            return Ok(all);
        }
        Value::Text(name) if is_variable(name) => {
            found.variables.insert(name.clone());
            let secret = places.env.get(name).map(Secret::new);
            if secret.is_none() {
                found.unset.push(format!("the variable {name} is not set"));
            }
            secret
        }
        Value::Table(entries) => match entries.as_slice() {
            [(key, Node { value: Value::Text(path), .. })] if key == "file" => {
                let path = places.directory.join(places.env.expand(path));
                let secret = std::fs::read_to_string(&path).ok();
                let secret = secret.map(|text| Secret::new(text.trim_end_matches(['\r', '\n'])));
                let secret = secret.filter(|secret| !secret.reveal().is_empty());
                if secret.is_none() {
                    found
                        .unset
                        .push(format!("the secret file {} is empty or cannot be read", path.display()));
                }
                found.files.push(path);
                secret
            }
            _ => return Err(EXPECTED.to_owned()),
        },
        _ => return Err(EXPECTED.to_owned()),
    };
    Ok(one.into_iter().collect())
}

/// Whether a text names a variable. Only capitals, as variables of secrets are named: anything else is more likely a
/// secret itself.
fn is_variable(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The entries of a scheme that is described in the file.
struct Described<'a> {
    entries: &'a [(String, Node)],
    known: &'static [&'static str],
}

impl<'a> Described<'a> {
    fn new(node: &'a Node, known: &'static [&'static str]) -> Result<Self, String> {
        let Value::Table(entries) = &node.value else {
            return Err(format!("expected a mapping with {}", known.join(", ")));
        };
        let described = Described { entries, known };
        for (key, _) in entries {
            if !known.contains(&key.replace('-', "_").as_str()) {
                return Err(format!("unknown key {}; known are {}", shown(key), known.join(", ")));
            }
        }
        Ok(described)
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.known.contains(&key));
        self.entries.iter().find(|(k, _)| k.replace('-', "_") == key).map(|(_, node)| node)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key).map(|node| &node.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key}: expected a string, found {}", other.kind())),
        }
    }

    fn secrets(&self, places: &Places<'_>, found: &mut Found) -> Result<Vec<Secret>, String> {
        secrets(self.get("secret").ok_or("secret is missing: the name of a variable")?, places, found)
    }

    /// One of the words of a closed set.
    fn word<T: serde::de::DeserializeOwned + Default>(&self, key: &str, words: &str) -> Result<T, String> {
        let Some(text) = self.text(key)? else { return Ok(T::default()) };
        serde_json::from_value(text.into()).map_err(|_| format!("{key}: expected {words}"))
    }
}

/// `header: { name: X-Token, secret: VARIABLE }`.
fn header(node: &Node, places: &Places<'_>, found: &mut Found) -> Result<Scheme, String> {
    let described = Described::new(node, &["name", "secret"])?;
    let name = described.text("name")?.ok_or("name is missing: the header that holds the secret")?;
    let secrets = described.secrets(places, found)?;
    Scheme::header(name, &secrets).map_err(|e| shown(&e.to_string()))
}

/// `hmac: { secret: VARIABLE, header: X-Signature, ... }`.
fn hmac(node: &Node, places: &Places<'_>, found: &mut Found) -> Result<Scheme, String> {
    let described = Described::new(
        node,
        &[
            "secret",
            "header",
            "prefix",
            "algorithm",
            "encoding",
            "signed",
            "timestamp_header",
            "timestamp_unit",
            "tolerance",
            "id_header",
            "event_header",
        ],
    )?;
    let owned = |key| described.text(key).map(|text| text.map(str::to_owned));
    let timestamp = match owned("timestamp_header")? {
        None => None,
        Some(header) => Some(TimestampSpec {
            header,
            unit: described.word::<Unit>("timestamp_unit", "s or ms")?,
            tolerance: tolerance(described.text("tolerance")?)?,
        }),
    };
    let spec = HmacSpec {
        header: owned("header")?.ok_or("header is missing: the header that holds the signature")?,
        prefix: owned("prefix")?.unwrap_or_default(),
        algorithm: described.word::<Algorithm>("algorithm", "sha1, sha256 or sha512")?,
        encoding: described.word::<Encoding>("encoding", "hex, base64 or base64url")?,
        signed: owned("signed")?.unwrap_or_else(|| "{body}".to_owned()),
        timestamp,
        id_header: owned("id_header")?,
        event_header: owned("event_header")?,
    };
    let secrets = described.secrets(places, found)?;
    Scheme::hmac(&spec, &secrets).map_err(|e| shown(&e.to_string()))
}

fn tolerance(text: Option<&str>) -> Result<Duration, String> {
    let Some(text) = text else { return Ok(TOLERANCE) };
    let parsed = units::duration(text).filter(|d| *d > Duration::ZERO && *d <= Duration::from_secs(86_400));
    parsed.ok_or_else(|| "tolerance: expected a duration up to 1d such as \"5m\"".to_owned())
}

fn shown(text: &str) -> String {
    ringback_model::escape::escaped_and_cut(text, 300)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::declared::yaml;

    fn read_one(yaml: &str, allow_unsigned: bool) -> (Result<Auth, String>, Found) {
        let env = Env::of([("SET".to_owned(), "s3cret".to_owned()), ("PAIR".to_owned(), "a:b".to_owned())]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "from-file\n").unwrap();
        let places = Places { env: &env, directory: directory.path(), allow_unsigned };
        let node = yaml::read(yaml).unwrap();
        let Value::Table(entries) = &node.value else { panic!("a mapping") };
        let mut found = Found::default();
        let read = read(entries.first().map(|(_, node)| node), &places, &mut found);
        (read, found)
    }

    #[test]
    fn a_secret_is_a_variable_or_a_file_or_a_list_of_them() {
        for (yaml, unset) in [
            ("auth: { github: SET }", 0),
            ("auth: { github: { file: key } }", 0),
            ("auth: { github: [SET, { file: key }, UNSET] }", 1),
            ("auth: { github: UNSET }", 1),
            ("auth: { github: { file: nowhere } }", 1),
            ("auth: { basic: PAIR }", 0),
            ("auth: { header: { name: X-Token, secret: SET } }", 0),
            (
                "auth: { hmac: { secret: SET, header: X-Sig, prefix: 'v1=', algorithm: sha512, encoding: base64, signed: '{timestamp}.{body}', timestamp-header: X-Time, timestamp_unit: ms, tolerance: 1m } }",
                0,
            ),
        ] {
            let (auth, found) = read_one(yaml, false);
            let Auth::Sender { scheme, .. } = auth.unwrap() else { panic!("{yaml}") };
            assert_eq!(found.unset.len(), unset, "{yaml}");
            let is_alone = !yaml.contains('[');
            assert_eq!(scheme.has_secret(), !(is_alone && unset > 0), "{yaml}");
        }
        let (_, found) = read_one("auth: { github: [SET, UNSET] }", false);
        assert_eq!(found.variables.iter().map(String::as_str).collect::<Vec<_>>(), ["SET", "UNSET"]);
    }

    #[test]
    fn a_literal_secret_in_the_file_is_an_error_that_does_not_repeat_it() {
        for literal in ["hunter2-literal", "whsec_C2FVsBQIhrscChlQIMV", "lowercase", "9DIGITS", "\"\""] {
            for yaml in [
                format!("auth: {{ github: {literal} }}"),
                format!("auth: {{ github: [SET, {literal}] }}"),
                format!("auth: {{ header: {{ name: X-T, secret: {literal} }} }}"),
                format!("auth: {{ hmac: {{ header: X-T, secret: {literal} }} }}"),
            ] {
                let told = read_one(&yaml, false).0.unwrap_err();
                assert!(told.contains("a secret itself does not belong into the file"), "{told}");
                assert!(!told.contains(literal) || literal == "\"\"", "{told}");
            }
        }
        let told = read_one("auth: hunter2-literal", false).0.unwrap_err();
        assert!(told.contains("expected a sender and its secret") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn none_needs_leave_and_what_is_unknown_is_told() {
        assert!(read_one("auth: none", false).0.unwrap_err().contains("allow_unsigned = true"));
        assert!(matches!(read_one("auth: none", true).0, Ok(Auth::Sender { .. })));
        for (yaml, what) in [
            ("auth: { gihtub: SET }", "no sender is called \"gihtub\""),
            ("auth: { github: SET, slack: SET }", "expected a sender"),
            ("auth: { basic: SET }", "USER:PASSWORD"),
            ("auth: { hmac: { secret: SET } }", "header is missing"),
            ("auth: { hmac: { secret: SET, header: X, signed: '{bdy}' } }", "cannot be signed"),
            ("auth: { hmac: { secret: SET, header: X, algorithm: md5 } }", "sha1, sha256 or sha512"),
            ("auth: { header: { secret: SET } }", "name is missing"),
            ("auth: { header: { name: X, secret: SET, x: 1 } }", "unknown key x"),
        ] {
            let told = read_one(yaml, false).0.unwrap_err();
            assert!(told.contains(what), "{yaml} -> {told}");
        }
    }
}
