//! What an agent's own program leaves undone of the limits that a run may have.

use crate::spec::Adapter;

impl Adapter {
    /// The words of a run's settings that this adapter passes on to nobody, as they are called in the configuration
    /// and in calls; empty = all are enforced. The timeout and the environment are ringback's own doing and hold with
    /// every adapter.
    pub fn cannot_enforce(self) -> &'static [&'static str] {
        match self {
            Adapter::Claude => &[],
            // The sandbox bounds what commands may write, not which tools there are; turns and money are not counted.
            Adapter::Codex => &["allowed_tools (single tools)", "max_turns", "max_cost_usd"],
            // Only what the agent asks for can be refused; how it bounds itself is its own configuration.
            Adapter::Acp => &[
                "allowed_tools (what the agent does without asking)",
                "thinking (where the agent offers no such choice)",
                "max_turns",
                "max_cost_usd",
            ],
            Adapter::Command => {
                &["allowed_tools", "model", "thinking", "max_turns", "max_cost_usd", "the history of a fork"]
            }
        }
    }
}
