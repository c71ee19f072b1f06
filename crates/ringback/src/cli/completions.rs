//! `ringback completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit_code::Error;
use crate::output;

/// Print a completion script for a shell
///
/// Example: ringback completions bash > ~/.local/share/bash-completion/completions/ringback
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut shown(super::Args::command()), "ringback", &mut script);
        Ok(output::raw(&String::from_utf8_lossy(&script))?)
    }
}

/// The command line without what is hidden: the generators offer that too.
fn shown(whole: clap::Command) -> clap::Command {
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    clap::Command::new("ringback")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(commands.collect::<Vec<_>>())
}
