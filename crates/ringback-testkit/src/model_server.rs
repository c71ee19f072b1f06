//! The model that a real agent CLI talks to: a script instead of a mind.
//!
//! Owns: which turn of the script a request gets, the log of requests, and the truth that follows from them, namely
//! what the agent was doing when. Speaks Anthropic Messages (`anthropic`) and OpenAI Responses (`responses`).
//!
//! Deliberately absent: any state of a conversation. The turn is the number of model turns that the request itself
//! shows, so retries, `--resume` and forks need nothing from here.

mod anthropic;
mod responses;
mod script;
mod truth;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{self, Message, Request};

pub use script::{Script, Turn};
pub use truth::Truth;

/// What a request wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The turn of the conversation with this number, from 0.
    Turn(usize),
    /// A title, a topic, a quota: nothing of the conversation.
    Side,
}

/// One model call as it arrived.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// When its last byte was read.
    pub at: Instant,
    /// The request target.
    pub path: String,
    /// What it wanted.
    pub asked: Asked,
    /// Headers and body.
    pub message: Message,
}

/// A scripted model server on loopback, for one agent session at a time. Stops when dropped.
pub struct ModelServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Aborts the listener and every connection when dropped.
    _serving: JoinSet<()>,
}

pub(crate) struct Shared {
    script: Script,
    /// Std mutexes: held for a push or a clone, never across an await.
    requests: Mutex<Vec<ModelRequest>>,
    truth: Mutex<Vec<Truth>>,
    /// Raised with each request and each truth; whoever waits, waits on this.
    grew: watch::Sender<usize>,
}

impl ModelServer {
    /// Starts on a free port.
    pub async fn start(script: Script) -> ModelServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            script,
            requests: Mutex::default(),
            truth: Mutex::default(),
            grew: watch::Sender::new(0),
        });
        let mut serving = JoinSet::new();
        let of_server = shared.clone();
        serving.spawn(http::serve(listener, move |stream| serve(stream, of_server.clone())));
        ModelServer { addr, shared, _serving: serving }
    }

    /// Its base address, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All model calls so far, side requests included.
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// What the agent was doing so far: each change of activity with its moment. Thinking begins when a request
    /// comes in, tools run from the last block of an answer until the next request, and waiting begins with the end
    /// of an answer without tools.
    pub fn truth(&self) -> Vec<Truth> {
        self.shared.truth.lock().unwrap().clone()
    }

    /// Waits until the truth so far satisfies `enough` and gives it. Panics when the deadline passes first.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        enough: impl Fn(&[Truth]) -> bool,
    ) -> Vec<Truth> {
        let mut grew = self.shared.grew.subscribe();
        let waited = tokio::time::timeout(deadline, async {
            loop {
                grew.borrow_and_update();
                let truth = self.truth();
                if enough(&truth) {
                    return truth;
                }
                grew.changed().await.expect("the sender lives in self");
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("waited {deadline:?} for {what}; the truth is {:?}", self.truth()))
    }
}

impl Shared {
    fn log(&self, request: &Request, asked: Asked) {
        let at = Instant::now();
        self.requests.lock().unwrap().push(ModelRequest {
            at,
            path: request.target.clone(),
            asked,
            message: request.message.clone(),
        });
        if let Asked::Turn(_) = asked {
            self.note(Truth { at, activity: ringback_model::Activity::Thinking });
        }
        self.grew.send_modify(|n| *n += 1);
    }

    /// Notes a change; the same activity again is none.
    fn note(&self, now: Truth) {
        let mut truth = self.truth.lock().unwrap();
        if truth.last().is_none_or(|last| last.activity != now.activity) {
            truth.push(now);
        }
    }

    /// Notes what follows a turn: its tools, or the wait for the user. Called before the agent can read the end of
    /// the answer, so that its next request never comes first.
    fn note_end_of(&self, turn: &Turn, asked: Asked) {
        if let Asked::Turn(_) = asked {
            self.note(Truth { at: Instant::now(), activity: turn.activity_after() });
            self.grew.send_modify(|n| *n += 1);
        }
    }

    fn turn(&self, asked: Asked) -> Turn {
        match asked {
            Asked::Turn(number) => self.script.turn(number).clone(),
            Asked::Side => Turn::text(json!({"title": "Scripted title", "isNewTopic": true}).to_string()),
        }
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<Shared>) {
    while let Ok(Some(request)) = http::read_request(&mut stream).await {
        // A client that goes away in mid-answer has ended its turn in its own way: there is nothing to tell it.
        if !matches!(route(&mut stream, &request, &shared).await, Ok(Connection::Kept)) {
            return;
        }
    }
}

/// Whether another request may follow on a connection.
enum Connection {
    Kept,
    Used,
}

async fn route(
    stream: &mut BufReader<TcpStream>,
    request: &Request,
    shared: &Shared,
) -> std::io::Result<Connection> {
    let path = request.path();
    match request.method.as_str() {
        "HEAD" => answer_json(stream, 200, None).await,
        "GET" if path.ends_with("/v1/models") => {
            answer_json(stream, 200, Some(&json!({"object": "list", "data": [], "models": []}))).await
        }
        "POST" if path.ends_with("/v1/messages/count_tokens") => {
            answer_json(stream, 200, Some(&json!({"input_tokens": tokens(request.message.body.len())}))).await
        }
        "POST" if path.ends_with("/v1/messages") => anthropic::answer(stream, request, shared).await,
        "POST" if path.ends_with("/v1/responses") => responses::answer(stream, request, shared).await,
        _ => {
            let error =
                json!({"type": "error", "error": {"type": "not_found_error", "message": "no such path"}});
            answer_json(stream, 404, Some(&error)).await
        }
    }
}

async fn answer_json(
    stream: &mut BufReader<TcpStream>,
    status: u16,
    body: Option<&Value>,
) -> std::io::Result<Connection> {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let body = body.map(ToString::to_string).unwrap_or_default();
    http::write_answer(stream, status, &headers, body.as_bytes()).await?;
    Ok(Connection::Kept)
}

/// A stream of server-sent events; it ends with the connection.
struct Events<'a> {
    stream: &'a mut BufReader<TcpStream>,
}

impl<'a> Events<'a> {
    async fn open(stream: &'a mut BufReader<TcpStream>) -> std::io::Result<Events<'a>> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                    connection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        Ok(Events { stream })
    }

    async fn send(&mut self, data: &Value) -> std::io::Result<()> {
        let name = data["type"].as_str().unwrap_or("message");
        self.stream.write_all(format!("event: {name}\ndata: {data}\n\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// Lets the model think: `beat` goes out now and every second, so that no client takes the stream for dead.
    async fn think(&mut self, delay: Duration, beat: &Value) -> std::io::Result<()> {
        self.send(beat).await?;
        let end = tokio::time::Instant::now() + delay;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.tick().await;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                _ = ticks.tick() => self.send(beat).await?,
            }
        }
    }
}

/// A text in the pieces in which a model streams it.
fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(40).map(|piece| piece.iter().collect()).collect()
}

/// A number of tokens that looks plausible for so many bytes.
fn tokens(bytes: usize) -> usize {
    (bytes / 4).max(1)
}

/// The texts of a message's content, whichever of the two protocols it is from.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks.iter().filter_map(|b| match b.get("text") {
                Some(Value::String(text)) => Some(text.clone()),
                _ => b.get("content").map(text_of),
            });
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
