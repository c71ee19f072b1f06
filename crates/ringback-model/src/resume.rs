//! How a session is continued by hand.

use crate::ids::Agent;

/// The shell command that continues a session, its id quoted for a POSIX shell; `None` = the agent has none.
pub fn command(agent: Agent, id: &str) -> Option<String> {
    let id = quoted(id);
    match agent {
        Agent::Claude => Some(format!("claude --resume {id}")),
        Agent::Codex => Some(format!("codex resume {id}")),
        Agent::Amp => Some(format!("amp threads continue {id}")),
        Agent::Pi => Some(format!("pi --session {id}")),
        Agent::Opencode => Some(format!("opencode -s {id}")),
        Agent::Kilo => Some(format!("kilo --session={id}")),
        Agent::Cursor => Some(format!("cursor-agent --resume={id}")),
        Agent::Kimi => Some(format!("kimi --resume {id}")),
        Agent::Grok | Agent::Gemini => None,
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resume_commands_are_quoted_for_the_shell() {
        assert_eq!(command(Agent::Claude, "ab-1").as_deref(), Some("claude --resume ab-1"));
        assert_eq!(command(Agent::Codex, "a'; rm -rf ~").as_deref(), Some(r"codex resume 'a'\''; rm -rf ~'"));
        assert_eq!(command(Agent::Claude, "--help").as_deref(), Some("claude --resume '--help'"));
        assert_eq!(command(Agent::Grok, "x"), None);
    }
}
