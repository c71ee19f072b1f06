//! The commands of declared hooks, and every sender's documented request through the program.

use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use ringback_daemon::clock;
use ringback_model::{Secret, Timestamp};
use ringback_testkit::{Daemon, Ended, Reply};
use ringback_webhook::samples::{self, Sample};
use ringback_webhook::senders::{Algorithm, Encoding, HmacSpec, Incoming, Proven, Scheme};
use serde_json::{Value, json};

use crate::hooks::sign;
use crate::inbound::{Inbound, ended};
use crate::{DEADLINE, ringback};

const HOOKS: &str = ".config/ringback/hooks";

/// A home whose agent keeps what it is asked.
fn home() -> Inbound {
    Inbound::new("cat > \"$HOME/prompt-$RINGBACK_RUN\"", json!({}))
}

async fn hooks(inbound: &Inbound, args: &[&str]) -> Ended {
    let args: Vec<&str> = std::iter::once("hooks").chain(args.iter().copied()).collect();
    inbound.home.spawn(ringback(), &args).wait(DEADLINE).await
}

fn as_json(ended: Ended) -> Value {
    serde_json::from_str(&ended.expect_success().stdout()).expect("JSON")
}

/// The remembered calls, once there are so many.
async fn calls(daemon: &Daemon, target: &str, count: usize) -> Vec<Value> {
    let give_up = tokio::time::Instant::now() + DEADLINE;
    loop {
        let listed = daemon.api_get(target).await.json();
        let items = listed["items"].as_array().expect("a list").clone();
        if items.len() == count {
            return items;
        }
        assert!(tokio::time::Instant::now() < give_up, "{count} were to come: {listed}");
        tokio::task::yield_now().await;
    }
}

fn mode(inbound: &Inbound, below: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(inbound.home.path().join(below)).expect("it was written");
    meta.permissions().mode() & 0o777
}

#[tokio::test]
async fn a_hook_is_added_tried_called_looked_at_and_replayed() {
    let inbound = home();
    let added = hooks(&inbound, &["add", "github", "ci"]).await.expect_success();
    let secret = inbound.home.read(format!("{HOOKS}/ci.secret")).expect("a secret");
    assert!(secret.trim().len() >= 43 && mode(&inbound, &format!("{HOOKS}/ci.secret")) == 0o600);
    let text = added.stdout();
    for part in
        ["path  /hook/ci", "https://YOUR-HOST/hook/ci", "Content type: application/json", "cat ", "ci.secret"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(secret.trim()) && !added.stderr().contains(secret.trim()), "the secret is shown");
    let again = hooks(&inbound, &["add", "github", "ci"]).await;
    assert!(again.code == Some(1) && again.stderr().contains("is there already"), "{}", again.stderr());
    assert_eq!(inbound.home.read(format!("{HOOKS}/ci.secret")).as_ref(), Some(&secret));
    for (sender, name, what) in [
        ("gihtub", "x", "known are alertmanager"),
        ("github", "Not A Name", "1 to 64 characters of a-z 0-9 -"),
        ("github", "agent", "not the word agent"),
        ("github", "../x", "1 to 64 characters"),
    ] {
        let refused = hooks(&inbound, &["add", sender, name]).await;
        assert_eq!(refused.code, Some(2), "{sender} {name}");
        assert!(refused.stderr().contains(what), "{}", refused.stderr());
    }

    // Without a daemon: the built-in sample through a pipe, signed here.
    let script = format!(
        "'{0}' hooks samples github workflow_run | '{0}' hooks try ci @- --sign",
        ringback().display()
    );
    let tried =
        inbound.home.spawn("/bin/sh", &["-c", &script]).wait(DEADLINE).await.expect_success().stdout();
    for part in [
        "believed: signed here",
        "outcome   accepted",
        "answer    202 {\"status\":\"accepted\"}",
        "untrusted external data",
        "\"repo\": \"octo-org/octo-repo\"",
        "The workflow data.workflow of data.repo failed on the branch data.branch, attempt 1.",
    ] {
        assert!(tried.contains(part), "{part}: {tried}");
    }
    assert!(!tried.contains(secret.trim()), "the secret is shown");
    let sample = samples::of("github").next().expect("a sample");
    inbound.home.write("payload.json", sample.body);
    let payload = format!("@{}", inbound.home.path().join("payload.json").display());
    let unsigned = as_json(hooks(&inbound, &["try", "ci", &payload, "--json"]).await);
    assert_eq!((&unsigned["proof"], &unsigned["outcome"]), (&json!("missing"), &json!("accepted")));
    let other =
        as_json(hooks(&inbound, &["try", "ci", &payload, "--sign", "--event", "push", "--json"]).await);
    assert_eq!((&other["outcome"], &other["status"]), (&json!("ignored"), &json!(202)));
    let wrong = ["try", "ci", &payload, "--header", "X-Hub-Signature-256: sha256=00", "--json"];
    let wrong = hooks(&inbound, &wrong).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stdout().contains("\"status\": 401"), "{}", wrong.stdout());
    let unknown = hooks(&inbound, &["try", "nobody", &payload]).await;
    assert!(unknown.code == Some(1) && unknown.stderr().contains("known are ci"), "{}", unknown.stderr());

    let daemon = inbound.home.up(ringback()).await;
    assert!(hooks(&inbound, &["list"]).await.expect_success().stdout().contains("/hook/ci  github  ci.md"));
    let github = async |delivery: &str, body: &[u8], signed: &[u8]| {
        let signature = sign(secret.trim(), signed);
        let headers = [
            ("x-github-event", "workflow_run"),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", signature.as_str()),
            ("authorization", "Bearer nobodys"),
        ];
        inbound.call("POST", "/hook/ci", &headers, body).await
    };
    let body = sample.body.as_bytes();
    let first = github("one", body, body).await;
    assert_eq!((first.status, first.json()), (202, json!({ "status": "accepted" })));
    let run = first.message.header("x-ringback-run").expect("a run").to_owned();
    ended(&daemon, &run).await;
    let repeated = github("one", body, body).await;
    assert_eq!(repeated.message.header("x-ringback-run"), Some(run.as_str()));
    let success = sample.body.replace("\"failure\"", "\"success\"");
    assert_eq!(github("two", success.as_bytes(), success.as_bytes()).await.json()["status"], "ignored");
    assert_eq!(github("three", b"[]", b"[]").await.status, 400);
    assert_eq!(github("four", body, b"other").await.status, 401);
    assert_eq!(github("five", b"{\"a\":1}", b"other").await.status, 401);
    let long = format!("{{\"action\":\"other\",\"text\":\"{}\"}}", "x".repeat(256 << 10));
    assert_eq!(github("six", long.as_bytes(), long.as_bytes()).await.json()["status"], "ignored");

    // What was not believed is counted and nothing else.
    let listed = calls(&daemon, "/api/hooks/ci/deliveries", 5).await;
    let seen: Vec<(&str, &str, u64)> = listed
        .iter()
        .map(|call| {
            let text = |key: &str| call[key].as_str().unwrap_or_default();
            (text("delivery_id"), text("outcome"), call["status"].as_u64().unwrap_or_default())
        })
        .collect();
    let want = [
        ("six", "ignored", 202),
        ("three", "refused", 400),
        ("two", "ignored", 202),
        ("one", "repeated", 202),
        ("one", "accepted", 202),
    ];
    assert_eq!(seen, want);
    assert_eq!(daemon.api_get("/api/hooks/ci/deliveries").await.json()["unbelieved"], 2);
    assert_eq!((&listed[4]["run"], &listed[3]["run"]), (&json!(run), &json!(run)));
    let id = listed[4]["id"].as_str().expect("an id");
    let whole = as_json(hooks(&inbound, &["deliveries", "--id", id, "--json"]).await);
    assert_eq!((whole["body"].as_str(), &whole["event"]), (Some(sample.body), &json!("workflow_run")));
    let names: Vec<&String> = whole["headers"].as_object().expect("headers").keys().collect();
    assert!(names.iter().any(|name| *name == "x-github-event"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("signature") || *name == "authorization"), "{names:?}");
    let shown = hooks(&inbound, &["deliveries", "ci", "--limit", "4"]).await.expect_success().stdout();
    assert!(shown.lines().count() == 5 && shown.lines().all(|line| line.len() <= 80), "{shown}");
    let too_long = listed[0]["id"].as_str().expect("an id");
    let not_kept = as_json(hooks(&inbound, &["deliveries", "--id", too_long, "--json"]).await);
    assert_eq!((&not_kept["body"], &not_kept["body_bytes"]), (&Value::Null, &json!(long.len())));

    // The file as it is now decides what the run of a replay is asked.
    let file = inbound.home.read(format!("{HOOKS}/ci.md")).expect("the hook");
    inbound.home.write(format!("{HOOKS}/ci.md"), file.replace("Find out why", "Now find out why"));
    let replayed = loop {
        let replay = as_json(hooks(&inbound, &["replay", id, "--json"]).await);
        let new = replay["id"].as_str().expect("a run").to_owned();
        assert!(new != run && replay["replay_of"] == id);
        assert_eq!(ended(&daemon, &new).await["state"], "completed");
        let prompt = inbound.home.read(format!("prompt-{new}")).expect("the agent kept it");
        // Until the edit is seen.
        if prompt.contains("Now find out why") {
            break prompt;
        }
    };
    assert!(replayed.contains("untrusted external data") && replayed.contains("octo-org/octo-repo"));
    for (id, what) in [(too_long, "its body was not kept"), ("4711", "call not found")] {
        let refused = hooks(&inbound, &["replay", id]).await;
        assert!(refused.code == Some(1) && refused.stderr().contains(what), "{}", refused.stderr());
    }
    let refused = hooks(&inbound, &["replay", listed[2]["id"].as_str().expect("an id")]).await;
    assert!(refused.stderr().contains("is not interested"), "{}", refused.stderr());
}

/// A sender as the test plays it: with the secret that is in its hook's file.
struct Played {
    scheme: Scheme,
    /// Discord's own half.
    key: Option<SigningKey>,
    path: String,
    public_url: String,
}

impl Played {
    fn request(&self, sample: &Sample, at: Timestamp) -> Proven {
        let mut headers = axum::http::HeaderMap::new();
        for (name, value) in sample.headers {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
        let body = sample.body.as_bytes();
        if let Some(key) = &self.key {
            let time = at.as_seconds().to_string();
            let signature = key.sign(&[time.as_bytes(), body].concat()).to_bytes();
            let hex: String = signature.iter().map(|b| format!("{b:02x}")).collect();
            headers.insert("x-signature-ed25519", hex.parse().expect("a value"));
            headers.insert("x-signature-timestamp", time.parse().expect("a value"));
            return Proven { headers, body: body.to_vec() };
        }
        let request =
            Incoming { headers: &headers, body, query: None, public_url: Some(self.public_url.as_str()) };
        self.scheme.prove(&request, at).expect("the secret is there")
    }

    /// Sends it from an address of its own, so that failures do not add up.
    async fn send(&self, inbound: &Inbound, request: &Proven, from: usize) -> Reply {
        let forwarded = format!("203.0.113.{}", from % 250 + 1);
        let mut headers: Vec<(&str, &str)> = vec![("x-forwarded-for", &forwarded)];
        let text = |value: &axum::http::HeaderValue| value.to_str().expect("text").to_owned();
        let sent: Vec<(String, String)> =
            request.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.extend(sent.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        inbound.call("POST", &self.path, &headers, &request.body).await
    }
}

/// Adds a hook for the sender, with the secret in place, and gives the sender's side of it.
async fn played(inbound: &Inbound, sender: &str) -> Played {
    let slug = format!("from-{sender}");
    let added = as_json(hooks(inbound, &["add", sender, &slug, "--json"]).await);
    assert_eq!(added["path"], format!("/hook/{slug}"));
    let key = (sender == "discord").then(|| SigningKey::from_bytes(&[7; 32]));
    let secret = match (sender, &key) {
        (_, Some(key)) => key.verifying_key().as_bytes().iter().map(|b| format!("{b:02x}")).collect(),
        _ if added["secret"] == "generated" => {
            inbound.home.read(format!("{HOOKS}/{slug}.secret")).expect("a secret").trim().to_owned()
        }
        ("svix" | "standard-webhooks", _) => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
        _ => format!("{sender}-s-own-secret"),
    };
    inbound.home.write(format!("{HOOKS}/{slug}.secret"), format!("{secret}\n"));
    let public_url = format!("https://hooks.example.com/hook/{slug}");
    let file = inbound.home.read(format!("{HOOKS}/{slug}.md")).expect("the hook");
    inbound.home.write(format!("{HOOKS}/{slug}.md"), file.replace("YOUR-HOST", "hooks.example.com"));
    let secrets = [Secret::new(secret)];
    let scheme = match sender {
        "header" => Scheme::header("X-Token", &secrets),
        "hmac" => {
            let spec = HmacSpec {
                header: "X-Gitea-Signature".to_owned(),
                prefix: String::new(),
                algorithm: Algorithm::Sha256,
                encoding: Encoding::Hex,
                signed: "{body}".to_owned(),
                timestamp: None,
                id_header: None,
                event_header: None,
            };
            Scheme::hmac(&spec, &secrets)
        }
        preset => Scheme::preset(preset, &secrets),
    };
    Played { scheme: scheme.expect("a scheme"), key, path: format!("/hook/{slug}"), public_url }
}

fn with_header(request: &Proven, name: &str, change: impl Fn(&str) -> String) -> Proven {
    let mut headers = request.headers.clone();
    let value = change(headers[name].to_str().expect("text"));
    headers.insert(name.parse::<axum::http::HeaderName>().expect("a name"), value.parse().expect("a value"));
    Proven { headers, body: request.body.clone() }
}

/// The text with its last letter or digit changed.
fn flipped(text: &str) -> String {
    let at = text.rfind(|c: char| c.is_ascii_alphanumeric()).expect("there is one");
    let other = if &text[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

#[tokio::test]
async fn every_sender_s_documented_request_gets_its_right_answer_and_one_flipped_byte_gives_401() {
    let inbound = home();
    inbound.configure_more(json!({ "inbound": { "trusted_proxies": ["127.0.0.0/8"] } }));
    let mut senders: Vec<&str> = samples::ALL.iter().map(|sample| sample.sender).collect();
    senders.dedup();
    let mut all = Vec::new();
    for sender in senders {
        all.push((sender, played(&inbound, sender).await));
    }
    let daemon = inbound.home.up(ringback()).await;
    let mut from = 0;
    for (sender, played) in &all {
        for sample in samples::of(sender) {
            let request = played.request(sample, clock::now());
            let unauthorized = json!({ "error": "unauthorized" });
            let mut wrong = Vec::new();
            let is_token =
                ["alertmanager", "basic", "bearer", "gitlab", "header", "telegram"].contains(sender);
            if !is_token {
                let mut body = request.body.clone();
                let middle = body.len() / 2;
                body[middle] ^= 1;
                wrong.push(("body", Proven { headers: request.headers.clone(), body }));
            }
            let names: Vec<String> = request.headers.keys().map(ToString::to_string).collect();
            for name in &names {
                let is_proof = played.scheme.hides(&name.parse().expect("a name"));
                if is_proof || name.ends_with("timestamp") {
                    wrong.push(("proof", with_header(&request, name, flipped)));
                }
            }
            if ["discord", "linear", "slack", "standard-webhooks", "stripe", "svix"].contains(sender) {
                let too_old = clock::now().minus(Duration::from_secs(310));
                let too_new = clock::now().plus(Duration::from_secs(400));
                wrong.push(("old", played.request(sample, too_old)));
                wrong.push(("new", played.request(sample, too_new)));
            }
            assert!(!wrong.is_empty(), "{sender}");
            for (what, request) in &wrong {
                from += 1;
                let reply = played.send(&inbound, request, from).await;
                assert_eq!((reply.status, reply.json()), (401, unauthorized.clone()), "{sender} {what}");
            }
            let reply = played.send(&inbound, &request, from).await;
            let answer = (reply.status, reply.message.text());
            let run = reply.message.header("x-ringback-run").map(str::to_owned);
            let want = match (*sender, sample.event) {
                ("slack", "url_verification") => {
                    (200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P")
                }
                ("slack", _) => (200, ""),
                ("discord", "ping") => (200, r#"{"type":1}"#),
                ("discord", _) => (200, r#"{"type":5}"#),
                ("twilio", _) => (200, "<Response/>"),
                ("github", "ping") => (202, r#"{"status":"ignored"}"#),
                _ => (202, r#"{"status":"accepted"}"#),
            };
            assert_eq!(answer, (want.0, want.1.to_owned()), "{sender} {}", sample.event);
            // The same without a daemon. Only Discord can sign as Discord does.
            let payload = inbound.home.write("payload", sample.body);
            let (slug, payload) = (format!("from-{sender}"), format!("@{}", payload.display()));
            let tried = as_json(hooks(&inbound, &["try", &slug, &payload, "--sign", "--json"]).await);
            assert_eq!((&tried["status"], &tried["answer"]), (&json!(want.0), &json!(want.1)), "{tried}");
            let proof = if *sender == "discord" { "missing" } else { "signed" };
            assert_eq!(tried["proof"], proof, "{sender}");
            let starts = !matches!(sample.event, "url_verification" | "ping");
            assert_eq!(run.is_some(), starts, "{sender} {}", sample.event);
            if let Some(run) = run {
                // The sender's other attempt at the same thing, proven anew.
                let again = played.send(&inbound, &played.request(sample, clock::now()), from).await;
                assert_eq!(again.message.header("x-ringback-run"), Some(run.as_str()), "{sender}");
            }
        }
    }
    let outcomes = calls(&daemon, "/api/hooks/deliveries?hook=from-slack&limit=1000", 3).await;
    let words: Vec<&str> = outcomes.iter().filter_map(|call| call["outcome"].as_str()).collect();
    assert_eq!(words, ["challenge", "repeated", "accepted"]);
}

#[tokio::test]
async fn samples_are_listed_with_their_source_and_printed_as_they_are() {
    let inbound = home();
    let listed = as_json(hooks(&inbound, &["samples", "--json"]).await);
    let items = listed["items"].as_array().expect("a list");
    assert_eq!(items.len(), samples::ALL.len());
    assert!(items.iter().all(|item| item["source"].as_str().is_some_and(|source| source.len() > 10)));
    let text = hooks(&inbound, &["samples", "slack"]).await.expect_success().stdout();
    assert!(text.contains("url_verification") && !text.contains("github"), "{text}");
    let unknown = hooks(&inbound, &["samples", "github", "nothing"]).await;
    assert!(
        unknown.code == Some(2) && unknown.stderr().contains("workflow_run, ping"),
        "{}",
        unknown.stderr()
    );
}

/// Requests that their senders publish whole, with secret and signature.
#[tokio::test]
async fn a_published_signature_is_believed_and_one_outside_the_window_is_refused() {
    let inbound = home();
    for (slug, auth, secret, more) in [
        ("gh", "github", "It's a Secret to Everybody", ""),
        ("sms", "twilio", "12345", "public-url: https://mycompany.com/myapp.php\n"),
        ("sl", "slack", "8f742231b10e8888abcd99yyyzzz85a5", ""),
        ("sv", "svix", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""),
    ] {
        inbound.home.write(format!("{HOOKS}/{slug}.secret"), secret);
        let file = format!("---\nauth: {{ {auth}: {{ file: {slug}.secret }} }}\n{more}---\nLook into it.\n");
        inbound.home.write(format!("{HOOKS}/{slug}.md"), file);
    }
    let _daemon = inbound.home.up(ringback()).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    // docs.github.com, "Testing the webhook payload validation": no JSON, and so a 400 of what is believed.
    let github =
        ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let reply = inbound.call("POST", "/hook/gh", &[github], b"Hello, World!").await;
    assert_eq!((reply.status, reply.json()), (400, json!({ "error": "invalid json" })));
    assert_eq!(inbound.call("POST", "/hook/gh", &[github], b"Hello, World?").await.status, 401);
    // twilio.com/docs/usage/security: the URL, its query and the form.
    let body =
        b"CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212";
    let twilio = [("x-twilio-signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="), form];
    let reply = inbound.call("POST", "/hook/sms?foo=1&bar=2", &twilio, body).await;
    assert_eq!((reply.status, reply.message.text().as_str()), (200, "<Response/>"));
    assert_eq!(inbound.call("POST", "/hook/sms?foo=1&bar=3", &twilio, body).await.status, 401);
    // docs.slack.dev and docs.svix.com: right signatures of long ago.
    let slack = [
        ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ("x-slack-request-timestamp", "1531420618"),
        form,
    ];
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    assert_eq!(inbound.call("POST", "/hook/sl", &slack, body.as_bytes()).await.status, 401);
    let svix = [
        ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("svix-timestamp", "1614265330"),
        ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    assert_eq!(inbound.call("POST", "/hook/sv", &svix, br#"{"test": 2432232314}"#).await.status, 401);
    // It is the time alone: the same request is offered to `try`, which says why.
    inbound.home.write("payload", r#"{"test": 2432232314}"#);
    let payload = format!("@{}", inbound.home.path().join("payload").display());
    let headers: Vec<String> = svix.iter().map(|(name, value)| format!("--header={name}: {value}")).collect();
    let mut args = vec!["try", "sv", payload.as_str()];
    args.extend(headers.iter().map(String::as_str));
    let tried = hooks(&inbound, &args).await;
    assert!(tried.code == Some(1) && tried.stdout().contains("outside the tolerance"), "{}", tried.stdout());
}
