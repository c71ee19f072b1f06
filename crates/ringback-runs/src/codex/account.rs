//! What a run used, from the session files that Codex keeps.
//!
//! Its standard output will not do: the sums there are the thread's, and in a fork begin with what the parent had
//! used; the model is not named; and nothing is said of a run that is stopped. The files are only read.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::price::cost_usd;
use crate::capture::Cutter;
use crate::outcome::Tokens;

/// Newest days whose files are looked at: a run may last over midnight.
const DAYS: usize = 3;

/// What one run used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Account {
    /// Model calls, those of sub-agents included.
    pub(crate) calls: u32,
    pub(crate) tokens: Tokens,
    /// US dollars; `None` = a model is not in the price table.
    pub(crate) cost_usd: Option<f64>,
}

/// Adds up the session with this id and its sub-agents. `home` is Codex's own directory; only files written since
/// `since` are looked at. `None` = the session has no file there.
pub(crate) fn account(home: &Path, id: &str, since: SystemTime) -> Option<Account> {
    let mut account = Account { calls: 0, tokens: Tokens::default(), cost_usd: Some(0.0) };
    let mut is_found = false;
    for path in written_since(&home.join("sessions"), since) {
        is_found |= File::open(path).is_ok_and(|file| add(file, id, &mut account));
    }
    is_found.then_some(account)
}

fn written_since(sessions: &Path, since: SystemTime) -> Vec<PathBuf> {
    let newest_first = |dir: &Path| {
        let mut below: Vec<PathBuf> =
            fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        below.sort();
        below.reverse();
        below
    };
    let months = newest_first(sessions).into_iter().flat_map(|year| newest_first(&year));
    let days = months.flat_map(|month| newest_first(&month)).take(DAYS);
    let is_new = |path: &PathBuf| path.metadata().and_then(|m| m.modified()).is_ok_and(|at| at >= since);
    days.flat_map(|day| newest_first(&day))
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl") && is_new(path))
        .collect()
}

/// Adds a session file to the account; `false` = it belongs to another session.
fn add(mut file: impl Read, id: &str, account: &mut Account) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut cutter = Cutter::default();
    let (mut is_ours, mut model) = (false, String::new());
    while let Ok(read @ 1..) = file.read(&mut buffer) {
        let mut rest = &buffer[..read];
        while let Some(line) = cutter.next_line(&mut rest) {
            if !is_ours {
                // The first record names the session that the thread belongs to: itself, or a sub-agent's root.
                is_ours = root_of(&line).is_some_and(|root| root == id);
                if !is_ours {
                    return false;
                }
                continue;
            }
            add_line(&line, &mut model, account);
        }
    }
    is_ours
}

fn root_of(line: &[u8]) -> Option<String> {
    let record = serde_json::from_slice::<Value>(line).ok()?;
    let payload = &record["payload"];
    let root = payload["session_id"].as_str().or(payload["id"].as_str())?;
    Some(root.to_owned())
}

fn add_line(line: &[u8], model: &mut String, account: &mut Account) {
    let mentions = |word: &[u8]| line.windows(word.len()).any(|w| w == word);
    // Most lines are neither, and some are long.
    if !mentions(b"\"turn_context\"") && !mentions(b"\"token_count\"") {
        return;
    }
    let Ok(record) = serde_json::from_slice::<Value>(line) else { return };
    let payload = &record["payload"];
    match (record["type"].as_str(), payload["type"].as_str()) {
        (Some("turn_context"), _) => {
            payload["model"].as_str().unwrap_or_default().clone_into(model);
        }
        (Some("event_msg"), Some("token_count")) => {
            let usage = &payload["info"]["last_token_usage"];
            if !usage.is_object() {
                return;
            }
            let count = |key: &str| usage[key].as_u64().unwrap_or(0);
            let (cache_read, cache_write) = (count("cached_input_tokens"), count("cache_write_input_tokens"));
            let call = Tokens {
                // The input that Codex tells includes what has to do with the cache.
                input: count("input_tokens").saturating_sub(cache_read).saturating_sub(cache_write),
                output: count("output_tokens"),
                cache_read,
                cache_write,
            };
            account.calls = account.calls.saturating_add(1);
            account.tokens = account.tokens.plus(call);
            account.cost_usd = account.cost_usd.zip(cost_usd(model, call)).map(|(sum, cost)| sum + cost);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "01a20306-abbc-7862-a0d1-3e1af7b272dd";

    fn meta(root: &str) -> Value {
        json!({"type": "session_meta", "payload": {"id": "x", "session_id": root}})
    }

    fn turn(model: &str) -> Value {
        json!({"type": "turn_context", "payload": {"model": model}})
    }

    fn call(input: u64, cached: u64, output: u64) -> Value {
        json!({"type": "event_msg", "payload": {"type": "token_count", "info": {
            "total_token_usage": {"input_tokens": 900_000},
            "last_token_usage": {"input_tokens": input, "cached_input_tokens": cached, "output_tokens": output},
        }}})
    }

    fn write(home: &Path, day: &str, name: &str, records: &[Value]) {
        let dir = home.join("sessions").join(day);
        fs::create_dir_all(&dir).unwrap();
        let lines: String = records.iter().map(|r| format!("{r}\n")).collect();
        fs::write(dir.join(name), lines).unwrap();
    }

    #[test]
    fn the_calls_of_a_session_and_its_sub_agents_are_added_up_and_no_others() {
        let home = tempfile::tempdir().unwrap();
        let sol = turn("gpt-6.1-sol");
        let no_info = json!({"type": "event_msg", "payload": {"type": "token_count", "info": null}});
        write(
            home.path(),
            "2026/11/21",
            "a.jsonl",
            &[
                meta(ID),
                sol.clone(),
                call(110_000, 10_000, 1000),
                no_info,
                json!("token_count"),
                call(1000, 0, 0),
            ],
        );
        write(home.path(), "2026/11/22", "child.jsonl", &[meta(ID), sol.clone(), call(0, 0, 99_000)]);
        write(home.path(), "2026/11/22", "other.jsonl", &[meta("other"), sol, call(5, 5, 5)]);
        write(home.path(), "2026/11/22", "broken.jsonl", &[json!(7)]);
        let found = account(home.path(), ID, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(found.calls, 3);
        assert_eq!(
            found.tokens,
            Tokens { input: 101_000, output: 100_000, cache_read: 10_000, cache_write: 0 }
        );
        let usd = 0.101 * 2.0 + 0.01 * 0.1 + 0.1 * 10.0;
        assert!(found.cost_usd.is_some_and(|cost| (cost - usd).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn an_unknown_model_has_no_price_and_a_session_without_a_file_no_account() {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "2026/11/22", "a.jsonl", &[meta(ID), turn("gpt-99"), call(10, 0, 1)]);
        let found = account(home.path(), ID, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((found.calls, found.cost_usd), (1, None));
        assert_eq!(account(home.path(), "elsewhere", SystemTime::UNIX_EPOCH), None);
        assert_eq!(account(&home.path().join("none"), ID, SystemTime::UNIX_EPOCH), None);
    }
}
