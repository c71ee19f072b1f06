//! A receiver that does what a script says: answers bytes, falls silent, hangs up, resets, never stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// What the receiver does after it has read one whole request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Writes bytes.
    Send(Vec<u8>),
    /// Writes bytes one by one, each in a segment of its own.
    Drip(Vec<u8>),
    /// Writes the same block until the other side hangs up.
    SendForEver(Vec<u8>),
    /// Writes one byte at a time, with a pause after each, until the other side hangs up.
    DripForEver(Duration),
    /// Says nothing more until the other side hangs up.
    FallSilent,
    /// Closes the connection in order.
    HangUp,
    /// Closes the connection with a reset.
    Reset,
}

/// What the receiver saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A request.
    Request(Request),
    /// The other side ended a connection that was still being served.
    Gone,
}

/// A request as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// Names in lower case, in order of arrival.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A running receiver; it answers every request by the same script.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    pub(crate) async fn start(script: Vec<Act>) -> Self {
        Receiver::start_at("127.0.0.1:0", script).await
    }

    /// A receiver that listens elsewhere than on 127.0.0.1.
    pub(crate) async fn start_at(address: &str, script: Vec<Act>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script.clone(), tell.clone()));
            }
        });
        Receiver { address, seen, connections }
    }

    /// Answers every request with this response.
    pub(crate) async fn answering(response: &str) -> Self {
        Receiver::start(vec![Act::Send(response.as_bytes().to_vec())]).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next thing that the receiver sees.
    pub(crate) async fn next(&mut self) -> Seen {
        tokio::time::timeout(DEADLINE, self.seen.recv()).await.expect("the receiver saw nothing").unwrap()
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> Request {
        match self.next().await {
            Seen::Request(request) => request,
            Seen::Gone => panic!("the connection ended instead"),
        }
    }

    /// Whether nothing is left that was seen and not yet asked for.
    pub(crate) fn saw_nothing_more(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(mut stream: TcpStream, script: Vec<Act>, tell: mpsc::UnboundedSender<Seen>) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream).await {
        // The test may have ended.
        let _ = tell.send(Seen::Request(request));
        for act in &script {
            match act {
                Act::Send(bytes) => {
                    if stream.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                Act::Drip(bytes) => {
                    for byte in bytes {
                        if stream.write_all(&[*byte]).await.is_err() {
                            return;
                        }
                    }
                }
                Act::SendForEver(block) => {
                    while stream.write_all(block).await.is_ok() {}
                    let _ = tell.send(Seen::Gone);
                    return;
                }
                Act::DripForEver(pause) => {
                    while stream.write_all(b"x").await.is_ok() {
                        tokio::time::sleep(*pause).await;
                    }
                    let _ = tell.send(Seen::Gone);
                    return;
                }
                Act::FallSilent => {
                    // Ends when the other side closes: nothing more is sent before that.
                    let _ = stream.read(&mut [0; 1]).await;
                    let _ = tell.send(Seen::Gone);
                    return;
                }
                Act::HangUp => return,
                Act::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|l| l.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length: usize =
        headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { line, headers, body })
}
