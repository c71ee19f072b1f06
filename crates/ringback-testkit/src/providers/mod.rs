//! Slack, ntfy and Telegram as far as one message goes, strict: what the real one would refuse, ignore or cut is
//! refused here in its own words, so that a test that sees a message knows that it was in order.
//!
//! Each service is a function from a request to a verdict ([`Service`]); [`FakeProvider`] puts it behind a socket.

mod ntfy;
mod slack;
mod telegram;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::receiver::{Answer, Received, Receiver};

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Incoming webhooks.
    Slack,
    /// Publishing as JSON.
    Ntfy,
    /// `sendMessage`.
    Telegram,
}

impl Service {
    /// The path of its messages' address, query included.
    pub fn path(self) -> &'static str {
        match self {
            Service::Slack => "/services/T0000/B0000/token-of-the-fake",
            Service::Ntfy => "/topic-of-the-fake",
            Service::Telegram => "/bot1000001:token-of-the-fake/sendMessage?chat_id=-1000002",
        }
    }

    /// Whether a message's body is in order. Gives the refusal's status and body.
    pub fn check(self, body: &[u8]) -> Result<(), (u16, String)> {
        match self {
            Service::Slack => slack::check(body),
            Service::Ntfy => ntfy::check(body),
            Service::Telegram => telegram::check(body),
        }
    }

    fn judge(self, request: &Received) -> Result<(), (u16, String)> {
        match self {
            Service::Slack => slack::judge(request),
            Service::Ntfy => ntfy::judge(request),
            Service::Telegram => telegram::judge(request),
        }
    }

    fn accepted(self) -> &'static str {
        match self {
            Service::Slack => "ok",
            Service::Ntfy => r#"{"id":"fake","event":"message","topic":"topic-of-the-fake"}"#,
            Service::Telegram => r#"{"ok":true,"result":{"message_id":1}}"#,
        }
    }
}

/// A service on loopback. Stops when dropped.
pub struct FakeProvider {
    service: Service,
    receiver: Receiver,
    /// Std mutex: never held across an await.
    state: Arc<Mutex<State>>,
    /// The number of messages posted.
    posted: watch::Receiver<usize>,
}

struct State {
    script: VecDeque<Option<Answer>>,
    messages: Vec<Value>,
    refusals: Vec<String>,
    posted: watch::Sender<usize>,
}

impl FakeProvider {
    /// Starts on a free port.
    pub async fn start(service: Service) -> FakeProvider {
        let (sender, posted) = watch::channel(0);
        let state =
            State { script: VecDeque::new(), messages: Vec::new(), refusals: Vec::new(), posted: sender };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let receiver =
            Receiver::answering(move |request| shared.lock().unwrap().answer(service, request)).await;
        FakeProvider { service, receiver, state, posted }
    }

    /// Where its messages go, as its owner would show it but for scheme and host.
    pub fn url(&self) -> String {
        self.receiver.url(self.service.path())
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        self.receiver.url("")
    }

    /// What is answered to the next requests that are in order, one entry each; `None` = the message is posted.
    pub fn script(&self, answers: impl IntoIterator<Item = Option<Answer>>) {
        self.state.lock().unwrap().script = answers.into_iter().collect();
    }

    /// The messages posted so far.
    pub fn messages(&self) -> Vec<Value> {
        self.state.lock().unwrap().messages.clone()
    }

    /// Every request so far, refused ones too.
    pub fn requests(&self) -> Vec<Received> {
        self.receiver.requests()
    }

    /// What was refused as not in order, and why.
    pub fn refusals(&self) -> Vec<String> {
        self.state.lock().unwrap().refusals.clone()
    }

    /// Waits until `count` messages are posted and gives all of them. Panics when the deadline passes first.
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Value> {
        let mut posted = self.posted.clone();
        let enough = posted.wait_for(|seen| *seen >= count);
        match tokio::time::timeout(deadline, enough).await {
            Ok(seen) => drop(seen.expect("the state lives in self")),
            Err(_) => panic!(
                "waited {deadline:?} for {count} messages and saw {:#?}\nrefused: {:#?}",
                self.messages(),
                self.refusals()
            ),
        }
        self.messages()
    }
}

impl State {
    fn answer(&mut self, service: Service, request: &Received) -> Answer {
        if let Err((status, body)) = service.judge(request) {
            self.refusals.push(format!("{} {}: {status} {body}", request.method, request.path));
            return said(status, &body);
        }
        if let Some(answer) = self.script.pop_front().flatten() {
            return answer;
        }
        self.messages.push(request.json());
        self.posted.send_replace(self.messages.len());
        said(200, service.accepted())
    }
}

fn said(status: u16, body: &str) -> Answer {
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    let headers = vec![("content-type".to_owned(), kind.to_owned())];
    Answer::Full { status, headers, body: body.as_bytes().to_vec() }
}

fn is_json(request: &Received) -> bool {
    request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// The length in UTF-16 units, the strictest way to count characters.
fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEADLINE;
    use crate::http;
    use serde_json::json;

    fn refused(service: Service, body: &Value) -> (u16, String) {
        service.check(body.to_string().as_bytes()).expect_err(&body.to_string())
    }

    #[test]
    fn slack_refuses_in_its_own_words() {
        let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
        for (body, words) in [
            (json!({}), "no_text"),
            (json!({"text": " "}), "no_text"),
            (json!({"id": "x", "event": "state_transition"}), "no_text"),
            (json!([]), "invalid_payload"),
            (json!({"text": "x".repeat(40_001)}), "msg_too_long"),
            (json!({"text": "<!channel>"}), "a mention"),
            (json!({"text": "a & b"}), "not escaped"),
            (json!({"text": "x", "blocks": vec![section("x"); 51]}), "invalid_blocks"),
            (json!({"text": "x", "blocks": [section("")]}), "invalid_blocks"),
            (json!({"text": "x", "blocks": [section(&"x".repeat(3_001))]}), "invalid_blocks"),
            (json!({"text": "x", "blocks": [{"type": "novel"}]}), "invalid_blocks"),
        ] {
            let (status, said) = refused(Service::Slack, &body);
            assert!(status == 400 && said.contains(words), "{words}: {said}");
        }
        assert_eq!(Service::Slack.check(b"{\"text\":\"a &amp; b\"}"), Ok(()));
    }

    #[test]
    fn ntfy_refuses_in_its_own_words() {
        let topic = "topic-of-the-fake";
        for (body, words) in [
            (json!({"message": "x"}), "invalid"),
            (json!({"topic": "a/b", "message": "x"}), "topic invalid"),
            (json!({"topic": topic}), "triggered"),
            (json!({"topic": topic, "message": "x".repeat(4_097)}), "attachment"),
            (json!({"topic": topic, "message": "x", "priority": 6}), "priority"),
            (json!({"topic": topic, "message": "x", "novel": 1}), "novel"),
            (
                json!({"topic": topic, "message": "x", "actions": vec![json!({"action": "view", "label": "l", "url": "https://e.example"}); 4]}),
                "actions",
            ),
        ] {
            let (status, said) = refused(Service::Ntfy, &body);
            assert!(status == 400 && said.contains(words), "{words}: {said}");
        }
        let body = json!({"topic": topic, "message": "x"}).to_string();
        assert_eq!(Service::Ntfy.check(body.as_bytes()), Ok(()));
    }

    #[test]
    fn telegram_refuses_in_its_own_words() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"chat_id": -1000002, "text": "hello"});
            body[key] = value;
            body
        };
        let bold =
            |offset: usize, length: usize| json!([{"type": "bold", "offset": offset, "length": length}]);
        for (body, words) in [
            (json!({"text": "x"}), "chat_id is empty"),
            (with("chat_id", json!(7)), "chat not found"),
            (with("text", json!(" ")), "message text is empty"),
            (with("text", json!("x".repeat(4_097))), "message is too long"),
            (with("entities", bold(0, 6)), "can't parse entities"),
            (with("parse_mode", json!("HTML")), "parse_mode"),
            (
                with(
                    "reply_markup",
                    json!({"inline_keyboard": [[{"text": "l", "url": "http://localhost/"}]]}),
                ),
                "Wrong HTTP URL",
            ),
        ] {
            let (status, said) = refused(Service::Telegram, &body);
            assert!(status == 400 && said.contains(words), "{words}: {said}");
        }
        assert_eq!(Service::Telegram.check(with("entities", bold(0, 5)).to_string().as_bytes()), Ok(()));
        let half = json!({"chat_id": -1000002, "text": "\u{1f600}x", "entities": bold(1, 1)});
        assert!(refused(Service::Telegram, &half).1.contains("can't parse entities"));
    }

    #[tokio::test]
    async fn wrong_addresses_are_unknown_and_a_script_is_played_once() {
        for (service, wrong, status) in [
            (Service::Slack, "/services/T/B/other", 404),
            (Service::Ntfy, "/topic-of-the-fake", 400),
            (Service::Telegram, "/bot1:other/sendMessage", 401),
        ] {
            let fake = FakeProvider::start(service).await;
            let body = match service {
                Service::Slack => json!({"text": "x"}),
                Service::Ntfy => json!({"topic": "topic-of-the-fake", "message": "x"}),
                Service::Telegram => json!({"chat_id": -1000002, "text": "x"}),
            };
            let body = body.to_string();
            let right = match service {
                Service::Slack => service.path(),
                Service::Ntfy => "/",
                Service::Telegram => "/bot1000001:token-of-the-fake/sendMessage",
            };
            let kind = [("content-type", "application/json")];
            let addr = fake.receiver.addr();
            let reply = http::send(addr, "POST", wrong, &kind, body.as_bytes()).await.unwrap();
            assert_eq!(reply.status, status, "{service:?}");
            fake.script([Some(Answer::Status(500))]);
            let first = http::send(addr, "POST", right, &kind, body.as_bytes()).await.unwrap();
            let second = http::send(addr, "POST", right, &kind, body.as_bytes()).await.unwrap();
            assert_eq!((first.status, second.status), (500, 200), "{service:?}: {:?}", fake.refusals());
            assert_eq!(fake.wait_for(1, DEADLINE).await.len(), 1);
        }
    }
}
