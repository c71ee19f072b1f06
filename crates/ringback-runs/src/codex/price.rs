//! What tokens cost at the models that Codex runs: list prices, standard tier. An estimate, never a bill.

use crate::outcome::Tokens;

/// US dollars per million tokens.
struct Price {
    model: &'static str,
    input: f64,
    cache_read: f64,
    cache_write: f64,
    output: f64,
}

/// As of November 2026.
const PRICES: [Price; 8] = [
    price("gpt-6-astra", 10.0, 1.0, 12.5, 50.0),
    price("gpt-6.1-sol", 2.0, 0.1, 2.5, 10.0),
    price("gpt-6.1-terra", 1.0, 0.05, 1.25, 5.0),
    price("gpt-6-sol", 2.0, 0.2, 2.5, 10.0),
    price("gpt-6-luna", 0.1, 0.01, 0.125, 0.5),
    price("gpt-5.6-sol", 4.0, 0.4, 5.0, 20.0),
    price("gpt-5.6-terra", 2.0, 0.2, 2.5, 12.0),
    price("gpt-5.6-luna", 0.2, 0.02, 0.25, 1.2),
];

/// A call with more input than this costs twice as much for its input and half as much again for its output.
const LONG: u64 = 272_000;

const fn price(model: &'static str, input: f64, cache_read: f64, cache_write: f64, output: f64) -> Price {
    Price { model, input, cache_read, cache_write, output }
}

/// US dollars for one model call. `None` = the table does not know the model.
pub(super) fn cost_usd(model: &str, call: Tokens) -> Option<f64> {
    let price = PRICES.iter().find(|p| p.model == model)?;
    let all_input = call.input.saturating_add(call.cache_read).saturating_add(call.cache_write);
    let (in_factor, out_factor) = if all_input > LONG { (2.0, 1.5) } else { (1.0, 1.0) };
    #[expect(clippy::cast_precision_loss, reason = "no call has 2^52 tokens")]
    let millions = |tokens: u64| tokens as f64 / 1e6;
    let input = millions(call.input) * price.input
        + millions(call.cache_read) * price.cache_read
        + millions(call.cache_write) * price.cache_write;
    Some(input * in_factor + millions(call.output) * price.output * out_factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_what_the_table_says_and_more_when_it_is_long() {
        let call = Tokens { input: 100_000, output: 10_000, cache_read: 50_000, cache_write: 20_000 };
        let cents = |model, call| cost_usd(model, call).map(|usd| (usd * 1e4).round());
        assert_eq!(cents("gpt-6.1-sol", call), Some(2000.0 + 50.0 + 500.0 + 1000.0));
        let long = Tokens { input: 300_000, ..call };
        assert_eq!(cents("gpt-6.1-sol", long), Some(2.0 * (6000.0 + 50.0 + 500.0) + 1500.0));
        assert_eq!(cost_usd("gpt-99", call), None);
    }
}
