//! What a run sees of our environment: a list of names, and nothing beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Names that every run gets, where they are set (inbound.md, The run, "Environment").
const NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TERM",
    "TMPDIR",
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    // Proxies. Programs disagree on the case, so both are passed on.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    // Certificate authorities, as OpenSSL, Node, curl, Python, git and Codex look for them.
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CODEX_CA_CERTIFICATE",
];
const PREFIXES: &[&str] = &["LC_", "XDG_"];

/// The run's id.
pub(crate) const RUN: &str = "RINGBACK_RUN";
/// Where ringback's tools are.
pub(crate) const MCP_URL: &str = "RINGBACK_MCP_URL";
/// What opens them.
pub(crate) const MCP_TOKEN: &str = "RINGBACK_MCP_TOKEN";

/// The variables of a run. Their values may be credentials: `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Picks from `process_env` what a run may see: the contract's list and the names in `agent_env`, but no name
    /// in `never`, even if listed. The three variables that ringback sets itself are never inherited.
    pub fn select(
        process_env: &BTreeMap<String, String>,
        agent_env: &[String],
        never: &BTreeSet<String>,
    ) -> Environment {
        let listed = |name: &String| {
            NAMES.contains(&name.as_str())
                || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || agent_env.contains(name)
        };
        let barred =
            |name: &String| never.contains(name) || [RUN, MCP_URL, MCP_TOKEN].contains(&name.as_str());
        let picked = process_env.iter().filter(|(name, _)| listed(name) && !barred(name));
        Environment(picked.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), format!("value of {name}"))).collect()
    }

    fn names(env: &Environment) -> Vec<&str> {
        env.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_run_sees_the_contracts_list_and_nothing_else() {
        let listed = [
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LC_ALL",
            "LC_TIME",
            "TZ",
            "TERM",
            "TMPDIR",
            "XDG_CONFIG_HOME",
            "XDG_RUNTIME_DIR",
            "CLAUDE_CONFIG_DIR",
            "CODEX_HOME",
            "HTTPS_PROXY",
            "no_proxy",
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
        ];
        let hidden = [
            "ANTHROPIC_API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "CLAUDECODE",
            "DISCORD_TOKEN",
            "LD_PRELOAD",
            "LC",
            "NODE_OPTIONS",
            "PATHS",
            "WEBHOOK_SECRET",
            "path",
            "RINGBACK_RUN",
            "RINGBACK_MCP_TOKEN",
            "RINGBACK_MCP_URL",
        ];
        let both: Vec<&str> = listed.iter().chain(&hidden).copied().collect();
        let mut expected = listed.to_vec();
        expected.sort_unstable();
        let picked = Environment::select(&env(&both), &[], &BTreeSet::new());
        assert_eq!(names(&picked), expected);
        assert_eq!(picked.get("LC_ALL"), Some("value of LC_ALL"));
    }

    #[test]
    fn the_agents_env_list_adds_variables_but_never_one_that_holds_a_secret_of_ringback() {
        let listed = ["ANTHROPIC_API_KEY", "WEBHOOK_SECRET", "RINGBACK_RUN", "UNSET"].map(str::to_owned);
        let never = BTreeSet::from(["WEBHOOK_SECRET".to_owned(), "XDG_TOKEN".to_owned()]);
        let process = env(&["ANTHROPIC_API_KEY", "WEBHOOK_SECRET", "RINGBACK_RUN", "XDG_TOKEN", "HOME"]);
        let picked = Environment::select(&process, &listed, &never);
        assert_eq!(names(&picked), ["ANTHROPIC_API_KEY", "HOME"]);
    }

    #[test]
    fn values_are_not_shown() {
        let picked = Environment::select(&env(&["HOME"]), &[], &BTreeSet::new());
        assert_eq!(format!("{picked:?}"), "{\"HOME\"}");
    }
}
