//! `ringback hooks add`.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringback_daemon::config::Config;
use ringback_daemon::env::Env;
use ringback_daemon::{hook, state_dir};
use serde_json::json;
use tempfile::NamedTempFile;

use super::sections::{self, Maker, Sender, Start};
use crate::cli::Context;
use crate::exit_code::Error;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Add {
    /// Who calls: github, gitlab, slack, stripe, ... (an unknown one lists them all)
    sender: String,
    /// The hook's name, and the last part of its URL
    name: String,
}

/// The files of a new hook.
struct Files {
    hook: PathBuf,
    secret: PathBuf,
}

impl Add {
    pub(super) fn run(self, context: &Context, json: bool) -> Result<(), Error> {
        let sender = sections::sender(&self.sender).ok_or_else(|| unknown(&self.sender))?;
        if !hook::is_slug(&self.name) || self.name == "agent" {
            let what = format!("{:?} cannot be a hook's name", self.name);
            return Err(Error::usage(what)
                .mend("1 to 64 characters of a-z 0-9 -, not beginning with - and not the word agent"));
        }
        let directory = hook::hooks_directory(&context.env)
            .ok_or_else(|| Error::usage("HOME is not set").mend("set HOME or XDG_CONFIG_HOME"))?;
        let secret_name = format!("{}.secret", self.name);
        let files =
            Files { hook: directory.join(format!("{}.md", self.name)), secret: directory.join(&secret_name) };
        let start = sender.start(&self.name, &secret_name, &files.secret.display().to_string());
        let start =
            start.ok_or_else(|| Error::failed(format!("there is no starting file for {}", sender.name)))?;
        let config = context.config()?;
        self.is_free(&config, &context.env, &files)?;
        write(&directory, &files, sender, &start)?;
        if json {
            return Ok(output::json(&json!({
                "slug": self.name,
                "sender": sender.name,
                "path": format!("/hook/{}", self.name),
                "file": files.hook,
                "secret_file": files.secret,
                "secret": if sender.maker == Maker::Sender { "to be copied from the sender" } else { "generated" },
                "fields": fields(&start.steps),
                "steps": start.steps,
                "edit": sender.edit,
            }))?);
        }
        told(&self.name, sender, &files, &start, config.inbound.port)
    }

    /// Neither the files nor the id may be there.
    fn is_free(&self, config: &Config, env: &Env, files: &Files) -> Result<(), Error> {
        for path in [&files.hook, &files.secret] {
            // A link to nowhere is something too.
            if path.symlink_metadata().is_ok() {
                let what = format!("{} is there already; it is untouched", path.display());
                return Err(Error::failed(what).mend("choose another name, or edit the file"));
            }
        }
        match hook::file_of(&self.name, config, env) {
            Some(file) => {
                Err(Error::failed(format!("the id {} is taken by {file}", self.name))
                    .mend("choose another name"))
            }
            None => Ok(()),
        }
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> =
        sections::ALL.iter().flat_map(|sender| [Some(sender.name), sender.alias]).flatten().collect();
    let mend = format!("known are {}; hmac is for any other that signs", known.join(", "));
    Error::usage(format!("no sender is called {name:?}")).mend(&mend)
}

/// Writes both files, each as a whole, or neither.
fn write(directory: &Path, files: &Files, sender: &Sender, start: &Start) -> Result<(), Error> {
    let failed = |path: &Path, e: std::io::Error| {
        Error::failed(format!("cannot write {}: {}", path.display(), e.kind()))
            .mend("look at the directory's owner and rights")
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| failed(directory, e))?;
    let secret = match sender.maker {
        Maker::Owner => state_dir::random_token().map(|token| token + "\n"),
        Maker::OwnersPair => state_dir::random_token().map(|token| format!("ringback:{token}\n")),
        // Empty: its owner pastes the sender's.
        Maker::Sender => Ok(String::new()),
    };
    let secret = secret.map_err(|e| failed(&files.secret, e))?;
    // Temporary files have the mode 0600, and names that are no hook's.
    let put = |path: &Path, text: &str| {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map(|_| ()).map_err(|e| e.error)
    };
    put(&files.secret, &secret).map_err(|e| failed(&files.secret, e))?;
    put(&files.hook, &start.file).map_err(|e| {
        let _ = std::fs::remove_file(&files.secret);
        failed(&files.hook, e)
    })
}

fn told(name: &str, sender: &Sender, files: &Files, start: &Start, port: Option<u16>) -> Result<(), Error> {
    output::line(&format!("wrote {}", files.hook.display()))?;
    let secret = files.secret.display();
    output::line(&match sender.maker {
        Maker::Sender => format!("wrote {secret}, empty: paste the sender's secret into it (see below)"),
        _ => format!("wrote {secret} with a new secret; to paste it: cat {secret}"),
    })?;
    output::line(&format!("path  /hook/{name}"))?;
    output::line(&match port {
        Some(port) => format!(
            "url   http://127.0.0.1:{port}/hook/{name}, behind your tunnel https://YOUR-HOST/hook/{name}"
        ),
        None => {
            "url   none yet: the listener is off until WEBHOOK_PORT and WEBHOOK_SECRET are set".to_owned()
        }
    })?;
    output::line("")?;
    for line in plain(&start.steps) {
        output::line(&line)?;
    }
    output::line("")?;
    if let Some(edit) = sender.edit {
        output::line(&format!("edit  {}: {edit}", files.hook.display()))?;
    }
    output::line(&format!("check ringback hooks check {}", files.hook.display()))?;
    if let Some(sample) = ringback_webhook::samples::of(sender.name).next() {
        output::line(&format!(
            "try   ringback hooks samples {} {} | ringback hooks try {name} @- --sign",
            sender.name, sample.event
        ))?;
    }
    Ok(())
}

/// The rows of the page's tables: where, and what to fill in there.
fn fields(steps: &str) -> Vec<[String; 2]> {
    steps.lines().filter_map(row).collect()
}

/// The steps for a terminal: each row of a table is a line.
fn plain(steps: &str) -> Vec<String> {
    let is_frame = |line: &&str| line.starts_with("```") || (line.starts_with('|') && row(line).is_none());
    let line = |line: &str| {
        row(line).map_or_else(|| line.to_owned(), |[place, value]| format!("  {place}: {value}"))
    };
    steps.lines().filter(|line| !is_frame(line)).map(line).collect()
}

/// A row of a table that is neither its head nor the line below that.
fn row(line: &str) -> Option<[String; 2]> {
    let cells: Vec<String> = line
        .strip_prefix('|')?
        .trim_end()
        .trim_end_matches('|')
        .split('|')
        .map(|cell| cell.trim().replace('`', ""))
        .collect();
    let (value, place) = cells.split_last()?;
    let is_head = value == "value" || value.starts_with("---");
    (!is_head).then(|| [place.join(" > "), value.clone()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a hook file, its secret set aside.
    fn problems(directory: &Path, name: &str, text: &str) -> Vec<String> {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        let env = Env::of([("HOME".to_owned(), directory.display().to_string())]);
        let config = ringback_daemon::config::load(None, &env).unwrap();
        match hook::check(&path, &config, &env) {
            Ok(checked) => checked
                .warnings
                .into_iter()
                .filter(|w| !w.contains("is not set") && !w.contains("secret file"))
                .collect(),
            Err(errors) => errors,
        }
    }

    #[test]
    fn every_file_of_the_documentation_is_a_hook() {
        let directory = tempfile::tempdir().unwrap();
        let examples = sections::examples();
        assert_eq!(examples.len(), 14, "a section per sender has one");
        for example in examples {
            assert_eq!(problems(directory.path(), "x.md", example), Vec::<String>::new(), "{example}");
        }
    }

    #[test]
    fn every_sender_starts_with_the_file_of_its_section() {
        let directory = tempfile::tempdir().unwrap();
        for sender in &sections::ALL {
            let start = sender.start("mine", "mine.secret", "/h/mine.secret").unwrap();
            assert_eq!(problems(directory.path(), "mine.md", &start.file), Vec::<String>::new(), "{start:?}");
            assert!(start.file.contains("\nid: mine\n") && start.file.contains("{ file: mine.secret }"));
            assert!(start.file.contains(&format!("{}:", sender.name)), "{}", start.file);
            assert!(
                start.steps.contains("/hook/mine") && start.steps.contains("/h/mine.secret"),
                "{start:?}"
            );
            let (fields, plain) = (fields(&start.steps), plain(&start.steps).join("\n"));
            let has_table = !["basic", "bearer", "telegram"].contains(&sender.name);
            assert!(!has_table || fields.len() >= 2, "{fields:?}");
            assert!(fields.iter().all(|[place, value]| plain.contains(&format!("{place}: {value}"))));
            assert!(!plain.contains('|') && !plain.contains("```"), "{plain}");
            // Nothing of the example is left where it would be wrong.
            let left = sections::examples().into_iter().any(|example| {
                let id = example.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
                start.steps.contains(&format!("/hook/{id}")) || start.file.contains(&format!("/hook/{id}\n"))
            });
            assert!(!left && !start.file.contains("_SECRET") && !start.file.contains("_TOKEN"), "{start:?}");
        }
    }
}
