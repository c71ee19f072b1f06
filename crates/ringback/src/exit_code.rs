//! How a command ends without success: the exit code, one line of what, one of how to mend it.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | usage or configuration |

use std::process::ExitCode;

use ringback_daemon::{client, config, state_dir, supervise};

use crate::output;

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
            _ => "correct the file, or write a commented one with `ringback init`",
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
            client::Error::NoApi { .. } => Error::failed(what).mend("set [server] listen to an address"),
            client::Error::State(error) => error.into(),
            client::Error::Silent(_) => Error::failed(what).mend("look at its log, or start it again"),
            client::Error::Refused { status: 429, .. } => Error::failed(what)
                .mend("`ringback runs` says what waits for what: wait, or raise that limit"),
            client::Error::Refused { .. } => Error::failed(what),
        }
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
