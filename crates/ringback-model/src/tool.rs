//! From a tool's name to what the session is doing while that tool runs.

use serde::{Deserialize, Serialize};

use crate::activity::Activity;

/// What a running tool call makes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToolKind {
    /// Reads files.
    Reading,
    /// Changes files.
    Writing,
    /// Runs a command, an MCP tool, or anything unknown.
    Running,
    /// Looks through files or symbols.
    Searching,
    /// Uses the web.
    Browsing,
    /// Started another agent and waits for it.
    Spawning,
    /// Asks the user something: the session waits.
    Question,
}

impl ToolKind {
    /// The activity shown while the call is open.
    pub const fn activity(self) -> Activity {
        match self {
            ToolKind::Reading => Activity::Reading,
            ToolKind::Writing => Activity::Writing,
            ToolKind::Running => Activity::Running,
            ToolKind::Searching => Activity::Searching,
            ToolKind::Browsing => Activity::Browsing,
            ToolKind::Spawning => Activity::Spawning,
            ToolKind::Question => Activity::Waiting,
        }
    }

    /// Of several open calls the highest is shown; spawning only when nothing else is open.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            ToolKind::Question => 6,
            ToolKind::Running => 5,
            ToolKind::Writing => 4,
            ToolKind::Browsing => 3,
            ToolKind::Searching => 2,
            ToolKind::Reading => 1,
            ToolKind::Spawning => 0,
        }
    }

    /// The kind of a tool by its name, over all agents. Names are compared without case, `_`, `-` and an
    /// `mcp` prefix always runs; what is unknown runs.
    pub fn of_name(name: &str) -> ToolKind {
        if name.starts_with("mcp__") {
            return ToolKind::Running;
        }
        let plain: String = name
            .chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .take(40)
            .collect::<String>()
            .to_ascii_lowercase();
        match plain.as_str() {
            "read" | "readfile" | "viewimage" | "view" | "notebookread" | "readmanyfiles"
            | "readmediafile" | "listdirectory" | "ls" => ToolKind::Reading,
            "write" | "writefile" | "edit" | "editfile" | "multiedit" | "notebookedit" | "applypatch"
            | "patch" | "strreplacefile" | "replace" => ToolKind::Writing,
            "glob" | "grep" | "find" | "lsp" | "codebasesearch" | "search" | "searchfilecontent"
            | "toolsearch" | "findfiles" => ToolKind::Searching,
            "webfetch" | "websearch" | "fetchurl" | "searchweb" | "googlewebsearch" | "open" | "click" => {
                ToolKind::Browsing
            }
            "agent"
            | "task"
            | "subagent"
            | "spawnagent"
            | "waitagent"
            | "collaborationspawnagent"
            | "collaborationwaitagent" => ToolKind::Spawning,
            "askuserquestion" | "requestuserinput" | "askuser" | "question" => ToolKind::Question,
            _ => ToolKind::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_agents_map_to_the_contracts_kinds() {
        for (kind, names) in [
            (ToolKind::Reading, &["Read", "view_image", "read", "ReadFile"][..]),
            (ToolKind::Writing, &["Write", "Edit", "NotebookEdit", "apply_patch"]),
            (
                ToolKind::Running,
                &["Bash", "shell", "exec_command", "mcp__ring__report", "mcp__x__read", "Zorp", ""],
            ),
            (ToolKind::Searching, &["Glob", "Grep", "find", "lsp"]),
            (ToolKind::Browsing, &["WebFetch", "WebSearch", "web_search"]),
            (ToolKind::Spawning, &["Agent", "Task", "spawn_agent", "wait_agent"]),
            (ToolKind::Question, &["AskUserQuestion", "request_user_input"]),
        ] {
            for name in names {
                assert_eq!(ToolKind::of_name(name), kind, "{name}");
            }
        }
    }
}
