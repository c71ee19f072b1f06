//! Foreign judges: the official Standard Webhooks libraries for Python and JavaScript, and the Python snippet of the
//! documentation, accept what we sign and nothing else.
//!
//! The judges are installed by `cargo xtask`, which names their directory in `RINGBACK_JUDGES`: `venv/bin/python`
//! and `node_modules` are in it. Each reads cases as JSON lines and prints `ok` or `bad: why` for each.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::HeaderMap;
use ringback_model::event::EventKind;
use ringback_model::{EventId, Secret, Timestamp};
use ringback_webhook::request::Post;
use ringback_webhook::{Client, Key};
use serde_json::json;

use crate::documentation::docs;
use crate::receiver::DEADLINE;
use crate::sign::signed_now;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const RAW: &str = "a passphrase, not base64 \u{e9}";
const BODY: &str = "{\"event\":\"state_transition\",\"session_name\":\"caf\u{e9} \u{1f600}\"}";

/// One request, one receiver's secret, and what the receiver must say by each scheme.
struct Case {
    name: &'static str,
    secret: &'static str,
    headers: HeaderMap,
    body: &'static str,
    standard: bool,
    lazyagent: bool,
}

fn case(
    name: &'static str,
    signed_with: &[&str],
    secret: &'static str,
    standard: bool,
    lazyagent: bool,
) -> Case {
    Case {
        name,
        secret,
        headers: signed_now(signed_with, 1, BODY.as_bytes()),
        body: BODY,
        standard,
        lazyagent,
    }
}

fn cases() -> Vec<Case> {
    vec![
        case("before the rotation, old secret", &[OLD], OLD, true, true),
        case("before the rotation, new secret", &[OLD], NEW, false, false),
        case("during the rotation, old secret", &[NEW, OLD], OLD, true, false),
        case("during the rotation, new secret", &[NEW, OLD], NEW, true, true),
        case("after the rotation, old secret", &[NEW], OLD, false, false),
        case("after the rotation, new secret", &[NEW], NEW, true, true),
        case("raw secret", &[RAW], RAW, true, true),
        case("from raw to whsec_", &[NEW, RAW], RAW, true, false),
        case("unsigned", &[], NEW, false, false),
        Case { body: "{}", ..case("another body", &[NEW], NEW, false, false) },
        Case { headers: stale(), ..case("an old timestamp", &[NEW], NEW, false, true) },
    ]
}

/// Forms of a secret that ringback reads and the official libraries do not.
fn lenient_cases() -> Vec<Case> {
    vec![
        case("whsec_ without padding", &["whsec_SmVmZQ"], "whsec_SmVmZQ", true, true),
        case("whsec_ without base64", &["whsec_no base64"], "whsec_no base64", true, true),
        case("whsec_ without anything", &["whsec_"], "whsec_", true, true),
    ]
}

fn stale() -> HeaderMap {
    let keys = [Key::new(&Secret::new(NEW))];
    let event_id: EventId = "f47ac10b-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
    let at = Timestamp::from_millis(1_779_201_000_000);
    let kind = EventKind::StateTransition;
    Post { keys: &keys, event_id, kind, body: BODY.as_bytes(), attempt: 1, at }.headers()
}

#[test]
fn the_official_python_library_accepts_what_we_sign() {
    let Some(judges) = judges() else { return };
    let mut judge = command(&judges.join("venv/bin/python"));
    judge.arg(script("judge.py"));
    assert_verdicts(judge, &cases(), |case| case.standard);
}

#[test]
fn the_official_javascript_library_accepts_what_we_sign() {
    let Some(judges) = judges() else { return };
    let mut judge = command(Path::new("node"));
    // Modules are looked for beside the script, which is not where they are installed.
    judge.arg(script("judge.mjs")).arg(judges.join("node_modules"));
    assert_verdicts(judge, &cases(), |case| case.standard);
}

#[test]
fn the_documented_python_snippet_accepts_what_we_sign_in_both_schemes() {
    let Some(judges) = judges() else { return };
    let judge = |scheme: &str| {
        let mut judge = command(&judges.join("venv/bin/python"));
        judge.arg("-B").arg(script("judge_documented.py")).arg(docs()).arg(scheme);
        judge
    };
    let cases: Vec<Case> = cases().into_iter().chain(lenient_cases()).collect();
    assert_verdicts(judge("standard"), &cases, |case| case.standard);
    assert_verdicts(judge("lazyagent"), &cases, |case| case.lazyagent);
}

#[tokio::test]
async fn the_documented_python_receiver_takes_each_event_once_and_nothing_unsigned() {
    let Some(judges) = judges() else { return };
    let mut python = command(&judges.join("venv/bin/python"));
    python.arg("-B").arg(docs().join("verify_webhook.py")).env("RINGBACK_SECRET", NEW).env("PORT", "0");
    let mut receiver = Child(python.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(receiver.0.stdout.take().unwrap()).lines();
    let url = said.next().unwrap().unwrap().strip_prefix("listening on ").unwrap().to_owned();
    let client = Client::with_roots(rustls::RootCertStore::empty()).unwrap();
    let body = r#"{"agent":"claude","session_id":"s","from":"running","to":"waiting"}"#;
    let mut statuses = Vec::new();
    // Unsigned; then twice the same event, as after a crash; then a second one.
    for (secrets, body, id) in [
        (&[][..], body.to_owned(), 1),
        (&[NEW, OLD][..], body.to_owned(), 1),
        (&[NEW, OLD][..], body.to_owned(), 1),
        (&[NEW][..], body.replace("waiting", "idle"), 2),
    ] {
        let headers = signed_now(secrets, id, body.as_bytes());
        let now = Timestamp::from_millis(0);
        let reply = client.send(&url.parse().unwrap(), headers, body.into(), DEADLINE, now).await;
        statuses.push(reply.unwrap().status);
    }
    assert_eq!(statuses, [401, 204, 204, 204]);
    let told: Vec<String> = said.take(2).map(Result::unwrap).collect();
    assert_eq!(told, ["claude s running -> waiting", "claude s running -> idle"]);
}

/// A process that ends with its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the judges are. Without them the tests have nothing to ask; where CI runs, they must be there.
fn judges() -> Option<PathBuf> {
    let found = env::var_os("RINGBACK_JUDGES").map(PathBuf::from);
    if found.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "RINGBACK_JUDGES is not set, and this is CI");
        // Not through `eprintln`: the test harness hides what a passing test prints that way.
        let skipped =
            b"SKIPPED: RINGBACK_JUDGES is not set; `cargo xtask` installs the foreign judges and sets it\n";
        std::io::stderr().write_all(skipped).unwrap();
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance")).join(name)
}

fn command(program: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the judges are programs in other languages")]
    Command::new(program)
}

fn assert_verdicts(mut judge: Command, cases: &[Case], expected: impl Fn(&Case) -> bool) {
    let lines: String = cases
        .iter()
        .map(|case| {
            let headers: serde_json::Map<_, _> = case
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            format!("{}\n", json!({ "secret": case.secret, "headers": headers, "body": case.body }))
        })
        .collect();
    let mut child = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{judge:?}: {}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), cases.len(), "{said}");
    for (case, verdict) in cases.iter().zip(said.lines()) {
        assert!(verdict == "ok" || verdict.starts_with("bad: "), "{}: {verdict}", case.name);
        assert_eq!(verdict == "ok", expected(case), "{}: {verdict}", case.name);
    }
}
