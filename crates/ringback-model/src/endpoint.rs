//! One `webhooks` entry, and which events it wants.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use globset::GlobSet;
use ipnet::IpNet;

use crate::activity::{Activity, Reason};
use crate::event::Event;
use crate::ids::{Agent, EndpointName, words};
use crate::rate::Rate;

/// A receiver as configured. Every field is already checked: see the daemon's configuration.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Unique name.
    pub name: EndpointName,
    /// http or https, with a host. May hold credentials: shown only by [`Endpoint::shown_url`].
    pub url: Secret,
    /// Signing secrets, newest first; empty = unsigned.
    pub secrets: Vec<Secret>,
    /// Target activities; empty = all.
    pub events: BTreeSet<Activity>,
    /// Agents; empty = all.
    pub agents: BTreeSet<Agent>,
    /// Globs on the project path; `None` = all.
    pub projects: Option<GlobSet>,
    /// Reasons; empty = all.
    pub reasons: BTreeSet<Reason>,
    /// Also events of sessions that ringback started.
    pub runs: bool,
    /// Off = nothing is queued.
    pub enabled: bool,
    /// Shape of the body.
    pub format: Format,
    /// One attempt, from connect to the end of the response.
    pub timeout: Duration,
    /// Waits between attempts; attempts = len + 1.
    pub backoff: Vec<Duration>,
    /// Attempts in flight at once.
    pub concurrency: usize,
    /// Headers of the operator's, by lower-case name: sent with every attempt. Their values are secrets.
    pub headers: Vec<(String, Secret)>,
    /// A later event of a session waits until every earlier one there is finished.
    pub ordered: bool,
    /// Attempts in a span of time; `None` = any number.
    pub rate: Option<Rate>,
    /// Addresses it may have beyond the network profile.
    pub allow: BTreeSet<IpNet>,
}

impl Endpoint {
    /// Whether an event is for this endpoint.
    pub fn wants(&self, event: &Event) -> bool {
        fn allows<T: Ord>(filter: &BTreeSet<T>, value: &T) -> bool {
            filter.is_empty() || filter.contains(value)
        }
        self.enabled
            && allows(&self.events, &event.to)
            && allows(&self.agents, &event.agent)
            && (self.reasons.is_empty() || event.reason.is_some_and(|r| self.reasons.contains(&r)))
            && self.projects.as_ref().is_none_or(|globs| globs.is_match(&event.project_path))
            && (self.runs || event.run_id.is_none())
    }

    /// Scheme and host, the rest hidden: `https://hooks.example.com/***`.
    pub fn shown_url(&self) -> String {
        let url = self.url.reveal();
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let host = authority.rsplit('@').next().unwrap_or("");
        format!("{scheme}://{host}/***")
    }
}

words! {
    /// Shape of a delivery's body.
    Format, "format" {
        /// The event itself.
        Json = "json",
        /// A message for a Slack incoming webhook.
        Slack = "slack",
        /// A message for a Discord webhook.
        Discord = "discord",
        /// A notification of ntfy.
        Ntfy = "ntfy",
        /// A message of a Telegram bot.
        Telegram = "telegram",
        /// The event in a CloudEvents envelope, structured mode.
        CloudEvents = "cloudevents",
    }
}

/// A value that is never shown: no `Display`, and `Debug` prints three asterisks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes the value over.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Secret(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
