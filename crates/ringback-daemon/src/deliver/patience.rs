//! How long an endpoint may fail, and the memory of it between two starts.
//!
//! The rule is [`Failing`]; this is its clock and its place on disk. Time is counted by a clock that rests while the
//! machine sleeps and while ringback does not run: nobody could have been reached then.

use std::sync::Arc;
use std::time::Duration;

use ringback_model::{Failing, Outcome};
use ringback_store::{Ledger, Save};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::lane::Lane;

/// The count is written down when it is this much ahead of what is on disk: so much of it a crash may cost.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// When an endpoint that only fails is disabled.
#[derive(Clone)]
pub struct Patience {
    /// Awake time without a success.
    pub disable_after: Duration,
    /// Where the count is kept.
    pub ledger: Arc<dyn Ledger>,
}

/// The count of one endpoint.
pub(super) struct Vigil {
    patience: Patience,
    key: String,
    entry: String,
    failing: Failing,
    kept: Failing,
    /// When the last outcome came.
    last_at: Instant,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// The entry's fingerprint: an edited entry is another endpoint.
    entry: String,
    failing: Failing,
}

impl Vigil {
    /// Goes on where the last start ended. What cannot be read counts from nothing.
    pub(super) async fn open(patience: &Patience, lane: &Lane) -> Vigil {
        let key = format!("failing:{}", lane.endpoint.name);
        let text = patience.ledger.value(&key).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "how long an endpoint failed is not known");
            None
        });
        let kept = text
            .and_then(|text| serde_json::from_str::<Kept>(&text).ok())
            .filter(|kept| kept.entry == lane.fingerprint)
            .map_or_else(Failing::default, |kept| kept.failing);
        Vigil {
            patience: patience.clone(),
            key,
            entry: lane.fingerprint.clone(),
            failing: kept,
            kept,
            last_at: Instant::now(),
        }
    }

    /// Counts an outcome. Returns why the endpoint is given up, if it is.
    pub(super) async fn saw(&mut self, outcome: &Outcome) -> Option<String> {
        let now = Instant::now();
        self.failing = self.failing.after(outcome, now - self.last_at);
        self.last_at = now;
        if self.failing.is_given_up(self.patience.disable_after) {
            let Failing { attempts, awake_ms } = self.failing;
            let hours = awake_ms / 3_600_000;
            return Some(format!("{attempts} attempts and {hours} h of awake time without a success"));
        }
        let ahead = self.failing.awake_ms.abs_diff(self.kept.awake_ms);
        if u128::from(ahead) >= SAVE_EVERY.as_millis() {
            self.save().await;
        }
        None
    }

    /// Begins anew.
    pub(super) async fn reset(&mut self) {
        self.failing = Failing::default();
        self.save().await;
    }

    /// Writes the count down if it changed. Losing it makes us more patient, no more.
    pub(super) async fn save(&mut self) {
        if self.failing == self.kept {
            return;
        }
        let kept = Kept { entry: self.entry.clone(), failing: self.failing };
        let value = match self.failing.attempts {
            0 => None,
            _ => serde_json::to_string(&kept).ok(),
        };
        let save = Save { values: vec![(self.key.clone(), value)], ..Save::default() };
        match self.patience.ledger.save(save).await {
            Ok(()) => self.kept = self.failing,
            Err(error) => tracing::debug!(%error, "how long an endpoint failed is not written down"),
        }
    }
}
