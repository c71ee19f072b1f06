//! Rules that no compiler holds. A failure names the file and the line.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository: tracked, or new and not ignored.
struct File {
    /// Below the root, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    // At run time: a target directory that two checkouts share may hold the other one's build.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&here).parent().expect("xtask lies in the workspace").to_owned()
}

fn files() -> Vec<File> {
    #[expect(
        clippy::disallowed_methods,
        reason = "git is the one who knows which files are the repository's"
    )]
    let mut git = std::process::Command::new("git");
    // A checkout may belong to somebody else than the user who tests it.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = git.current_dir(root()).output().expect("git can be started");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let files: Vec<File> = String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
        .filter_map(|path| {
            // A file that is deleted but still tracked, or that is no text, has no lines to look at.
            let text = fs::read_to_string(root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text })
        })
        .collect();
    assert!(files.iter().any(|f| f.path == "Cargo.toml"), "the list of files is not that of the repository");
    files
}

/// All lines that `bad` finds, as `path:line: text`.
fn offences(files: &[File], bad: impl Fn(&File, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if bad(file, line) {
                let shown: String = line.trim().chars().take(120).collect();
                found.push(format!("{}:{}: {shown}", file.path, index + 1));
            }
        }
    }
    found
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Where packages come from is the business of the machine's own set-up. The names are put together here, so that
/// this file holds none.
#[test]
fn no_file_names_a_package_registry() {
    let hosts: Vec<String> = [
        ["npmjs", "org"],
        ["npmjs", "com"],
        ["yarnpkg", "com"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["crates", "io"],
        ["golang", "org"],
        ["rubygems", "org"],
        ["deb.debian", "org"],
    ]
    .iter()
    .map(|parts| parts.join("."))
    .collect();
    // Cargo writes the name of its index into each entry of its lock file.
    let index = format!("{}-index", ["crates", "io"].join("."));
    assert_none(&offences(&files(), |file, line| {
        let line = if file.path == "Cargo.lock" { line.replace(&index, "") } else { line.to_owned() };
        hosts.iter().any(|host| line.contains(host.as_str()))
    }));
}

#[test]
fn no_file_names_a_path_of_the_machine_it_was_written_on() {
    let places: Vec<String> = ["work", "root"].iter().map(|name| format!("/{name}/")).collect();
    assert_none(&offences(&files(), |file, line| {
        // Recorded sessions hold what agents wrote, and Codex names its sub-agents as if below the root user.
        let recorded = file.path.starts_with("fixtures/") || file.path.contains("/fixtures/");
        !recorded && places.iter().any(|place| is_absolute_in(line, place))
    }));
}

/// Whether the place is in the line, and not as the inner part of a longer path.
fn is_absolute_in(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '~' | '}' | '*'))
    })
}

#[test]
fn every_crate_inherits_the_workspaces_lints() {
    let manifests: Vec<File> = files().into_iter().filter(|f| f.path.ends_with("/Cargo.toml")).collect();
    assert!(manifests.len() > 5, "only {} crates found", manifests.len());
    let bare: Vec<String> = manifests
        .into_iter()
        .filter(|f| !f.text.contains("[lints]\nworkspace = true"))
        .map(|f| f.path)
        .collect();
    assert_none(&bare);
}

#[test]
fn every_file_of_tests_is_part_of_its_test_program() {
    let files = files();
    let mut forgotten = Vec::new();
    for file in &files {
        let Some((dir, name)) = file.path.split_once("/tests/it/") else { continue };
        let Some(module) = name.strip_suffix(".rs").filter(|m| *m != "main" && !m.contains('/')) else {
            continue;
        };
        let main = format!("{dir}/tests/it/main.rs");
        let declared = files.iter().find(|f| f.path == main).is_some_and(|f| {
            f.text.lines().any(|l| l.trim_start_matches("pub ") == format!("mod {module};"))
        });
        if !declared {
            forgotten.push(format!("{}: {main} has no `mod {module};`", file.path));
        }
    }
    assert_none(&forgotten);
}

#[test]
fn no_test_is_switched_off() {
    let mark = ["#[", "ignore"].concat();
    let found = offences(&files(), |file, line| file.path.ends_with(".rs") && line.contains(&mark));
    assert_none(&found);
}
