//! An HTTP proxy on loopback: forwards plain requests and tunnels others, and writes down what it was asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::http::{self, Request};

/// What a proxy was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `CONNECT`, or the method of a request that is forwarded.
    pub method: String,
    /// `host:port` of a tunnel, or the whole URL.
    pub target: String,
    /// `Proxy-Authorization`.
    pub credentials: Option<String>,
}

/// A proxy that knows some names by itself. Stops when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Aborts the listener and every connection when dropped.
    _serving: JoinSet<()>,
}

struct Shared {
    names: BTreeMap<String, SocketAddr>,
    /// A std mutex: held for a push or a clone, never across an await.
    asked: Mutex<Vec<Asked>>,
}

impl Proxy {
    /// Starts on a free port. `names` says where each `host:port` leads; any other is an address.
    pub async fn start(names: &[(&str, SocketAddr)]) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let names = names.iter().map(|(name, addr)| ((*name).to_owned(), *addr)).collect();
        let shared = Arc::new(Shared { names, asked: Mutex::default() });
        let mut serving = JoinSet::new();
        let of_server = shared.clone();
        serving.spawn(http::serve(listener, move |stream| serve(stream, of_server.clone())));
        Proxy { addr, shared, _serving: serving }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it was asked for so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<Shared>) {
    while let Ok(Some(request)) = http::read_request(&mut stream).await {
        let credentials = request.message.header("proxy-authorization").map(str::to_owned);
        shared.asked.lock().unwrap().push(Asked {
            method: request.method.clone(),
            target: request.target.clone(),
            credentials,
        });
        let done = if request.method == "CONNECT" {
            tunnel(&mut stream, &shared, &request.target).await
        } else {
            forward(&mut stream, &shared, &request).await
        };
        // A target that cannot be reached ends the connection; what the client makes of it is its own affair.
        if !matches!(done, Ok(true)) {
            return;
        }
    }
}

/// False: nothing follows a tunnel.
async fn tunnel(stream: &mut BufReader<TcpStream>, shared: &Shared, target: &str) -> std::io::Result<bool> {
    let mut to = TcpStream::connect(shared.address(target)?).await?;
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    stream.flush().await?;
    tokio::io::copy_bidirectional(stream, &mut to).await?;
    Ok(false)
}

async fn forward(
    stream: &mut BufReader<TcpStream>,
    shared: &Shared,
    request: &Request,
) -> std::io::Result<bool> {
    let rest = request.target.strip_prefix("http://").ok_or_else(|| std::io::Error::other("no whole URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let own = ["proxy-authorization", "proxy-connection", "connection", "content-length"];
    let headers: Vec<(&str, &str)> = request
        .message
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| !own.iter().any(|o| name.eq_ignore_ascii_case(o)))
        .collect();
    let to = shared.address(host)?;
    let reply = http::send(to, &request.method, &format!("/{path}"), &headers, &request.message.body).await?;
    http::write_answer(stream, reply.status, &[], &reply.message.body).await?;
    Ok(true)
}

impl Shared {
    fn address(&self, target: &str) -> std::io::Result<SocketAddr> {
        match self.names.get(target) {
            Some(addr) => Ok(*addr),
            None => target.parse().map_err(std::io::Error::other),
        }
    }
}
