//! Commands as a person runs them: what they print and how they exit.

use ringback_testkit::{Answer, Home, Receiver, Signal};
use serde_json::json;

use crate::{DEADLINE, ringback};

async fn run(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let ended = home.spawn(ringback(), args).wait(DEADLINE).await;
    (ended.code, ended.stdout(), ended.stderr())
}

#[tokio::test]
async fn the_demo_shows_a_session_change_state_and_its_webhooks_verified() {
    let home = Home::new();
    let (code, stdout, stderr) = run(&home, &["demo"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("> running"), "{stdout}");
    assert!(stdout.contains("> waiting    (turn_end)"), "{stdout}");
    assert!(
        stdout.contains("202 Accepted") && stdout.contains("[bg] Looked into it: CI build failed"),
        "{stdout}"
    );
    assert!(stdout.contains("run completed, and it pinged you"), "{stdout}");
    let tally = stdout.lines().find(|l| l.contains("webhooks delivered")).unwrap_or_default();
    let numbers: Vec<usize> = tally.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1] && numbers[0] >= 8, "{tally}");
    assert!(!stdout.contains("REFUSED") && !stderr.contains("WARN"), "{stdout}{stderr}");
}

#[tokio::test]
async fn a_demo_that_is_ended_leaves_nothing_behind() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut home = Home::new();
        let scratch = home.path().join("scratch");
        std::fs::create_dir(&scratch).expect("the home is ours");
        home.set_env("TMPDIR", &scratch.to_string_lossy());
        let demo = home.spawn(ringback(), &["demo"]);
        demo.wait_for_line("receiver", DEADLINE).await;
        let left = || std::fs::read_dir(&scratch).expect("it is there").count();
        assert_eq!(left(), 1, "what the demo works in");
        demo.signal(signal);
        let ended = demo.wait(DEADLINE).await;
        assert_eq!((ended.code, left()), (Some(1), 0), "{}", ended.stderr());
    }
}

#[tokio::test]
async fn a_second_up_says_who_runs_and_exits_2() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    let (code, _, stderr) = run(&home, &["up"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains(&format!("process {}, http://{}", daemon.pid(), daemon.api())), "{stderr}");
    daemon.kill9().await;
    // The lock of a dead process needs no cleaning.
    home.up(ringback()).await.terminate().await.expect_success();
}

#[tokio::test]
async fn what_is_configured_wrongly_exits_2_with_what_and_how_to_mend() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    for (config, part) in [
        ("{ not json".to_owned(), "does not parse"),
        (json!({ "window_minutes": "ten" }).to_string(), "window_minutes: expected a whole number"),
        (
            json!({ "server": { "listen": format!("127.0.0.1:{port}") } }).to_string(),
            "cannot listen on 127.0.0.1",
        ),
        (json!({ "server": { "listen": "nonsense" } }).to_string(), "expected ADDRESS:PORT"),
    ] {
        let path = home.write_config(&config);
        let (code, _, stderr) = run(&home, &["--config", &path.to_string_lossy(), "up"]).await;
        assert_eq!(code, Some(2), "{config}: {stderr}");
        assert!(stderr.contains(part), "{config}: {stderr}");
        assert!(stderr.contains("mend: "), "{config}: {stderr}");
    }
    let (code, _, stderr) = run(&home, &["up", "--config", "/nowhere/config.toml"]).await;
    assert_eq!(code, Some(2), "{stderr}");
}

#[tokio::test]
async fn a_state_directory_that_leads_or_lies_open_exits_2_with_how_to_mend_it() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    home.up(ringback()).await.terminate().await.expect_success();
    let state = home.state_dir();
    let refused = async |home: &Home, what: &str, mend: &str| {
        let (code, _, stderr) = run(home, &["up"]).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(what) && stderr.contains(&format!("mend: {mend}")), "{stderr}");
    };
    let database = state.join("ringback.db");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&database, mode(0o644)).expect("it is ours");
    refused(&home, "its mode is 644", &format!("chmod 600 {}", database.display())).await;
    std::fs::set_permissions(&database, mode(0o600)).expect("it is ours");

    let _ = std::fs::remove_dir_all(state.join("runs"));
    std::os::unix::fs::symlink(home.project(), state.join("runs")).expect("a link");
    refused(&home, "runs is a link", "move it away").await;

    let link = home.path().join("link");
    std::os::unix::fs::symlink(&state, &link).expect("a link");
    for end in ["", "/", "/."] {
        home.set_env("RINGBACK_STATE_DIR", &format!("{}{end}", link.display()));
        refused(&home, &format!("{} is a link", link.display()), "name another one").await;
    }
}

#[tokio::test]
async fn a_database_newer_than_the_program_is_left_untouched_and_exits_2() {
    let mut home = Home::new();
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    home.up(ringback()).await.terminate().await.expect_success();
    let database = home.state_dir().join("ringback.db");
    let mut bytes = std::fs::read(&database).expect("the database is there");
    // The schema version is the big-endian number at byte 60 of the file format.
    bytes[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
    std::fs::write(&database, &bytes).expect("the database can be written");
    home.set_env("RINGBACK_LOG", "error");
    let (code, _, stderr) = run(&home, &["up"]).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("newer ringback (schema 9999"), "{stderr}");
    assert_eq!(std::fs::read(&database).expect("the database is there"), bytes);
}

#[tokio::test]
async fn init_writes_a_configuration_that_loads_and_never_overwrites() {
    let mut home = Home::new();
    home.set_env("WEBHOOK_SECRET", "the-secret-of-the-hook-listener");
    let path = home.path().join("new/config.toml");
    let given = path.to_string_lossy().into_owned();
    let (code, stdout, stderr) = run(&home, &["init", "--config", &given]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let text = std::fs::read_to_string(&path).expect("init wrote it");
    assert!(!text.contains('@'), "the secret is filled in");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, 0o600);
    let (code, _, stderr) = run(&home, &["--config", &given, "init"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), text);

    let free = ringback_testkit::free_port().to_string();
    // Every commented key is a key that is known: with the comments taken off nothing is warned about.
    let everything: String = text
        .lines()
        .map(|l| if l.starts_with("# ") && (l.contains(" = ") || l.contains("[")) { &l[2..] } else { l })
        .map(|l| format!("{l}\n"))
        .collect();
    let all =
        home.write("all.toml", everything.replace("127.0.0.1:7421", "127.0.0.1:0").replace("8787", &free));
    std::fs::set_permissions(&all, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let daemon = home.spawn(ringback(), &["up", "--config", &all.to_string_lossy()]);
    daemon.wait_for_line("ready", DEADLINE).await;
    let ended = daemon.terminate().await.expect_success();
    assert!(!ended.stderr().contains("unknown key"), "{}", ended.stderr());
}

#[tokio::test]
async fn init_writes_the_file_that_is_read_and_shadows_none() {
    let mut home = Home::new();
    let json = home.write(".config/ringback/config.json", "{}");
    let (code, _, stderr) = run(&home, &["init"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("{} is there already", json.display())), "{stderr}");
    assert!(!json.with_extension("toml").exists(), "it would be read in the place of the other");

    let named = home.path().join("named/ringback.toml");
    home.set_env("RINGBACK_CONFIG", &named.to_string_lossy());
    let (code, stdout, stderr) = run(&home, &["init"]).await;
    assert_eq!((code, named.exists()), (Some(0), true), "{stderr}");
    assert!(stdout.contains(&format!("wrote {}", named.display())), "{stdout}");
    let (code, _, stderr) = run(&home, &["init"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("{} is there already", named.display())), "{stderr}");

    let other = named.with_extension("json");
    let (code, _, stderr) = run(&home, &["init", "--config", &other.to_string_lossy()]).await;
    assert_eq!((code, other.exists()), (Some(2), false), "TOML would not parse there: {stderr}");
}

#[tokio::test]
async fn sessions_without_a_daemon_are_read_from_the_files_and_say_so() {
    let home = Home::new();
    let session = crate::transcript::Transcript::new(&home, "s-alone");
    session.prompt("go");
    session.end("done");
    let (code, stdout, stderr) = run(&home, &["sessions", "--json"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let rows: serde_json::Value = serde_json::from_str(&stdout).expect("a JSON array");
    assert_eq!((&rows[0]["session_id"], &rows[0]["activity"]), (&json!("s-alone"), &json!("waiting")));
    assert!(stderr.contains("nothing is being delivered"), "{stderr}");
    assert!(!home.state_dir().join("ringback.db").exists());
    let (code, _, stderr) = run(&home, &["webhooks"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no ringback is running") && stderr.contains("ringback up"), "{stderr}");
}

#[tokio::test]
async fn sessions_beside_a_daemon_that_cannot_be_asked_do_not_say_that_none_runs() {
    let home = Home::new();
    home.write_config(r#"{"server":{"listen":"none"}}"#);
    let daemon = home.spawn(ringback(), &["up"]);
    daemon.wait_for_line("ready", DEADLINE).await;
    let (code, _, stderr) = run(&home, &["sessions"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("has no API") && stderr.contains("read from the agents' files"), "{stderr}");
    assert!(!stderr.contains("no ringback") && !stderr.contains("nothing is being"), "{stderr}");
    let (code, _, stderr) = run(&home, &["sessions", "show", "nobody"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("session not found") && stderr.contains("mend: `ringback sessions`"), "{stderr}");
    daemon.terminate().await.expect_success();

    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let daemon = home.up(ringback()).await;
    std::fs::remove_file(home.state_dir().join("api-token")).expect("it was there");
    let (code, _, stderr) = run(&home, &["webhooks"]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("process {}", daemon.pid())) && stderr.contains("mend: "), "{stderr}");
    assert!(!stderr.contains("no ringback"), "{stderr}");
    let (code, _, stderr) = run(&home, &["sessions"]).await;
    assert_eq!((code, stderr.contains("nothing is being")), (Some(0), false), "{stderr}");
}

#[tokio::test]
async fn what_the_api_refuses_has_a_mend_and_a_bad_value_exits_2_as_without_it() {
    let home = Home::new();
    let bad_agent = ["sessions", "--agent", "foo"];
    let (code, _, alone) = run(&home, &bad_agent).await;
    assert_eq!(code, Some(2), "{alone}");
    home.write_config(r#"{"server":{"listen":"127.0.0.1:0"}}"#);
    let _daemon = home.up(ringback()).await;
    let (code, _, stderr) = run(&home, &bad_agent).await;
    assert_eq!((code, &stderr), (Some(2), &alone), "the same with a daemon");
    for (args, code, mend) in [
        (&["deliveries", "list", "--limit", "0"][..], 2, "--help"),
        (&["runs", "list", "--state", "foo"], 2, "--help"),
        (&["runs", "show", "nobody"], 1, "`ringback runs`"),
        (&["runs", "logs", "nobody"], 1, "`ringback runs`"),
        (&["deliveries", "show", "nobody"], 1, "`ringback deliveries`"),
        (&["webhooks", "enable", "nobody"], 1, "`ringback webhooks`"),
        (&["sessions", "show", "nobody"], 1, "`ringback sessions`"),
        (&["hooks", "resume", "nobody"], 1, "`ringback hooks`"),
    ] {
        let (exit, _, stderr) = run(&home, args).await;
        assert_eq!(exit, Some(code), "{args:?}: {stderr}");
        let line = stderr.lines().find(|line| line.starts_with("  mend: "));
        assert!(line.is_some_and(|line| line.contains(mend)), "{args:?}: {stderr}");
    }
}

#[tokio::test]
async fn help_and_completions_name_the_commands_that_are_there_and_no_others() {
    let home = Home::new();
    let (code, help, _) = run(&home, &["--help"]).await;
    assert_eq!(code, Some(0));
    for command in [
        "up",
        "demo",
        "sessions",
        "webhooks",
        "deliveries",
        "listen",
        "trigger",
        "runs",
        "hooks",
        "main",
        "updates",
        "budget",
        "notify",
        "connect",
        "disconnect",
        "doctor",
        "init",
        "completions",
    ] {
        assert!(help.lines().any(|l| l.trim_start().starts_with(command)), "{command}: {help}");
        let (code, help, _) = run(&home, &[command, "--help"]).await;
        assert!(code == Some(0) && help.contains(&format!("ringback {command}")), "{command}: {help}");
        assert!(help.contains("Example: ") || help.contains("Examples: "), "{command}: {help}");
    }
    for later in ["tui", "dashboard"] {
        assert!(!help.lines().any(|l| l.trim_start().starts_with(later)), "{later}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&home, &["completions", shell]).await;
        assert!(code == Some(0) && script.contains("deliveries") && script.contains("config"), "{script}");
        assert!(!script.contains("hand-over") && !script.contains("demo-agent"), "{shell} offers the hidden");
    }
    let (code, _, _) = run(&home, &["nonsense"]).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn a_config_json_of_lazyagent_works_unchanged_and_says_once_what_means_nothing_here() {
    const MEANINGLESS: [&str; 6] =
        ["default_filter", "editor", "launch_at_login", "notifications", "notify_after_sec", "tui"];
    let home = Home::new();
    let receiver = Receiver::always(Answer::Status(200)).await;
    // Every key that lazyagent documents.
    let config = json!({
        "window_minutes": 30,
        "default_filter": "",
        "editor": "",
        "launch_at_login": false,
        "notifications": false,
        "notify_after_sec": 30,
        "agents": { "amp": true, "claude": true, "codex": true, "cursor": false, "grok": true, "kilo": true,
                    "kimi": true, "opencode": true, "pi": true },
        "claude_dirs": [],
        "exclude_cwd_substrings": [".claude-mem/observer-sessions"],
        "api_passphrase": "a long enough passphrase",
        "api_salt": "lazyagent-api-v1-AAAAAAAAAAAAAAAAAAAAAA",
        "tui": { "theme": "dark" },
        "webhooks": [{ "name": "desk", "url": receiver.url("/"), "secret": "shared-secret-of-both", "enabled": true,
                       "events": ["waiting", "idle"], "agents": ["claude"] }],
    });
    let path = home.write("lazyagent/config.json", config.to_string());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let daemon = home.spawn(ringback(), &["up", "--config", &path.to_string_lossy()]);
    daemon.wait_for_line("ready", DEADLINE).await;
    let session = crate::transcript::Transcript::new(&home, "s-lazy");
    session.prompt("go");
    session.end("done");
    let request = receiver.wait_for(1, DEADLINE).await.remove(0);
    assert!(request.header("x-lazyagent-signature").is_some_and(|s| s.starts_with("sha256=")));
    assert_eq!(request.json()["to"], "waiting");
    let ended = daemon.terminate().await.expect_success();
    let warnings: Vec<_> = ended.lines.iter().filter(|l| l.text.contains("WARN")).collect();
    for key in MEANINGLESS {
        let said = warnings.iter().filter(|l| l.text.contains(&format!("unknown key {key}"))).count();
        assert_eq!(said, 1, "{key}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), MEANINGLESS.len(), "and nothing else: {warnings:#?}");
}
