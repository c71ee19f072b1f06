//! inbound.md, "The run": `isolated: true` with `worktree: true` starts in a fresh git worktree of the workspace.

use std::path::{Path, PathBuf};

use ringback_testkit::Home;
use serde_json::{Value, json};

use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

fn inbound(script: &str) -> Inbound {
    let inbound = Inbound::new(&format!("cat > /dev/null\n{script}"), json!({}));
    inbound.configure_more(json!({ "workspaces": { "default": { "worktree": true } } }));
    inbound
}

fn isolated() -> Value {
    json!({ "message": "work", "source": "ci", "isolated": true })
}

async fn git(home: &Home, args: &[&str]) -> String {
    home.spawn("git", args).wait(DEADLINE).await.expect_success().stdout()
}

async fn branches(home: &Home) -> String {
    git(home, &["branch", "--list", "ringback/*"]).await
}

fn path_of(run: &Value) -> PathBuf {
    PathBuf::from(run["worktree"]["path"].as_str().unwrap_or_else(|| panic!("no worktree: {run}")))
}

async fn cli(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let args: Vec<&str> = ["runs", "worktrees"].iter().chain(args).copied().collect();
    let ended = home.spawn(ringback(), &args).wait(DEADLINE).await;
    (ended.code, ended.stdout(), ended.stderr())
}

#[tokio::test]
async fn an_isolated_run_works_in_a_worktree_of_its_own_that_goes_when_it_left_nothing() {
    let inbound = inbound(
        "pwd > \"$HOME/cwd\"; git branch --show-current > \"$HOME/branch\"; cat README.md > \"$HOME/seen\"",
    );
    let home = &inbound.home;
    let hook = home.write("project/.git/hooks/post-checkout", "#!/bin/sh\ntouch \"$HOME/hook-ran\"\n");
    std::fs::set_permissions(hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let daemon = home.up(ringback()).await;
    let id = inbound.start(isolated()).await;
    let run = ended(&daemon, &id).await;
    assert_eq!((&run["state"], &run["worktree"]["kept"]), (&json!("completed"), &json!(false)), "{run}");
    let (cwd, seen) = (home.read("cwd").expect("it ran"), home.read("seen").expect("it ran"));
    assert_eq!(Path::new(cwd.trim()), path_of(&run));
    assert!(path_of(&run).starts_with(home.state_dir()) && !path_of(&run).exists());
    assert_eq!(home.read("branch").expect("it ran").trim(), format!("ringback/{id}"));
    assert_eq!(Some(seen), home.read("project/README.md"));
    assert_eq!(home.read("hook-ran"), None, "hooks of the repository are not run");
    assert_eq!(branches(home).await, "");
    assert_eq!(cli(home, &[]).await.1, "no worktrees\n");

    // Without `isolated` it is the workspace itself.
    let id = inbound.start(json!({ "message": "work" })).await;
    assert_eq!(ended(&daemon, &id).await["worktree"], Value::Null);
    assert_eq!(Path::new(home.read("cwd").expect("it ran").trim()), home.project());
}

#[tokio::test]
async fn a_worktree_with_changes_or_commits_is_kept_listed_and_removed_on_demand() {
    let script = r#"case "$(git branch --show-current)" in ringback/*) ;; *) exit 9 ;; esac
echo new > new.txt
if [ -e "$HOME/commit" ]; then git add new.txt && git commit -qm "$RINGBACK_RUN"; fi
if [ -e "$HOME/vanish" ]; then rm -rf "$PWD"; fi"#;
    let mut inbound = inbound(script);
    for (name, value) in [
        ("GIT_AUTHOR_NAME", "Run"),
        ("GIT_AUTHOR_EMAIL", "run@example.com"),
        ("GIT_COMMITTER_NAME", "Run"),
        ("GIT_COMMITTER_EMAIL", "run@example.com"),
    ] {
        inbound.home.set_env(name, value);
    }
    let names = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    inbound.configure_more(json!({ "runs": { "agents": { "fake": { "env": names } } } }));
    let home = &inbound.home;
    let daemon = home.up(ringback()).await;

    let changed = inbound.start(isolated()).await;
    let run = ended(&daemon, &changed).await;
    assert_eq!((&run["state"], &run["worktree"]["kept"]), (&json!("completed"), &json!(true)), "{run}");
    assert_eq!(std::fs::read_to_string(path_of(&run).join("new.txt")).ok().as_deref(), Some("new\n"));
    assert!(!home.project().join("new.txt").exists(), "the workspace is as it was");

    home.write("commit", "");
    let committed = inbound.start(isolated()).await;
    let run = ended(&daemon, &committed).await;
    assert_eq!((&run["state"], &run["worktree"]["kept"]), (&json!("completed"), &json!(true)), "{run}");

    // The directory is gone, and the work is not.
    home.write("vanish", "");
    let vanished = inbound.start(isolated()).await;
    let run = ended(&daemon, &vanished).await;
    assert_eq!((path_of(&run).exists(), &run["worktree"]["kept"]), (false, &json!(true)), "{run}");
    assert!(branches(home).await.contains(&vanished));
    assert_eq!(cli(home, &["remove", &vanished, "--force"]).await.0, Some(0));
    assert!(!branches(home).await.contains(&vanished));

    let (code, listed, _) = cli(home, &["list"]).await;
    assert_eq!(code, Some(0));
    for part in [&changed, &committed, "changes that are not committed", "commits that no other branch has"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let (_, listed, _) = cli(home, &["--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["items"][0]["branch"], format!("ringback/{changed}"), "{listed}");
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));

    // Merged, the commits are nobody's loss; the other one is removed by force alone.
    assert_eq!(cli(home, &["prune"]).await.1, "0 removed\n");
    git(home, &["merge", "-q", &format!("ringback/{committed}")]).await;
    assert_eq!(cli(home, &["prune"]).await.1, "1 removed\n");
    let (code, _, err) = cli(home, &["remove", &changed]).await;
    assert!(code == Some(1) && err.contains("not committed; force discards it"), "{err}");
    assert_eq!(cli(home, &["remove", &changed, "--force"]).await.0, Some(0));
    assert_eq!((cli(home, &[]).await.1, branches(home).await), ("no worktrees\n".to_owned(), String::new()));
    assert_eq!(git(home, &["worktree", "list", "--porcelain"]).await.matches("worktree ").count(), 1);
    assert_eq!(cli(home, &["remove", &changed]).await.0, Some(1));
}

#[tokio::test]
async fn nothing_that_a_run_leaves_can_start_a_program_when_its_worktree_is_looked_at() {
    // A repository says itself which program watches its files: one inside the worktree, and one in the place of it.
    let script = r#"evil() { git -C "$1" config core.fsmonitor "$HOME/evil.sh"; }
if [ -e "$HOME/nested" ]; then
  git init -q inner && git -C inner commit -q --allow-empty -m x && evil inner && git add -f inner 2> /dev/null
else
  git init -q "$HOME/other" && evil "$HOME/other" && cp README.md "$HOME/other/" && git -C "$HOME/other" add README.md
  echo "gitdir: $HOME/other/.git" > .git
fi
git status > /dev/null; [ -e "$HOME/evil-ran" ] && rm -f "$HOME/evil-ran" && touch "$HOME/evil-works""#;
    let mut inbound = inbound(script);
    let names = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    for name in names {
        inbound.home.set_env(name, "run@example.com");
    }
    inbound.configure_more(json!({ "runs": { "agents": { "fake": { "env": names } } } }));
    let home = &inbound.home;
    let evil = home.write("evil.sh", "#!/bin/sh\ntouch \"$HOME/evil-ran\"\n");
    std::fs::set_permissions(evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let daemon = home.up(ringback()).await;
    let nested = home.write("nested", "");
    for why in ["it has a repository in it", "git worktree: "] {
        let id = inbound.start(isolated()).await;
        let run = ended(&daemon, &id).await;
        assert_eq!(run["worktree"]["kept"], true, "{run}");
        assert!(home.read("evil-works").is_some(), "git itself would have run it: {run}");
        std::fs::remove_file(home.path().join("evil-works")).expect("it is there");
        assert_eq!(cli(home, &["prune"]).await.1, "0 removed\n");
        assert_eq!(home.read("evil-ran"), None);
        let listed = daemon.api_get("/api/worktrees").await.json();
        let kept = listed["items"].as_array().and_then(|all| all.last()).expect("it is kept");
        assert!(kept["kept"].as_str().is_some_and(|k| k.starts_with(why)), "{kept}");
        let _ = std::fs::remove_file(&nested);
    }
}

#[tokio::test]
async fn where_there_can_be_no_worktree_the_run_fails_and_the_user_is_told_why() {
    let inbound = inbound("touch \"$HOME/ran\"");
    let home = &inbound.home;
    std::fs::create_dir(home.path().join("plain")).expect("a directory can be made");
    home.spawn("git", &["init", "-q", "../empty"]).wait(DEADLINE).await.expect_success();
    home.spawn("git", &["clone", "-q", ".", "../outer"]).wait(DEADLINE).await.expect_success();
    home.write("outer/.gitmodules", "");
    for args in [&["-C", "../outer", "add", "."][..], &["-C", "../outer", "commit", "-qm", "modules"]] {
        home.spawn("git", args).wait(DEADLINE).await.expect_success();
    }
    home.write("project/drafts/x", "");
    for (workspace, cause) in [
        ("plain", "plain is not in one"),
        ("empty", "empty has none"),
        ("outer", "outer has some"),
        ("project/drafts", "drafts is not in the repository's last commit"),
    ] {
        inbound
            .configure_more(json!({ "workspaces": { "default": { "path": home.path().join(workspace) } } }));
        let daemon = home.up(ringback()).await;
        let id = inbound.start(isolated()).await;
        let run = ended(&daemon, &id).await;
        assert_eq!(run["state"], "failed", "{run}");
        assert!(run["error"].as_str().is_some_and(|e| e.contains("worktree") && e.contains(cause)), "{run}");
        daemon.wait_for_line("ci couldn't complete.", DEADLINE).await;
        daemon.wait_for_line(cause, DEADLINE).await;
        assert_eq!(
            (cli(home, &[]).await.1, run["cost_usd"].as_f64()),
            ("no worktrees\n".to_owned(), Some(0.0))
        );
        daemon.terminate().await.expect_success();
    }
    assert_eq!(home.read("ran"), None);
}

#[tokio::test]
async fn a_worktree_that_kill_9_leaves_is_settled_by_the_next_start() {
    let inbound = inbound("[ -e \"$HOME/dirty\" ] && echo x > x; touch \"$HOME/started\"; exec sleep 600");
    let home = &inbound.home;
    for (is_dirty, left) in [(false, 0), (true, 1)] {
        if is_dirty {
            home.write("dirty", "");
        }
        let daemon = home.up(ringback()).await;
        let id = inbound.start(isolated()).await;
        let give_up = tokio::time::Instant::now() + DEADLINE;
        while home.read("started").is_none() {
            assert!(tokio::time::Instant::now() < give_up, "the agent never started");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        std::fs::remove_file(home.path().join("started")).expect("it is there");
        daemon.kill9().await;
        let daemon = home.up(ringback()).await;
        let run = ended(&daemon, &id).await;
        assert_eq!(
            (&run["state"], &run["worktree"]["kept"]),
            (&json!("interrupted"), &json!(is_dirty)),
            "{run}"
        );
        let listed = daemon.api_get("/api/worktrees").await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(left), "{listed}");
        daemon.terminate().await.expect_success();
    }
}
