//! How a command ends without success: the exit code, one line of what, one of how to mend it.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | usage or configuration |

use std::process::ExitCode;

use ringback_daemon::{client, config, env, state_dir, supervise};

use crate::output;

/// What the API and a look without it say of a session that neither knows.
const SESSION_MISSING: &str = "session not found";

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Error {
    code: u8,
    what: String,
    mend: Option<String>,
}

impl Error {
    /// It was tried and did not work.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Error { code: 1, what: what.into(), mend: None }
    }

    /// It was asked or configured wrongly.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Error { code: 2, what: what.into(), mend: None }
    }

    /// There is no such session.
    pub(crate) fn no_session() -> Self {
        Error::failed(SESSION_MISSING).mend(missing(SESSION_MISSING))
    }

    /// How to mend it.
    pub(crate) fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }

    /// Prints the two lines and gives the exit code. A reader that went away (`| head`) is no failure.
    pub(crate) fn report(self) -> ExitCode {
        if self.what == output::CLOSED {
            return ExitCode::SUCCESS;
        }
        output::complain(&format!("error: {}", self.what));
        if let Some(mend) = self.mend {
            output::complain(&format!("  mend: {mend}"));
        }
        ExitCode::from(self.code)
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        let mend = match error {
            config::Error::ShortPassphrase { .. } => "choose a longer one, or none",
            config::Error::NoHome => {
                return Error::usage("HOME is not set").mend(
                    "set HOME, or name the file with --config and the state directory with RINGBACK_STATE_DIR",
                );
            }
            config::Error::Unreadable { .. }
            | config::Error::Empty { .. }
            | config::Error::Syntax { .. }
            | config::Error::Invalid { .. } => {
                "correct the file, or write a commented one with `ringback init`"
            }
        };
        Error::usage(error.to_string()).mend(mend)
    }
}

impl From<state_dir::Error> for Error {
    fn from(error: state_dir::Error) -> Self {
        let error_text = error.to_string();
        // The part after the last semicolon says how to mend it.
        match error_text.rsplit_once("; ") {
            Some((what, mend)) => Error::usage(what).mend(mend),
            None => Error::usage(error_text),
        }
    }
}

impl From<env::NotUtf8> for Error {
    fn from(error: env::NotUtf8) -> Self {
        Error::usage(error.to_string()).mend(format!("set {} to text in UTF-8, or unset it", error.name))
    }
}

impl From<supervise::Error> for Error {
    fn from(error: supervise::Error) -> Self {
        match error {
            supervise::Error::State(error) => error.into(),
            supervise::Error::Store { path, error: ringback_store::Error::NewerSchema { found, known } } => {
                Error::usage(format!(
                    "{} was written by a newer ringback (schema {found}; this one knows {known}); it is untouched",
                    path.display()
                ))
                .mend("run the newer ringback, or name another state directory with RINGBACK_STATE_DIR")
            }
            supervise::Error::Store { path, error: error @ ringback_store::Error::Corrupt(_) } => {
                Error::usage(format!("cannot open {}: {error}; it is untouched", path.display()))
                    .mend("run `ringback doctor --repair`: it moves the file aside and keeps what can be read")
            }
            supervise::Error::Store { path, error: error @ ringback_store::Error::Exposed { .. } } => {
                Error::usage(format!("cannot open the journal: {error}"))
                    .mend(format!("chmod 600 {}; if it is a link, move it away", path.display()))
            }
            error @ supervise::Error::Store { .. } => {
                Error::usage(error.to_string()).mend("name another state directory with RINGBACK_STATE_DIR")
            }
            supervise::Error::Listen { address, why } => {
                Error::usage(format!("cannot listen on {address}: {why}"))
                    .mend("set [server] listen to another ADDRESS:PORT, or to \"none\"")
            }
            error @ supervise::Error::Notifier { .. } => {
                Error::usage(error.to_string()).mend("correct its [[notify]] entry")
            }
            supervise::Error::Hooks { address, why } => {
                Error::usage(format!("cannot listen for hooks on {address}: {why}"))
                    .mend("set WEBHOOK_PORT or [inbound] port to a free port")
            }
            error @ (supervise::Error::Client(_) | supervise::Error::Thread(_)) => Error::failed(error.to_string()),
        }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        let what = error.to_string();
        match error {
            client::Error::NotRunning => Error::failed(what).mend("start it with `ringback up`"),
            client::Error::NoToken { .. } => Error::failed(what).mend("start it again: it makes a new one"),
            client::Error::NoApi { .. } => Error::failed(what).mend("set [server] listen to an address"),
            client::Error::State(error) => error.into(),
            client::Error::Silent(_) => Error::failed(what).mend("look at its log, or start it again"),
            client::Error::Refused { status: 400, .. } => {
                Error::usage(what).mend("`--help` after the command says what it takes")
            }
            client::Error::Refused { status, message } => Error::failed(what).mend(refused(status, &message)),
        }
    }
}

/// What mends a refusal of the API, by its status and, where that says too little, by its words.
fn refused(status: u16, message: &str) -> &'static str {
    match status {
        401 => "start ringback again: its token is another one than in its state directory",
        404 => missing(message),
        409 => conflict(message),
        413 => "send less at once",
        429 => "`ringback runs` says what waits for what: wait, or raise that limit",
        503 => "`ringback doctor` says what is wrong",
        _ => "look at ringback's log",
    }
}

/// Where what is not there would be listed.
fn missing(message: &str) -> &'static str {
    match message {
        SESSION_MISSING => "`ringback sessions` lists the sessions; older ones are outside the window",
        "webhook not found" => "`ringback webhooks` lists the names",
        "delivery not found" => "`ringback deliveries` lists the ids",
        "run not found" => "`ringback runs` lists the ids",
        "hook not found" => "`ringback hooks` lists the hooks",
        "call not found" => "`ringback hooks deliveries` lists the ids",
        "worktree not found" => "`ringback runs worktrees` lists them",
        "workspace not found" => "name one of [workspaces] in the configuration",
        // The route itself: the daemon is of another version than this command.
        _ => "start ringback again: the one that runs does not know this",
    }
}

/// What stands in the way, and how to move it.
fn conflict(message: &str) -> &'static str {
    let says = |part: &str| message.contains(part);
    if says("enabled = false") {
        "set enabled = true in its entry of the configuration"
    } else if says("is disabled") {
        "let it take events again with `ringback webhooks enable NAME`"
    } else if says("is not in the configuration") {
        "`ringback webhooks` lists the names"
    } else if says("delivery is pending") {
        "wait: `ringback deliveries show ID` says when it is tried next"
    } else if says("queue of its endpoint is full") {
        "wait until the endpoint has taken some of what is pending"
    } else if says("force discards it") {
        "keep what you need of it, then repeat the command with --force"
    } else if says("the run goes on") {
        "wait for its end, or end it with `ringback runs cancel ID`"
    } else if says("the run has ended") {
        "`ringback runs retry ID` starts it again"
    } else if says("only one that has ended") {
        "wait for its end, or end it with `ringback runs cancel ID`"
    } else if says("cannot be replayed") {
        "`ringback hooks deliveries` lists other calls; `ringback hooks` lists the hooks"
    } else {
        "look at it again: it changed meanwhile"
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Error::failed(output::CLOSED);
        }
        Error::failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_api_has_a_mend_and_bad_values_are_usage() {
        let refused = |status, message: &str| {
            Error::from(client::Error::Refused { status, message: message.to_owned() })
        };
        for (status, message, code, mend) in [
            (400, "limit must be a whole number from 1 to 1000", 2, "--help"),
            (401, "invalid bearer token", 1, "start ringback again"),
            (404, "session not found", 1, "`ringback sessions`"),
            (404, "webhook not found", 1, "`ringback webhooks`"),
            (404, "delivery not found", 1, "`ringback deliveries`"),
            (404, "run not found", 1, "`ringback runs`"),
            (404, "hook not found", 1, "`ringback hooks`"),
            (404, "not found", 1, "start ringback again"),
            (409, "the webhook \"a\" is disabled: disabled by hand", 1, "`ringback webhooks enable NAME`"),
            (409, "the webhook \"a\" is disabled: enabled = false", 1, "enabled = true"),
            (409, "the run has ended", 1, "`ringback runs retry ID`"),
            (409, "it has changes; force discards it", 1, "--force"),
            (409, "something new", 1, "look at it again"),
            (429, "too many requests", 1, "`ringback runs`"),
            (503, "storage unavailable", 1, "`ringback doctor`"),
            (500, "status 500", 1, "log"),
        ] {
            let error = refused(status, message);
            assert_eq!((error.code, error.what.as_str()), (code, message));
            assert!(error.mend.as_deref().is_some_and(|m| m.contains(mend)), "{error:?}");
        }
    }

    #[test]
    fn without_a_home_directory_the_mend_is_to_set_it() {
        let error = Error::from(config::Error::NoHome);
        assert_eq!((error.code, error.what.as_str()), (2, "HOME is not set"));
        assert!(error.mend.is_some_and(|mend| mend.starts_with("set HOME")));
    }
}
