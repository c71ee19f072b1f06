//! Declared hooks: `POST /hook/{slug}` out of markdown files. (inbound.md, "POST /hook/{slug}")
//!
//! Owns: what a file says, who may call it, and what becomes of a call's payload: a message in which the owner's words
//! are the task and the caller's are data. Does not know the listener's limits, the journal or how runs go: the
//! listener asks those, and hands the filled message on.

mod auth;
mod directory;
mod expressions;
mod fields;
mod file;
mod fill;
mod flow;
mod notice;
mod prompt;
mod template;
#[cfg(test)]
mod tests;
mod trial;
mod yaml;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ringback_model::updates::UpdatePolicy;
use ringback_webhook::senders::{self, Incoming, Scheme, Verified};

pub use directory::{Checked, check, file_of, hooks_directory};
pub(crate) use directory::{Declared, Follower, Loaded, directory, look_once};
pub use file::is_slug;
pub use trial::{NotTried, Outcome, Proof, Trial, Tried, try_file, try_slug};

pub(super) use auth::Auth;
pub(super) use fill::{Filled, Sent, Unfit, fill, headers};

/// One declared hook.
#[derive(Debug)]
pub(crate) struct Hook {
    /// The last part of its path.
    pub(crate) slug: String,
    /// Its file's own name.
    pub(crate) file: String,
    pub(super) auth: Auth,
    /// Its URL as its sender knows it.
    pub(super) public_url: Option<String>,
    /// Longest body, in bytes.
    pub(super) max_body: usize,
    /// The same bytes are the same delivery, where the sender names none.
    pub(super) dedupes_by_body: bool,
    /// How its runs go.
    pub(crate) run: Settings,
    /// How its calls flow.
    pub(crate) flow: flow::Flow,
    /// Tells its file from an edited one.
    pub(crate) fingerprint: String,
    when: Option<expressions::Condition>,
    map: Option<Vec<(String, expressions::Mapped)>>,
    fields: fields::Fields,
    template: template::Template,
    /// Variables that hold its secrets: no agent sees them.
    pub(crate) variables: BTreeSet<String>,
    /// Files that hold its secrets.
    secret_files: Vec<PathBuf>,
    /// Secrets that are not there.
    pub(crate) unset: Vec<String>,
    /// What is odd about the file.
    pub(crate) warnings: Vec<String>,
}

/// How the runs of a hook go; `None` = as configured for all runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Without the main session's history.
    pub(crate) isolated: bool,
    /// Alias or id of a model.
    pub(crate) model: Option<String>,
    /// Let the model think.
    pub(crate) thinking: bool,
    /// Give the run the tools that reach the user.
    pub(crate) allow_ping: bool,
    /// What the run owes the main session.
    pub(crate) update_main_session: UpdatePolicy,
    /// Tools of the agent.
    pub(crate) allowed_tools: Option<Vec<String>>,
    /// A configured agent.
    pub(crate) agent: Option<String>,
    /// A configured workspace.
    pub(crate) workspace: Option<String>,
    /// Run once more after an interruption.
    pub(crate) retry: Option<bool>,
}

impl Hook {
    /// The name of the sender that it believes; `None`: whoever knows the listener's secret.
    pub(crate) fn sender(&self) -> Option<&str> {
        match &self.auth {
            Auth::Shared => None,
            Auth::Sender { name, .. } => Some(name),
        }
    }

    /// Whether a call can succeed at all.
    pub(crate) fn has_secret(&self) -> bool {
        match &self.auth {
            Auth::Shared => true,
            Auth::Sender { scheme, .. } => scheme.has_secret(),
        }
    }
}

/// Whether the sender is who it says it is. Without a configured URL the one is tried that the request names itself:
/// the signature covers it.
pub(super) fn verify(
    hook: &Hook,
    scheme: &Scheme,
    request: Incoming<'_>,
    now: ringback_model::Timestamp,
) -> Result<Verified, senders::Refused> {
    if !scheme.needs_public_url() || hook.public_url.is_some() {
        return scheme.verify(&Incoming { public_url: hook.public_url.as_deref(), ..request }, now);
    }
    let host = request.headers.get(http::header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let [https, http] = ["https", "http"].map(|s| format!("{s}://{host}/hook/{}", hook.slug));
    let by = |url: &str| scheme.verify(&Incoming { public_url: Some(url), ..request }, now);
    by(&https).or_else(|_| by(&http))
}
