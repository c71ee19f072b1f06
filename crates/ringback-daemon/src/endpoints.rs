//! The endpoints while the daemon runs: a lane for each entry, a deliverer for each that is enabled, and what an edit
//! of the configuration changes about them.
//!
//! An entry that did not change keeps its lane and its deliverer. One that changed gets another lane: attempts on the
//! wire end as they began, and every later one is made by the new entry's deliverer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringback_model::{Endpoint, EndpointName, Secret, Timestamp};
use ringback_store::{Ending, Store};
use ringback_webhook::Client;
use ringback_webhook::guard::Policy;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Config, Skipped};
use crate::deliver::{Allowance, Deliverer, Patience};
use crate::feed::Feed;
use crate::lane::{Lane, Lanes, Table};

/// How long a store that fails is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The endpoints and their deliverers.
pub struct Endpoints {
    /// The endpoints as the recorder and the interfaces see them.
    pub lanes: Lanes,
    /// Where deliveries are.
    pub journal: Arc<dyn Store>,
    /// Where it is written what the operator disabled; the journal itself, or what is on disk beside it.
    pub durable: Arc<dyn Store>,
    /// The fingerprints' key.
    pub key: Arc<Secret>,
    /// Sends attempts.
    pub client: Client,
    /// What every endpoint may connect to, its own `allow` aside.
    pub policy: Policy,
    /// When an endpoint that only fails is disabled.
    pub patience: Patience,
    /// What endpoints that fail may do, all together.
    pub allowance: Arc<Allowance>,
    /// Where outcomes are told to the interfaces.
    pub feed: Feed,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Turns true when the daemon stops.
    pub stop: watch::Receiver<bool>,
    /// The loops.
    pub deliverers: JoinSet<Arc<Lane>>,
    /// Queues that have to be ended, and could not be yet.
    pub closing: HashMap<EndpointName, Ending>,
    /// Queues that may be those of entries which cannot be used at the moment, with the lane that each had: they rest
    /// until an edit says whether the entry is right again or gone.
    pub resting: HashMap<EndpointName, Option<Arc<Lane>>>,
}

/// How many entries an edit changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New names.
    pub added: usize,
    /// Names that are another entry now.
    pub edited: usize,
    /// Names that are gone.
    pub removed: usize,
}

impl Endpoints {
    /// Ends what is pending of entries that went away while nothing ran. `is_other` = the queue is somebody else's.
    ///
    /// # Errors
    /// The store fails.
    pub async fn cancel_orphans(
        &mut self,
        skipped: &Skipped,
        is_other: impl Fn(&EndpointName) -> bool,
    ) -> Result<(), ringback_store::Error> {
        for name in self.journal.pending_endpoints().await? {
            if self.lanes.now().get(&name).is_some() || is_other(&name) {
                continue;
            }
            if skipped.may_own(&name) {
                self.resting.insert(name, None);
                continue;
            }
            let cancelled = self.journal.close_pending(&name, Ending::Cancelled, (self.now)()).await?;
            tracing::info!(endpoint = %name, cancelled, "its entry is gone; pending deliveries are cancelled");
        }
        Ok(())
    }

    /// Puts these entries in the place of the present ones. What is pending of one that is skipped stays pending.
    ///
    /// # Errors
    /// The store fails; everything is as before then.
    pub async fn apply(
        &mut self,
        entries: &[Endpoint],
        skipped: &Skipped,
    ) -> Result<Changes, ringback_store::Error> {
        let lanes = self.lanes.clone();
        let new: Vec<Lane> =
            entries.iter().map(|entry| Lane::webhook(entry.clone(), self.key.reveal())).collect();
        // Nobody has to wait for the files to be as they were; they are looked at twice a minute.
        let is_known = |(new, old): (&Lane, &Arc<Lane>)| new.fingerprint == old.fingerprint;
        let old = lanes.now();
        if self.resting.is_empty()
            && new.len() == old.iter().count()
            && new.iter().zip(old.iter()).all(is_known)
        {
            return Ok(Changes::default());
        }
        // The operator's hands rest too: what they disable is seen here, or done to the new lane.
        let switching = lanes.switch().await;
        let mut table = Vec::new();
        let mut deliverers = Vec::new();
        for (entry, lane) in entries.iter().zip(new) {
            let known = old.get(&entry.name);
            if let Some(known) = known.filter(|known| known.fingerprint == lane.fingerprint) {
                table.push(Arc::clone(known));
                continue;
            }
            let rested = self.resting.get(&entry.name).and_then(Option::as_ref);
            let lane = match known.or(rested) {
                Some(known) => lane.after(known),
                None => lane,
            };
            self.bring_back(&lane).await?;
            let lane = Arc::new(lane);
            if entry.enabled {
                deliverers.push(self.deliverer(&lane));
            }
            table.push(lane);
        }

        let table = Table::new(table);
        let mut changes = Changes::default();
        for lane in old.iter() {
            let name = &lane.endpoint.name;
            match table.get(name) {
                Some(kept) if Arc::ptr_eq(kept, lane) => continue,
                Some(_) => changes.edited += 1,
                None => changes.removed += 1,
            }
            lane.retire();
        }
        changes.added = table.iter().filter(|lane| old.get(&lane.endpoint.name).is_none()).count();
        self.closing.retain(|name, _| table.get(name).is_none_or(|lane| !lane.endpoint.enabled));
        self.resting.extend(old.iter().map(|lane| (lane.endpoint.name.clone(), Some(Arc::clone(lane)))));
        self.resting.retain(|name, _| table.get(name).is_none());
        let gone = self.resting.extract_if(|name, _| !skipped.may_own(name));
        self.closing.extend(gone.map(|(name, _)| (name, Ending::Cancelled)));
        let off = table.iter().filter(|lane| !lane.endpoint.enabled);
        self.closing.extend(off.map(|lane| (lane.endpoint.name.clone(), Ending::Dead)));
        switching.to(table);

        for deliverer in deliverers {
            let lane = Arc::clone(&deliverer.lane);
            let stop = self.stop.clone();
            self.deliverers.spawn(async move {
                deliverer.run(stop).await;
                lane
            });
        }
        Ok(changes)
    }

    /// Brings back what the receiver or the operator disabled. An edited entry is enabled again, unless the operator
    /// disabled it by hand.
    async fn bring_back(&self, lane: &Lane) -> Result<(), ringback_store::Error> {
        let name = &lane.endpoint.name;
        let by_hand = self.durable.endpoint_status(name).await?;
        match by_hand.or(self.journal.endpoint_status(name).await?) {
            Some(status) if status.entry_fingerprint.is_empty() => lane.set_disabled(true),
            Some(status) if status.entry_fingerprint == lane.fingerprint => lane.set_disabled(true),
            Some(_) => self.journal.set_endpoint_status(name, None).await?,
            None => {}
        }
        Ok(())
    }

    fn deliverer(&self, lane: &Arc<Lane>) -> Deliverer {
        let allow = lane.endpoint.allow.clone();
        Deliverer {
            lane: Arc::clone(lane),
            store: Arc::clone(&self.journal),
            client: self.client.under(Policy { allow, ..self.policy.clone() }),
            feed: self.feed.clone(),
            mourner: None,
            patience: Some(self.patience.clone()),
            allowance: Arc::clone(&self.allowance),
            now: self.now,
        }
    }

    /// Ends the queues of entries that are gone or off.
    async fn close(&mut self) {
        for (name, ending) in std::mem::take(&mut self.closing) {
            match self.journal.close_pending(&name, ending, (self.now)()).await {
                Ok(0) => {}
                Ok(ended) => {
                    tracing::info!(endpoint = %name, ended, "its entry is gone or off; pending deliveries are ended")
                }
                Err(error) => {
                    // That the store fails is said once a minute, by the watch over it.
                    tracing::debug!(endpoint = %name, %error, "cannot end its pending deliveries yet");
                    self.closing.insert(name, ending);
                }
            }
        }
    }

    /// Delivers, and follows `configs`, until the daemon stops and every attempt has ended.
    pub async fn run(mut self, mut configs: watch::Receiver<Arc<Config>>) {
        let mut stop = self.stop.clone();
        let (mut is_due, mut is_late) = (false, false);
        self.close().await;
        while !*stop.borrow() {
            tokio::select! {
                changed = configs.changed(), if configs.has_changed().is_ok() => is_due |= changed.is_ok(),
                Some(ended) = self.deliverers.join_next() => {
                    if !ended.is_ok_and(|lane| lane.is_retired()) && !*stop.borrow() {
                        tracing::error!("a deliverer ended by itself");
                        return;
                    }
                }
                () = tokio::time::sleep(STORE_PAUSE), if is_due || !self.closing.is_empty() => {}
                _ = stop.changed() => {}
            }
            if is_due {
                let config = Arc::clone(&configs.borrow_and_update());
                match self.apply(&config.endpoints, &config.skipped).await {
                    Ok(changes) => {
                        (is_due, is_late) = (false, false);
                        if changes != Changes::default() {
                            let Changes { added, edited, removed } = changes;
                            tracing::info!(added, edited, removed, "the edited webhooks are in force");
                        }
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_late, true) {
                            tracing::warn!(%error, "the edited webhooks are not in force yet; tried each second");
                        }
                    }
                }
            }
            if !self.closing.is_empty() {
                self.close().await;
            }
        }
        while self.deliverers.join_next().await.is_some() {}
    }
}
