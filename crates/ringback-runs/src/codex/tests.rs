use std::time::Duration;

use ringback_model::Secret;

use super::*;
use crate::environment::Environment;
use crate::spec::{Adapter, Limits, Mcp};

const TOKEN: &str = "t0ken-of-this-run";
const PARENT: &str = "01a20306-a7c3-7392-b8c5-8a1c2e1e486a";
/// Codex 0.169.0 with a scripted model: a command that the sandbox stops, a tool of ringback, the answer.
const OUTPUT: &str = include_str!("fixtures/completed.jsonl");
/// The same without a login: retries, then the end.
const LOGGED_OUT: &str = include_str!("fixtures/logged_out.jsonl");

fn spec() -> Spec {
    Spec {
        run_id: Uuid::from_u128(1),
        adapter: Adapter::Codex,
        command: vec!["codex".into(), "--profile".into(), "night".into()],
        cwd: "/".into(),
        prompt: "--sandbox danger-full-access".into(),
        prompt_without_history: None,
        env: Environment::default(),
        mcp: Some(Mcp { url: "http://127.0.0.1:1/mcp".into(), token: Secret::new(TOKEN) }),
        limits: Limits::new(Duration::from_secs(60)),
        output_dir: "/nowhere".into(),
        session: Session::Unnamed,
        model: Some("gpt-6.1-sol".into()),
        thinking: true,
        allowed_tools: vec!["Read".into(), "Grep".into()],
        denied_dirs: vec![],
        max_turns: Some(50),
        max_cost_usd: Some(2.0),
    }
}

#[test]
fn the_command_line_of_a_new_session() {
    let expected = "--profile night exec --json --skip-git-repo-check --ignore-rules -c sandbox_mode=\"read-only\" \
                    -c approval_policy=\"never\" -c notify=[] -c web_search=\"disabled\" \
                    -c mcp_servers.ringback.url=\"http://127.0.0.1:1/mcp\" \
                    -c mcp_servers.ringback.bearer_token_env_var=\"RINGBACK_MCP_TOKEN\" \
                    -c mcp_servers.ringback.default_tools_approval_mode=\"approve\" --model gpt-6.1-sol -";
    assert_eq!(codex_argv(&spec()).join(" "), expected);
}

#[test]
fn neither_the_token_nor_the_prompt_is_in_the_arguments() {
    let argv = codex_argv(&spec()).join(" ");
    assert!(!argv.contains(TOKEN) && !argv.contains("danger"), "{argv}");
}

#[test]
fn a_fork_and_another_turn_name_their_session_by_its_id_and_keep_the_sandbox() {
    let fork = Spec { session: Session::Fork { of: SessionId::new(PARENT), id: None }, ..spec() };
    let fork_argv = codex_argv(&fork);
    assert_eq!(fork_argv[2..4], ["exec", "fork"]);
    let resumed = resume_argv(&fork, &SessionId::new(PARENT)).unwrap();
    assert_eq!(resumed[2..4], ["exec", "resume"]);
    for argv in [fork_argv, resumed] {
        assert_eq!(argv[argv.len() - 2..], [PARENT, "-"]);
        assert!(argv.iter().any(|word| word == "sandbox_mode=\"read-only\""));
    }
    assert_eq!(resume_argv(&fork, &SessionId::new("--last")), None);
}

#[test]
fn the_sandbox_is_read_only_unless_the_list_has_write_edit_or_bash() {
    let settings_with = |tools: &[&str]| {
        let allowed_tools = tools.iter().map(|t| (*t).to_owned()).collect();
        settings(&Spec { allowed_tools, ..spec() }).join(" ")
    };
    for tools in [&[][..], &["Read", "Grep", "WebSearch"], &["mcp__x__Write", "write"]] {
        let settings = settings_with(tools);
        assert!(
            settings.contains("sandbox_mode=\"read-only\"") && !settings.contains("write_"),
            "{settings}"
        );
    }
    for tool in WRITING {
        let settings = settings_with(&["Read", tool]);
        assert!(settings.contains("sandbox_mode=\"workspace-write\""), "{settings}");
        assert!(
            settings.contains("writable_roots=[]") && settings.contains("network_access=false"),
            "{settings}"
        );
    }
    assert!(!settings_with(&["WebSearch"]).contains("web_search"));
}

#[test]
fn thinking_false_is_effort_none() {
    assert!(!settings(&spec()).iter().any(|s| s.contains("effort")));
    let off = settings(&Spec { thinking: false, mcp: None, ..spec() });
    assert!(off.contains(&"model_reasoning_effort=\"none\"".to_owned()));
    assert!(!off.iter().any(|s| s.contains("mcp_servers")));
}

fn facts(output: &str) -> Vec<Progress> {
    output.lines().filter_map(|line| read_line(line.as_bytes())).collect()
}

#[test]
fn the_output_of_a_turn_tells_its_session_and_its_end() {
    let facts = facts(OUTPUT);
    let session = Progress::Session(SessionId::new("01a20306-abbc-7862-a0d1-3e1af7b272dd"));
    assert!(
        matches!(&facts[..], [first, Progress::Turn(end)] if *first == session && !end.is_error),
        "{facts:?}"
    );
}

#[test]
fn retries_are_no_end_and_a_missing_login_is_told_in_plain_words() {
    let facts = facts(LOGGED_OUT);
    let [Progress::Session(_), Progress::Turn(end)] = &facts[..] else { panic!("{facts:?}") };
    assert!(end.is_error);
    assert!(
        failure(end).starts_with("not logged in, run `codex login` (unexpected status 401"),
        "{}",
        failure(end)
    );
}

#[test]
fn the_causes_of_a_bad_end_are_told_in_plain_words() {
    let failed =
        |message: &str| failure(&TurnResult { errors: vec![message.to_owned()], ..TurnResult::default() });
    assert_eq!(failed(r#"{"type":"error","error":{"message":"no such model"}}"#), "no such model");
    assert_eq!(
        failed("Missing environment variable: `KEY`."),
        "Missing environment variable: `KEY`. Name it in the agent's `env`."
    );
    assert_eq!(failed(""), "the turn failed");
    assert_eq!(reason("WARNING: x\nError: no rollout found\n"), "Error: no rollout found");
    assert_eq!(reason("something else"), "something else");
}

#[test]
fn lines_that_are_cut_broken_or_strange_are_nothing() {
    for line in
        ["", "null", "[1]", "{\"type\":7}", "{\"type\":\"thread.started\"}", "{\"type\":\"turn.comp", "\u{0}"]
    {
        assert_eq!(read_line(line.as_bytes()), None, "{line:?}");
    }
    let bare = read_line(b"{\"type\":\"turn.failed\"}");
    assert!(matches!(bare, Some(Progress::Turn(turn)) if turn.is_error));
}

proptest::proptest! {
    #[test]
    fn the_reader_of_the_output_survives_any_line(number in 0..8_usize, at in 0..400_usize, bytes in ".{0,8}") {
        let mut line = OUTPUT.lines().nth(number).unwrap_or_default().as_bytes().to_vec();
        let at = at.min(line.len());
        line.splice(at..at, bytes.bytes());
        if let Some(Progress::Turn(turn)) = read_line(&line) {
            proptest::prop_assert!(!failure(&turn).is_empty());
        }
    }
}
