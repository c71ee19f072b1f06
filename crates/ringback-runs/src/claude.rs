//! The adapter of Claude Code: its command line, what it reads and what it writes.
//!
//! Seen with Claude Code 2.1.330. `-p` with JSON lines on both ends stays open after a result and takes another
//! turn; it ends when its input does. Pure text: knows no processes.

use ringback_model::SessionId;
use serde_json::{Value, json};

use crate::environment::{MCP_TOKEN, MCP_URL};
use crate::outcome::{Progress, Tokens, TurnResult};
use crate::spec::{Session, Spec};

/// The tools of ringback's own server, as Claude Code names them.
const RINGBACK_TOOLS: &str = "mcp__ringback__*";

/// The arguments for a run, after the program itself; the words of `command` beyond the program come first.
///
/// No value from outside is a word of its own: the prompt goes by standard input, ids and names are checked when
/// the run is started. The MCP server's address and token are references to the environment, which the agent
/// expands itself: anybody may read the arguments of a process.
pub fn claude_argv(spec: &Spec) -> Vec<String> {
    let mut argv: Vec<String> = spec.command.iter().skip(1).cloned().collect();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
    add(&["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]);
    match &spec.session {
        Session::New { id } => add(&["--session-id", &id.to_string()]),
        Session::Fork { of, id } => {
            add(&["--resume", of.as_str(), "--fork-session"]);
            if let Some(id) = id {
                add(&["--session-id", &id.to_string()]);
            }
        }
        Session::Unnamed => {}
    }
    if let Some(model) = &spec.model {
        add(&["--model", model]);
    }

    // `--tools` is the set of built-in tools that exist at all, which no settings of the user can widen;
    // `--allowedTools` is what may be used without asking; and nobody can be asked.
    let built_in: Vec<&str> =
        spec.allowed_tools.iter().map(String::as_str).filter(|t| !t.starts_with("mcp__")).collect();
    let mut allowed: Vec<&str> = spec.allowed_tools.iter().map(String::as_str).collect();
    if spec.mcp.is_some() {
        allowed.push(RINGBACK_TOOLS);
    }
    add(&["--tools", &built_in.join(","), "--permission-mode", "dontAsk"]);
    if !allowed.is_empty() {
        add(&["--allowedTools", &allowed.join(",")]);
    }
    if !spec.denied_dirs.is_empty() {
        add(&["--settings", &settings(spec).to_string()]);
    }

    add(&["--strict-mcp-config"]);
    if spec.mcp.is_some() {
        add(&["--mcp-config", &mcp_config().to_string()]);
    }
    if let Some(turns) = spec.max_turns {
        add(&["--max-turns", &turns.to_string()]);
    }
    if let Some(cost) = spec.max_cost_usd {
        add(&["--max-budget-usd", &cost.to_string()]);
    }
    argv
}

/// Variables that switch something of the agent. There is no flag that does either.
pub(crate) fn switches(spec: &Spec) -> Vec<(&'static str, &'static str)> {
    // Without this, `@path` in a prompt puts that file before the model, whatever tools there are: the prompt holds
    // words from outside.
    let mut switches = vec![("CLAUDE_CODE_DISABLE_FILE_MENTIONS", "1")];
    if !spec.thinking {
        switches.push(("CLAUDE_CODE_DISABLE_THINKING", "1"));
    }
    switches
}

fn mcp_config() -> Value {
    json!({"mcpServers": {"ringback": {
        "type": "http",
        "url": format!("${{{MCP_URL}}}"),
        "headers": {"Authorization": format!("Bearer ${{{MCP_TOKEN}}}")},
    }}})
}

fn settings(spec: &Spec) -> Value {
    let rules = spec.denied_dirs.iter().flat_map(|dir| {
        let pattern = escape(&dir.to_string_lossy());
        // Two slashes: from the root of the file system. `Edit` stands for every tool that changes files, `Read`
        // for every one that reads or searches them. Without the stars it is a single file.
        ["Read", "Edit"].into_iter().flat_map(move |tool| {
            ["", "/**"].map(|below| format!("{tool}(/{}{below})", pattern.trim_end_matches('/')))
        })
    });
    json!({"permissions": {"deny": rules.collect::<Vec<_>>()}})
}

/// Rules are patterns like those of gitignore: the characters that mean something there are escaped.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\\' | '*' | '?' | '[' | ']' | '{' | '}' | '(' | ')' | '!' | '#') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A turn's prompt, as a line of standard input.
pub(crate) fn user_line(prompt: &str) -> Vec<u8> {
    let mut line = json!({"type": "user", "message": {"role": "user", "content": prompt}}).to_string();
    line.push('\n');
    line.into_bytes()
}

/// Reads a line of standard output. `None` = it says nothing that matters here. A line that was cut or that is no
/// JSON is still the end of a turn if it is marked so: a missed end would leave the agent waiting for ever.
pub(crate) fn read_line(line: &[u8]) -> Option<Progress> {
    let Ok(event) = serde_json::from_slice::<Value>(line) else {
        // Inside a JSON text its quotes would be escaped.
        const MARK: &[u8] = br#""type":"result""#;
        return line.windows(MARK.len()).any(|w| w == MARK).then(|| {
            Progress::Turn(TurnResult { subtype: "unreadable".to_owned(), ..TurnResult::default() })
        });
    };
    match (event["type"].as_str(), event["subtype"].as_str()) {
        (Some("system"), Some("init")) => {
            event["session_id"].as_str().map(|id| Progress::Session(SessionId::new(cut(id, 200))))
        }
        (Some("result"), _) => Some(Progress::Turn(turn_result(&event))),
        (Some("assistant"), _) if event["parent_tool_use_id"].is_null() => {
            event["message"]["id"].as_str().map(|id| Progress::Answer(cut(id, 200).to_owned()))
        }
        _ => None,
    }
}

/// Why a turn ended badly, for a reader; without the agent's name.
pub(crate) fn failure(turn: &TurnResult) -> String {
    let words = || turn.errors.first().map(String::as_str).or(turn.text.as_deref()).unwrap_or_default();
    match turn.terminal_reason.as_deref() {
        Some("max_turns") => format!("out of turns ({})", words()),
        Some("budget_exhausted") => format!("out of money ({})", words()),
        _ if is_login_missing(turn) => "not logged in, run `claude` and /login".to_owned(),
        _ => match words() {
            "" => turn.subtype.clone(),
            words => words.to_owned(),
        },
    }
}

fn is_login_missing(turn: &TurnResult) -> bool {
    let text = turn.text.as_deref().unwrap_or_default();
    text.contains("Please run /login") || text.starts_with("Not logged in")
}

fn turn_result(event: &Value) -> TurnResult {
    const MOST_TEXT: usize = 64 << 10;
    const MOST_ERROR: usize = 4 << 10;
    let text = |key: &str, most| event[key].as_str().map(|t| cut(t, most).to_owned());
    let list = |key: &str| event[key].as_array().map(Vec::as_slice).unwrap_or_default();
    TurnResult {
        is_error: event["is_error"].as_bool().unwrap_or(false),
        subtype: text("subtype", 100).unwrap_or_default(),
        terminal_reason: text("terminal_reason", 100),
        text: text("result", MOST_TEXT),
        errors: list("errors")
            .iter()
            .filter_map(Value::as_str)
            .take(10)
            .map(|e| cut(e, MOST_ERROR).to_owned())
            .collect(),
        turns: event["num_turns"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        cost_usd: cost_since(event),
        session_cost_usd: money(&event["total_cost_usd"]),
        tokens: tokens_since(event).or_else(|| tokens_of_turn(event)),
        denied_tools: list("permission_denials")
            .iter()
            .filter_map(|denial| denial["tool_name"].as_str())
            .take(100)
            .map(|name| cut(name, 100).to_owned())
            .collect(),
    }
}

/// What this turn cost. `total_cost_usd` will not do: in a fork it begins with what the parent had cost.
fn cost_since(event: &Value) -> Option<f64> {
    let models = event["model_usage_since_last_result"].as_object()?;
    models.values().map(|usage| money(&usage["costUSD"])).sum()
}

fn tokens_since(event: &Value) -> Option<Tokens> {
    let models = event["model_usage_since_last_result"].as_object()?;
    Some(models.values().fold(Tokens::default(), |sum, usage| {
        sum.plus(Tokens {
            input: count(&usage["inputTokens"]),
            output: count(&usage["outputTokens"]),
            cache_read: count(&usage["cacheReadInputTokens"]),
            cache_write: count(&usage["cacheCreationInputTokens"]),
        })
    }))
}

fn tokens_of_turn(event: &Value) -> Option<Tokens> {
    let usage = event["usage"].as_object()?;
    let count = |key: &str| usage.get(key).map_or(0, count);
    Some(Tokens {
        input: count("input_tokens"),
        output: count("output_tokens"),
        cache_read: count("cache_read_input_tokens"),
        cache_write: count("cache_creation_input_tokens"),
    })
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn money(value: &Value) -> Option<f64> {
    value.as_f64().filter(|m| m.is_finite() && *m >= 0.0)
}

/// The first `most` bytes, or a little less.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    use ringback_model::Secret;
    use uuid::Uuid;

    use crate::environment::Environment;
    use crate::spec::{Adapter, Limits, Mcp};

    const TOKEN: &str = "t0ken-of-this-run";

    fn spec() -> Spec {
        Spec {
            run_id: Uuid::from_u128(1),
            adapter: Adapter::Claude,
            command: vec!["claude".into()],
            cwd: "/".into(),
            prompt: "--model opus".into(),
            prompt_without_history: None,
            env: Environment::default(),
            mcp: Some(Mcp { url: "http://127.0.0.1:1/mcp".into(), token: Secret::new(TOKEN) }),
            limits: Limits::new(Duration::from_secs(60)),
            output_dir: "/nowhere".into(),
            session: Session::New { id: Uuid::from_u128(2) },
            model: Some("haiku".into()),
            thinking: true,
            allowed_tools: vec!["Read".into(), "Grep".into()],
            denied_dirs: vec![],
            max_turns: Some(50),
            max_cost_usd: Some(2.0),
        }
    }

    /// The word after a flag.
    fn after<'a>(argv: &'a [String], flag: &str) -> Option<&'a str> {
        let at = argv.iter().position(|word| word == flag)?;
        argv.get(at + 1).map(String::as_str)
    }

    #[test]
    fn the_command_line_of_a_new_session() {
        let expected = "-p --input-format stream-json --output-format stream-json --verbose --session-id \
                        00000000-0000-0000-0000-000000000002 --model haiku --tools Read,Grep --permission-mode dontAsk \
                        --allowedTools Read,Grep,mcp__ringback__* --strict-mcp-config --mcp-config CONFIG \
                        --max-turns 50 --max-budget-usd 2";
        let config = r#"{"mcpServers":{"ringback":{"headers":{"Authorization":"Bearer ${RINGBACK_MCP_TOKEN}"},"type":"http","url":"${RINGBACK_MCP_URL}"}}}"#;
        let argv = claude_argv(&spec());
        assert_eq!(argv.join(" "), expected.replace("CONFIG", config));
    }

    #[test]
    fn neither_the_token_nor_the_prompt_is_in_the_arguments() {
        let argv = claude_argv(&spec()).join(" ");
        assert!(!argv.contains(TOKEN) && !argv.contains("opus"), "{argv}");
    }

    #[test]
    fn a_fork_resumes_its_parent_under_an_id_of_its_own() {
        let of = SessionId::new(Uuid::from_u128(7).to_string());
        let argv =
            claude_argv(&Spec { session: Session::Fork { of, id: Some(Uuid::from_u128(8)) }, ..spec() });
        assert_eq!(after(&argv, "--resume"), Some("00000000-0000-0000-0000-000000000007"));
        assert_eq!(after(&argv, "--session-id"), Some("00000000-0000-0000-0000-000000000008"));
        assert!(argv.iter().any(|word| word == "--fork-session"));
    }

    #[test]
    fn without_tools_limits_and_server_no_tool_exists_and_nothing_is_allowed() {
        let argv = claude_argv(&Spec {
            command: vec!["claude".into(), "--debug".into()],
            mcp: None,
            model: None,
            session: Session::Unnamed,
            allowed_tools: vec![],
            max_turns: None,
            max_cost_usd: None,
            ..spec()
        });
        assert_eq!((argv[0].as_str(), argv[1].as_str()), ("--debug", "-p"));
        assert_eq!(after(&argv, "--tools"), Some(""));
        for absent in
            ["--allowedTools", "--mcp-config", "--session-id", "--model", "--max-turns", "--settings"]
        {
            assert_eq!(after(&argv, absent), None, "{absent}");
        }
        assert_eq!(argv.last().map(String::as_str), Some("--strict-mcp-config"));
    }

    #[test]
    fn denied_directories_are_rules_from_the_root_with_their_special_characters_escaped() {
        let argv = claude_argv(&Spec { denied_dirs: vec![PathBuf::from("/a b/[c](*)/")], ..spec() });
        let settings: Value = serde_json::from_str(after(&argv, "--settings").unwrap()).unwrap();
        let path = r"//a b/\[c\]\(\*\)";
        let rules = ["Read", "Edit"].map(|tool| [format!("{tool}({path})"), format!("{tool}({path}/**)")]);
        assert_eq!(settings, json!({"permissions": {"deny": rules.concat()}}));
    }

    #[test]
    fn thinking_is_switched_off_by_the_environment_and_file_mentions_always_are() {
        let names = |spec: &Spec| switches(spec).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&spec()), ["CLAUDE_CODE_DISABLE_FILE_MENTIONS"]);
        let off = Spec { thinking: false, ..spec() };
        assert_eq!(names(&off), ["CLAUDE_CODE_DISABLE_FILE_MENTIONS", "CLAUDE_CODE_DISABLE_THINKING"]);
    }

    #[test]
    fn a_prompt_is_one_line_whatever_is_in_it() {
        let prompt = "a \"b\"\nc \u{2028}\u{0}\\ {\"type\":\"control_request\"}";
        let line = user_line(prompt);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(read["message"]["content"], prompt);
    }

    fn turn(line: &Value) -> TurnResult {
        match read_line(line.to_string().as_bytes()) {
            Some(Progress::Turn(turn)) => turn,
            other => panic!("no turn: {other:?}"),
        }
    }

    #[test]
    fn a_result_tells_cost_tokens_and_refusals_of_its_own_turn() {
        let turn = turn(&json!({
            "stop_reason": "end_turn", "total_cost_usd": 0.0906, "is_error": false, "num_turns": 3,
            "model_usage_since_last_result": {
                "claude-sonnet-5-5": {"inputTokens": 3505, "outputTokens": 11, "cacheReadInputTokens": 7, "costUSD": 0.007},
                "claude-haiku-5-5": {"inputTokens": 5, "cacheCreationInputTokens": 2, "costUSD": 0.001},
            },
            "usage": {"input_tokens": 1},
            "permission_denials": [{"tool_name": "Grep", "tool_input": {}}, {"tool_name": "Read"}],
            "terminal_reason": "completed", "subtype": "success", "result": "All done.", "type": "result",
        }));
        assert_eq!(turn.cost_usd.map(|c| (c * 1e6).round()), Some(8000.0));
        assert_eq!(turn.tokens, Some(Tokens { input: 3510, output: 11, cache_read: 7, cache_write: 2 }));
        assert_eq!((turn.text.as_deref(), turn.turns, turn.is_error), (Some("All done."), 3, false));
        assert_eq!(turn.denied_tools, ["Grep", "Read"]);
    }

    #[test]
    fn the_causes_of_a_bad_end_are_told_in_plain_words() {
        for (line, cause) in [
            (
                json!({"type": "result", "subtype": "success", "is_error": true, "terminal_reason": "api_error",
                    "result": "Not logged in \u{b7} Please run /login"}),
                "not logged in, run `claude` and /login",
            ),
            (
                json!({"type": "result", "subtype": "error_max_turns", "is_error": true, "terminal_reason": "max_turns",
                    "errors": ["Reached maximum number of turns (2)"]}),
                "out of turns (Reached maximum number of turns (2))",
            ),
            (
                json!({"type": "result", "subtype": "error_max_budget_usd", "is_error": true,
                    "terminal_reason": "budget_exhausted", "errors": ["Reached maximum budget ($0.02)"]}),
                "out of money (Reached maximum budget ($0.02))",
            ),
            (
                json!({"type": "result", "subtype": "success", "is_error": true, "terminal_reason": "api_error",
                    "result": "API Error: 400 bad"}),
                "API Error: 400 bad",
            ),
            (
                json!({"type": "result", "subtype": "error_during_execution", "is_error": true}),
                "error_during_execution",
            ),
        ] {
            assert_eq!(failure(&turn(&line)), cause);
        }
    }

    #[test]
    fn lines_that_are_cut_broken_or_strange_neither_end_the_process_nor_lose_the_end_of_a_turn() {
        for nothing in [
            &b""[..],
            b"\xff\xfe",
            b"null",
            b"[1]",
            b"{\"type\":7}",
            b"{\"type\":\"assistant\",\"message\":{\"content\":\"\\\"type\\\":\\\"result\\\"",
        ] {
            assert_eq!(read_line(nothing), None, "{:?}", String::from_utf8_lossy(nothing));
        }
        assert_eq!(
            turn(&json!({"type": "result", "errors": 7, "usage": [], "num_turns": -1})),
            TurnResult::default()
        );
        for cut in [&b"{\"uuid\":\"x\",\"type\":\"result\",\"result\":\"aaa"[..], &[b'['; 2000]] {
            let is_turn = matches!(read_line(cut), Some(Progress::Turn(t)) if t.subtype == "unreadable");
            assert_eq!(is_turn, cut.starts_with(b"{"));
        }
        let named = read_line(br#"{"type":"system","subtype":"init","session_id":"s-1"}"#);
        assert_eq!(named, Some(Progress::Session(SessionId::new("s-1"))));
    }
}
