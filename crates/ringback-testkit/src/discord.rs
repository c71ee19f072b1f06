//! Discord's REST API as far as messages go, strict: what Discord would ignore or repair is refused here.
//!
//! Three routes: create a direct message channel, create a message, execute a webhook. A request is refused with an
//! answer in Discord's form when a header, a field, a length or a rule is not right, so that a test that sees a
//! message here knows that all of them were.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::receiver::{Answer, Received, Receiver};

/// Who and what exists on the fake Discord.
#[derive(Clone, Debug)]
pub struct FakeDiscordConfig {
    /// The bot's token, without the word `Bot`.
    pub token: String,
    /// The user that the bot may write to.
    pub user_id: String,
    /// The channel that the bot may write to.
    pub channel_id: String,
    /// The channel webhook.
    pub webhook_id: String,
    /// The channel webhook's token.
    pub webhook_token: String,
}

impl Default for FakeDiscordConfig {
    fn default() -> Self {
        FakeDiscordConfig {
            token: "MTAx.bot-token.of-the-fake".to_owned(),
            user_id: "100000000000000001".to_owned(),
            channel_id: "200000000000000001".to_owned(),
            webhook_id: "300000000000000001".to_owned(),
            webhook_token: "webhook-token_of-the-fake".to_owned(),
        }
    }
}

/// What goes wrong with a request that is in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DiscordFault {
    /// 429, with this wait in the body in seconds and in whole seconds in the header.
    RateLimited(f64),
    /// 401.
    Unauthorized,
    /// 403, code 50001.
    MissingAccess,
    /// 403, code 50007: the user takes no direct messages.
    ClosedDms,
    /// 500, no JSON.
    InternalError,
    /// No answer, the connection stays open.
    Hang,
    /// The message is posted and the connection is cut before the answer.
    LostAnswer,
}

/// A message that was posted.
#[derive(Clone, Debug)]
pub struct DiscordMessage {
    /// Its id.
    pub id: String,
    /// The id of the channel, or of the webhook.
    pub to: String,
    /// The request's body.
    pub body: Value,
}

impl DiscordMessage {
    /// Its text; empty for a card.
    pub fn content(&self) -> &str {
        self.body["content"].as_str().unwrap_or_default()
    }
}

/// A Discord on loopback. Stops when dropped.
pub struct FakeDiscord {
    config: FakeDiscordConfig,
    receiver: Receiver,
    /// Std mutex: never held across an await.
    state: Arc<Mutex<State>>,
    /// The number of messages posted.
    posted: watch::Receiver<usize>,
}

struct State {
    config: FakeDiscordConfig,
    faults: VecDeque<Option<DiscordFault>>,
    /// The user's direct message channel and how often it was asked for.
    direct_channel: Option<String>,
    direct_channels_made: usize,
    /// By channel and nonce: the message's number.
    nonces: HashMap<(String, String), usize>,
    messages: Vec<DiscordMessage>,
    refusals: Vec<String>,
    posted: watch::Sender<usize>,
}

impl FakeDiscord {
    /// Starts on a free port.
    pub async fn start(config: FakeDiscordConfig) -> FakeDiscord {
        let (sender, posted) = watch::channel(0);
        let state = Arc::new(Mutex::new(State {
            config: config.clone(),
            faults: VecDeque::new(),
            direct_channel: None,
            direct_channels_made: 0,
            nonces: HashMap::new(),
            messages: Vec::new(),
            refusals: Vec::new(),
            posted: sender,
        }));
        let shared = state.clone();
        let receiver = Receiver::answering(move |request| shared.lock().unwrap().answer(request)).await;
        FakeDiscord { config, receiver, state, posted }
    }

    /// Who and what exists here.
    pub fn config(&self) -> &FakeDiscordConfig {
        &self.config
    }

    /// `http://127.0.0.1:PORT`, for `api_base`.
    pub fn base_url(&self) -> String {
        self.receiver.url("")
    }

    /// The channel webhook's URL as Discord shows it; `api_base` leads it here.
    pub fn webhook_url(&self) -> String {
        let FakeDiscordConfig { webhook_id, webhook_token, .. } = &self.config;
        format!("https://discord.com/api/webhooks/{webhook_id}/{webhook_token}")
    }

    /// What happens to the next requests that are in order, one entry each; `None` = nothing goes wrong.
    pub fn script(&self, faults: impl IntoIterator<Item = Option<DiscordFault>>) {
        self.state.lock().unwrap().faults = faults.into_iter().collect();
    }

    /// The direct message channel ceases to exist; the next one has another id.
    pub fn drop_direct_channel(&self) {
        self.state.lock().unwrap().direct_channel = None;
    }

    /// How often the direct message channel was asked for, with success.
    pub fn direct_channels_made(&self) -> usize {
        self.state.lock().unwrap().direct_channels_made
    }

    /// The messages posted so far.
    pub fn messages(&self) -> Vec<DiscordMessage> {
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
    pub async fn wait_for(&self, count: usize, deadline: Duration) -> Vec<DiscordMessage> {
        let mut posted = self.posted.clone();
        let enough = posted.wait_for(|seen| *seen >= count);
        match tokio::time::timeout(deadline, enough).await {
            Ok(seen) => drop(seen.expect("the state lives in self")),
            Err(_) => panic!(
                "waited {deadline:?} for {count} messages on Discord and saw {:#?}\nrefused: {:#?}",
                self.messages(),
                self.refusals()
            ),
        }
        self.messages()
    }
}

/// Whether a webhook's body is in order; the words of the refusal if not.
pub fn check_discord_message(body: &[u8]) -> Result<(), String> {
    let message: Message = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    message.check().map_err(|Refusal(_, _, why)| why)
}

/// An answer in Discord's form: status, code and message.
struct Refusal(u16, u64, String);

impl Refusal {
    fn form(why: impl Into<String>) -> Refusal {
        Refusal(400, 50_035, format!("Invalid Form Body: {}", why.into()))
    }
}

impl State {
    fn answer(&mut self, request: &Received) -> Answer {
        match self.handle(request) {
            Ok(answer) => answer,
            Err(Refusal(status, code, message)) => {
                self.refusals.push(format!("{} {}: {status} {message}", request.method, request.path));
                error(status, code, &message, &[])
            }
        }
    }

    fn handle(&mut self, request: &Received) -> Result<Answer, Refusal> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        if request.method != "POST" {
            return Err(Refusal(405, 0, "405: Method Not Allowed".to_owned()));
        }
        match segments[..] {
            ["api", "v10", "users", "@me", "channels"] => {
                self.check_bot(request, query)?;
                self.create_direct_channel(request)
            }
            ["api", "v10", "channels", channel, "messages"] => {
                self.check_bot(request, query)?;
                self.create_message(channel, request)
            }
            // An entry of `webhooks` keeps its path where the host is not Discord's.
            ["api", "webhooks", id, token] | ["api", "v10", "webhooks", id, token] => {
                self.execute_webhook(id, token, query, request)
            }
            _ => Err(Refusal(404, 0, "404: Not Found".to_owned())),
        }
    }

    fn check_bot(&self, request: &Received, query: &str) -> Result<(), Refusal> {
        check_headers(request)?;
        if request.header("authorization") != Some(&format!("Bot {}", self.config.token)) {
            return Err(Refusal(401, 0, "401: Unauthorized".to_owned()));
        }
        if !query.is_empty() {
            return Err(Refusal::form(format!("unknown query {query:?}")));
        }
        Ok(())
    }

    fn create_direct_channel(&mut self, request: &Received) -> Result<Answer, Refusal> {
        let body: CreateDirectChannel = parse(request)?;
        if body.recipient_id != self.config.user_id {
            return Err(Refusal(400, 50_033, "Invalid Recipient(s)".to_owned()));
        }
        if let Some(fault) = self.next_fault() {
            return Ok(fault);
        }
        self.direct_channels_made += 1;
        let id = self.direct_channel.get_or_insert(format!("40000000000000000{}", self.direct_channels_made));
        let recipients = json!([{"id": body.recipient_id, "username": "somebody"}]);
        Ok(ok(json!({"type": 1, "recipients": recipients, "last_message_id": null, "id": id})))
    }

    fn create_message(&mut self, channel: &str, request: &Received) -> Result<Answer, Refusal> {
        let body: CreateMessage = parse(request)?;
        body.message().check()?;
        match (&body.nonce, body.enforce_nonce) {
            (Some(nonce), Some(true)) if (1..=25).contains(&nonce.chars().count()) => {}
            (None, None) => {}
            _ => return Err(Refusal::form("nonce: 1 to 25 characters, with enforce_nonce: true")),
        }
        if channel != self.config.channel_id && Some(channel) != self.direct_channel.as_deref() {
            return Err(Refusal(404, 10_003, "Unknown Channel".to_owned()));
        }
        self.post(channel, body.nonce, request)
    }

    fn execute_webhook(
        &mut self,
        id: &str,
        token: &str,
        query: &str,
        request: &Received,
    ) -> Result<Answer, Refusal> {
        check_headers(request)?;
        if request.header("authorization").is_some() {
            return Err(Refusal::form("a webhook takes no authorization"));
        }
        if id != self.config.webhook_id {
            return Err(Refusal(404, 10_015, "Unknown Webhook".to_owned()));
        }
        if token != self.config.webhook_token {
            return Err(Refusal(401, 50_027, "Invalid Webhook Token".to_owned()));
        }
        let mut waits = false;
        let mut takes_components = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("wait", "true")) => waits = true,
                Some(("with_components", "true")) => takes_components = true,
                Some(("thread_id", id)) if id.bytes().all(|b| b.is_ascii_digit()) => {}
                _ => return Err(Refusal::form(format!("unknown query {pair:?}"))),
            }
        }
        let body: Message = parse(request)?;
        body.check()?;
        if !body.components.is_empty() && !takes_components {
            return Err(Refusal::form("components without with_components=true would be ignored"));
        }
        let answer = self.post(id, None, request)?;
        match answer {
            Answer::Full { status: 200, .. } if !waits => Ok(Answer::Status(204)),
            answer => Ok(answer),
        }
    }

    fn post(&mut self, to: &str, nonce: Option<String>, request: &Received) -> Result<Answer, Refusal> {
        let lost = self.faults.front() == Some(&Some(DiscordFault::LostAnswer));
        let fault = self.next_fault();
        if let Some(answer) = fault
            && !lost
        {
            return Ok(answer);
        }
        let key = nonce.map(|nonce| (to.to_owned(), nonce));
        let number = match key.as_ref().and_then(|key| self.nonces.get(key)) {
            Some(number) => *number,
            None => self.add(to, request),
        };
        self.nonces.extend(key.map(|key| (key, number)));
        if lost {
            return Ok(Answer::Reset);
        }
        let message = &self.messages[number];
        Ok(ok(json!({"type": 0, "id": message.id, "channel_id": to, "content": message.content()})))
    }

    fn add(&mut self, to: &str, request: &Received) -> usize {
        let number = self.messages.len();
        let id = format!("5000000000000{number:05}");
        self.messages.push(DiscordMessage { id, to: to.to_owned(), body: request.json() });
        self.posted.send_replace(self.messages.len());
        number
    }

    /// The next fault as an answer.
    fn next_fault(&mut self) -> Option<Answer> {
        Some(match self.faults.pop_front()?? {
            DiscordFault::RateLimited(seconds) => {
                let body = json!({"message": "You are being rate limited.", "retry_after": seconds, "global": false});
                let whole = seconds.ceil().to_string();
                let headers = [
                    ("content-type", "application/json"),
                    ("retry-after", &whole),
                    ("x-ratelimit-limit", "5"),
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset-after", &seconds.to_string()),
                    ("x-ratelimit-bucket", "fake"),
                    ("x-ratelimit-scope", "user"),
                ];
                full(429, &headers, &body)
            }
            DiscordFault::Unauthorized => error(401, 0, "401: Unauthorized", &[]),
            DiscordFault::MissingAccess => error(403, 50_001, "Missing Access", &[]),
            DiscordFault::ClosedDms => error(403, 50_007, "Cannot send messages to this user", &[]),
            DiscordFault::InternalError => {
                Answer::Full { status: 500, headers: Vec::new(), body: b"<h1>500</h1>".to_vec() }
            }
            DiscordFault::Hang => Answer::Hang,
            DiscordFault::LostAnswer => Answer::Reset,
        })
    }
}

fn check_headers(request: &Received) -> Result<(), Refusal> {
    let is_agent = request.header("user-agent").is_some_and(|agent| agent.starts_with("DiscordBot ("));
    if !is_agent {
        return Err(Refusal(403, 40_333, "internal network error".to_owned()));
    }
    if request.header("content-type") != Some("application/json") {
        return Err(Refusal::form("content-type must be application/json"));
    }
    Ok(())
}

fn parse<T: for<'de> Deserialize<'de>>(request: &Received) -> Result<T, Refusal> {
    serde_json::from_slice(&request.message.body).map_err(|error| Refusal::form(error.to_string()))
}

fn ok(body: Value) -> Answer {
    full(200, &[("content-type", "application/json")], &body)
}

fn error(status: u16, code: u64, message: &str, headers: &[(&str, &str)]) -> Answer {
    full(status, headers, &json!({"message": message, "code": code}))
}

fn full(status: u16, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer::Full { status, headers, body: body.to_string().into_bytes() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateDirectChannel {
    recipient_id: String,
}

/// [`Message`] with a nonce, which webhooks do not have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateMessage {
    content: Option<String>,
    #[serde(default)]
    embeds: Vec<Embed>,
    #[serde(default)]
    components: Vec<Row>,
    allowed_mentions: AllowedMentions,
    nonce: Option<String>,
    enforce_nonce: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    content: Option<String>,
    #[serde(default)]
    embeds: Vec<Embed>,
    #[serde(default)]
    components: Vec<Row>,
    allowed_mentions: AllowedMentions,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedMentions {
    parse: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Embed {
    title: Option<String>,
    description: Option<String>,
    color: Option<u32>,
    #[serde(default)]
    fields: Vec<Field>,
    footer: Option<Footer>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    value: String,
    #[serde(default, rename = "inline")]
    _inline: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    text: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    r#type: u8,
    components: Vec<Button>,
}

/// Only links: nobody listens to other buttons.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Button {
    r#type: u8,
    style: u8,
    label: String,
    url: String,
}

impl CreateMessage {
    fn message(&self) -> Message {
        Message {
            content: self.content.clone(),
            embeds: self.embeds.clone(),
            components: self.components.clone(),
            allowed_mentions: self.allowed_mentions.clone(),
        }
    }
}

impl Message {
    fn check(&self) -> Result<(), Refusal> {
        if !self.allowed_mentions.parse.is_empty() {
            return Err(Refusal::form("allowed_mentions must be {\"parse\":[]}"));
        }
        let content = self.content.as_deref().unwrap_or_default();
        if content.trim().is_empty() && self.embeds.is_empty() && self.components.is_empty() {
            return Err(Refusal(400, 50_006, "Cannot send an empty message".to_owned()));
        }
        at_most("content", content, 2_000)?;
        if self.embeds.len() > 10 || self.components.len() > 5 {
            return Err(Refusal::form("at most 10 embeds and 5 rows"));
        }
        let mut total = 0;
        for embed in &self.embeds {
            total += embed.check()?;
        }
        if total > 6_000 {
            return Err(Refusal::form(format!("embeds: {total} characters together, 6000 are possible")));
        }
        self.components.iter().try_for_each(Row::check)
    }
}

impl Embed {
    /// Gives the length of its texts together.
    fn check(&self) -> Result<usize, Refusal> {
        let title = self.title.as_deref().unwrap_or_default();
        let description = self.description.as_deref().unwrap_or_default();
        let footer = self.footer.as_ref().map_or("", |footer| footer.text.as_str());
        if title.trim().is_empty() && description.trim().is_empty() && self.fields.is_empty() {
            return Err(Refusal::form("embed: says nothing"));
        }
        if self.color.is_some_and(|color| color > 0xff_ff_ff) || self.fields.len() > 25 {
            return Err(Refusal::form("embed: a colour of 24 bits and at most 25 fields"));
        }
        let mut total = at_most("title", title, 256)?;
        total += at_most("description", description, 4_096)?;
        total += at_most("footer", footer, 2_048)?;
        for Field { name, value, .. } in &self.fields {
            if name.trim().is_empty() || value.trim().is_empty() {
                return Err(Refusal::form("field: name and value are required"));
            }
            total += at_most("field name", name, 256)? + at_most("field value", value, 1_024)?;
        }
        Ok(total)
    }
}

impl Row {
    fn check(&self) -> Result<(), Refusal> {
        if self.r#type != 1 || !(1..=5).contains(&self.components.len()) {
            return Err(Refusal::form("row: type 1 with 1 to 5 buttons"));
        }
        for Button { r#type, style, label, url } in &self.components {
            if (*r#type, *style) != (2, 5) || label.trim().is_empty() || !url.starts_with("https://") {
                return Err(Refusal::form("button: a link with a label and an https url"));
            }
            at_most("label", label, 80)?;
            at_most("url", url, 512)?;
        }
        Ok(())
    }
}

/// Gives the length in UTF-16 units, the strictest way to count characters.
fn at_most(what: &str, text: &str, limit: usize) -> Result<usize, Refusal> {
    let length = text.encode_utf16().count();
    if length > limit {
        return Err(Refusal::form(format!("{what}: {length} characters, {limit} are possible")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DEADLINE;
    use crate::http::{self, Reply};

    async fn post(fake: &FakeDiscord, path: &str, body: &Value) -> Reply {
        let authorization = format!("Bot {}", fake.config().token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("user-agent", "DiscordBot (test, 1)"),
        ];
        let headers = if path.starts_with("/webhooks") { &headers[1..] } else { &headers[..] };
        send(fake, path, headers, body).await
    }

    async fn send(fake: &FakeDiscord, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let target = format!("/api/v10{path}");
        http::send(fake.receiver.addr(), "POST", &target, headers, body.to_string().as_bytes()).await.unwrap()
    }

    async fn fake() -> (FakeDiscord, String, String) {
        let fake = FakeDiscord::start(FakeDiscordConfig::default()).await;
        let FakeDiscordConfig { channel_id, webhook_id, webhook_token, .. } = fake.config();
        let channel = format!("/channels/{channel_id}/messages");
        let webhook = format!("/webhooks/{webhook_id}/{webhook_token}");
        (fake, channel, webhook)
    }

    fn with(field: &str, value: Value) -> Value {
        let mut body = json!({"content": "x", "allowed_mentions": {"parse": []}});
        body[field] = value;
        body
    }

    fn card(field: &str, value: Value) -> Value {
        let mut embed = json!({"title": "t"});
        embed[field] = value;
        with("embeds", json!([embed]))
    }

    fn button(style: u8, url: &str) -> Value {
        with(
            "components",
            json!([{"type": 1, "components": [
                {"type": 2, "style": style, "label": "l", "url": url},
            ]}]),
        )
    }

    #[tokio::test]
    async fn what_is_not_in_order_is_refused() {
        let (fake, channel, webhook) = fake().await;
        let field = json!({"name": "n", "value": "v".repeat(1_024)});
        for (why, path, body, status, code) in [
            ("empty", &channel, with("content", json!(" ")), 400, 50_006),
            ("long", &channel, with("content", json!("x".repeat(2_001))), 400, 50_035),
            ("unknown field", &channel, with("tts", json!(true)), 400, 50_035),
            ("no allowed_mentions", &channel, json!({"content": "x"}), 400, 50_035),
            ("mentions", &channel, with("allowed_mentions", json!({"parse": ["everyone"]})), 400, 50_035),
            ("nonce without enforce_nonce", &channel, with("nonce", json!("n")), 400, 50_035),
            ("nonce for a webhook", &webhook, with("nonce", json!("n")), 400, 50_035),
            ("long title", &channel, card("title", json!("t".repeat(257))), 400, 50_035),
            ("long description", &channel, card("description", json!("d".repeat(4_097))), 400, 50_035),
            ("empty field", &channel, card("fields", json!([{"name": "", "value": "v"}])), 400, 50_035),
            (
                "26 fields",
                &channel,
                card("fields", json!(vec![json!({"name": "n", "value": "v"}); 26])),
                400,
                50_035,
            ),
            ("over 6000", &channel, card("fields", json!(vec![field; 6])), 400, 50_035),
            ("button without a handler", &channel, button(1, "https://e.com"), 400, 50_035),
            ("http button", &channel, button(5, "http://e.com"), 400, 50_035),
            ("ignored buttons", &webhook, button(5, "https://e.com"), 400, 50_035),
            ("unknown channel", &"/channels/1/messages".to_owned(), with("content", json!("x")), 404, 10_003),
            ("unknown webhook", &"/webhooks/1/t".to_owned(), with("content", json!("x")), 404, 10_015),
            ("unknown route", &"/channels".to_owned(), with("content", json!("x")), 404, 0),
            ("unknown user", &"/users/@me/channels".to_owned(), json!({"recipient_id": "1"}), 400, 50_033),
        ] {
            let reply = post(&fake, path, &body).await;
            assert_eq!((reply.status, reply.json()["code"].as_u64()), (status, Some(code)), "{why}");
        }
        assert_eq!((fake.messages().len(), fake.refusals().len()), (0, 19));
    }

    #[tokio::test]
    async fn a_request_without_the_right_headers_is_refused() {
        let (fake, channel, webhook) = fake().await;
        let token = format!("Bot {}", fake.config().token);
        let (agent, json) = (("user-agent", "DiscordBot (test, 1)"), ("content-type", "application/json"));
        let body = with("content", json!("x"));
        for (path, headers, status) in [
            (&channel, vec![agent, json], 401),
            (&channel, vec![agent, json, ("authorization", "Bot other")], 401),
            (&channel, vec![json, ("authorization", token.as_str())], 403),
            (&channel, vec![agent, ("authorization", token.as_str())], 400),
            (&webhook, vec![agent, json, ("authorization", token.as_str())], 400),
        ] {
            assert_eq!(send(&fake, path, &headers, &body).await.status, status, "{headers:?}");
        }
        assert_eq!(fake.messages().len(), 0);
    }

    #[tokio::test]
    async fn an_enforced_nonce_posts_once_and_answers_with_the_first_message() {
        let (fake, channel, _) = fake().await;
        let mut body = with("nonce", json!("n"));
        body["enforce_nonce"] = json!(true);
        let first = post(&fake, &channel, &body).await.json();
        let second = post(&fake, &channel, &body).await.json();
        assert_eq!(first["id"], second["id"]);
        assert_eq!(fake.wait_for(1, DEADLINE).await.len(), 1);
    }

    #[tokio::test]
    async fn a_script_is_played_once_and_in_order() {
        let (fake, channel, webhook) = fake().await;
        fake.script([None, Some(DiscordFault::RateLimited(0.5)), Some(DiscordFault::ClosedDms)]);
        let body = with("content", json!("x"));
        let mut replies = Vec::new();
        for path in [&format!("{webhook}?wait=true"), &channel, &channel, &channel] {
            replies.push(post(&fake, path, &body).await);
        }
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 429, 403, 200]);
        assert_eq!(replies[1].message.header("retry-after"), Some("1"));
        assert_eq!(replies[1].json()["retry_after"], 0.5);
        assert_eq!(replies[2].json()["code"], 50_007);
        assert_eq!(fake.messages().len(), 2);
    }
}
