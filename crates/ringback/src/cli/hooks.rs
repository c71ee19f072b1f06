//! `ringback hooks`.

mod add;
mod deliveries;
mod samples;
mod sections;
mod trial;

use std::path::PathBuf;

use clap::Subcommand;
use reqwest::Method;
use ringback_daemon::hook;
use ringback_daemon::record::percent_encoded;
use serde_json::Value;

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// The declared hooks: add, list, check and try them; what called them, and a call once more; let a paused one go on
///
/// Examples: ringback hooks add github github-ci;
/// ringback hooks samples github workflow_run | ringback hooks try github-ci @- --sign;
/// ringback hooks deliveries github-ci
#[derive(clap::Args)]
pub(crate) struct Hooks {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write a hook file and its secret, and say what to paste where
    Add(add::Add),
    /// List the hooks in force (the default)
    List,
    /// Say what is wrong with a hook file, without a daemon; exit code 1 when it cannot be used
    Check {
        /// The file
        file: PathBuf,
    },
    /// Let a hook go on that paused after 3 failed runs in a row
    Resume {
        /// The last part of its path
        slug: String,
    },
    /// Say what a call would be answered and what a run would be asked, without a daemon; exit code 1 when it would be
    /// refused
    Try(trial::Try),
    /// List the built-in requests of senders, with the documentation that shows them; print one
    Samples(samples::Samples),
    /// List the calls that hooks got, newest first; show one
    Deliveries(deliveries::Deliveries),
    /// Start a run out of a call once more, with the hook's file as it is now
    Replay(deliveries::Replay),
}

impl Hooks {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        match self.command.unwrap_or(Command::List) {
            Command::List => list(context, self.json).await,
            Command::Check { file } => check(context, &file, self.json),
            Command::Resume { slug } => resume(context, &slug, self.json).await,
            Command::Add(add) => add.run(context, self.json),
            Command::Try(trial) => trial.run(context, self.json),
            Command::Samples(samples) => samples.run(self.json),
            Command::Deliveries(deliveries) => deliveries.run(context, self.json).await,
            Command::Replay(replay) => replay.run(context, self.json).await,
        }
    }
}

async fn list(context: &Context, json: bool) -> Result<(), Error> {
    let answer = context.client()?.list("/api/hooks", &[]).await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let texts = |key: &str| -> Vec<String> {
        let list = answer[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let hooks: Vec<&Value> = answer["items"].as_array().into_iter().flatten().collect();
    if hooks.is_empty() {
        output::line("no hook is declared; ringback hooks add SENDER NAME writes one")?;
    }
    for hook in hooks {
        let text = |key: &str| hook[key].as_str().unwrap_or_default();
        let secret = if hook["has_secret"] == true { "" } else { "  NO SECRET: every call gets 401" };
        output::line(&format!("/hook/{}  {}  {}{secret}", text("slug"), text("auth"), text("file")))?;
        if let (Some(at), Some(why)) = (hook["paused_at"].as_str(), hook["paused_because"].as_str()) {
            let slug = text("slug");
            output::line(&format!("  PAUSED since {at}: {why}; ringback hooks resume {slug}"))?;
        }
    }
    for problem in texts("problems").iter().chain(&texts("warnings")) {
        output::line(problem)?;
    }
    Ok(())
}

async fn resume(context: &Context, slug: &str, json: bool) -> Result<(), Error> {
    let path = format!("/api/hooks/{}/resume", percent_encoded(slug));
    let answer = context.client()?.call(Method::POST, &path, None).await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let what = if answer["resumed"] == true { "goes on" } else { "was not paused" };
    Ok(output::line(&format!("{slug} {what}"))?)
}

fn check(context: &Context, file: &std::path::Path, json: bool) -> Result<(), Error> {
    let checked = hook::check(file, &context.config()?, &context.env);
    if json {
        let shown = match &checked {
            Ok(checked) => {
                serde_json::json!({ "slug": checked.slug, "errors": [], "warnings": checked.warnings })
            }
            Err(errors) => serde_json::json!({ "slug": null, "errors": errors, "warnings": [] }),
        };
        output::json(&shown)?;
    }
    match checked {
        Ok(checked) if !json => {
            output::line(&format!("POST /hook/{}", checked.slug))?;
            checked.warnings.iter().try_for_each(|warning| Ok(output::line(&format!("warning: {warning}"))?))
        }
        Ok(_) => Ok(()),
        Err(errors) => {
            let what = format!("{} is not a usable hook: {}", file.display(), errors.join("; "));
            Err(Error::failed(what).mend("edit the file"))
        }
    }
}
