//! `rate`, `concurrency`, `coalesce`, `on_newer` and `deliver_only`: how the calls of a hook flow.
//!
//! Owns: these keys, their defaults and checks, and which calls of a hook are about the same. What follows from that is
//! `ringback_model::flow`'s.

use std::time::Duration;

use ringback_model::Rate;
use ringback_model::flow::{OnNewer, Rule, Window};
use ringback_model::inbound::bounds::Bound;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::section::Section;

use super::expressions::{Context, Failed, Mapped};

/// Where the file says nothing.
const QUIET: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest that calls are gathered.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// A longer key is kept as its hash, in bytes.
const MAX_KEY: usize = 200;
/// Keys that are about runs: they mean nothing where there are none.
const OF_RUNS: [&str; 12] = [
    "agent",
    "workspace",
    "isolated",
    "model",
    "thinking",
    "allow_ping",
    "update_main_session",
    "allowed_tools",
    "retry",
    "concurrency",
    "coalesce",
    "on_newer",
];

/// How the calls of a hook flow.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Accepted calls, and runs at once.
    pub(crate) bound: Bound,
    /// How runs about the same meet; `None` = each stands alone.
    pub(crate) rule: Option<Rule>,
    /// Tells what a call is about; `None` = all are about the same.
    key: Option<Mapped>,
    /// The filled template is a message to the user; there are no runs.
    pub(crate) is_deliver_only: bool,
}

impl Flow {
    /// What a call is about; `None` = it stands alone.
    pub(super) fn subject(&self, slug: &str, context: &Context) -> Result<Option<String>, Failed> {
        let Some(key) = &self.key else { return Ok(self.subject_without_key(slug)) };
        let key = match key.value(context)? {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        Ok(match key.len() {
            0 => None,
            1..=MAX_KEY => Some(format!("{slug}:{key}")),
            _ => Some(format!("{slug}:{}", hash(key.as_bytes()))),
        })
    }

    /// The same where nothing tells calls apart.
    pub(super) fn subject_without_key(&self, slug: &str) -> Option<String> {
        self.rule.map(|_| slug.to_owned())
    }

    /// Whether the call itself says what it is about.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// SHA-256, in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the keys.
pub(super) fn read(s: &Section<'_>) -> Flow {
    let is_deliver_only = s.flag("deliver_only").unwrap_or(false);
    if is_deliver_only {
        for key in OF_RUNS.into_iter().filter(|key| s.has(key)) {
            s.error(key, "with deliver_only there is no run that this could be about; remove one of the two");
        }
    }
    let rate = s.text("rate").and_then(|text| {
        let rate = text.parse::<Rate>();
        rate.map_err(|error| s.error("rate", &error.to_string())).ok()
    });
    let concurrency = s.whole("concurrency", 1, 256).and_then(|n| u32::try_from(n).ok());
    let on_newer = s.text("on_newer").map(|word| {
        word.parse::<OnNewer>().unwrap_or_else(|_| {
            s.error("on_newer", "expected queue, replace or cancel");
            OnNewer::Queue
        })
    });
    let gathered = s.table("coalesce").map(|table| {
        let read = (window(&table), key(&table));
        table.finish();
        read
    });
    let (window, key) = gathered.map_or((None, None), |(window, key)| (Some(window), key));
    let meets = window.is_some() || on_newer.is_some();
    Flow {
        bound: Bound { rate, concurrency },
        rule: meets.then(|| Rule { window, on_newer: on_newer.unwrap_or(OnNewer::Queue) }),
        key,
        is_deliver_only,
    }
}

fn window(s: &Section<'_>) -> Window {
    let quiet = s.duration("quiet").unwrap_or(QUIET);
    let max_wait = s.duration("max_wait").unwrap_or(MAX_WAIT.max(quiet));
    if quiet.is_zero() {
        s.error("quiet", "expected a duration above zero such as \"30s\"");
    }
    if quiet > max_wait || max_wait > LONGEST_WAIT {
        s.error("max_wait", "expected a duration from that of quiet up to 24h");
    }
    Window { quiet, max_wait }
}

/// A text with braces is a template as in `map`, another one an expression as in `when`.
fn key(s: &Section<'_>) -> Option<Mapped> {
    let text = s.text("key")?;
    Mapped::of_key(&text).map_err(|error| s.error("key", &error)).ok()
}
