//! Ways in which a receiver can misbehave, for trying out what a sender makes of them.
//!
//! Owns: what goes over the connection, byte by byte. What came in is handed on by `receiver.rs` as always.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::receiver::{MAX_BODY, Parts};

/// What is wrong with every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// A body without end
    EndlessBody,
    /// One byte of the body a second
    Trickle,
    /// Headers without end
    HugeHeaders,
    /// 1 MiB of gzip that becomes 1 GiB
    GzipBomb,
    /// Takes the connection and never answers the TLS handshake; use it with an https address
    TlsStall,
    /// A reset in the middle of the body
    Reset,
    /// "100 Continue" again and again, and never an answer
    Continue,
    /// HTTP/1.0, where the body ends with the connection
    Http10,
    /// A good answer that promises to keep the connection, and closes it
    HangUp,
}

/// Connections that are played with at once; more wait.
const CONNECTIONS: usize = 256;
/// Longest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// What one member of the bomb becomes; members are repeated, as gzip allows.
const INFLATED: u64 = 16 << 20;
const MEMBERS: usize = 64;
const FILLER: [u8; 16 * 1024] = [b'x'; 16 * 1024];

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, fault: Fault, parts: Parts) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let bomb: Bytes = if fault == Fault::GzipBomb { member()?.repeat(MEMBERS).into() } else { Bytes::new() };
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let (parts, bomb) = (parts.clone(), bomb.clone());
        tokio::spawn(async move {
            // The sender hangs up on most of these.
            let _ = play(stream, fault, &parts, &bomb).await;
            drop(slot);
        });
    }
}

async fn play(mut stream: TcpStream, fault: Fault, parts: &Parts, bomb: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if fault == Fault::TlsStall {
        let mut ignored = [0; 4096];
        while stream.read(&mut ignored).await? > 0 {}
        return Ok(());
    }
    // Read to its end: closing a socket with unread bytes would be a reset.
    let Some((headers, body)) = read_request(&mut stream).await? else { return Ok(()) };
    let status = parts.take(headers, body).await;
    tokio::time::sleep(parts.manner.delay).await;
    let head = |version: &str, headers: &str| format!("HTTP/{version} {status}\r\n{headers}\r\n");
    match fault {
        Fault::TlsStall => {}
        Fault::EndlessBody => {
            stream.write_all(head("1.1", "transfer-encoding: chunked\r\n").as_bytes()).await?;
            loop {
                stream.write_all(b"4000\r\n").await?;
                stream.write_all(&FILLER).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Fault::Trickle => {
            stream.write_all(head("1.1", "content-length: 1000000\r\n").as_bytes()).await?;
            let mut second = tokio::time::interval(Duration::from_secs(1));
            loop {
                second.tick().await;
                stream.write_all(b"x").await?;
            }
        }
        Fault::HugeHeaders => {
            stream.write_all(format!("HTTP/1.1 {status}\r\n").as_bytes()).await?;
            loop {
                stream.write_all(b"x-filler: ").await?;
                stream.write_all(&FILLER[..4000]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Fault::GzipBomb => {
            let length = format!("content-encoding: gzip\r\ncontent-length: {}\r\n", bomb.len());
            stream.write_all(head("1.1", &length).as_bytes()).await?;
            stream.write_all(bomb).await?;
        }
        Fault::Reset => {
            stream.write_all(head("1.1", "content-length: 1000\r\n").as_bytes()).await?;
            stream.write_all(b"half").await?;
            stream.set_zero_linger()?;
            return Ok(());
        }
        Fault::Continue => loop {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        },
        Fault::Http10 => {
            stream.write_all(head("1.0", "").as_bytes()).await?;
            stream.write_all(b"fine\n").await?;
        }
        Fault::HangUp => {
            let kept = "connection: keep-alive\r\ncontent-length: 0\r\n";
            stream.write_all(head("1.1", kept).as_bytes()).await?;
        }
    }
    stream.shutdown().await
}

/// Reads one request; `None` = the connection ended, or holds no request that is taken here.
async fn read_request(stream: &mut TcpStream) -> io::Result<Option<(HeaderMap, Bytes)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let mut body = bytes.split_off(end + 4);
    let headers = headers(&bytes);
    let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
    if length > MAX_BODY {
        return Ok(None);
    }
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((headers, body.into())))
}

fn headers(head: &[u8]) -> HeaderMap {
    let lines = head.split(|b| *b == b'\n').skip(1);
    lines
        .filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
        })
        .collect()
}

/// A whole gzip file of zeros.
fn member() -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    io::copy(&mut io::repeat(0).take(INFLATED), &mut encoder)?;
    encoder.flush()?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bomb_is_a_thousand_times_smaller_than_what_it_becomes() {
        let member = member().unwrap();
        let two = member.repeat(2);
        let inflated = io::copy(&mut flate2::read::MultiGzDecoder::new(&*two), &mut io::sink()).unwrap();
        assert_eq!(inflated, 2 * INFLATED);
        assert!((member.len() as u64) < INFLATED / 900, "{}", member.len());
    }

    #[test]
    fn headers_are_read_and_what_is_none_is_left_out() {
        let read = headers(b"POST / HTTP/1.1\r\nHost: x\r\nX-A:  b \r\nnonsense\r\n\xff: 1\r\n\r\n");
        let mut shown: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        shown.sort_unstable();
        assert_eq!(shown, [("host", "x"), ("x-a", "b")]);
    }
}
