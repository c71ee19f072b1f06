//! https: whom the client trusts, and that every failure of the handshake is said to be one.

use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringback_model::Failure;
use ringback_webhook::Client;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::client::post_within;
use crate::receiver::{Act, DEADLINE, Receiver};

/// A certificate authority made for one test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// An https receiver that answers 200; gives its URL.
    pub(crate) async fn serve(&self, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us ends the handshake; that is what some tests are about.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure").await;
                let _ = stream.shutdown().await;
            }
        });
        url
    }
}

fn assert_tls(reply: &ringback_model::delivery::Reply) {
    assert!(matches!(reply, Err(Failure::Tls(text)) if !text.is_empty()), "{reply:?}");
}

#[tokio::test]
async fn a_receiver_of_a_trusted_authority_gets_the_request() {
    let authority = Authority::new();
    let url = authority.serve("127.0.0.1").await;
    let client = Client::with_roots(authority.roots()).unwrap();
    let answer = post_within(&client, &url, DEADLINE).await.unwrap();
    assert_eq!((answer.status, answer.excerpt.as_str()), (200, "secure"));
}

#[tokio::test]
async fn an_unknown_authority_is_a_tls_failure() {
    let url = Authority::new().serve("127.0.0.1").await;
    let client = Client::with_roots(Authority::new().roots()).unwrap();
    assert_tls(&post_within(&client, &url, DEADLINE).await);
    let nobody = Client::with_roots(RootCertStore::empty()).unwrap();
    assert_tls(&post_within(&nobody, &url, DEADLINE).await);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_tls_failure() {
    let authority = Authority::new();
    let url = authority.serve("elsewhere.example").await;
    let client = Client::with_roots(authority.roots()).unwrap();
    assert_tls(&post_within(&client, &url, DEADLINE).await);
}

#[tokio::test]
async fn a_receiver_without_tls_is_a_tls_failure() {
    // A server that does not wait for a whole request, as a mail or SSH server would: a plain banner first.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let client = Client::with_roots(RootCertStore::empty()).unwrap();
    assert_tls(&post_within(&client, &url, DEADLINE).await);
}

#[tokio::test]
async fn a_receiver_that_hangs_up_during_the_handshake_is_a_tls_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // All of the greeting is taken, so that the end is an orderly one.
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let client = Client::with_roots(RootCertStore::empty()).unwrap();
    assert_tls(&post_within(&client, &url, DEADLINE).await);
}

#[tokio::test]
async fn a_handshake_that_never_ends_times_out() {
    let receiver = Receiver::start(vec![Act::FallSilent]).await;
    let client = Client::with_roots(RootCertStore::empty()).unwrap();
    let url = format!("https://{}/", receiver.address);
    let short = std::time::Duration::from_millis(150);
    assert_eq!(post_within(&client, &url, short).await, Err(Failure::Timeout));
}
