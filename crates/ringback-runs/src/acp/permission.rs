//! Whether an agent that asks may use a tool: the run's list, and ringback's own tools.
//!
//! The list has Claude Code's names; an agent tells of a tool by its kind. A title is a name only for tools of no
//! kind: for a command it is the command.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Tools of a turn that are remembered by their calls' ids.
const MOST_CALLS: usize = 1000;
/// Names of refused tools that are kept.
const MOST_DENIED: usize = 100;
/// ringback's own tools.
const OWN: [&str; 3] = ["ping_user", "discord_embed", "report_updates"];

/// What is known of the tools of a run.
#[derive(Debug)]
pub(super) struct Permissions {
    allowed: Vec<String>,
    /// Kind and title, by call: some agents name them only there and not when they ask.
    calls: HashMap<String, Tool>,
    denied: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Tool {
    kind: Option<String>,
    title: Option<String>,
}

impl Permissions {
    pub(super) fn new(allowed: &[String]) -> Permissions {
        Permissions { allowed: allowed.to_vec(), calls: HashMap::new(), denied: Vec::new() }
    }

    /// Remembers a `tool_call` or a `tool_call_update`.
    pub(super) fn note(&mut self, update: &Value) {
        let Some(id) = update["toolCallId"].as_str() else { return };
        if self.calls.len() >= MOST_CALLS && !self.calls.contains_key(id) {
            self.calls.clear();
        }
        let tool = self.calls.entry(id.to_owned()).or_default();
        // The first words count: a title may turn into the command later.
        for (known, key) in [(&mut tool.kind, "kind"), (&mut tool.title, "title")] {
            if known.is_none() {
                *known = text(update, key);
            }
        }
    }

    /// The outcome of a `session/request_permission`: one of its options, chosen by its kind.
    pub(super) fn decide(&mut self, params: &Value, is_cancelled: bool) -> Value {
        let cancelled = || json!({"outcome": "cancelled"});
        if is_cancelled {
            return cancelled();
        }
        let call = &params["toolCall"];
        let known =
            call["toolCallId"].as_str().and_then(|id| self.calls.get(id)).cloned().unwrap_or_default();
        let kind = text(call, "kind").or(known.kind);
        let title = text(call, "title").or(known.title).unwrap_or_default();
        let is_allowed = self.allows(kind.as_deref(), &title);
        if !is_allowed && self.denied.len() < MOST_DENIED {
            self.denied.push(title);
        }
        let kinds =
            if is_allowed { ["allow_once", "allow_always"] } else { ["reject_once", "reject_always"] };
        let options = params["options"].as_array().map(Vec::as_slice).unwrap_or_default();
        let chosen = kinds.iter().find_map(|kind| options.iter().find(|option| option["kind"] == *kind));
        match chosen.and_then(|option| option["optionId"].as_str()) {
            Some(id) => json!({"outcome": "selected", "optionId": id}),
            None => cancelled(),
        }
    }

    /// Titles of the tools that were refused since this was asked last.
    pub(super) fn take_denied(&mut self) -> Vec<String> {
        std::mem::take(&mut self.denied)
    }

    fn allows(&self, kind: Option<&str>, title: &str) -> bool {
        let lists = |names: &[&str]| self.allowed.iter().any(|tool| names.contains(&tool.as_str()));
        match kind {
            Some("read") => lists(&["Read"]),
            Some("search") => lists(&["Grep", "Glob"]),
            Some("edit" | "delete" | "move") => lists(&["Write", "Edit"]),
            Some("execute") => lists(&["Bash"]),
            Some("fetch") => lists(&["WebFetch", "WebSearch"]),
            Some("think") => true,
            None | Some("other") => is_own(title) || lists(&[title]),
            Some(_) => false,
        }
    }
}

/// Whether a title names a tool of ringback's: each agent has its own way to put the server's name to it.
fn is_own(title: &str) -> bool {
    let name = ["mcp__ringback__", "mcp_ringback_", "ringback_"]
        .iter()
        .find_map(|prefix| title.strip_prefix(prefix))
        .or_else(|| title.strip_suffix(" (ringback MCP Server)"));
    name.is_some_and(|name| OWN.contains(&name))
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(|text| text[..text.floor_char_boundary(100)].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(allowed: &[&str]) -> Permissions {
        Permissions::new(&allowed.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    fn ask(kind: Option<&str>, title: &str) -> Value {
        json!({"toolCall": {"toolCallId": "c1", "title": title, "kind": kind}, "options": [
            {"optionId": "always", "kind": "allow_always"}, {"optionId": "once", "kind": "allow_once"},
            {"optionId": "no", "kind": "reject_once"}]})
    }

    fn chosen(permissions: &mut Permissions, kind: Option<&str>, title: &str) -> String {
        let outcome = permissions.decide(&ask(kind, title), false);
        outcome["optionId"].as_str().unwrap_or("cancelled").to_owned()
    }

    #[test]
    fn a_permission_is_given_once_and_only_for_what_the_list_has() {
        for (tool, kinds) in [
            ("Read", &["read"][..]),
            ("Grep", &["search"]),
            ("Edit", &["edit", "delete", "move"]),
            ("Bash", &["execute"]),
            ("WebFetch", &["fetch"]),
        ] {
            for kind in ["read", "search", "edit", "delete", "move", "execute", "fetch", "switch_mode"] {
                let expected = if kinds.contains(&kind) { "once" } else { "no" };
                assert_eq!(chosen(&mut permissions(&[tool]), Some(kind), "x"), expected, "{tool} {kind}");
            }
        }
    }

    #[test]
    fn ringbacks_own_tools_are_allowed_and_a_command_with_their_name_is_not() {
        let mut none = permissions(&[]);
        for title in [
            "ringback_ping_user",
            "mcp__ringback__report_updates",
            "mcp_ringback_discord_embed",
            "ping_user (ringback MCP Server)",
        ] {
            for kind in [None, Some("other")] {
                assert_eq!(chosen(&mut none, kind, title), "once", "{title}");
            }
            assert_eq!(chosen(&mut none, Some("execute"), title), "no", "{title}");
        }
        for title in ["ping_user", "ringback_", "ringback_ping_user; rm -rf /", "other_ping_user"] {
            assert_eq!(chosen(&mut none, Some("other"), title), "no", "{title}");
        }
        assert_eq!(chosen(&mut permissions(&["mcp__linear__search"]), None, "mcp__linear__search"), "once");
    }

    #[test]
    fn what_the_call_said_of_the_tool_counts_where_the_question_says_nothing() {
        let mut permissions = permissions(&["Bash"]);
        permissions.note(&json!({"toolCallId": "c1", "kind": "execute", "title": "ringback_ping_user"}));
        permissions.note(&json!({"toolCallId": "c1", "kind": "other", "title": "Running: x"}));
        assert_eq!(chosen(&mut permissions, None, "Bash"), "once");
        permissions.allowed.clear();
        assert_eq!(chosen(&mut permissions, None, "ringback_ping_user"), "no");
        assert_eq!(permissions.take_denied(), ["ringback_ping_user"]);
    }

    #[test]
    fn a_question_without_a_fitting_option_and_one_after_a_cancel_are_cancelled() {
        let mut permissions = permissions(&["Read"]);
        assert_eq!(permissions.decide(&ask(Some("read"), "x"), true), json!({"outcome": "cancelled"}));
        for strange in
            [json!({}), json!(7), json!({"options": [{"kind": "allow_once"}], "toolCall": {"kind": "read"}})]
        {
            assert_eq!(permissions.decide(&strange, false), json!({"outcome": "cancelled"}), "{strange}");
        }
    }
}
