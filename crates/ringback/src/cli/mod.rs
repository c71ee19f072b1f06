//! The command line: what there is, and which file does it.

mod budget;
mod completions;
mod connect;
mod deliveries;
mod demo;
mod demo_agent;
mod doctor;
mod hand_over;
mod hooks;
mod init;
mod listen;
mod main_session;
mod notify;
mod runs;
mod sessions;
mod trigger;
mod up;
mod updates;
mod webhooks;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ringback_daemon::client::Client;
use ringback_daemon::config::{self, Config};
use ringback_daemon::env::Env;
use ringback_daemon::state_dir::StateDir;

use crate::exit_code::Error;

/// Webhooks for AI coding agents: every change of a session's activity, delivered signed and never lost.
#[derive(Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "Examples:\n  \
    ringback demo                 the whole loop with nothing installed\n  \
    ringback init                 write a commented configuration and a secret\n  \
    ringback up                   start the daemon\n  \
    ringback sessions             what your agents are doing\n\n\
    Exit codes: 0 done, 1 failed, 2 usage or configuration."
)]
pub(crate) struct Args {
    /// Configuration file (default: $RINGBACK_CONFIG, else config.toml or config.json in the ringback folder of
    /// $XDG_CONFIG_HOME)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Format of the log on stderr; RINGBACK_LOG sets its levels
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub(crate) log: LogFormat,

    #[command(subcommand)]
    command: Command,
}

/// Format of the log.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Demo(demo::Demo),
    Sessions(sessions::Sessions),
    Webhooks(webhooks::Webhooks),
    Deliveries(deliveries::Deliveries),
    Listen(listen::Listen),
    Trigger(trigger::Trigger),
    Runs(runs::Runs),
    Hooks(hooks::Hooks),
    Updates(updates::Updates),
    Budget(budget::Budget),
    Main(main_session::MainSession),
    Notify(notify::Notify),
    Connect(connect::Connect),
    Disconnect(connect::Disconnect),
    Doctor(doctor::Doctor),
    /// What `connect` installs: prints pending updates for the main session's next prompt
    #[command(hide = true)]
    HandOver(hand_over::HandOver),
    #[command(hide = true)]
    DemoAgent(demo_agent::DemoAgent),
    Init(init::Init),
    Completions(completions::Completions),
}

/// What every command may use.
pub(crate) struct Context {
    /// The environment.
    pub(crate) env: Env,
    /// `--config`.
    pub(crate) given: Option<PathBuf>,
}

impl Context {
    /// The configuration; its warnings go to the log.
    pub(crate) fn config(&self) -> Result<Config, Error> {
        let config = config::load(self.given.as_deref(), &self.env)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }

    /// Where the state directory is.
    pub(crate) fn state(&self) -> Result<PathBuf, Error> {
        Ok(StateDir::locate(&self.env)?)
    }

    /// A client of the running daemon.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        Ok(Client::connect(&self.state()?)?)
    }
}

impl Args {
    /// Does what was asked.
    pub(crate) async fn run(self, env: Env) -> Result<(), Error> {
        let context = Context { env, given: self.config };
        match self.command {
            Command::Up(command) => command.run(&context).await,
            Command::Demo(command) => command.run().await,
            Command::Sessions(command) => command.run(&context).await,
            Command::Webhooks(command) => command.run(&context).await,
            Command::Deliveries(command) => command.run(&context).await,
            Command::Listen(command) => command.run().await,
            Command::Trigger(command) => command.run(&context).await,
            Command::Runs(command) => command.run(&context).await,
            Command::Hooks(command) => command.run(&context).await,
            Command::Updates(command) => command.run(&context).await,
            Command::Budget(command) => command.run(&context).await,
            Command::Main(command) => command.run(&context).await,
            Command::Notify(command) => command.run(&context).await,
            Command::Connect(command) => command.run(&context),
            Command::Disconnect(command) => command.run(&context),
            Command::Doctor(command) => command.run(&context).await,
            Command::HandOver(command) => command.run(&context).await,
            Command::DemoAgent(command) => command.run(&context).await,
            Command::Init(command) => command.run(&context),
            Command::Completions(command) => command.run(),
        }
    }
}
