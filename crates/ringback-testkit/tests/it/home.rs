//! A home shares nothing with the machine, and its programs can be followed and ended.

use ringback_testkit::{DEADLINE, Home};

#[tokio::test]
async fn a_program_gets_the_homes_environment_and_nothing_else() {
    let home = Home::new();
    let ended = home.spawn("/usr/bin/env", &["env"]).wait(DEADLINE).await.expect_success();
    let seen: Vec<String> = ended.stdout().lines().map(str::to_owned).collect();
    let want: Vec<String> = home.env().iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(seen.len(), want.len(), "{seen:?}");
    for variable in want {
        assert!(seen.contains(&variable), "{variable} is not in {seen:?}");
    }
}

#[tokio::test]
async fn the_project_is_a_clean_git_repository() {
    let home = Home::new();
    let ended = home.spawn("git", &["status", "--short", "--branch"]).wait(DEADLINE).await.expect_success();
    assert_eq!(ended.stdout(), "## main\n");
}

#[tokio::test]
async fn a_program_is_followed_line_by_line_and_ended_by_its_signal() {
    let home = Home::new();
    let script = ["-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"];
    let program = home.spawn("/bin/sh", &script);
    assert_eq!(program.wait_for_line("rea", DEADLINE).await.text, "ready");
    let ended = program.terminate().await;
    assert_eq!((ended.code, ended.stdout().as_str()), (Some(3), "ready\nbye\n"));

    let program = home.spawn("/bin/sh", &script);
    program.wait_for_line("ready", DEADLINE).await;
    let ended = program.kill9().await;
    assert_eq!((ended.code, ended.signal), (None, Some(9)));
}
