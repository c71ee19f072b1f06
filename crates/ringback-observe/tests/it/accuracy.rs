//! The accuracy that README states, on every recording.

use std::fs;
use std::path::{Path, PathBuf};

use ringback_model::{Activity, SessionId};
use ringback_observe::replay::{Recording, Score, Shown, replay, score};

pub(crate) fn fixtures(agent: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(agent);
    let mut cases: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    cases
}

pub(crate) fn shown(case: &str) -> (Recording, Vec<Shown>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(case);
    let recording = Recording::load(&dir).unwrap();
    let home = tempfile::tempdir().unwrap();
    let id = recording.truth.sessions[0].session_id.clone();
    let shown = replay(&recording, home.path()).unwrap().remove(&id).unwrap();
    (recording, shown)
}

fn check(agent: &str, percent: i64) {
    let (mut agree, mut total) = (0, 0);
    let mut wrong = Vec::new();
    for case in fixtures(agent) {
        let name = format!("{agent}/{}", case.file_name().unwrap().to_str().unwrap());
        let (recording, shown) = shown(&name);
        let Score { agree_ms, total_ms, order_ok } = score(&recording, &shown);
        println!("{name}: {agree_ms}/{total_ms} ms, order {order_ok}");
        for s in &shown {
            println!("    {} {} {:?} {}", s.at_ms, s.activity, s.reason, s.announce);
        }
        agree += agree_ms;
        total += total_ms;
        if !order_ok {
            wrong.push(name);
        }
    }
    println!("{agent}: {:.2} %", agree as f64 * 100.0 / total as f64);
    assert_eq!(wrong, [""; 0]);
    assert!(total > 40_000, "hardly anything was scored: {total} ms");
    assert!(agree * 100 >= total * percent, "{agree} of {total} ms");
}

#[test]
fn claude_recordings_agree_for_97_percent_of_the_time_and_in_order() {
    check("claude", 97);
}

#[test]
fn codex_recordings_agree_for_95_percent_of_the_time_and_in_order() {
    check("codex", 95);
}

#[test]
fn sub_agents_are_no_sessions_of_their_own() {
    for case in ["claude/subagent", "codex/spawn"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(case);
        let recording = Recording::load(&dir).unwrap();
        assert!(recording.truth.sessions.len() > 1);
        let home = tempfile::tempdir().unwrap();
        let seen: Vec<SessionId> = replay(&recording, home.path()).unwrap().into_keys().collect();
        assert_eq!(seen, [recording.truth.sessions[0].session_id.clone()], "{case}");
    }
}

#[test]
fn a_permission_prompt_shows_as_waiting_until_it_is_answered() {
    let (_, shown) = shown("claude/tui");
    let at = shown.iter().position(|s| s.reason == Some(ringback_model::Reason::Permission)).unwrap();
    assert_eq!(shown[at].activity, Activity::Waiting);
    assert_eq!(shown[at + 1].activity, Activity::Running);
    assert!(shown[at + 1].at_ms - shown[at].at_ms > 4000);
}

#[test]
fn a_session_does_not_wait_between_a_background_agents_end_and_the_turn_it_starts() {
    let (_, shown) = shown("claude/subagent");
    let after_launch: Vec<Activity> = shown.iter().filter(|s| s.at_ms > 12_000).map(|s| s.activity).collect();
    assert_eq!(after_launch, [Activity::Spawning, Activity::Thinking, Activity::Idle]);
}

#[test]
fn a_compaction_ends_in_waiting() {
    let (_, shown) = shown("claude/compact");
    let at = shown.iter().position(|s| s.activity == Activity::Compacting).unwrap();
    assert_eq!(shown[at + 1].activity, Activity::Waiting);
}
