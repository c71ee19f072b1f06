//! Files in every state that a crash, an editor or a fuzzer leaves them in.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use proptest::prelude::*;
use ringback_observe::elide::{Elider, LITERAL_BYTES};
use ringback_observe::tail::{CHUNK, Piece, Tail, WHOLE_LINE};
use serde_json::Value;

use crate::world::{SESSION, World, at};

#[derive(Clone, Debug)]
enum Step {
    /// Adds bytes; a line may be cut anywhere.
    Append(Vec<u8>),
    /// Cuts the file to nothing and writes it anew.
    Truncate(Vec<u8>),
    /// Puts another file in its place.
    Replace(Vec<u8>),
    Remove,
    Look,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => Just(b'\n'), 10 => 32..126_u8, 1 => any::<u8>()], 0..200)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => bytes().prop_map(Step::Append),
        1 => bytes().prop_map(Step::Truncate),
        1 => bytes().prop_map(Step::Replace),
        1 => Just(Step::Remove),
        6 => Just(Step::Look),
    ]
}

fn lines_of(content: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = content.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    lines.pop();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_lines_since_the_last_restart_are_the_lines_of_the_file(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut buffer = vec![0; CHUNK];
        let mut tail = Tail::new(&path);
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut content: Vec<u8> = Vec::new();
        // A marker makes every new content differ from the old one within the bytes that are compared.
        let mut generation = 0_u32;
        let mut start = |content: &mut Vec<u8>, bytes: &[u8]| {
            generation += 1;
            *content = format!("generation {generation}\n").into_bytes();
            content.extend_from_slice(&bytes[..bytes.len().min(30)]);
        };
        for step in steps.into_iter().chain([Step::Look]) {
            match step {
                Step::Append(bytes) => {
                    OpenOptions::new().append(true).create(true).open(&path).unwrap().write_all(&bytes).unwrap();
                    content.extend_from_slice(&bytes);
                }
                Step::Truncate(bytes) => {
                    start(&mut content, &bytes);
                    fs::write(&path, &content).unwrap();
                }
                Step::Replace(bytes) => {
                    start(&mut content, &bytes);
                    fs::write(dir.path().join("g"), &content).unwrap();
                    fs::rename(dir.path().join("g"), &path).unwrap();
                }
                Step::Remove => {
                    let _ = fs::remove_file(&path);
                    content.clear();
                    // So that the next file does not begin as this one did.
                    start(&mut content, b"");
                    fs::write(&path, &content).unwrap();
                }
                Step::Look => {
                    tail.read(&mut buffer, u64::MAX, |piece| match piece {
                        Piece::Restarted => lines.clear(),
                        Piece::Line(line) => lines.push(line.to_vec()),
                        Piece::Dropped => panic!("nothing here is too long"),
                    }).unwrap();
                    prop_assert_eq!(&lines, &lines_of(&content));
                }
            }
        }
    }

    #[test]
    fn what_is_elided_stays_valid_json_and_short_strings_stay_as_they_are(
        value in json(), cuts in prop::collection::vec(1..5000_usize, 0..20)
    ) {
        let line = serde_json::to_vec(&value).unwrap();
        let mut elider = Elider::new();
        let mut rest = line.as_slice();
        for cut in cuts {
            let (head, after) = rest.split_at(cut.min(rest.len()));
            elider.push(head);
            rest = after;
        }
        elider.push(rest);
        let short: Value = serde_json::from_slice(&elider.finish().unwrap()).unwrap();
        check_elided(&value, &short)?;
    }

    #[test]
    fn escapes_and_surrogate_pairs_are_never_cut(before in LITERAL_BYTES - 14..LITERAL_BYTES + 2, escape in
        prop::sample::select(vec![r"\ud83d\ude00", r"\n", r"\\", r"\u00e9", "\u{1F600}", "\u{e9}", r"\ud83dx"])) {
        let line = format!(r#"{{"a":"{}{}","b":1}}"#, "x".repeat(before), escape.repeat(9));
        let mut elider = Elider::new();
        elider.push(line.as_bytes());
        let out = elider.finish().unwrap();
        if escape == r"\ud83dx" {
            let is_closed = out.ends_with(br#"","b":1}"#);
            prop_assert!(is_closed);
        } else {
            let short: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&short["b"], 1);
            prop_assert!(line.len() < LITERAL_BYTES || out.len() < LITERAL_BYTES + 40);
        }
    }

    #[test]
    fn no_bytes_make_the_observer_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        feed(lines);
    }

    #[test]
    fn no_json_makes_the_observer_panic(records in prop::collection::vec(record(), 0..20)) {
        feed(records.iter().map(|r| serde_json::to_vec(r).unwrap()).collect());
    }
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        6 => any::<String>(),
        1 => (any::<char>(), 0..9000_usize).prop_map(|(c, n)| c.to_string().repeat(n)),
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), text.prop_map(Value::from)];
    leaf.prop_recursive(4, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("[a-z\"\\\\]{0,9}", inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Objects with the names that the adapters look for, and anything as their values.
fn record() -> impl Strategy<Value = Value> {
    let names = vec![
        "type",
        "message",
        "content",
        "timestamp",
        "payload",
        "item",
        "id",
        "model",
        "usage",
        "info",
        "operation",
        "stop_reason",
        "role",
        "name",
        "input",
        "tool_use_id",
        "toolUseResult",
        "call_id",
        "source",
        "error",
        "subtype",
        "origin",
        "input_tokens",
        "total_token_usage",
        "totalCostUSD",
        "cwd",
        "text",
        "changes",
    ];
    let words = vec![
        "user",
        "assistant",
        "system",
        "response_item",
        "event_msg",
        "session_meta",
        "tool_use",
        "tool_result",
        "end_turn",
        "queue-operation",
        "enqueue",
        "/compact",
        "dequeue",
        "cost-state",
        "compact_boundary",
        "item_completed",
        "token_count",
        "function_call",
        "task_started",
        "2026-11-22T06:27:36.241Z",
        "text",
    ];
    let word = prop::sample::select(words).prop_map(Value::from);
    let leaf = prop_oneof![4 => word, 1 => json()];
    let names = prop::sample::select(names);
    leaf.prop_recursive(3, 40, 8, move |inner| {
        prop_oneof![
            4 => prop::collection::hash_map(names.clone().prop_map(str::to_owned), inner.clone(), 0..8)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

fn feed(lines: Vec<Vec<u8>>) {
    let mut world = World::new();
    let content: Vec<u8> = lines.into_iter().flat_map(|l| l.into_iter().chain([b'\n'])).collect();
    for (i, path) in [
        world.transcript(SESSION),
        world.transcript(SESSION).with_extension("").join("subagents/agent-1.jsonl"),
        world.home.path().join(".codex/sessions/2026/11/22/rollout-2026-11-22T06-36-24-x.jsonl"),
        world.registry(42),
    ]
    .into_iter()
    .enumerate()
    {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &content).unwrap();
        world.observer.changed(&[path], at(10 + i as i64));
    }
    world.observer.scan(at(1000));
    world.tick(1_000_000);
}

fn check_elided(whole: &Value, short: &Value) -> Result<(), TestCaseError> {
    match (whole, short) {
        (Value::String(whole), Value::String(short)) => {
            prop_assert!(whole.starts_with(short.as_str()));
            if serde_json::to_string(whole).unwrap().len() - 2 <= LITERAL_BYTES {
                prop_assert_eq!(whole, short);
            }
        }
        (Value::Array(whole), Value::Array(short)) => {
            prop_assert_eq!(whole.len(), short.len());
            for (whole, short) in whole.iter().zip(short) {
                check_elided(whole, short)?;
            }
        }
        (Value::Object(whole), Value::Object(short)) => {
            prop_assert_eq!(whole.len(), short.len());
            for (key, whole) in whole {
                check_elided(whole, &short[key])?;
            }
        }
        _ => prop_assert_eq!(whole, short),
    }
    Ok(())
}

#[test]
fn a_line_of_many_short_strings_that_is_too_long_is_dropped_and_the_next_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let long = serde_json::to_string(&vec!["abcdefgh"; 8 * WHOLE_LINE / 10]).unwrap();
    fs::write(&path, format!("{long}\nnext\n")).unwrap();
    let (mut dropped, mut lines) = (0, Vec::new());
    Tail::new(&path)
        .read(&mut vec![0; CHUNK], u64::MAX, |piece| match piece {
            Piece::Dropped => dropped += 1,
            Piece::Line(line) => lines.push(line.to_vec()),
            Piece::Restarted => panic!("read once"),
        })
        .unwrap();
    assert_eq!((dropped, lines), (1, vec![b"next".to_vec()]));
}

#[test]
fn unreadable_lines_are_counted_and_the_next_is_read() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    let lines = ["{\"type\":\"user\",".to_owned(), "[1,2]".to_owned(), crate::world::prompt(10)];
    assert_eq!(world.add(&path, &lines, 20).len(), 1);
    assert_eq!(world.observer.unreadable_lines(), 2);
}
