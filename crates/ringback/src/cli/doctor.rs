//! `ringback doctor`.

use ringback_daemon::doctor::{self, Finding, Mark};
use ringback_daemon::state_dir::StateDir;
use serde_json::json;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Columns before the text of a finding: the mark, and the name of what was looked at.
const INDENT: usize = 7;

/// Say what is found, what is missing, and the command that mends it
///
/// Looks at the configuration, the state directory, the journal, the ports, the agents and their directories, the
/// limits of watching files, and the endpoints. Changes nothing and uses no network.
///
/// Exit codes: 0 nothing is broken, 1 something is, 2 the configuration cannot be used.
///
/// Examples: ringback doctor; ringback doctor --repair
#[derive(clap::Args)]
pub(crate) struct Doctor {
    /// Put a new journal in place of a damaged one, with everything that can still be read; the damaged one is moved
    /// aside
    #[arg(long)]
    repair: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        if self.repair {
            return repair(context, self.json).await;
        }
        let facts = doctor::gather(
            context.given.as_deref(),
            &context.env,
            &context.state()?,
            &std::env::current_exe()?,
        )
        .await;
        let findings = doctor::judge(&facts);
        let broken = findings.iter().filter(|f| f.mark == Mark::Broken).count();
        if self.json {
            output::json(&json!({ "broken": broken, "findings": findings }))?;
        } else {
            for finding in &findings {
                print(finding, output::width())?;
            }
        }
        match (facts.config_error, broken) {
            (Some(error), _) => Err(error.into()),
            (None, 0) if self.json => Ok(()),
            (None, 0) => Ok(output::line("nothing is broken")?),
            (None, 1) => Err(Error::failed("1 thing is broken").mend("see the line below it")),
            (None, n) => {
                Err(Error::failed(format!("{n} things are broken")).mend("see the lines below them"))
            }
        }
    }
}

fn print(finding: &Finding, width: usize) -> Result<(), Error> {
    let mark = match finding.mark {
        Mark::Ok => "ok",
        Mark::Note => "note",
        Mark::Broken => "BROKEN",
    };
    let what = format!("{}: {}", finding.check, finding.what);
    for line in output::wrapped(&format!("{mark:<INDENT$}"), &what, width) {
        output::line(&line)?;
    }
    if let Some(mend) = &finding.mend {
        for line in output::wrapped(&" ".repeat(INDENT), &format!("mend: {mend}"), width) {
            output::line(&line)?;
        }
    }
    Ok(())
}

async fn repair(context: &Context, json: bool) -> Result<(), Error> {
    let path = context.state()?;
    if !path.exists() {
        return told(json, None, &path);
    }
    let state = StateDir::open(&path)?;
    // Held until the end: nothing else may have the file open.
    let _lock = state.lock()?;
    let file = state.database();
    let work = tokio::task::spawn_blocking(move || ringback_store::repair(&file));
    let repaired = work.await.map_err(|e| Error::failed(e.to_string()))?;
    let repaired = repaired.map_err(|e| Error::failed(format!("{}: {e}", state.database().display())))?;
    told(json, repaired.as_ref(), &state.database())
}

fn told(
    json: bool,
    repaired: Option<&ringback_store::Repaired>,
    path: &std::path::Path,
) -> Result<(), Error> {
    let path = path.display();
    if json {
        let answer = repaired.map(|r| {
            json!({ "moved_to": r.aside, "whole": r.is_whole, "sessions": r.sessions, "events": r.events,
                    "pending": r.pending, "runs": r.runs })
        });
        return Ok(output::json(&json!({ "repaired": answer }))?);
    }
    let Some(r) = repaired else {
        return Ok(output::line(&format!("{path}: nothing to repair"))?);
    };
    output::line(&format!("the damaged journal is now {}", r.aside.display()))?;
    let kept = if r.is_whole { "everything was readable" } else { "some of it was lost" };
    Ok(output::line(&format!(
        "{path} is new; {kept}: {} sessions, {} events, {} pending deliveries and {} runs are in it",
        r.sessions, r.events, r.pending, r.runs
    ))?)
}
