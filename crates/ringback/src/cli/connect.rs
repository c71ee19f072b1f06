//! `ringback connect` and `ringback disconnect`.

use std::path::PathBuf;

use clap::ValueEnum;
use ringback_daemon::connect::{self, HandOver, Report};

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Put ringback's entries into an agent's own settings, so that updates reach your main session
///
/// Prints the change it made. Everything else in the file stays as it is, and `ringback disconnect` takes exactly
/// these entries out again.
///
/// Examples: ringback connect claude --dry-run; ringback connect claude
#[derive(clap::Args)]
pub(crate) struct Connect {
    /// The agent
    agent: AgentName,
    /// Only show the change
    #[arg(long)]
    dry_run: bool,
}

/// Take ringback's entries out of an agent's settings
///
/// Examples: ringback disconnect claude --dry-run; ringback disconnect claude
#[derive(clap::Args)]
pub(crate) struct Disconnect {
    /// The agent
    agent: AgentName,
    /// Only show the change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum AgentName {
    /// Claude Code
    Claude,
}

impl Connect {
    pub(crate) fn run(self, context: &Context) -> Result<(), Error> {
        let AgentName::Claude = self.agent;
        let binary = std::env::current_exe()?;
        let given = ringback_daemon::config::find(context.given.as_deref(), &context.env);
        let config = given.map(std::path::absolute).transpose()?;
        let command = HandOver { binary, config };
        print(
            connect::connect(&claude_dir(context)?, &context.state()?, &command, self.dry_run),
            self.dry_run,
        )
    }
}

impl Disconnect {
    pub(crate) fn run(self, context: &Context) -> Result<(), Error> {
        let AgentName::Claude = self.agent;
        print(connect::disconnect(&claude_dir(context)?, &context.state()?, self.dry_run), self.dry_run)
    }
}

/// The first configured directory, else the agent's own variable, else its default.
fn claude_dir(context: &Context) -> Result<PathBuf, Error> {
    let config = context.config()?;
    config
        .claude_dirs
        .first()
        .cloned()
        .ok_or_else(|| Error::usage("no directory of Claude Code is known").mend("set HOME"))
}

fn print(outcome: Result<Report, connect::Error>, dry_run: bool) -> Result<(), Error> {
    let report = outcome.map_err(|e| Error::failed(e.to_string()))?;
    if !report.changed {
        return Ok(output::line(&format!("{}: nothing to do", report.path.display()))?);
    }
    for line in report.diff.lines() {
        output::line(line)?;
    }
    let what = if dry_run { "would change" } else { "changed" };
    Ok(output::line(&format!("{what} {}", report.path.display()))?)
}
