//! The adapter of Codex: its command line, what it writes, and what its runs cost.
//!
//! Seen with Codex 0.169.0. `exec` takes one prompt from standard input, writes JSON lines and ends; another turn is
//! another process, `exec resume`. This file is pure text; [`account`] reads the session's own files.

mod account;
mod price;

use ringback_model::SessionId;
use serde_json::Value;
use uuid::Uuid;

use crate::environment::MCP_TOKEN;
use crate::outcome::{Progress, TurnResult};
use crate::spec::{Session, Spec};

pub(crate) use account::{Account, account};

/// Tools whose presence in the list lets a run write in its directory.
const WRITING: [&str; 3] = ["Write", "Edit", "Bash"];
/// Tools whose presence in the list leaves the web search as the user has it.
const SEARCHING: [&str; 2] = ["WebSearch", "WebFetch"];

/// The arguments for a run, after the program itself; the words of `command` beyond the program come first.
///
/// No value from outside is a word of its own: the prompt goes by standard input, ids and names are checked when
/// the run is started. The MCP server's token is named by its variable, which the agent reads itself: anybody may
/// read the arguments of a process.
pub(crate) fn codex_argv(spec: &Spec) -> Vec<String> {
    match &spec.session {
        Session::Fork { of, .. } => argv(spec, Some(("fork", of.as_str()))),
        Session::New { .. } | Session::Unnamed => argv(spec, None),
    }
}

/// The arguments for another turn in the run's own session. `None` = Codex gave it a name that is no id.
pub(crate) fn resume_argv(spec: &Spec, session: &SessionId) -> Option<Vec<String>> {
    let id: Uuid = session.as_str().parse().ok()?;
    Some(argv(spec, Some(("resume", &id.to_string()))))
}

fn argv(spec: &Spec, session: Option<(&str, &str)>) -> Vec<String> {
    let mut argv: Vec<String> = spec.command.iter().skip(1).cloned().collect();
    let mut add = |words: &[&str]| argv.extend(words.iter().map(|w| (*w).to_owned()));
    add(&["exec"]);
    if let Some((verb, _)) = session {
        add(&[verb]);
    }
    // A workspace need not be a repository. The user's own rules may let a command out of the sandbox.
    add(&["--json", "--skip-git-repo-check", "--ignore-rules"]);
    for setting in settings(spec) {
        add(&["-c", &setting]);
    }
    if let Some(model) = &spec.model {
        add(&["--model", model]);
    }
    if let Some((_, id)) = session {
        add(&[id]);
    }
    // The prompt is on standard input.
    add(&["-"]);
    argv
}

/// What is laid over the user's own configuration. A fork would otherwise go on with its parent's sandbox, and there
/// is no flag for it there.
fn settings(spec: &Spec) -> Vec<String> {
    let may_write = codex_may_write(&spec.allowed_tools);
    let sandbox = if may_write { "workspace-write" } else { "read-only" };
    let mut settings =
        vec![format!("sandbox_mode={}", quote(sandbox)), "approval_policy=\"never\"".to_owned()];
    // The user's own program for the end of a turn is for sessions that they wait for.
    settings.push("notify=[]".to_owned());
    if may_write {
        // The user may have opened more for sessions that they watch.
        settings.push("sandbox_workspace_write.writable_roots=[]".to_owned());
        settings.push("sandbox_workspace_write.network_access=false".to_owned());
    }
    if !lists(&spec.allowed_tools, &SEARCHING) {
        settings.push("web_search=\"disabled\"".to_owned());
    }
    if !spec.thinking {
        settings.push("model_reasoning_effort=\"none\"".to_owned());
    }
    if let Some(mcp) = &spec.mcp {
        settings.push(format!("mcp_servers.ringback.url={}", quote(&mcp.url)));
        settings.push(format!("mcp_servers.ringback.bearer_token_env_var={}", quote(MCP_TOKEN)));
        // Nobody can be asked; which tools there are is decided by the server.
        settings.push("mcp_servers.ringback.default_tools_approval_mode=\"approve\"".to_owned());
    }
    settings
}

/// Whether a run with these tools may write in its directory.
pub fn codex_may_write(allowed_tools: &[String]) -> bool {
    lists(allowed_tools, &WRITING)
}

fn lists(tools: &[String], names: &[&str]) -> bool {
    tools.iter().any(|tool| names.contains(&tool.as_str()))
}

/// A TOML string. JSON's are some of TOML's.
fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// Reads a line of standard output. `None` = it says nothing that matters here.
pub(crate) fn read_line(line: &[u8]) -> Option<Progress> {
    let event = serde_json::from_slice::<Value>(line).ok()?;
    match event["type"].as_str()? {
        "thread.started" => {
            let id = event["thread_id"].as_str()?;
            Some(Progress::Session(SessionId::new(&id[..id.floor_char_boundary(200)])))
        }
        "turn.completed" => {
            Some(Progress::Turn(TurnResult { subtype: "completed".to_owned(), ..TurnResult::default() }))
        }
        "turn.failed" => {
            const MOST: usize = 4 << 10;
            let message = event["error"]["message"].as_str().unwrap_or_default();
            Some(Progress::Turn(TurnResult {
                is_error: true,
                subtype: "failed".to_owned(),
                errors: vec![message[..message.floor_char_boundary(MOST)].to_owned()],
                ..TurnResult::default()
            }))
        }
        // `error` alone is a retry.
        _ => None,
    }
}

/// Why a turn ended badly, for a reader; without the agent's name.
pub(crate) fn failure(turn: &TurnResult) -> String {
    let said = turn.errors.first().map(String::as_str).unwrap_or_default();
    // The body of an API's answer, as it came.
    let body = serde_json::from_str::<Value>(said).ok();
    let said = body.as_ref().and_then(|b| b["error"]["message"].as_str()).unwrap_or(said);
    if said.contains("401 Unauthorized") {
        return format!("not logged in, run `codex login` ({said})");
    }
    if said.starts_with("Missing environment variable") {
        return format!("{said} Name it in the agent's `env`.");
    }
    match said {
        "" => "the turn failed".to_owned(),
        said => said.to_owned(),
    }
}

/// The lines of standard error that tell why it did not start; without its warnings, if there is anything else.
pub(crate) fn reason(stderr: &str) -> String {
    let errors: Vec<&str> =
        stderr.lines().filter(|line| line.to_ascii_lowercase().starts_with("error")).collect();
    if errors.is_empty() { stderr.to_owned() } else { errors.join("\n") }
}

#[cfg(test)]
mod tests;
