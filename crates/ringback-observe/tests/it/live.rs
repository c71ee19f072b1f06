//! What happens while the observer looks.

use std::fs;

use ringback_model::{Activity, Reason, SessionId};
use ringback_observe::Seen;

use crate::world::{SESSION, World, answer, at, brief, prompt, sightings, time, tool_result, tool_use};

#[test]
fn each_change_is_its_own_sighting_also_when_several_come_in_one_read() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    let lines = [prompt(10), tool_use(20, "a", "Read"), tool_result(30, "a"), answer(40)];
    let seen = world.add(&path, &lines, 50);
    let told: Vec<_> =
        seen.iter().map(|s| (s.sighting.activity, s.sighting.at, s.sighting.announce)).collect();
    assert_eq!(
        told,
        [
            (Activity::Thinking, at(10), true),
            (Activity::Reading, at(20), true),
            (Activity::Thinking, at(30), true),
            (Activity::Waiting, at(40), true),
        ]
    );
    assert_eq!(seen[1].snapshot.current_tool.as_deref(), Some("Read"));
    assert_eq!(seen[1].snapshot.about.cwd, "/home/dev/proj");
}

#[test]
fn waiting_becomes_idle_at_the_instant_of_its_timer() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10), answer(40)], 50);
    assert_eq!(world.observer.next_timer(), Some(at(40 + 120_000)));
    assert_eq!(world.tick(120_039), []);
    let seen = world.tick(125_000);
    assert_eq!(brief(&seen), [(Activity::Idle, true)]);
    assert_eq!((seen[0].sighting.reason, seen[0].sighting.at), (Some(Reason::Timeout), at(120_040)));
    assert_eq!(world.observer.next_timer(), None);
}

#[test]
fn an_agents_question_waits_for_the_user() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    let seen = world.add(&path, &[prompt(10), tool_use(20, "q", "AskUserQuestion")], 30);
    assert_eq!(seen[1].sighting.reason, Some(Reason::Question));
    assert_eq!(world.observer.next_timer(), None);
    assert_eq!(brief(&world.add(&path, &[tool_result(40, "q")], 50)), [(Activity::Thinking, true)]);
}

#[test]
fn a_rate_limit_is_told_as_the_reason() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    for (status, reason) in [(429, Reason::RateLimit), (529, Reason::Error)] {
        let error = format!(
            r#"{{"type":"assistant","isApiErrorMessage":true,"apiErrorStatus":{status},"timestamp":"{}","message":{{"id":"e","model":"<synthetic>","content":[{{"type":"text","text":"API Error"}}]}}}}"#,
            time(i64::from(status))
        );
        let seen = world.add(&path, &[prompt(i64::from(status)), error], 1000);
        assert_eq!(seen.last().unwrap().sighting.reason, Some(reason));
    }
}

#[test]
fn what_there_is_to_show_is_told_without_a_change_of_activity() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10)], 20);
    crate::world::append(
        &path,
        &[format!(r#"{{"type":"custom-title","customTitle":"Fix it","timestamp":"{}"}}"#, time(30))],
    );
    let seen = world.observer.changed(&[path], at(40));
    let [Seen::About(snapshot)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(snapshot.about.short_name(), "Fix it");
    assert_eq!(snapshot.about.interactive, Some(true));
    assert_eq!(snapshot.about.last_prompt_at, Some(at(10)));
}

#[test]
fn a_deleted_and_remade_transcript_is_read_again_in_silence() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    let lines = [prompt(10), tool_use(20, "a", "Bash")];
    world.add(&path, &lines, 30);
    fs::remove_file(&path).unwrap();
    assert_eq!(sightings(world.observer.changed(std::slice::from_ref(&path), at(40))), []);
    assert_eq!(brief(&world.add(&path, &lines, 50)), []);
    assert_eq!(brief(&world.add(&path, &[tool_result(60, "a")], 70)), [(Activity::Thinking, true)]);
}

#[test]
fn sessions_in_excluded_directories_are_not_seen() {
    let mut world = World::new();
    let mut config = ringback_observe::replay::config_for_home(world.home.path());
    config.exclude_cwd_substrings = vec!["dev/pro".into()];
    world.observer = ringback_observe::Observer::new(config, Box::new(world.processes.clone()), at(0));
    let path = world.transcript(SESSION);
    assert_eq!(world.add(&path, &[prompt(10)], 20), []);
    assert_eq!(world.observer.session(&SessionId::new(SESSION)), None);
    assert_eq!(world.observer.sessions(), []);
}

#[test]
fn a_sub_agents_tokens_are_its_parents_and_its_turn_is_not() {
    let mut world = World::new();
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10), answer(20)], 30);
    let sub = world.transcript(SESSION).with_extension("").join("subagents/agent-7.jsonl");
    let seen = world.add(&sub, &[prompt(40), tool_use(50, "s", "Bash")], 60);
    assert_eq!(seen, []);
    let about = world.observer.session(&SessionId::new(SESSION)).unwrap().about;
    assert_eq!((about.totals.input_tokens, about.totals.user_messages), (20, 1));
    assert_eq!(about.recent_tools.len(), 0);
}

#[test]
fn claude_desktops_title_names_the_session() {
    let mut world = World::new();
    let desktop = world.home.path().join("desktop");
    let mut config = ringback_observe::replay::config_for_home(world.home.path());
    config.desktop_dirs = vec![desktop.clone()];
    world.observer = ringback_observe::Observer::new(config, Box::new(world.processes.clone()), at(0));
    let path = world.transcript(SESSION);
    world.add(&path, &[prompt(10)], 20);
    let note = format!(r#"{{"cliSessionId":"{SESSION}","title":"Repair the roof","more":[1]}}"#);
    crate::world::append(&desktop.join("x/local_1.json"), &[note]);
    let seen = world.observer.scan(at(30));
    assert!(
        matches!(seen.as_slice(), [Seen::About(s)] if s.about.title.as_deref() == Some("Repair the roof"))
    );
}
