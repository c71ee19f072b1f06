//! What one observer leaves to the next: the same as looking at everything again, without the reading.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringback_model::{Activity, SessionId};
use ringback_observe::replay::config_for_home;
use ringback_observe::{Memory, Observer, Seen};

use crate::world::{Processes, SESSION, World, answer, append, at, brief, prompt, sightings, tool_use};

const OTHER: &str = "22222222-2222-3333-4444-555555555555";

/// A home with a small session that was answered, with a sub-agent, and a big one at work.
fn world() -> World {
    let world = World::new();
    let path = world.transcript(SESSION);
    append(&path, &[prompt(10), answer(20)]);
    append(&path.with_extension("").join("subagents/agent-1.jsonl"), &[answer(15)]);
    let mut lines: Vec<String> = (0..9000).map(|n| answer(n - 10_000)).collect();
    lines.extend([prompt(30), tool_use(40, "t1", "Bash")]);
    append(&world.transcript(OTHER), &lines);
    world
}

/// What the observer knows by the end of everything, as the next one reads it.
fn left_by(world: &mut World) -> Memory {
    world.observer.scan(at(50));
    world.sum_up(u64::MAX, 50);
    Memory::from_bytes(&world.observer.remember().to_bytes().unwrap()).unwrap()
}

fn next(world: &World, memory: Option<Memory>, now: i64) -> (Observer, Vec<Seen>) {
    let mut observer =
        Observer::new(config_for_home(world.home.path()), Box::new(Processes::default()), at(now));
    if let Some(memory) = memory {
        observer.recall(memory, at(now));
    }
    let seen = observer.scan(at(now));
    (observer, seen)
}

/// Makes the file's beginning unreadable, and lets it look as it did.
fn spoil(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"not json", 0).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn the_next_observer_knows_the_same_and_reads_nothing_again() {
    let mut world = world();
    let memory = left_by(&mut world);
    let files = [world.transcript(SESSION), world.transcript(OTHER)];
    files.iter().for_each(|path| spoil(path));
    let (mut warm, seen) = next(&world, Some(memory), 60);
    assert_eq!(warm.unreadable_lines(), 0);
    assert!(warm.lend_backfill().is_none());
    for id in [SESSION, OTHER].map(SessionId::new) {
        let (was, is) = (world.observer.session(&id).unwrap(), warm.session(&id).unwrap());
        assert_eq!((&is.about, is.verdict, is.since), (&was.about, was.verdict, was.since));
    }
    let big = warm.session(&SessionId::new(OTHER)).unwrap();
    assert_eq!(big.about.totals.assistant_messages, 9001);
    assert_eq!((big.verdict.activity, big.current_tool.as_deref()), (Activity::Running, Some("Bash")));
    // As at every start each session is told once, in silence, so that what the journal has is compared with it.
    let mut told = sightings(seen);
    told.sort_by(|a, b| a.session_id.cmp(&b.session_id));
    assert_eq!(brief(&told), [(Activity::Waiting, false), (Activity::Running, false)]);
    assert!(told.iter().all(|sighted| sighted.catch_up));
}

#[test]
fn what_was_written_meanwhile_is_read_on_as_history() {
    let mut world = world();
    let memory = left_by(&mut world);
    append(&world.transcript(SESSION), &[prompt(55), tool_use(56, "t2", "Read")]);
    let (mut warm, seen) = next(&world, Some(memory), 60);
    let told: Vec<_> =
        sightings(seen).into_iter().filter(|s| s.session_id == SessionId::new(SESSION)).collect();
    assert_eq!(brief(&told), [(Activity::Reading, false)]);
    assert!(told[0].catch_up);
    let (mut cold, _) = next(&world, None, 60);
    let id = SessionId::new(SESSION);
    assert_eq!(warm.session(&id).unwrap().about, cold.session(&id).unwrap().about);
    // And what is written now is news.
    append(&world.transcript(SESSION), &[answer(70)]);
    let news = sightings(warm.changed(&[world.transcript(SESSION)], at(71)));
    assert_eq!(brief(&news), [(Activity::Waiting, true)]);
}

#[test]
fn a_file_that_is_another_one_by_now_is_read_from_its_beginning() {
    let mut world = world();
    let memory = left_by(&mut world);
    let path = world.transcript(SESSION);
    fs::rename(&path, path.with_extension("old")).unwrap();
    append(&path, &[prompt(55)]);
    // And one that was cut.
    File::create(world.transcript(OTHER)).unwrap();
    let (mut warm, _) = next(&world, Some(memory), 60);
    let session = warm.session(&SessionId::new(SESSION)).unwrap();
    assert_eq!((session.verdict.activity, session.about.totals.user_messages), (Activity::Thinking, 1));
    assert!(warm.session(&SessionId::new(OTHER)).is_none());
}

#[test]
fn what_is_no_memory_of_this_version_is_none() {
    let bytes = left_by(&mut world()).to_bytes().unwrap();
    assert!(Memory::from_bytes(&bytes).is_some());
    let (other_format, other_version) =
        ([&[9], &bytes[1..]].concat(), [&bytes[..2], b"9", &bytes[3..]].concat());
    for other in [&[], &b"{}"[..], &bytes[1..], &bytes[..bytes.len() - 1], &other_format, &other_version] {
        assert!(Memory::from_bytes(other).is_none(), "{}", other.escape_ascii());
    }
}

#[test]
fn a_memory_that_lies_ends_nothing() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    append(&path, &[prompt(10), answer(20), prompt(30), tool_use(40, "t1", "Bash")]);
    let bytes = left_by(&mut world).to_bytes().unwrap();
    let mut taken = 0;
    for (place, bit) in (0..bytes.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
        let mut lying = bytes.clone();
        lying[place] ^= 1 << bit;
        let memory = Memory::from_bytes(&lying);
        taken += usize::from(memory.is_some());
        let (mut observer, _) = next(&world, memory, 60);
        assert!(observer.session(&SessionId::new(SESSION)).is_some(), "bit {bit} of byte {place}");
    }
    assert!(taken > 0, "no lie was taken for true");
}
