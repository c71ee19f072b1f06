//! Sums over one stretch of one session file, each model message counted once, and how stretches add up.
//!
//! Owns: counting. Does not know: files or record formats.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use ringback_model::Timestamp;
use ringback_model::session::Totals;
use serde::{Deserialize, Serialize};

use crate::price::{Usage, cost_usd};

/// Message ids remembered, newest; the records of one message stand close together.
const RECENT_IDS: usize = 64;
/// First ids remembered, so that an earlier stretch does not count a message that straddles the border again.
const FIRST_IDS: usize = 8;

/// Sums over a stretch of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    counted: Totals,
    /// What the agent itself recorded as the session's cost so far; `counted.cost_usd` is what came after it.
    stated_usd: Option<f64>,
    /// When the newest record before that statement was written.
    stated_at: Option<Timestamp>,
    /// The newest running total of the whole session, for agents that write one (then `counted` has no tokens).
    running: Option<(Usage, f64)>,
    recent: VecDeque<u64>,
    first: Vec<u64>,
    /// Usage after which instants, so that a sub-agent's part of a stated cost is not added to it.
    spent: VecDeque<(Timestamp, f64)>,
}

/// Costs with their times kept per sub-agent file; older ones are merged.
const SPENT: usize = 256;

impl Ledger {
    /// A message of a person.
    pub(crate) fn user_message(&mut self) {
        self.counted.user_messages += 1;
    }

    /// An answer of the model without usage.
    pub(crate) fn assistant_message(&mut self) {
        self.counted.assistant_messages += 1;
    }

    /// A model message that may be told in several records with the same `id`.
    pub(crate) fn message(&mut self, id: &str, model: &str, usage: &Usage, at: Option<Timestamp>) {
        if !self.is_new(id) {
            return;
        }
        self.counted.assistant_messages += 1;
        self.counted.input_tokens += usage.input;
        self.counted.output_tokens += usage.output;
        self.counted.cache_creation_tokens += usage.cache_write;
        self.counted.cache_read_tokens += usage.cache_read;
        let usd = cost_usd(model, usage);
        self.counted.cost_usd += usd;
        if self.spent.len() == SPENT
            && let Some((_, oldest)) = self.spent.pop_front()
            && let Some((_, next)) = self.spent.front_mut()
        {
            *next += oldest;
        }
        self.spent.push_back((at.unwrap_or(Timestamp::MIN), usd));
    }

    /// The agent states the cost of the whole session so far.
    pub(crate) fn stated_cost(&mut self, usd: f64, at: Option<Timestamp>) {
        self.stated_usd = Some(usd);
        self.stated_at = at;
        self.counted.cost_usd = 0.0;
    }

    /// The agent states the tokens of the whole session so far.
    pub(crate) fn running_total(&mut self, model: &str, usage: Usage) {
        self.running = Some((usage, cost_usd(model, &usage)));
    }

    /// Takes over the ids that open a later stretch of the same file, as already counted.
    pub(crate) fn counted_elsewhere(&mut self, later: &Ledger) {
        self.recent.extend(&later.first);
    }

    fn is_new(&mut self, id: &str) -> bool {
        if id.is_empty() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let id = hasher.finish();
        if self.recent.contains(&id) {
            return false;
        }
        if self.first.len() < FIRST_IDS {
            self.first.push(id);
        }
        if self.recent.len() >= RECENT_IDS {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
        true
    }

    fn spent_after(&self, at: Timestamp) -> f64 {
        self.spent.iter().filter(|(when, _)| *when > at).map(|(_, usd)| usd).sum()
    }
}

/// An earlier and a later stretch of one file; the earlier one may not be read yet.
pub(crate) type Stretches<'a> = (Option<&'a Ledger>, &'a Ledger);

/// The totals of a session: its own file and its sub-agents' files.
pub(crate) fn totals<'a>(own: Stretches<'a>, sub_agents: impl Iterator<Item = Stretches<'a>>) -> Totals {
    let mut sum = Totals::default();
    let (earlier, later) = own;
    for ledger in earlier.into_iter().chain([later]) {
        sum.user_messages += ledger.counted.user_messages;
        sum.assistant_messages += ledger.counted.assistant_messages;
    }
    add_tokens(&mut sum, own);
    let stated = [Some(later), earlier].into_iter().flatten().find(|l| l.stated_usd.is_some());
    sum.cost_usd =
        stated.and_then(|l| l.stated_usd).unwrap_or_default() + later.counted.cost_usd + running(own).1;
    if later.stated_usd.is_none() {
        sum.cost_usd += earlier.map_or(0.0, |l| l.counted.cost_usd);
    }
    for sub_agent in sub_agents {
        add_tokens(&mut sum, sub_agent);
        let (earlier, later) = sub_agent;
        let spent = |ledger: &Ledger| match stated {
            // The statement covers the sub-agents too, up to its time.
            Some(stated) => ledger.spent_after(stated.stated_at.unwrap_or(Timestamp::MIN)),
            None => ledger.counted.cost_usd,
        };
        sum.cost_usd += earlier.map_or(0.0, spent) + spent(later) + running(sub_agent).1;
    }
    sum
}

/// A running total covers everything before it: the latest counts.
fn running((earlier, later): Stretches<'_>) -> (Usage, f64) {
    later.running.or(earlier.and_then(|l| l.running)).unwrap_or_default()
}

fn add_tokens(sum: &mut Totals, stretches: Stretches<'_>) {
    let (usage, _) = running(stretches);
    sum.input_tokens += usage.input;
    sum.output_tokens += usage.output;
    sum.cache_creation_tokens += usage.cache_write;
    sum.cache_read_tokens += usage.cache_read;
    for Totals { input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, .. } in
        stretches.0.into_iter().chain([stretches.1]).map(|l| l.counted)
    {
        sum.input_tokens += input_tokens;
        sum.output_tokens += output_tokens;
        sum.cache_creation_tokens += cache_creation_tokens;
        sum.cache_read_tokens += cache_read_tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64) -> Usage {
        Usage { input, ..Usage::default() }
    }

    fn t(ms: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(ms))
    }

    #[test]
    fn a_message_told_in_several_records_counts_once() {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            ledger.message("m1", "sonnet", &usage(1_000_000), t(1));
        }
        ledger.message("m2", "sonnet", &usage(1_000_000), t(2));
        let sum = totals((None, &ledger), [].into_iter());
        assert_eq!((sum.assistant_messages, sum.input_tokens), (2, 2_000_000));
        assert!((sum.cost_usd - 6.0).abs() < 1e-9);
    }

    #[test]
    fn a_message_on_the_border_of_two_stretches_counts_once() {
        let mut later = Ledger::default();
        later.message("m2", "sonnet", &usage(10), t(2));
        later.message("m3", "sonnet", &usage(10), t(3));
        let mut earlier = Ledger::default();
        earlier.counted_elsewhere(&later);
        earlier.message("m1", "sonnet", &usage(10), t(1));
        earlier.message("m2", "sonnet", &usage(10), t(2));
        let sum = totals((Some(&earlier), &later), [].into_iter());
        assert_eq!((sum.assistant_messages, sum.input_tokens), (3, 30));
    }

    #[test]
    fn the_cost_that_the_agent_states_wins_and_later_use_is_added() {
        let (mut main, mut sub) = (Ledger::default(), Ledger::default());
        sub.message("s1", "sonnet", &usage(1_000_000), t(5));
        main.message("m1", "sonnet", &usage(1_000_000), t(6));
        main.stated_cost(0.5, t(6));
        main.message("m2", "sonnet", &usage(1_000_000), t(7));
        sub.message("s2", "sonnet", &usage(1_000_000), t(8));
        let sum = totals((None, &main), [(None, &sub)].into_iter());
        assert!((sum.cost_usd - (0.5 + 3.0 + 3.0)).abs() < 1e-9, "{}", sum.cost_usd);
        assert_eq!(sum.input_tokens, 4_000_000);
    }

    #[test]
    fn a_running_total_replaces_the_one_before_it() {
        let (mut earlier, mut later) = (Ledger::default(), Ledger::default());
        earlier.running_total("gpt-6", usage(100));
        later.running_total("gpt-6", usage(300));
        let sum = totals((Some(&earlier), &later), [].into_iter());
        assert_eq!(sum.input_tokens, 300);
        let nothing = Ledger::default();
        assert_eq!(totals((Some(&earlier), &nothing), [].into_iter()).input_tokens, 100);
        let sub_agent = [(Some(&earlier), &later)];
        assert_eq!(totals((None, &nothing), sub_agent.into_iter()).input_tokens, 300);
    }
}
