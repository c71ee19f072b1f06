//! Messages to the user: journaled with what caused them, delivered like webhooks, paid back when they die.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ringback_model::event::EventKind;
use ringback_model::ping::Embed;
use ringback_model::run::Run;
use ringback_model::{Activity, Agent, Event, EventId, SessionId};
use ringback_store::{Save, Told};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{BUDGET, Runs};

/// The key, in a message's body, of the local date on which its ping was taken from the budget.
const TAKEN_ON: &str = "budget_taken_on";

/// Deliveries of a message that may still reach the user. Messages from before the last start are not in it.
#[derive(Default)]
pub(crate) struct Alive(Mutex<HashMap<EventId, usize>>);

impl Runs {
    /// A message to the user, one delivery per notifier.
    pub(crate) fn message(
        &self,
        run: Option<&Run>,
        text: &str,
        embed: Option<&Embed>,
        is_paid: bool,
    ) -> Told {
        self.message_from(run.map(|r| &*r.request.source), run, text, embed, is_paid)
    }

    /// The same from a source that needs no run.
    pub(super) fn message_from(
        &self,
        source: Option<&str>,
        run: Option<&Run>,
        text: &str,
        embed: Option<&Embed>,
        is_paid: bool,
    ) -> Told {
        let now = self.moment();
        let id = EventId(Uuid::now_v7());
        let source = source.map(str::to_owned);
        let mut body = json!({
            "event": "message",
            "id": id,
            "text": text,
            "embed": embed,
            "run_id": run.map(|r| r.id),
            "source": source,
        });
        if is_paid {
            body[TAKEN_ON] = json!(now.date);
        }
        let session_id = run.and_then(|r| r.session_id.clone()).unwrap_or_else(|| {
            SessionId::new(run.map_or_else(|| "ringback".to_owned(), |r| r.id.to_string()))
        });
        let event = Event {
            id,
            event: EventKind::Message,
            session_id,
            agent: Agent::Claude,
            from: Activity::Idle,
            to: Activity::Idle,
            project_path: String::new(),
            timestamp: now.at,
            api: None,
            sequence: 0,
            reason: None,
            host: None,
            session_name: None,
            model: None,
            git_branch: None,
            duration_ms: None,
            run_id: run.map(|r| r.id.0),
            source,
        };
        let endpoints = self.0.outlets.keys().cloned().collect();
        Told { event, body: body.to_string().into(), endpoints, at: now.at }
    }

    /// Wakes the notifiers once their messages are journaled.
    pub(crate) fn wake_outlets(&self) {
        for lane in self.0.outlets.values() {
            lane.wake.notify_one();
        }
    }

    /// Takes in that a message will not reach the user by one of its ways. When it was the last, its ping goes back
    /// into the budget.
    pub(crate) async fn message_died(&self, alive: &Alive, id: EventId, body: &[u8]) {
        let left = {
            let mut alive = alive.0.lock().unwrap_or_else(PoisonError::into_inner);
            let left = alive.entry(id).or_insert(self.0.outlets.len());
            *left = left.saturating_sub(1);
            let left = *left;
            if left == 0 {
                alive.remove(&id);
            }
            // A day's messages at the most; forgetting one costs a refund.
            if alive.len() > 1_000 {
                alive.clear();
            }
            left
        };
        let taken_on = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|b| serde_json::from_value::<jiff::civil::Date>(b[TAKEN_ON].clone()).ok());
        let (0, Some(taken_on)) = (left, taken_on) else { return };
        let mut books = self.0.books.lock().await;
        let mut budget = self.budget(&books);
        budget.refund(taken_on, self.0.limits, self.moment());
        let value = (BUDGET.to_owned(), serde_json::to_string(&budget).ok());
        match self.0.ledger.save(Save { values: vec![value], ..Save::default() }).await {
            Ok(()) => books.budget = Some(budget),
            Err(error) => tracing::warn!(%error, "a ping that did not arrive cannot be paid back"),
        }
    }
}
