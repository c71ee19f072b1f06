//! `ringback hooks try`.

use std::io::Read;
use std::path::Path;

use ringback_daemon::clock;
use ringback_daemon::hook::{self, NotTried, Outcome, Proof, Trial, Tried};
use serde_json::json;

use crate::cli::Context;
use crate::exit_code::Error;
use crate::output;

/// The longest payload that is read, in bytes: longer ones no hook takes.
const MAX_PAYLOAD: u64 = 26 << 20;

#[derive(clap::Args)]
pub(super) struct Try {
    /// The hook's slug, or the path of a hook file (with a / or .md)
    hook: String,
    /// The payload's file after an @; @- reads standard input
    #[arg(value_name = "@PAYLOAD")]
    payload: String,
    /// Sign the payload with the hook's secret, as its sender would now
    #[arg(long)]
    sign: bool,
    /// A header of the request, as in 'X-GitHub-Event: push'; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// What happened, for senders that say so in a header
    #[arg(long)]
    event: Option<String>,
}

impl Try {
    pub(super) fn run(self, context: &Context, json: bool) -> Result<(), Error> {
        let headers = self.headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
        let body = payload(&self.payload)?;
        let trial = Trial { body, headers, event: self.event, sign: self.sign };
        let (config, env) = (context.config()?, &context.env);
        let tried = if self.hook.contains('/') || self.hook.ends_with(".md") {
            hook::try_file(Path::new(&self.hook), &trial, &config, env, clock::now())
        } else {
            hook::try_slug(&self.hook, &trial, &config, env, clock::now())
        };
        let tried = tried.map_err(not_tried)?;
        if json {
            shown_as_json(&tried)?
        } else {
            shown(&tried)?
        }
        match tried.outcome {
            Outcome::Refused => {
                Err(Error::failed(format!("the call would be refused with {}", tried.status)))
            }
            Outcome::Accepted | Outcome::Told | Outcome::Ignored | Outcome::Challenge => Ok(()),
        }
    }
}

fn header(text: &str) -> Result<(String, String), Error> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Error::usage("a header has no colon").mend("as in --header 'X-GitHub-Event: push'"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn payload(given: &str) -> Result<Vec<u8>, Error> {
    let path = given.strip_prefix('@').ok_or_else(|| {
        Error::usage("the payload is no file").mend("write @ and its path, or @- for standard input")
    })?;
    let mut bytes = Vec::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(MAX_PAYLOAD).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(MAX_PAYLOAD).read_to_end(&mut bytes)),
    };
    read.map_err(|e| {
        Error::failed(format!("{path} cannot be read: {}", e.kind())).mend("name another file")
    })?;
    Ok(bytes)
}

fn not_tried(error: NotTried) -> Error {
    let mend = match &error {
        NotTried::Unknown { .. } => "ringback hooks list shows the hooks of a running daemon",
        NotTried::Broken(_) => "edit the file",
        NotTried::NotAHeader(_) => "as in --header 'X-GitHub-Event: push'",
        NotTried::NoEventHeader => "leave --event out, and say it in the payload",
    };
    Error::failed(error.to_string()).mend(mend)
}

fn shown(tried: &Tried) -> Result<(), Error> {
    let field = |name: &str, value: &str| output::line(&format!("{name:<9} {value}"));
    field("hook", &format!("/hook/{}  {}", tried.slug, tried.file))?;
    if let Some((sender, event)) = tried.sample {
        field("sample", &format!("{sender} {event}"))?;
    }
    field(
        "sender",
        &match &tried.proof {
            Proof::Signed => "believed: signed here with the hook's secret".to_owned(),
            Proof::Given => "believed: the given headers prove it".to_owned(),
            Proof::NotNeeded => "believed: the hook asks for no proof".to_owned(),
            Proof::Missing(why) => format!("unsigned, a call like this gets 401: {why}"),
            Proof::Wrong(why) => format!("not believed: {why}"),
        },
    )?;
    for (name, value) in [("event", &tried.event), ("delivery", &tried.delivery_id)] {
        if let Some(value) = value {
            field(name, value)?;
        }
    }
    field("outcome", tried.outcome.as_str())?;
    field("answer", &format!("{} {}", tried.status, tried.answer))?;
    if let Some(message) = &tried.message {
        output::line("")?;
        // What only the user is told has no line before it.
        if tried.outcome == Outcome::Accepted {
            output::line(&format!("[webhook:{}] (what the run is told about its tools)", tried.slug))?;
        }
        for line in message.lines() {
            output::line(line)?;
        }
    }
    Ok(())
}

fn shown_as_json(tried: &Tried) -> Result<(), Error> {
    let (proof, why) = match &tried.proof {
        Proof::Signed => ("signed", None),
        Proof::Given => ("given", None),
        Proof::NotNeeded => ("none", None),
        Proof::Missing(why) => ("missing", Some(why)),
        Proof::Wrong(why) => ("wrong", Some(why)),
    };
    Ok(output::json(&json!({
        "slug": tried.slug,
        "file": tried.file,
        "sample": tried.sample.map(|(sender, event)| json!({ "sender": sender, "event": event })),
        "proof": proof,
        "why": why,
        "event": tried.event,
        "delivery_id": tried.delivery_id,
        "outcome": tried.outcome.as_str(),
        "status": tried.status,
        "answer": tried.answer,
        "message": tried.message,
    }))?)
}
