//! What the hook decides and answers when Claude Code calls it with a prompt.
//!
//! Pure: the bytes on its input and whether it is in a run are arguments. Does not know where
//! updates wait, and clears nothing.

use std::borrow::Cow;

use ringback_model::SessionId;
use serde::Deserialize;

/// The session whose prompt this is, to ask the daemon about; `None` = say nothing.
///
/// Only a `UserPromptSubmit` counts; a run asks for nothing, and neither does a call that cannot be read. `is_run`:
/// RINGBACK_RUN is set. Whether the session is a workspace's main session, the daemon knows.
pub fn session(stdin_json: &[u8], is_run: bool) -> Option<SessionId> {
    if is_run {
        return None;
    }
    let call: Call<'_> = serde_json::from_slice(stdin_json).ok()?;
    (call.hook_event_name == "UserPromptSubmit").then(|| SessionId::new(&*call.session_id))
}

/// What the hook prints so that Claude Code adds `block` to the prompt: one line of JSON, without its end.
pub fn answer(block: &str) -> String {
    serde_json::json!({
        "hookSpecificOutput": { "hookEventName": "UserPromptSubmit", "additionalContext": block }
    })
    .to_string()
}

/// The fields of the call that matter here; all others are passed over.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    hook_event_name: Cow<'a, str>,
    #[serde(borrow)]
    session_id: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &[u8] = br#"{"session_id":"s-2","transcript_path":"/t","cwd":"/p","hook_event_name":"UserPromptSubmit","prompt_id":"x","permission_mode":"default","prompt":"go on"}"#;

    #[test]
    fn a_prompt_asks_for_the_updates_of_its_session() {
        assert_eq!(session(PROMPT, false), Some(SessionId::new("s-2")));
        let escaped = br#"{"hook_event_name":"User\u0050romptSubmit","session_id":"s\u002d1"}"#;
        assert_eq!(session(escaped, false), Some(SessionId::new("s-1")));
    }

    #[test]
    fn runs_other_events_and_unreadable_calls_ask_for_nothing() {
        assert_eq!(session(PROMPT, true), None);
        let other = br#"{"session_id":"s-2","hook_event_name":"SessionStart"}"#;
        assert_eq!(session(other, false), None);
        for call in [&b""[..], b"[]", b"\xff", br#"{"session_id":7,"hook_event_name":"UserPromptSubmit"}"#] {
            assert_eq!(session(call, false), None);
        }
    }

    #[test]
    fn the_answer_is_one_line_of_the_form_that_adds_context() {
        let answer = answer("two \"updates\"\nwait");
        assert!(!answer.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let expected = serde_json::json!({"hookSpecificOutput":
            {"hookEventName": "UserPromptSubmit", "additionalContext": "two \"updates\"\nwait"}});
        assert_eq!(value, expected);
    }
}
