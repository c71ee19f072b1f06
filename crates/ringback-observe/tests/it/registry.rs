//! The registry of live sessions.

use std::fs;

use ringback_model::{Activity, Reason, SessionId};

use crate::world::{SESSION, T0, World, answer, append, at, brief, prompt, tool_use};

#[test]
fn a_pid_never_seen_alive_proves_nothing() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    assert_eq!(world.register(42, SESSION, r#""busy""#, 10), []);
    world.add(&path, &[prompt(20), answer(30)], 40);
    assert_eq!(world.register(42, SESSION, r#""waiting","waitingFor":"permission prompt""#, 50), []);
    fs::remove_file(world.registry(42)).unwrap();
    let registry = world.registry(42);
    assert_eq!(world.look(&registry, 60), []);
    assert_eq!(world.observer.session(&SessionId::new(SESSION)).unwrap().verdict.activity, Activity::Waiting);
}

#[test]
fn a_killed_process_makes_its_session_idle_within_a_second() {
    let mut world = World::new();
    world.processes.start(42);
    world.register(42, SESSION, r#""busy""#, 10);
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(20), tool_use(30, "a", "Bash")], 40);
    let due = world.observer.next_timer().unwrap();
    assert!(due <= at(1_040), "{due}");
    assert_eq!(world.tick(1_040), []);
    world.processes.kill(42);
    let seen = world.tick(2_040);
    assert_eq!(brief(&seen), [(Activity::Idle, true)]);
    assert_eq!(seen[0].sighting.reason, Some(Reason::Exited));
    assert_eq!(world.observer.next_timer(), None);
}

#[test]
fn a_permission_prompt_waits_until_it_is_answered_and_time_alone_never_ends_it() {
    let mut world = World::new();
    world.processes.start(42);
    let path = world.transcript(SESSION);
    world.register(42, SESSION, r#""busy""#, 10);
    world.add(&path, &[prompt(20)], 30);
    let seen = world.register(42, SESSION, r#""waiting","waitingFor":"permission prompt""#, 40);
    assert_eq!(
        (brief(&seen), seen[0].sighting.reason),
        (vec![(Activity::Waiting, true)], Some(Reason::Permission))
    );
    assert_eq!(brief(&world.add(&path, &[tool_use(39, "a", "Bash")], 50)), []);
    assert_eq!(world.tick(10_000_000), []);
    assert_eq!(brief(&world.register(42, SESSION, r#""busy""#, 10_000_100)), [(Activity::Running, true)]);
}

#[test]
fn of_several_files_for_one_session_the_newest_status_of_a_living_process_counts() {
    let mut world = World::new();
    world.processes.start(1);
    world.processes.start(2);
    assert_eq!(brief(&world.register(1, SESSION, r#""busy""#, 10)), [(Activity::Thinking, true)]);
    let seen = world.register(2, SESSION, r#""waiting","waitingFor":"input""#, 20);
    assert_eq!(seen[0].sighting.reason, Some(Reason::Question));
    assert_eq!(brief(&world.register(1, SESSION, r#""busy""#, 15)), []);
    world.processes.kill(2);
    assert_eq!(brief(&world.tick(5_000)), [(Activity::Thinking, true)]);
}

#[test]
fn a_removed_file_of_a_living_process_is_looked_at_again() {
    let mut world = World::new();
    world.processes.start(42);
    world.register(42, SESSION, r#""busy""#, 10);
    let registry = world.registry(42);
    fs::remove_file(&registry).unwrap();
    let seen = world.look(&registry, 20);
    assert!(seen.iter().all(|s| s.sighting.reason != Some(Reason::Exited)), "{seen:?}");
    world.processes.kill(42);
    let seen = world.tick(120);
    assert_eq!(seen[0].sighting.reason, Some(Reason::Exited));
}

#[test]
fn key_files_are_never_read() {
    let mut world = World::new();
    world.processes.start(42);
    // What would be told if it were read for what it is not.
    let entry =
        format!(r#"{{"pid":42,"sessionId":"{SESSION}","status":"busy","statusUpdatedAt":{}}}"#, T0 + 5);
    for name in ["42.0a1b2c.key", "42.key.json", "pid-42.json", "42.json.key"] {
        let path = world.home.path().join(".claude/sessions").join(name);
        append(&path, std::slice::from_ref(&entry));
        assert!(world.observer.changed(&[path], at(20)).is_empty(), "{name}");
    }
    assert!(world.observer.scan(at(10)).is_empty());
    append(&world.registry(42), &[entry]);
    assert_eq!(world.observer.scan(at(30)).len(), 1);
}

#[test]
fn an_unchanged_registry_file_silences_no_timer() {
    let mut world = World::new();
    world.processes.start(42);
    let path = world.transcript(SESSION);
    append(
        &world.registry(42),
        &[format!(r#"{{"pid":42,"sessionId":"{SESSION}","status":"idle","statusUpdatedAt":{}}}"#, T0 - 5)],
    );
    world.observer.scan(at(1));
    world.add(&path, &[prompt(10), answer(20)], 30);
    let seen = crate::world::sightings(world.observer.scan(at(121_000)));
    assert_eq!(brief(&seen), [(Activity::Idle, true)]);
}

#[test]
fn a_session_that_ends_never_looks_busy_for_a_blink() {
    // Interrupted before any output: only the registry knows that the turn is over, and it goes away first.
    let mut world = World::new();
    world.processes.start(42);
    let path = world.transcript(SESSION);
    world.register(42, SESSION, r#""busy""#, 10);
    world.add(&path, &[prompt(20)], 30);
    assert_eq!(brief(&world.register(42, SESSION, r#""idle""#, 1_000)), [(Activity::Waiting, true)]);
    let registry = world.registry(42);
    fs::remove_file(&registry).unwrap();
    assert_eq!(world.look(&registry, 2_000), []);
    assert_eq!(world.tick(2_100), []);
    world.processes.kill(42);
    let seen = world.tick(2_200);
    assert_eq!((brief(&seen), seen[0].sighting.reason), (vec![(Activity::Idle, true)], Some(Reason::Exited)));
}

#[test]
fn what_the_registry_ended_stays_ended_when_its_process_lives_on_without_the_session() {
    let mut world = World::new();
    world.processes.start(42);
    let path = world.transcript(SESSION);
    world.register(42, SESSION, r#""busy""#, 10);
    world.add(&path, &[prompt(20), tool_use(30, "a", "Bash")], 40);
    world.register(42, SESSION, r#""idle""#, 1_000);
    let registry = world.registry(42);
    fs::remove_file(&registry).unwrap();
    world.look(&registry, 2_000);
    assert_eq!(world.tick(4_000), []);
    assert_eq!(world.observer.session(&SessionId::new(SESSION)).unwrap().verdict.activity, Activity::Waiting);
}
