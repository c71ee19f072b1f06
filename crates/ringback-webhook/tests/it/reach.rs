//! outbound.md, "Network", seen from the network: what is refused is never connected to, whoever names it and when.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ringback_model::Failure;
use ringback_webhook::guard::{Network, Policy};
use ringback_webhook::{Client, Resolve, Resolving};
use rustls::RootCertStore;

use crate::client::post_within;
use crate::guard::policy;
use crate::receiver::{Act, DEADLINE, Receiver};

const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Answers each question with the next of its answers.
pub(crate) struct Names(Mutex<VecDeque<Vec<IpAddr>>>);

impl Names {
    pub(crate) fn answering(answers: &[&[&str]]) -> Arc<Self> {
        let answer = |ips: &&[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Arc::new(Names(Mutex::new(answers.iter().map(answer).collect())))
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Resolve for Names {
    fn resolve(&self, _: &str) -> Resolving {
        let answer = self.0.lock().unwrap().pop_front();
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("more questions than answers")) })
    }
}

fn client(names: &Arc<Names>, policy: Policy) -> Client {
    Client::with_names(RootCertStore::empty(), names.clone()).unwrap().under(policy)
}

async fn post(client: &Client, url: &str) -> Result<u16, Failure> {
    post_within(client, url, DEADLINE).await.map(|answer| answer.status)
}

fn blocked(reason: &str) -> Result<u16, Failure> {
    Err(Failure::Blocked(reason.to_owned()))
}

#[tokio::test]
async fn under_server_no_spelling_of_loopback_reaches_a_listener() {
    let canary = Receiver::answering(CLOSING).await;
    let port = canary.address.port();
    let names = Names::answering(&[]);
    let client = client(&names, policy(Network::Server, &[], &[]));
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "example.com@127.0.0.1",
        "0.0.0.0",
        "0",
        "[::]",
    ] {
        let reply = post(&client, &format!("http://{host}:{port}/")).await;
        assert!(matches!(reply, Err(Failure::Blocked(_))), "{host}: {reply:?}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_resolved_address_is_vetted_like_a_written_one() {
    let canary = Receiver::answering(CLOSING).await;
    let url = format!("http://receiver.example:{}/", canary.address.port());
    for (answer, reason) in [
        (&["127.0.0.1"][..], "loopback (127.0.0.0/8)"),
        (&["::ffff:127.0.0.1"], "loopback (127.0.0.0/8)"),
        (&["0.0.0.0"], "this network (0.0.0.0/8)"),
        (&["192.168.1.1"], "private network (192.168.0.0/16)"),
        (&["64:ff9b::7f00:1"], "loopback (127.0.0.0/8)"),
        (&["169.254.169.254"], "link-local and cloud metadata (169.254.0.0/16)"),
    ] {
        let names = Names::answering(&[answer]);
        let client = client(&names, policy(Network::Server, &[], &[]));
        assert_eq!(post(&client, &url).await, blocked(reason), "{answer:?}");
        assert_eq!(names.left(), 0);
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_mixed_answer_is_refused_whatever_its_order() {
    let canary = Receiver::answering(CLOSING).await;
    let url = format!("http://receiver.example:{}/", canary.address.port());
    for answer in [
        &["8.8.8.8", "127.0.0.1"][..],
        &["127.0.0.1", "8.8.8.8"],
        &["8.8.8.8", "2001:4860:4860::8888", "::1"],
        &["8.8.8.8", "8.8.4.4", "::ffff:127.0.0.1"],
    ] {
        let names = Names::answering(&[answer]);
        let client = client(&names, policy(Network::Server, &[], &[]));
        let reply = post(&client, &url).await;
        assert!(matches!(reply, Err(Failure::Blocked(_))), "{answer:?}: {reply:?}");
    }
    let names = Names::answering(&[&["127.0.0.1", "169.254.169.254"]]);
    let reply = post(&client(&names, Policy::default()), &url).await;
    assert_eq!(reply, blocked("link-local and cloud metadata (169.254.0.0/16)"));
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_name_that_is_rebound_between_two_attempts_is_vetted_again() {
    // One address stands for the public one. The canary listens on every address, so that it would be reached at
    // the second too.
    let canary = Receiver::start_at("0.0.0.0:0", vec![Act::Send(CLOSING.into())]).await;
    let url = format!("http://receiver.example:{}/", canary.address.port());
    let names = Names::answering(&[&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.1"]]);
    let client = client(&names, policy(Network::Server, &["127.0.0.1/32"], &[]));
    assert_eq!(post(&client, &url).await, Ok(200));
    assert_eq!(post(&client, &url).await, blocked("loopback (127.0.0.0/8)"));
    assert_eq!(canary.connections(), 1);
    assert_eq!(post(&client, &url).await, Ok(200));
    assert_eq!((canary.connections(), names.left()), (2, 0));
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_not_followed() {
    let canary = Receiver::answering(CLOSING).await;
    let hop = format!(
        "HTTP/1.1 307 X\r\nlocation: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        canary.url("/")
    );
    let first = Receiver::answering(&hop).await;
    let names = Names::answering(&[&["127.0.0.1"]]);
    let client = client(&names, policy(Network::Server, &["127.0.0.1/32"], &[canary.address.port()]));
    let url = format!("http://receiver.example:{}/", first.address.port());
    assert_eq!(post(&client, &url).await, Ok(307));
    assert_eq!((first.connections(), canary.connections()), (1, 0));
}

#[tokio::test]
async fn an_own_port_is_refused_by_address_and_by_name() {
    let (own, other) = (Receiver::answering(CLOSING).await, Receiver::answering(CLOSING).await);
    let port = own.address.port();
    for policy in
        [policy(Network::Local, &[], &[port]), policy(Network::Server, &["127.0.0.0/8", "::/0"], &[port])]
    {
        let names = Names::answering(&[&["127.0.0.1"], &["127.0.0.1"], &["::ffff:127.0.0.1"]]);
        let client = client(&names, policy);
        let reason = format!("port {port} of this machine is ringback's own");
        let beside = format!("http://receiver.example:{}/", other.address.port());
        assert_eq!(post(&client, &beside).await, Ok(200));
        assert_eq!(post(&client, &own.url("/")).await, blocked(&reason));
        for _ in 0..2 {
            let by_name = format!("http://receiver.example:{port}/");
            assert_eq!(post(&client, &by_name).await, blocked(&reason));
        }
        assert_eq!(names.left(), 0);
    }
    assert_eq!((own.connections(), other.connections()), (0, 2));
}

#[tokio::test]
async fn under_local_loopback_works_and_metadata_is_refused() {
    let receiver = Receiver::answering(CLOSING).await;
    let client = Client::with_roots(RootCertStore::empty()).unwrap();
    assert_eq!(post(&client, &receiver.url("/")).await, Ok(200));
    let by_name = format!("http://localhost:{}/", receiver.address.port());
    assert_eq!(post(&client, &by_name).await, Ok(200));
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://metadata.google.internal/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
    ] {
        let reply = post(&client, url).await;
        assert!(matches!(reply, Err(Failure::Blocked(_))), "{url}: {reply:?}");
    }
}

#[tokio::test]
async fn a_connection_of_one_policy_serves_no_other() {
    let keeping = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let receiver = Receiver::answering(keeping).await;
    let url = format!("http://receiver.example:{}/", receiver.address.port());
    let names = Names::answering(&[&["127.0.0.1"], &["127.0.0.1"]]);
    let open = client(&names, policy(Network::Server, &["127.0.0.0/8"], &[]));
    let closed = open.under(policy(Network::Server, &[], &[]));
    let equal = closed.under(policy(Network::Server, &["127.0.0.0/8"], &[]));
    assert_eq!(post(&open, &url).await, Ok(200));
    assert_eq!(post(&closed, &url).await, blocked("loopback (127.0.0.0/8)"));
    // Equal policies share: nothing is asked and nothing is opened.
    assert_eq!(post(&equal, &url).await, Ok(200));
    assert_eq!((receiver.connections(), names.left()), (1, 0));
}

#[test]
fn equal_policies_are_equal_however_they_are_written() {
    let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<BTreeSet<_>>();
    let one = Policy { allow: nets(&["10.0.0.0/8", "fd00::/8"]), ..Policy::default() };
    let two = Policy { allow: nets(&["fd00::/8", "10.0.0.0/8", "10.0.0.0/8"]), ..Policy::default() };
    assert_eq!(one, two);
}
