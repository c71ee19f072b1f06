//! HTTP/1.1 as far as the tests need it: one reader of messages, one small client.
//!
//! Knows nothing of what the messages mean. Plain text on loopback only.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Headers and body of a request or an answer.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Names as sent, in order.
    pub headers: Vec<(String, String)>,
    /// The bytes of the body, without transfer coding.
    pub body: Vec<u8>,
}

impl Message {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.text()))
    }
}

/// An answer that the client got.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers and body.
    pub message: Message,
}

impl Reply {
    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        self.message.json()
    }
}

/// A request as it stands on the wire.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) message: Message,
}

impl Request {
    /// The target without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Takes connections and plays `play` on each until this future is dropped.
pub(crate) async fn serve<F>(listener: TcpListener, play: impl Fn(BufReader<TcpStream>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                // Without this the answer waits for the peer's delayed acknowledgement, and latencies mean nothing.
                let _ = stream.set_nodelay(true);
                connections.spawn(play(BufReader::new(stream)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Reads the next request of a connection; `None` when the peer closed it in between.
pub(crate) async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some(first) = read_line(stream).await? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other(format!("no request line: {first:?}")));
    };
    let mut message = Message { headers: read_headers(stream).await?, body: Vec::new() };
    message.body = read_body(stream, &message, false).await?;
    Ok(Some(Request { method: method.to_owned(), target: target.to_owned(), message }))
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(crate) async fn send(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Reply> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("host: {to}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;

    let first = read_line(&mut stream).await?.unwrap_or_default();
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no status line: {first:?}")))?;
    let mut message = Message { headers: read_headers(&mut stream).await?, body: Vec::new() };
    message.body = read_body(&mut stream, &message, true).await?;
    Ok(Reply { status, message })
}

/// Writes an answer with a body of known length.
pub(crate) async fn write_answer(
    stream: &mut BufReader<TcpStream>,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} scripted\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 && status != 304 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

async fn read_headers(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| io::Error::other(format!("no header: {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

async fn read_body(
    stream: &mut BufReader<TcpStream>,
    head: &Message,
    until_close: bool,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = read_line(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                read_headers(stream).await?;
                return Ok(body);
            }
            stream.take(size).read_to_end(&mut body).await?;
            read_line(stream).await?;
        }
    } else if let Some(length) = head.header("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        stream.take(length).read_to_end(&mut body).await?;
        if (body.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else if until_close {
        stream.read_to_end(&mut body).await?;
    }
    Ok(body)
}

/// Sends one request on a connection of its own, with exactly these headers beside connection, content-length and,
/// unless it is given, host. Panics when there is no answer.
pub async fn request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    send(to, method, target, headers, body).await.unwrap_or_else(|e| panic!("{method} {target} at {to}: {e}"))
}
