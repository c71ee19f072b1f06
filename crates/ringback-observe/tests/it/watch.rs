//! The thread around the observer, on a real directory with real events.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ringback_model::{Activity, Timestamp};
use ringback_observe::replay::config_for_home;
use ringback_observe::watch::{Handle, run};
use ringback_observe::{Observer, Seen, Sighted};

use crate::world::{Processes, SESSION, T0, answer, append, prompt, sightings};

const DEADLINE: Duration = Duration::from_secs(20);

struct Watched {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    seen: Receiver<Vec<Seen>>,
}

impl Watched {
    fn start(home: &Path) -> Watched {
        Watched::start_with(home, clock)
    }

    fn start_with(home: &Path, clock: impl Fn() -> Timestamp + Send + 'static) -> Watched {
        let handle = Handle::new();
        let observer = Observer::new(config_for_home(home), Box::new(Processes::default()), clock());
        let (sender, seen) = channel();
        let thread = std::thread::spawn({
            let handle = handle.clone();
            move || {
                run(observer, &handle, clock, |seen| match sender.send(seen) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                });
            }
        });
        let watched = Watched { handle, thread: Some(thread), seen };
        // The first scan is always told; events come after it.
        watched.seen.recv_timeout(DEADLINE).unwrap();
        watched
    }

    fn next(&self) -> Vec<Sighted> {
        loop {
            let seen = sightings(self.seen.recv_timeout(DEADLINE).unwrap());
            if !seen.is_empty() {
                return seen;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok());
    }
}

fn clock() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "real events need the real clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap())
}

fn now_ms() -> i64 {
    clock().as_millis() - T0
}

#[test]
fn the_sums_over_old_history_follow_the_first_scan() {
    let home = tempfile::tempdir().unwrap();
    let messages = 9000;
    for session in [SESSION, "another"] {
        let path = home.path().join(format!(".claude/projects/-home-dev-proj/{session}.jsonl"));
        let lines: Vec<String> = (0..messages).map(|n| answer(n - 10_000)).collect();
        append(&path, &lines);
        assert!(fs::metadata(&path).unwrap().len() > 2_000_000);
    }
    let watched = Watched::start(home.path());
    let mut missing = BTreeSet::from([SESSION.to_owned(), "another".to_owned()]);
    while !missing.is_empty() {
        for seen in watched.seen.recv_timeout(DEADLINE).unwrap() {
            let (Seen::About(snapshot) | Seen::Sighting(Sighted { snapshot, .. })) = seen;
            if snapshot.about.totals.assistant_messages == messages.unsigned_abs() {
                missing.remove(snapshot.about.session_id.as_str());
            }
        }
    }
}

#[test]
fn a_write_is_seen_without_polling() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(format!(".claude/projects/p/{SESSION}.jsonl"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let watched = Watched::start(home.path());
    append(&path, &[prompt(now_ms())]);
    let seen = watched.next();
    assert_eq!((seen[0].sighting.activity, seen[0].sighting.announce), (Activity::Thinking, true));
    append(&path, &[answer(now_ms())]);
    assert_eq!(watched.next()[0].sighting.activity, Activity::Waiting);
}

#[test]
fn directories_that_do_not_exist_yet_are_watched_once_they_do() {
    let home = tempfile::tempdir().unwrap();
    let watched = Watched::start(home.path());
    let path = home.path().join(".codex/sessions/2026/11/22/rollout-2026-11-22T06-36-24-x.jsonl");
    let time = clock();
    append(
        &path,
        &[
            format!(
                r#"{{"timestamp":"{time}","type":"session_meta","payload":{{"id":"x","cwd":"/p","source":"cli"}}}}"#
            ),
            format!(r#"{{"timestamp":"{time}","type":"event_msg","payload":{{"type":"task_started"}}}}"#),
        ],
    );
    let seen = watched.next();
    assert_eq!((seen[0].session_id.as_str(), seen[0].sighting.activity), ("x", Activity::Thinking));
    let end = clock();
    append(
        &path,
        &[format!(r#"{{"timestamp":"{end}","type":"event_msg","payload":{{"type":"task_complete"}}}}"#)],
    );
    assert_eq!(watched.next()[0].sighting.activity, Activity::Waiting);
}

#[test]
fn timers_fire_without_any_event() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(format!(".claude/projects/p/{SESSION}.jsonl"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut config = config_for_home(home.path());
    config.rules.waiting_timeout = Duration::from_millis(300);
    let handle = Handle::new();
    let observer = Observer::new(config, Box::new(Processes::default()), clock());
    append(&path, &[prompt(now_ms()), answer(now_ms())]);
    let mut activities = Vec::new();
    run(observer, &handle, clock, |seen| {
        activities.extend(sightings(seen).iter().map(|s| s.sighting.activity));
        if activities.last() == Some(&Activity::Idle) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(activities, [Activity::Thinking, Activity::Waiting, Activity::Idle]);
}

#[test]
fn a_clock_jump_makes_what_was_written_meanwhile_history() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(format!(".claude/projects/p/{SESSION}.jsonl"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // The machine sleeps between two looks, and wakes two hours later with a line in the file: written by the clock
    // itself, so that no look can come in between.
    let (sleeps, hours) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watched = Watched::start_with(home.path(), {
        let (sleeps, hours, path) = (Arc::clone(&sleeps), Arc::clone(&hours), path.clone());
        move || {
            if sleeps.swap(false, Ordering::SeqCst) {
                append(&path, &[answer(now_ms())]);
                hours.store(2, Ordering::SeqCst);
            }
            clock().plus(Duration::from_secs(3600 * hours.load(Ordering::SeqCst)))
        }
    });
    append(&path, &[prompt(now_ms())]);
    assert_eq!(watched.next()[0].sighting.activity, Activity::Thinking);
    sleeps.store(true, Ordering::SeqCst);
    fs::write(path.with_file_name("wakes-the-thread.txt"), "x").unwrap();
    let seen = watched.next();
    let is = (seen[0].sighting.activity, seen[0].sighting.announce, seen[0].catch_up);
    assert_eq!((is, seen.len()), ((Activity::Idle, false, true), 1));
    append(&path, &[prompt(now_ms() + 7_200_000)]);
    assert!(watched.next()[0].sighting.announce);
}
