//! What tokens cost, for agents that do not record it. Pure; the numbers are list prices in US dollars per million
//! tokens (input, output) and are an estimate, never a bill.

use serde::{Deserialize, Serialize};

/// Tokens of one model call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Uncached input.
    pub input: u64,
    /// Output.
    pub output: u64,
    /// Written to the cache; costs 1.25 times the input.
    pub cache_write: u64,
    /// Read from the cache; costs a tenth of the input.
    pub cache_read: u64,
}

/// US dollars for `usage` at `model`. An unknown Claude model counts as Sonnet, any other unknown model is free.
pub fn cost_usd(model: &str, usage: &Usage) -> f64 {
    let Some((input, output)) = per_million(model) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "no session has 2^52 tokens")]
    let million = |tokens: u64| tokens as f64 / 1e6;
    million(usage.input) * input
        + million(usage.output) * output
        + million(usage.cache_write) * input * 1.25
        + million(usage.cache_read) * input * 0.1
}

fn per_million(model: &str) -> Option<(f64, f64)> {
    let model = model.to_ascii_lowercase();
    let table = [
        ("opus", (15.0, 75.0)),
        ("haiku", (1.0, 5.0)),
        ("sonnet", (3.0, 15.0)),
        ("claude", (3.0, 15.0)),
        ("gpt-4o", (2.5, 10.0)),
        ("gpt-4", (10.0, 30.0)),
        ("gpt-", (2.5, 10.0)),
        ("codex", (2.5, 10.0)),
        ("gemini", (2.0, 10.0)),
    ];
    table.iter().find(|(name, _)| model.contains(name)).map(|(_, price)| *price)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_follows_the_price_table() {
        let million = Usage { input: 1_000_000, output: 1_000_000, ..Usage::default() };
        for (model, usd) in [
            ("claude-opus-5-5", 90.0),
            ("claude-haiku-5-5", 6.0),
            ("claude-sonnet-5-5", 18.0),
            ("claude-zorp-9", 18.0),
            ("gpt-6.1-sol", 12.5),
            ("gpt-4o-mini", 12.5),
            ("gpt-4-turbo", 40.0),
            ("gemini-3-pro", 12.0),
            ("zorp", 0.0),
        ] {
            assert!((cost_usd(model, &million) - usd).abs() < 1e-9, "{model}");
        }
        let cached = Usage { cache_write: 1_000_000, cache_read: 1_000_000, ..Usage::default() };
        assert!((cost_usd("claude-sonnet-5-5", &cached) - 3.0 * 1.35).abs() < 1e-9);
    }
}
