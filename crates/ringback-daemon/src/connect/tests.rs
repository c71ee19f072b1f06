//! The sentences about `ringback connect claude`, on files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Change, Containers, Error, HandOver, Report, connect, disconnect, file, insert, remove};

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }

    fn with(text: &str) -> Home {
        let home = Home::new();
        fs::create_dir(home.agent()).unwrap();
        fs::write(home.settings(), text).unwrap();
        home
    }

    fn agent(&self) -> PathBuf {
        self.dir.path().join(".claude")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn settings(&self) -> PathBuf {
        self.agent().join("settings.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.settings()).unwrap()
    }

    fn connect(&self) -> Result<Report, Error> {
        connect(&self.agent(), &self.state(), &binary("/opt/ringback"), false)
    }

    fn disconnect(&self) -> Result<Report, Error> {
        disconnect(&self.agent(), &self.state(), false)
    }

    fn record(&self) -> PathBuf {
        self.state().join("connect/claude.json")
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn binary(path: &str) -> HandOver {
    HandOver { binary: path.into(), config: None }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

const COMMAND: &str = "'/opt/ringback' hand-over claude";

const USERS: &str = r#"{
  "model": "opus",
  "hooks": {
    "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}]
  }
}
"#;

#[test]
fn connect_prints_the_diff_it_applied() {
    let home = Home::with(USERS);
    let report = home.connect().unwrap();
    assert!(report.changed);
    assert_eq!(report.path, home.settings());
    let name = home.settings().display().to_string();
    let expected = r#"--- PATH
+++ PATH
@@ -1,6 +1,17 @@
 {
   "model": "opus",
   "hooks": {
-    "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}]
+    "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}],
+    "UserPromptSubmit": [
+      {
+        "hooks": [
+          {
+            "type": "command",
+            "command": "'/opt/ringback' hand-over claude",
+            "timeout": 1
+          }
+        ]
+      }
+    ]
   }
 }
"#;
    assert_eq!(report.diff, expected.replace("PATH", &name));
}

#[test]
fn the_entry_is_written_as_its_neighbours_are() {
    let check = |before: &str, expected: &str| {
        let edited = insert(before, "x hand-over claude").unwrap();
        assert_eq!(edited.text, expected);
    };
    let handler = r#"{"type":"command","command":"x hand-over claude","timeout":1}"#;
    let spaced = r#"{"type": "command", "command": "x hand-over claude", "timeout": 1}"#;
    check(r#"{"a":1}"#, &format!(r#"{{"a":1,"hooks":{{"UserPromptSubmit":[{{"hooks":[{handler}]}}]}}}}"#));
    check(
        r#"{"hooks": {"UserPromptSubmit": []}, "a": 1}"#,
        &format!(r#"{{"hooks": {{"UserPromptSubmit": [{{"hooks": [{spaced}]}}]}}, "a": 1}}"#),
    );
    check(
        "{\r\n\t\"hooks\": {\r\n\t\t\"UserPromptSubmit\": [\r\n\t\t\t{\"hooks\": []}\r\n\t\t]\r\n\t}\r\n}",
        "{\r\n\t\"hooks\": {\r\n\t\t\"UserPromptSubmit\": [\r\n\t\t\t{\"hooks\": []},\r\n\t\t\t{\r\n\t\t\t\t\"hooks\": [\
         \r\n\t\t\t\t\t{\r\n\t\t\t\t\t\t\"type\": \"command\",\r\n\t\t\t\t\t\t\"command\": \"x hand-over claude\",\
         \r\n\t\t\t\t\t\t\"timeout\": 1\r\n\t\t\t\t\t}\r\n\t\t\t\t]\r\n\t\t\t}\r\n\t\t]\r\n\t}\r\n}",
    );
    check(
        "{\n    \"hooks\": {}\n}\n",
        "{\n    \"hooks\": {\n        \"UserPromptSubmit\": [\n            {\n                \"hooks\": [\n                    \
         {\n                        \"type\": \"command\",\n                        \
         \"command\": \"x hand-over claude\",\n                        \"timeout\": 1\n                    }\n                \
         ]\n            }\n        ]\n    }\n}\n",
    );
}

#[test]
fn of_a_key_given_twice_the_last_one_counts_as_it_does_for_the_agent() {
    let edited = insert(r#"{"hooks":[],"hooks":{}}"#, COMMAND).unwrap();
    assert!(edited.text.starts_with(r#"{"hooks":[],"hooks":{"UserPromptSubmit":[{"#), "{}", edited.text);
}

#[test]
fn connect_twice_is_one_entry() {
    let home = Home::with(USERS);
    home.connect().unwrap();
    let once = home.text();
    let again = home.connect().unwrap();
    assert_eq!((again.changed, again.diff.as_str()), (false, ""));
    assert_eq!(home.text(), once);
}

#[test]
fn a_moved_binary_is_brought_up_to_date_and_the_way_back_stays_exact() {
    let home = Home::with(USERS);
    home.connect().unwrap();
    let moved =
        HandOver { binary: "/a much longer/path to/it's here".into(), config: Some("/etc/r.toml".into()) };
    let report = connect(&home.agent(), &home.state(), &moved, false).unwrap();
    assert!(report.changed);
    assert_eq!(home.text().matches("hand-over claude").count(), 1);
    let value: serde_json::Value = serde_json::from_str(&home.text()).unwrap();
    assert_eq!(
        value["hooks"]["UserPromptSubmit"][0]["hooks"][0]["command"],
        r"'/a much longer/path to/it'\''s here' --config '/etc/r.toml' hand-over claude"
    );
    home.disconnect().unwrap();
    assert_eq!(home.text(), USERS);
}

#[test]
fn an_edit_before_the_binary_moved_stays_after_disconnect() {
    let home = Home::with(USERS);
    home.connect().unwrap();
    fs::write(home.settings(), home.text().replacen("opus", "haiku", 1)).unwrap();
    connect(&home.agent(), &home.state(), &binary("/usr/bin/ringback"), false).unwrap();
    home.disconnect().unwrap();
    assert_eq!(home.text(), USERS.replacen("opus", "haiku", 1));
    // The same where the file was ours from the start: what was written into it is not deleted.
    let home = Home::new();
    home.connect().unwrap();
    fs::write(home.settings(), home.text().replacen('{', "{\"a\": 1,", 1)).unwrap();
    connect(&home.agent(), &home.state(), &binary("/usr/bin/ringback"), false).unwrap();
    home.disconnect().unwrap();
    assert_eq!(home.text(), "{\"a\": 1\n}\n");
}

#[test]
fn several_entries_of_ours_become_one() {
    let one = insert(USERS, COMMAND).unwrap().text;
    let entry = r#"{"hooks":[{"type":"command","command":"/old hand-over claude"}]}"#;
    let two = one.replace("\"UserPromptSubmit\": [", &format!("\"UserPromptSubmit\": [{entry},"));
    let merged = insert(&two, COMMAND).unwrap();
    assert_eq!(merged.change, Change::Merged);
    assert_eq!(merged.text.matches("hand-over claude").count(), 1);
    assert!(merged.text.contains(COMMAND));
}

#[test]
fn disconnect_twice_says_nothing_to_do() {
    let home = Home::with(USERS);
    home.connect().unwrap();
    assert!(home.record().exists());
    let first = home.disconnect().unwrap();
    assert!(first.changed && first.diff.contains("-    \"UserPromptSubmit\": ["), "{}", first.diff);
    assert_eq!(home.text(), USERS);
    assert!(!home.state().join("connect").exists());
    let second = home.disconnect().unwrap();
    assert_eq!((second.changed, second.diff.as_str()), (false, ""));
    assert!(!Home::new().disconnect().unwrap().changed);
}

#[test]
fn a_missing_file_is_made_and_goes_again_with_the_directories_made_for_it() {
    let home = Home::new();
    let agent = home.dir.path().join("deep/er/.claude");
    let settings = agent.join("settings.json");
    let report = connect(&agent, &home.state(), &binary("/opt/ringback"), false).unwrap();
    assert!(report.diff.starts_with("--- /dev/null\n+++ "), "{}", report.diff);
    assert_eq!((mode(&settings), mode(&agent), mode(agent.parent().unwrap())), (0o600, 0o700, 0o700));
    let text = fs::read_to_string(&settings).unwrap();
    assert!(
        text.starts_with("{\n  \"hooks\": {\n    \"UserPromptSubmit\": [\n") && text.ends_with("\n  }\n}\n"),
        "{text}"
    );
    let report = disconnect(&agent, &home.state(), false).unwrap();
    assert!(report.diff.contains("\n+++ /dev/null\n"), "{}", report.diff);
    assert!(!home.dir.path().join("deep").exists());
}

#[test]
fn a_directory_made_for_the_file_stays_while_others_use_it() {
    let home = Home::new();
    home.connect().unwrap();
    fs::write(home.agent().join("history.jsonl"), "x").unwrap();
    home.disconnect().unwrap();
    assert_eq!(home.names(&home.agent()), ["history.jsonl"]);
}

#[test]
fn a_file_we_made_stays_when_somebody_wrote_into_it() {
    let home = Home::new();
    home.connect().unwrap();
    fs::write(home.settings(), home.text().replacen('{', "{\n  \"model\": \"opus\",", 1)).unwrap();
    home.disconnect().unwrap();
    assert_eq!(home.text(), "{\n  \"model\": \"opus\"\n}\n");
    // One that was only laid out anew says nothing of its own.
    let home = Home::new();
    home.connect().unwrap();
    fs::write(home.settings(), home.text().replace("\n", "\n\n")).unwrap();
    home.disconnect().unwrap();
    assert!(!home.settings().exists());
}

#[test]
fn a_file_we_made_that_was_moved_behind_a_link_stays() {
    let home = Home::new();
    home.connect().unwrap();
    let kept = home.dir.path().join("dotfiles.json");
    fs::rename(home.settings(), &kept).unwrap();
    symlink(&kept, home.settings()).unwrap();
    home.disconnect().unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "{}\n");
    assert!(home.settings().is_symlink());
}

#[test]
fn settings_touched_since_lose_exactly_our_handlers() {
    let home = Home::with("{\n  \"a\": 1\n}\n");
    home.connect().unwrap();
    // Somebody put a handler of their own into our group, and a group of theirs before it.
    let touched = home
        .text()
        .replace(
            "\"timeout\": 1\n          }",
            "\"timeout\": 1\n          },\n          {\"command\": \"mine\"}",
        )
        .replace("\"UserPromptSubmit\": [", "\"UserPromptSubmit\": [\n      {\"hooks\": []},");
    fs::write(home.settings(), &touched).unwrap();
    home.disconnect().unwrap();
    let expected = r#"{
  "a": 1,
  "hooks": {
    "UserPromptSubmit": [
      {"hooks": []},
      {
        "hooks": [
          {"command": "mine"}
        ]
      }
    ]
  }
}
"#;
    assert_eq!(home.text(), expected);
}

#[test]
fn only_containers_that_we_made_go_when_they_are_empty() {
    let text = insert(r#"{"hooks":{"UserPromptSubmit":[]}}"#, COMMAND).unwrap().text;
    assert_eq!(remove(&text, Containers::default()).unwrap(), r#"{"hooks":{"UserPromptSubmit":[]}}"#);
    let made = |hooks, event| remove(&text, Containers { hooks, event }).unwrap();
    assert_eq!(made(false, true), r#"{"hooks":{}}"#);
    assert_eq!(made(true, true), "{}");
    let with_matcher = text.replace(r#"[{"hooks":"#, r#"[{"matcher":"","hooks":"#);
    let left = remove(&with_matcher, Containers { hooks: true, event: true }).unwrap();
    assert_eq!(left, r#"{"hooks":{"UserPromptSubmit":[{"matcher":"","hooks":[]}]}}"#);
}

#[test]
fn without_a_record_our_handlers_are_found_all_the_same() {
    let home = Home::with(USERS);
    home.connect().unwrap();
    for broken in [Some("no record"), None] {
        match broken {
            Some(text) => fs::write(home.record(), text).unwrap(),
            None => fs::remove_file(home.record()).unwrap(),
        }
        let dry = disconnect(&home.agent(), &home.state(), true).unwrap();
        assert!(dry.changed && dry.diff.contains("hand-over claude"), "{}", dry.diff);
    }
    home.disconnect().unwrap();
    let value: serde_json::Value = serde_json::from_str(&home.text()).unwrap();
    assert_eq!(value["hooks"]["UserPromptSubmit"], serde_json::json!([]));
    assert_eq!(value["hooks"]["Stop"][0]["hooks"][0]["command"], "say done");
}

#[test]
fn invalid_settings_are_refused_with_the_place_and_nothing_changes() {
    for (text, why) in [
        ("", "line 1, column 1: the text ends too early"),
        ("{\n  \"a\": 1,\n}\n", "line 3, column 1: a comma before the closing bracket"),
        ("{\r\n  // mine\r\n}", "line 2, column 3: comments are not part of JSON"),
        ("{\"\u{e4}\": 'x'}", "line 1, column 7: expected a value"),
        ("{} {}", "line 1, column 4: something follows the end of the value"),
        ("{\"a\": 01}", "line 1, column 8: expected , or }"),
        ("[]", "line 1, column 1: the whole is not an object"),
        ("{\"hooks\": null}", "line 1, column 11: hooks is not an object"),
        (
            "{\"hooks\": {\n\"UserPromptSubmit\": {}}}",
            "line 2, column 21: hooks.UserPromptSubmit is not an array",
        ),
    ] {
        let home = Home::with(text);
        let error = home.connect().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }));
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(home.text(), text);
        assert_eq!(home.names(&home.agent()), ["settings.json"]);
        assert!(!home.state().exists());
    }
    let home = Home::new();
    fs::create_dir(home.agent()).unwrap();
    fs::write(home.settings(), b"{\n\"a\": \"\xff\"}").unwrap();
    let error = home.connect().unwrap_err().to_string();
    assert!(error.contains("line 2, column 7: not UTF-8"), "{error}");
    let deep = "[".repeat(100_000);
    let error = insert(&deep, COMMAND).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 128"), "{error}");
}

#[test]
fn a_link_stays_a_link_and_its_target_is_written() {
    let home = Home::new();
    fs::create_dir(home.agent()).unwrap();
    let elsewhere = home.dir.path().join("dotfiles");
    fs::create_dir(&elsewhere).unwrap();
    let target = elsewhere.join("claude.json");
    fs::write(&target, USERS).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../dotfiles/claude.json", home.settings()).unwrap();
    home.connect().unwrap();
    assert_eq!(fs::read_link(home.settings()).unwrap(), Path::new("../dotfiles/claude.json"));
    assert!(fs::read_to_string(&target).unwrap().contains(COMMAND));
    assert_eq!(mode(&target), 0o640);
    assert_eq!(home.names(&elsewhere), ["claude.json"]);
    home.disconnect().unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), USERS);
    assert!(home.settings().is_symlink());
    fs::remove_file(&target).unwrap();
    let error = home.connect().unwrap_err();
    assert!(matches!(error, Error::Unfit { .. }), "{error}");
    assert!(!target.exists());
}

#[test]
fn mode_owner_and_other_names_of_the_file_are_kept() {
    let home = Home::with(USERS);
    fs::set_permissions(home.settings(), fs::Permissions::from_mode(0o664)).unwrap();
    // Only root may give a file away; for others the owner is their own, and kept as well.
    let _ = std::os::unix::fs::chown(home.settings(), Some(4321), Some(4321));
    let owner = fs::metadata(home.settings()).map(|m| (m.uid(), m.gid())).unwrap();
    home.connect().unwrap();
    assert_eq!(mode(&home.settings()), 0o664);
    assert_eq!(fs::metadata(home.settings()).map(|m| (m.uid(), m.gid())).unwrap(), owner);

    let other = home.dir.path().join("other-name");
    fs::hard_link(home.settings(), &other).unwrap();
    home.disconnect().unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), USERS);
    assert_eq!(home.text(), USERS);
}

#[test]
fn what_is_no_settings_file_is_refused() {
    let home = Home::new();
    fs::create_dir_all(home.settings()).unwrap();
    assert!(matches!(home.connect().unwrap_err(), Error::Unfit { .. }));
    assert!(matches!(home.disconnect().unwrap_err(), Error::Unfit { .. }));
}

#[test]
fn an_edit_by_another_program_at_the_same_moment_is_not_lost() {
    let home = Home::with(USERS);
    let found = file::read(&home.settings()).unwrap().unwrap();
    fs::write(home.settings(), "{}").unwrap();
    assert!(matches!(file::replace(&found, "ours"), Err(Error::Raced { .. })));
    assert!(matches!(file::delete(&found), Err(Error::Raced { .. })));
    assert!(matches!(file::create(&home.settings(), &[], "ours"), Err(Error::Raced { .. })));
    assert_eq!(home.text(), "{}");
    assert_eq!(home.names(&home.agent()), ["settings.json"]);
    fs::remove_file(home.settings()).unwrap();
    assert!(matches!(file::replace(&found, "ours"), Err(Error::Raced { .. })));
    assert!(home.names(&home.agent()).is_empty());
}

#[test]
fn a_dry_run_only_shows_the_diff() {
    let home = Home::new();
    let dry = connect(&home.agent(), &home.state(), &binary("/opt/ringback"), true).unwrap();
    assert!(dry.changed && dry.diff.contains(COMMAND));
    assert!(home.names(home.dir.path()).is_empty());
    let real = home.connect().unwrap();
    assert_eq!(dry, real);
    let text = home.text();
    let dry = disconnect(&home.agent(), &home.state(), true).unwrap();
    assert!(dry.changed);
    assert_eq!(home.text(), text);
    assert_eq!(home.disconnect().unwrap(), dry);
}

#[test]
fn what_is_remembered_is_the_owners_alone_and_holds_no_settings() {
    let home = Home::with(r#"{"env": {"ANTHROPIC_API_KEY": "sk-secret"}}"#);
    home.connect().unwrap();
    assert_eq!(
        (mode(&home.record()), mode(&home.state()), mode(home.record().parent().unwrap())),
        (0o600, 0o700, 0o700)
    );
    assert!(!fs::read_to_string(home.record()).unwrap().contains("secret"));
}

#[test]
fn two_agent_directories_are_remembered_apart() {
    let home = Home::with(USERS);
    let other = home.dir.path().join("work");
    connect(&other, &home.state(), &binary("/opt/ringback"), false).unwrap();
    home.connect().unwrap();
    disconnect(&other, &home.state(), false).unwrap();
    assert!(!other.exists());
    home.disconnect().unwrap();
    assert_eq!(home.text(), USERS);
}

#[test]
fn a_path_that_the_agent_could_not_call_is_refused() {
    let home = Home::with(USERS);
    let relative = connect(&home.agent(), &home.state(), &binary("ringback"), false).unwrap_err();
    assert!(matches!(relative, Error::Uncallable { .. }), "{relative}");
    assert_eq!(home.text(), USERS);
}
