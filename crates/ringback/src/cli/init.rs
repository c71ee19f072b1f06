//! `ringback init`: a commented configuration and a secret.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use ringback_daemon::{config, state_dir};

use super::Context;
use crate::exit_code::Error;
use crate::output;

/// Write a commented configuration with a fresh secret; never overwrites
///
/// The file is the one that the other commands read: --config, else $RINGBACK_CONFIG, else the default place.
///
/// Examples: ringback init; ringback init --config ~/ringback.toml
#[derive(clap::Args)]
pub(crate) struct Init {}

const TEMPLATE: &str = include_str!("../../config.example.toml");

impl Init {
    pub(crate) fn run(self, context: &Context) -> Result<(), Error> {
        // The file that the other commands read, so that what is written is in force and takes no other's place.
        let path = config::find(context.given.as_deref(), &context.env)
            .or_else(|| Some(config::directory(&context.env)?.join("config.toml")))
            .ok_or(config::Error::NoHome)?;
        if path.extension().is_some_and(|e| e == "json") && !path.exists() {
            return Err(Error::usage(format!(
                "{} would have to hold JSON; init writes TOML",
                path.display()
            ))
            .mend("name a file that ends in .toml with --config or RINGBACK_CONFIG"));
        }
        let failed = |e: std::io::Error| {
            Error::failed(format!("cannot write {}: {}", path.display(), e.kind()))
                .mend("name another file with --config")
        };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        let text = TEMPLATE.replace("@SECRET@", &state_dir::random_token().map_err(failed)?);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::failed(format!("{} is there already; it is untouched", path.display()))
                    .mend("edit it, or name another file with --config"));
            }
            Err(e) => return Err(failed(e)),
        }
        output::line(&format!("wrote {}", path.display()))?;
        output::line("Set the url of your receiver there, then start with: ringback up")?;
        Ok(())
    }
}
