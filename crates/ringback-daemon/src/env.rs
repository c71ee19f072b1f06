//! The process's environment as a value, so that tests pass a map and nothing reads it behind our back.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Variables of others that say where our files are.
const PLACES: [&str; 3] = ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"];

/// A variable that matters holds bytes that are no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {name} is not UTF-8")]
pub struct NotUtf8 {
    /// Its name.
    pub name: String,
}

/// Environment variables, taken once at start.
#[derive(Clone, Default)]
pub struct Env(HashMap<String, String>);

impl Env {
    /// The environment of this process; values that are not UTF-8 are left out.
    ///
    /// # Errors
    /// A variable that says where our files are, or is otherwise ours alone, is not UTF-8: what it asks for would be
    /// passed over without a word.
    pub fn of_process() -> Result<Self, NotUtf8> {
        Env::read(std::env::vars_os())
    }

    fn read(pairs: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, NotUtf8> {
        let mut known = HashMap::new();
        for (name, value) in pairs {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    known.insert(name, value);
                }
                Err(_) if name.starts_with("RINGBACK_") || PLACES.contains(&name.as_str()) => {
                    return Err(NotUtf8 { name });
                }
                Err(_) => {}
            }
        }
        Ok(Env(known))
    }

    /// From pairs.
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Env(pairs.into_iter().collect())
    }

    /// All variables, by name.
    pub fn all(&self) -> std::collections::BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// A variable's value; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A variable that names an absolute path; a relative one counts as unset, as the XDG rules ask.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }

    /// The home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// `path` with a leading `~` replaced by the home directory.
    pub fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix('~'), self.home()) {
            (Some(""), Some(home)) => home,
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
        }
    }

    /// Adds variables that are not set yet (those of the `.env` file); an empty one counts as not set.
    pub fn add_missing(&mut self, pairs: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in pairs {
            let known = self.0.entry(name).or_default();
            if known.is_empty() {
                *known = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn what_is_missing_or_empty_is_added() {
        let pairs = |names: &[&str], value: &str| -> Vec<(String, String)> {
            names.iter().map(|name| ((*name).to_owned(), value.to_owned())).collect()
        };
        let mut env = Env::of(pairs(&["A"], "a").into_iter().chain(pairs(&["B"], "")));
        env.add_missing(pairs(&["A", "B", "C"], "x"));
        assert_eq!(["A", "B", "C"].map(|name| env.get(name)), [Some("a"), Some("x"), Some("x")]);
    }

    #[test]
    fn a_variable_of_ours_that_is_no_text_is_refused_and_one_of_others_left_out() {
        let bad = || OsString::from_vec(b"/tmp/\xff".to_vec());
        let read = |name: &str| Env::read([(name.into(), bad()), ("A".into(), "b".into())].into_iter());
        for name in ["RINGBACK_STATE_DIR", "RINGBACK_CONFIG", "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            assert_eq!(read(name).err(), Some(NotUtf8 { name: name.to_owned() }));
        }
        let env = read("OTHER").unwrap();
        assert_eq!((env.get("OTHER"), env.get("A")), (None, Some("b")));
    }
}
