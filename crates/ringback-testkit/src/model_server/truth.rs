//! What an agent was really doing, as its model knows it.

use std::time::Instant;

use ringback_model::Activity;

use super::script::{Input, Tool, Turn};

/// A change of what the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// When.
    pub at: Instant,
    /// What it does from then on.
    pub activity: Activity,
}

/// Of several tools that run side by side the first of these is shown (api-cli.md, "Activity", rule 4).
const ORDER: [Activity; 7] = [
    Activity::Waiting,
    Activity::Running,
    Activity::Writing,
    Activity::Browsing,
    Activity::Searching,
    Activity::Reading,
    Activity::Spawning,
];

impl Turn {
    /// What the agent does once this turn is out: its tools, or waiting.
    pub(super) fn activity_after(&self) -> Activity {
        let shown = self.tools.iter().map(Tool::activity);
        shown.min_by_key(|a| ORDER.iter().position(|o| o == a)).unwrap_or(Activity::Waiting)
    }
}

impl Tool {
    /// Written as a table of its own: the product's table is what it judges.
    fn activity(&self) -> Activity {
        match (self.name.as_str(), &self.input) {
            ("exec", Input::Freeform(script)) if script.contains("tools.apply_patch(") => Activity::Writing,
            ("exec", Input::Freeform(script)) if script.contains("tools.view_image(") => Activity::Reading,
            ("Read" | "view_image", _) => Activity::Reading,
            ("Write" | "Edit" | "NotebookEdit" | "apply_patch", _) => Activity::Writing,
            ("Glob" | "Grep", _) => Activity::Searching,
            ("WebFetch" | "WebSearch", _) => Activity::Browsing,
            ("Agent" | "Task" | "spawn_agent" | "wait_agent", _) => Activity::Spawning,
            ("AskUserQuestion" | "request_user_input", _) => Activity::Waiting,
            _ => Activity::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn running_is_shown_before_writing_before_reading_and_no_tool_is_waiting() {
        let read = Turn::tool("Read", json!({}));
        assert_eq!(read.activity_after(), Activity::Reading);
        let write = read.and_tool("Write", json!({}));
        assert_eq!(write.activity_after(), Activity::Writing);
        assert_eq!(write.and_tool("Bash", json!({})).activity_after(), Activity::Running);
        assert_eq!(Turn::text("done").activity_after(), Activity::Waiting);
        let patch = Turn::freeform("exec", "await tools.apply_patch(\"...\")");
        assert_eq!(patch.activity_after(), Activity::Writing);
    }
}
