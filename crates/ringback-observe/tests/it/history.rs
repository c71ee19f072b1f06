//! What was written before the observer looked, or copied from elsewhere.

use std::fs;
use std::time::Duration;

use ringback_model::{Activity, SessionId};
use ringback_observe::replay::Recording;

use crate::world::{SESSION, T0, World, answer, append, at, brief, prompt, sightings, tool_result, tool_use};

#[test]
fn an_old_file_is_told_once_in_silence_to_catch_up_with() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    append(&path, &[prompt(-9000), tool_use(-8000, "a", "Bash"), tool_result(-7000, "a"), answer(-6000)]);
    let seen = sightings(world.observer.scan(at(10)));
    assert_eq!(brief(&seen), [(Activity::Waiting, false)]);
    assert!(seen[0].catch_up);
    assert_eq!(seen[0].sighting.at, at(-6000));
    assert_eq!(seen[0].snapshot.newest_record_at, Some(at(-6000)));
    assert_eq!(sightings(world.observer.scan(at(20))), []);
    assert_eq!(brief(&world.add(&path, &[prompt(30)], 40)), [(Activity::Thinking, true)]);
}

#[test]
fn the_timers_of_history_do_not_announce_either() {
    let mut world = World::new();
    append(&world.transcript(SESSION), &[prompt(-900_000), answer(-800_000)]);
    let seen = sightings(world.observer.scan(at(10)));
    assert_eq!(brief(&seen), [(Activity::Idle, false)]);
    assert_eq!(seen[0].sighting.at, at(-800_000 + 120_000));
}

#[test]
fn a_resumed_session_tells_its_history_before_its_first_new_change() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    append(&path, &[prompt(-900_000), answer(-800_000)]);
    let seen = world.add(&path, &[prompt(30), tool_use(40, "b", "Edit")], 50);
    assert_eq!(
        brief(&seen),
        [(Activity::Idle, false), (Activity::Thinking, true), (Activity::Writing, true)]
    );
    assert_eq!(seen.iter().map(|s| s.catch_up).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn after_a_suspend_what_was_missed_is_told_once() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10)], 20);
    append(&path, &[tool_use(30, "a", "Bash"), tool_result(100_000, "a"), answer(200_000)]);
    let seen = sightings(world.observer.resumed(at(210_000)));
    assert_eq!(brief(&seen), [(Activity::Waiting, false)]);
    assert!(seen[0].catch_up);
    assert_eq!(brief(&world.add(&path, &[prompt(211_000)], 211_010)), [(Activity::Thinking, true)]);
}

/// A fork's file holds the parent's records with their old times and the new session's id.
#[test]
fn a_forks_copied_history_makes_no_events() {
    let recording = Recording::load(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/claude/multi"),
    )
    .unwrap();
    let parent = recording.truth.sessions[0].session_id.as_str().to_owned();
    let copied: Vec<String> = recording
        .operations
        .iter()
        .filter(|o| o.file.extension().is_some_and(|e| e == "jsonl"))
        .flat_map(|o| o.bytes().unwrap())
        .collect::<Vec<u8>>()
        .split(|b| *b == b'\n')
        .map(|line| String::from_utf8_lossy(line).replace(&parent, SESSION))
        .filter(|line| line.contains(r#""type":"user""#) || line.contains(r#""type":"assistant""#))
        .collect();
    assert!(copied.len() > 15);
    // The observer has run since before the parent; the fork is made an hour after it.
    let fork_ms = recording.truth.t0_epoch_ms + 3_600_000 - T0;
    let mut world = World::at_home(tempfile::tempdir().unwrap(), fork_ms - 7_200_000);
    let path = world.transcript(SESSION);
    let seen = world.add(&path, &copied, fork_ms);
    assert_eq!(seen.iter().filter(|s| s.sighting.announce).count(), 0, "{seen:?}");
    assert_eq!(seen.len(), 1);
    let seen = world.add(&path, &[prompt(fork_ms + 10), answer(fork_ms + 2000)], fork_ms + 2010);
    assert_eq!(brief(&seen), [(Activity::Thinking, true), (Activity::Waiting, true)]);
}

/// Sums of a big file are the same whether it is read from its end first or grows before the observer's eyes.
#[test]
fn totals_of_a_big_file_are_counted_exactly_once() {
    let mut lines = Vec::new();
    for i in 0..4000_i64 {
        lines.push(prompt(i * 10 - 90_000));
        // Every message is told in two records, and one such pair straddles every border.
        lines.push(tool_use(i * 10 - 89_995, &format!("t{i}"), "Read"));
        lines.push(tool_use(i * 10 - 89_995, &format!("u{i}"), "Grep"));
    }
    let mut grown = World::new();
    let path = grown.transcript(SESSION);
    for some in lines.chunks(500) {
        grown.add(&path, some, 10);
    }
    let id = SessionId::new(SESSION);
    let expected = grown.observer.session(&id).unwrap().about.totals;
    assert_eq!((expected.user_messages, expected.assistant_messages), (4000, 4000));

    let mut late = World::new();
    let path = late.transcript(SESSION);
    append(&path, &lines);
    assert!(fs::metadata(&path).unwrap().len() > 2_000_000);
    let seen = sightings(late.observer.scan(at(10)));
    assert_eq!(seen.last().unwrap().sighting.activity, Activity::Reading.max(Activity::Searching));
    assert_eq!(late.observer.session(&id).unwrap().about.cwd, "/home/dev/proj");
    assert!(late.observer.session(&id).unwrap().about.totals.input_tokens < expected.input_tokens);
    late.add(&path, &[answer(20)], 30);
    let slices = late.sum_up(100_000, 40);
    assert!(slices > 10, "{slices}");
    let totals = late.observer.session(&id).unwrap().about.totals;
    assert_eq!(totals.input_tokens, expected.input_tokens + 10);
    assert_eq!(totals.assistant_messages, 4001);
    assert!((totals.cost_usd - expected.cost_usd).abs() < 1e-3);
}

#[test]
fn a_session_that_rests_for_longer_than_the_window_is_let_go_and_comes_back() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10), answer(20)], 30);
    world.tick(200_000);
    let id = SessionId::new(SESSION);
    let written = ringback_model::Timestamp::from_millis(
        i64::try_from(
            fs::metadata(&path)
                .unwrap()
                .modified()
                .unwrap()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_millis(),
        )
        .unwrap(),
    );
    let later = written.plus(Duration::from_secs(25 * 3600));
    world.observer.scan(later);
    assert!(world.observer.session(&id).is_none());
    append(&path, &[prompt(later.as_millis() - T0)]);
    let seen = sightings(world.observer.changed(&[path], later.plus(Duration::from_millis(5))));
    assert_eq!(brief(&seen), [(Activity::Idle, false), (Activity::Thinking, true)]);
}

#[test]
fn after_a_clock_that_was_ahead_a_turn_is_told_when_it_happens() {
    const AHEAD: i64 = 2 * 3_600_000;
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(AHEAD + 10), answer(AHEAD + 40)], AHEAD + 50);
    world.observer.resumed(at(60_000));
    let mut told = world.add(&path, &[prompt(70_000)], 70_010);
    told.extend(world.add(&path, &[answer(80_000)], 80_010));
    let told: Vec<_> =
        told.iter().map(|s| (s.sighting.activity, s.sighting.announce, s.sighting.at)).collect();
    assert_eq!(told, [(Activity::Thinking, true, at(70_000)), (Activity::Waiting, true, at(80_000))]);
}

#[test]
fn a_pipe_in_the_place_of_a_session_file_is_not_read() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(world.observer.changed(&[path], at(10)), []);
}
