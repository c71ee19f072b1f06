//! `cargo xtask contract`: every promise of the outgoing half names the tests that prove it.
//!
//! `docs/contract-tests.md` has a section for each one of `docs/outbound.md`, and in it a line for each promise with
//! the tests below it. This chore knows neither what a promise means nor whether a test proves it: it sees to it that
//! the tests are there, that no promise is without one, and that nobody adds a section or the row of a table to
//! `docs/outbound.md` without one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::{root, say};

const DOCUMENT: &str = "docs/outbound.md";
const PROMISES: &str = "docs/contract-tests.md";
/// The section for what no test of this repository can prove. Each line says why; none covers anything.
const UNPROVEN: &str = "Without a test";

/// Compares the two documents with each other and with the tests.
pub(crate) fn run() -> Result<()> {
    let read =
        |name: &str| fs::read_to_string(root().join(name)).with_context(|| format!("cannot read {name}"));
    let promises = promises(&read(PROMISES)?);
    let mut problems = uncovered(&read(DOCUMENT)?, &promises);
    problems.extend(unproven(&promises, &root()));
    if !problems.is_empty() {
        bail!("{PROMISES} and the tests disagree:\n  {}", problems.join("\n  "));
    }
    let (open, kept): (Vec<_>, Vec<_>) = promises.iter().partition(|p| p.section == UNPROVEN);
    let tests: BTreeSet<_> = kept.iter().flat_map(|p| &p.tests).collect();
    say(&format!("{} promises, {} tests; {} without a test", kept.len(), tests.len(), open.len()));
    Ok(())
}

/// One promise and what proves it.
#[derive(Debug, PartialEq)]
struct Promise {
    line: usize,
    /// The heading that it stands below.
    section: String,
    text: String,
    /// `FILE :: FUNCTION`.
    tests: Vec<String>,
}

/// Reads `- PROMISE` with its tests, `` - `FILE :: FUNCTION` ``, indented below it. Other text is passed over.
fn promises(text: &str) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut section = String::new();
    let mut is_open = false;
    for (line, content) in (1..).zip(text.lines()) {
        let indented = content.strip_prefix("  ").map(str::trim);
        if let Some(heading) = heading(content) {
            section = heading.to_owned();
            is_open = false;
        } else if let Some(text) = content.strip_prefix("- ") {
            let text = text.trim().to_owned();
            promises.push(Promise { line, section: section.clone(), text, tests: Vec::new() });
            is_open = true;
        } else if let (true, Some(more), Some(promise)) = (is_open, indented, promises.last_mut()) {
            match more.strip_prefix("- `").and_then(|test| test.strip_suffix('`')) {
                Some(test) => promise.tests.push(test.to_owned()),
                None => promise.text.extend([" ", more]),
            }
        } else {
            is_open = false;
        }
    }
    promises
}

/// What the document has and no promise begins with: a section, or a table's row by its first cell.
fn uncovered(document: &str, promises: &[Promise]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut section = String::new();
    let mut is_code = false;
    let mut lines = (1..).zip(document.lines()).peekable();
    while let Some((line, content)) = lines.next() {
        is_code ^= content.starts_with("```");
        if is_code {
            continue;
        }
        if let Some(heading) = heading(content) {
            section = heading.to_owned();
            if !promises.iter().any(|p| p.section == section) {
                problems.push(format!(
                    "{DOCUMENT}:{line}: the section {section:?} has no promise; add it to {PROMISES} with its tests"
                ));
            }
        }
        let is_head = lines.peek().is_some_and(|(_, next)| next.starts_with("|---"));
        let Some(cell) = first_cell(content).filter(|cell| !is_head && !cell.starts_with("---")) else {
            continue;
        };
        if !promises.iter().any(|p| p.section == section && begins_with(&p.text, cell)) {
            problems.push(format!(
                "{DOCUMENT}:{line}: no promise of the section {section:?} begins with \"{cell}: \"; add it to \
                 {PROMISES} with its tests"
            ));
        }
    }
    problems
}

/// The text of a heading below the document's title.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")).map(str::trim)
}

fn first_cell(line: &str) -> Option<&str> {
    Some(line.strip_prefix('|')?.split('|').next()?.trim())
}

fn begins_with(text: &str, cell: &str) -> bool {
    text.strip_prefix(cell).is_some_and(|rest| rest.starts_with(": "))
}

/// Promises that name no test, and tests that are not there.
fn unproven(promises: &[Promise], root: &Path) -> Vec<String> {
    let mut files: BTreeMap<&str, Result<BTreeSet<String>, String>> = BTreeMap::new();
    let mut problems = Vec::new();
    for Promise { line, section, text, tests } in promises {
        let mut problem = |what: String| problems.push(format!("{PROMISES}:{line}: {what}"));
        if tests.is_empty() != (section == UNPROVEN) {
            problem(match tests.is_empty() {
                true => format!("no test is named for: {text}"),
                false => format!("what has a test does not belong below {UNPROVEN:?}: {text}"),
            });
        }
        for test in tests {
            let Some((file, name)) = test.split_once(" :: ") else {
                problem(format!("expected `FILE :: FUNCTION`, found {test:?}"));
                continue;
            };
            let found = files.entry(file).or_insert_with(|| Ok(tests_of(&source(file, root)?)));
            match found {
                Err(why) => problem(why.clone()),
                Ok(names) if !names.contains(name) => {
                    problem(format!("{file} has no test named {name}"));
                }
                Ok(_) => {}
            }
        }
    }
    problems
}

/// The text of a file that is compiled: nothing tells of a file that is no module.
fn source(file: &str, root: &Path) -> Result<String, String> {
    let read =
        |file: &str| fs::read_to_string(root.join(file)).map_err(|_| format!("there is no file {file}"));
    let source = read(file)?;
    if let Some((krate, name)) = file.split_once("/tests/it/").filter(|(_, name)| *name != "main.rs") {
        let main = format!("{krate}/tests/it/main.rs");
        let module = format!("mod {};", name.trim_end_matches(".rs"));
        if !read(&main)?.lines().any(|line| line.ends_with(&module)) {
            return Err(format!("{main} has no line `{module}`: {file} is never compiled"));
        }
    }
    Ok(source)
}

/// The names of the functions with a test attribute, in `proptest!` too. None is switched off: a test of its own sees
/// to that.
fn tests_of(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) {
            if is_test {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                names.insert(rest[..end].to_owned());
            }
            is_test = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "# Title\n\n## Keys\n\n| key | meaning |\n|---|---|\n| `name` | a name |\n| `url` | a place |\n\n\
                       ### Odd ones\n\n```\n## no heading\n| no | row |\n```\n";

    fn check(document: &str, page: &str) -> Vec<String> {
        uncovered(document, &promises(page))
    }

    #[test]
    fn a_promise_has_its_section_its_whole_text_and_its_tests() {
        let page = "# T\n\nSome words.\n\n## Keys\n\n- `name`: is unique\n  among all\n  - `a.rs :: one`\n  \
                    - `b.rs :: two`\n- bare\n\n  - `c.rs :: not_of_any`\n";
        let promise = |line, text: &str, tests: &[&str]| Promise {
            line,
            section: "Keys".to_owned(),
            text: text.to_owned(),
            tests: tests.iter().map(|t| (*t).to_owned()).collect(),
        };
        assert_eq!(
            promises(page),
            [
                promise(7, "`name`: is unique among all", &["a.rs :: one", "b.rs :: two"]),
                promise(11, "bare", &[])
            ]
        );
    }

    #[test]
    fn every_section_and_every_row_of_the_document_needs_a_promise_in_its_section() {
        let whole = "## Keys\n- `name`: x\n- `url`: x\n### Odd ones\n- x\n";
        assert_eq!(check(DOC, whole), [""; 0]);
        for (page, part) in [
            (
                "## Keys\n- `name`: x\n## Odd ones\n- x\n",
                "outbound.md:8: no promise of the section \"Keys\" begins with \"`url`: \"",
            ),
            ("## Keys\n- `name`: x\n- the `url`: x\n## Odd ones\n- x\n", "outbound.md:8: "),
            ("## Keys\n- `name`: x\n- `url`\n## Odd ones\n- x\n", "outbound.md:8: "),
            ("## Keys\n- `name`: x\n## Odd ones\n- `url`: x\n", "outbound.md:8: "),
            ("## Keys\n- `name`: x\n- `url`: x\n", "outbound.md:10: the section \"Odd ones\" has no promise"),
        ] {
            let problems = check(DOC, page);
            assert!(problems.len() == 1 && problems[0].contains(part), "{page}: {problems:?}");
        }
    }

    #[test]
    fn a_test_is_a_function_with_the_attribute() {
        let source = "#[test]\nfn plain() {}\n#[cfg(unix)]\n#[tokio::test(flavor = \"multi_thread\")]\n\
                      #[expect(clippy::x, reason = \"y\")]\nasync fn slow() {}\nfn none() {}\nproptest! {\n    \
                      #[test]\n    fn random(\n        x in 0..1,\n    ) {}\n}\nfn off() {}\n\
                      // #[test]\nfn commented() {}\n";
        let names: Vec<_> = tests_of(source).into_iter().collect();
        assert_eq!(names, ["plain", "random", "slow"]);
    }

    #[test]
    fn a_promise_without_a_test_and_a_test_that_is_not_there_are_told_with_their_line() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("x/tests/it")).expect("it is ours");
        for (file, source) in [
            ("a.rs", "#[test]\nfn there() {}\n"),
            ("x/tests/it/main.rs", "mod used;\n"),
            ("x/tests/it/used.rs", "#[test]\nfn there() {}\n"),
            ("x/tests/it/unused.rs", "#[test]\nfn there() {}\n"),
        ] {
            fs::write(dir.path().join(file), source).expect("it is ours");
        }
        let problems = |page: &str| unproven(&promises(page), dir.path());
        assert_eq!(problems("## S\n- x\n  - `x/tests/it/used.rs :: there`\n"), [""; 0]);
        assert_eq!(problems("## S\n- x\n  - `a.rs :: there`\n## Without a test\n- y\n"), [""; 0]);
        for (page, part) in [
            ("## S\n- x\n", "contract-tests.md:2: no test is named for: x"),
            ("## S\n- x\n  - `a.rs :: gone`\n", "contract-tests.md:2: a.rs has no test named gone"),
            ("## S\n- x\n  - `b.rs :: there`\n", "contract-tests.md:2: there is no file b.rs"),
            (
                "## S\n- x\n  - `x/tests/it/unused.rs :: there`\n",
                "x/tests/it/main.rs has no line `mod unused;`: x/tests/it/unused.rs is never compiled",
            ),
            ("## S\n- x\n  - `a.rs::there`\n", "expected `FILE :: FUNCTION`"),
            ("## Without a test\n- x\n  - `a.rs :: there`\n", "does not belong below"),
        ] {
            let problems = problems(page);
            assert!(problems.len() == 1 && problems[0].contains(part), "{page}: {problems:?}");
        }
    }
}
