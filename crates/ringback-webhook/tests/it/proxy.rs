//! Attempts through a proxy that the owner asked for, and what the guard still refuses.

use ringback_model::Failure;
use ringback_testkit::Proxy;
use ringback_webhook::Client;
use ringback_webhook::guard::{Network, Policy};
use ringback_webhook::proxy::Proxies;
use rustls::RootCertStore;

use crate::client::post_within;
use crate::reach::Names;
use crate::receiver::{DEADLINE, Receiver};
use crate::tls::Authority;

const EMPTY_OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn through(url: &str) -> Proxies {
    Proxies::from_variables(|name| (name == "ALL_PROXY").then_some(url)).unwrap().unwrap()
}

/// A client with these answers to questions for names; each address in them is one answer.
fn client(proxy: &str, names: &[&[&str]], network: Network) -> Client {
    let client = Client::with_names(RootCertStore::empty(), Names::answering(names)).unwrap();
    client.through(through(proxy)).under(Policy { network, ..Policy::default() })
}

#[tokio::test]
async fn a_plain_url_is_forwarded_with_the_proxy_s_credentials_and_its_name_is_the_proxy_s_to_know() {
    let target = Receiver::answering(EMPTY_OK).await;
    let proxy = Proxy::start(&[("hooks.test", target.address)]).await;
    // No answer at all: behind a proxy names of the rest of the world are often not known.
    let client = client(&format!("http://user:hunter2@{}", proxy.addr()), &[], Network::Server);
    let answer = post_within(&client, "http://hooks.test/in?k=1", DEADLINE).await.unwrap();
    assert_eq!(answer.status, 200);
    let asked = proxy.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "http://hooks.test/in?k=1"));
    assert_eq!(asked.credentials.as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn an_https_url_is_tunnelled_and_its_certificate_is_the_receiver_s() {
    let authority = Authority::new();
    let url = authority.serve("secure.test").await;
    let address = url.trim_start_matches("https://").trim_end_matches('/').parse().unwrap();
    let proxy = Proxy::start(&[("secure.test:443", address)]).await;
    let client = Client::with_names(authority.roots(), Names::answering(&[])).unwrap();
    let client = client.through(through(&format!("http://user:hunter2@{}", proxy.addr())));
    let answer = post_within(&client, "https://secure.test/", DEADLINE).await.unwrap();
    assert_eq!((answer.status, answer.excerpt.as_str()), (200, "secure"));
    let asked = proxy.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("CONNECT", "secure.test:443"));
    assert_eq!(asked.credentials.as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
}

#[tokio::test]
async fn addresses_and_names_that_are_refused_are_not_asked_of_the_proxy() {
    let proxy = Proxy::start(&[]).await;
    let at = format!("http://{}", proxy.addr());
    for (network, url, names, reason) in [
        (Network::Server, "http://127.0.0.1:9/", &[][..], "loopback (127.0.0.0/8)"),
        (Network::Local, "http://169.254.169.254/", &[], "link-local and cloud metadata (169.254.0.0/16)"),
        (Network::Local, "http://metadata.goog/", &[], "name of a cloud metadata service"),
        (
            Network::Server,
            "http://inside.test/",
            &[&["203.0.114.1", "10.0.0.1"][..]],
            "private network (10.0.0.0/8)",
        ),
    ] {
        let reply = post_within(&client(&at, names, network), url, DEADLINE).await;
        assert_eq!(reply, Err(Failure::Blocked(reason.to_owned())), "{url}");
    }
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_proxy_is_reached_in_a_private_network_but_not_where_nothing_is_reached() {
    let target = Receiver::answering(EMPTY_OK).await;
    let proxy = Proxy::start(&[("hooks.test", target.address)]).await;
    let port = proxy.addr().port();
    // The first question is for the target, the second for the proxy. Its own loopback address is allowed although the
    // profile allows public ones only: the owner named it.
    let by_name = format!("http://proxy.test:{port}");
    let named = client(&by_name, &[&["203.0.114.1"], &["127.0.0.1"]], Network::Server);
    assert_eq!(post_within(&named, "http://hooks.test/", DEADLINE).await.map(|a| a.status), Ok(200));

    let rebound = client(&by_name, &[&["203.0.114.1"], &["169.254.169.254"]], Network::Local);
    let reply = post_within(&rebound, "http://hooks.test/", DEADLINE).await;
    assert_eq!(reply, Err(Failure::Blocked("link-local and cloud metadata (169.254.0.0/16)".to_owned())));
    let metadata = client("http://169.254.169.254:80", &[], Network::Local);
    let reply = post_within(&metadata, "http://hooks.test/", DEADLINE).await;
    let why = "the proxy: link-local and cloud metadata (169.254.0.0/16)";
    assert_eq!(reply, Err(Failure::Blocked(why.to_owned())));
}
