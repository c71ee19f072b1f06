//! `ringback hooks samples`.

use ringback_webhook::samples::{self, Sample};
use ringback_webhook::senders::PRESETS;
use serde_json::json;

use super::sections;
use crate::exit_code::Error;
use crate::output;

#[derive(clap::Args)]
pub(super) struct Samples {
    /// Only of this sender
    sender: Option<String>,
    /// Print this one's body, as it is
    event: Option<String>,
}

impl Samples {
    pub(super) fn run(self, json: bool) -> Result<(), Error> {
        let name = self.sender.as_deref().map(|name| sections::sender(name).map_or(name, |s| s.name));
        if let Some(name) = name.filter(|name| samples::of(name).next().is_none()) {
            return Err(Error::usage(format!("there is no sample of {name:?}"))
                .mend(format!("known are {}, header, hmac", PRESETS.join(", "))));
        }
        let listed: Vec<&Sample> = match name {
            Some(name) => samples::of(name).collect(),
            None => samples::ALL.iter().collect(),
        };
        if let Some(event) = &self.event {
            let sample = listed.iter().find(|sample| sample.event == event).ok_or_else(|| {
                let events: Vec<&str> = listed.iter().map(|sample| sample.event).collect();
                Error::usage(format!("there is no sample {event:?} of this sender"))
                    .mend(format!("known are {}", events.join(", ")))
            })?;
            return if json { Ok(output::json(&row(sample, true))?) } else { Ok(output::raw(sample.body)?) };
        }
        if json {
            let items: Vec<_> = listed.iter().map(|sample| row(sample, false)).collect();
            return Ok(output::json(&json!({ "items": items, "next": null }))?);
        }
        let rows: Vec<Vec<String>> = listed
            .iter()
            .map(|s| [s.sender, s.event, s.source].into_iter().map(str::to_owned).collect())
            .collect();
        Ok(output::table(&["SENDER", "EVENT", "SOURCE"], &rows, output::width())?)
    }
}

fn row(sample: &Sample, with_body: bool) -> serde_json::Value {
    let headers: serde_json::Map<_, _> =
        sample.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut row = json!({
        "sender": sample.sender,
        "event": sample.event,
        "source": sample.source,
        "headers": headers,
    });
    if with_body {
        row["body"] = sample.body.into();
    }
    row
}
