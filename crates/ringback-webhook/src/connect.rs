//! How a connection is made: straight to the receiver, or through a proxy, with TLS where the URL asks for it. Names
//! are looked up by [`Guarded`] alone.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use rustls::ClientConfig;
use tower_service::Service;

use crate::resolve::Guarded;

/// Makes the connections of one pool. Clones are cheap.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Way>);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Direct = HttpsConnector<HttpConnector<Guarded>>;

enum Way {
    Direct(Direct),
    Proxy {
        proxy: Uri,
        /// To the proxy, for what it is asked in the open.
        forwarded: Direct,
        /// Through the proxy, to a receiver that the proxy cannot read.
        tunnelled: Box<HttpsConnector<Tunnel<Direct>>>,
    },
}

impl Connector {
    /// Straight to the receivers.
    pub(crate) fn direct(tls: &Arc<ClientConfig>, names: Guarded) -> Self {
        Connector(Arc::new(Way::Direct(https(http(names), tls))))
    }

    /// To this proxy and nowhere else.
    pub(crate) fn proxied(
        tls: &Arc<ClientConfig>,
        names: Guarded,
        proxy: &Uri,
        credentials: Option<&HeaderValue>,
    ) -> Self {
        let forwarded = https(http(names), tls);
        let mut tunnel = Tunnel::new(proxy.clone(), forwarded.clone());
        if let Some(credentials) = credentials {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let tunnelled = Box::new(https(tunnel, tls));
        Connector(Arc::new(Way::Proxy { proxy: proxy.clone(), forwarded, tunnelled }))
    }
}

fn http(names: Guarded) -> HttpConnector<Guarded> {
    let mut http = HttpConnector::new_with_resolver(names);
    // It carries TLS as well.
    http.enforce_http(false);
    http.set_nodelay(true);
    http
}

fn https<C>(inner: C, tls: &Arc<ClientConfig>) -> HttpsConnector<C> {
    (inner, Arc::clone(tls)).into()
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, receiver: Uri) -> Self::Future {
        let way = Arc::clone(&self.0);
        Box::pin(async move {
            let is_tls = receiver.scheme() == Some(&http::uri::Scheme::HTTPS);
            Ok(match &*way {
                Way::Direct(direct) => {
                    Stream { io: connect(direct.clone(), receiver).await?, is_forwarded: false }
                }
                Way::Proxy { tunnelled, .. } if is_tls => {
                    Stream { io: connect(tunnelled.as_ref().clone(), receiver).await?, is_forwarded: false }
                }
                Way::Proxy { forwarded, proxy, .. } => {
                    Stream { io: connect(forwarded.clone(), proxy.clone()).await?, is_forwarded: true }
                }
            })
        })
    }
}

async fn connect<C>(mut connector: C, to: Uri) -> Result<Box<dyn Io>, BoxError>
where
    C: Service<Uri, Error = BoxError>,
    C::Response: Io + 'static,
{
    poll_fn(|cx| connector.poll_ready(cx)).await?;
    Ok(Box::new(connector.call(to).await?))
}

trait Io: Read + Write + Connection + Unpin + Send {}

impl<T: Read + Write + Connection + Unpin + Send> Io for T {}

/// A connection, in the open or not.
pub(crate) struct Stream {
    io: Box<dyn Io>,
    /// A proxy reads the requests, and so has to be told the whole URL.
    is_forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
