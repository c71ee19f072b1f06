//! What one attempt sends, and what it makes of every kind of answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use ringback_model::delivery::{Answer, Reply};
use ringback_model::{Failure, Timestamp};
use ringback_webhook::Client;
use ringback_webhook::client::{BODY_LIMIT, EXCERPT_LIMIT};
use ringback_webhook::guard::Policy;
use rustls::RootCertStore;
use tokio::net::TcpSocket;

use crate::receiver::{Act, DEADLINE, Receiver, Seen};

/// Long enough for everything that is not meant to run out of time.
const AMPLE: Duration = Duration::from_secs(10);
/// For attempts that are meant to run out of time.
const SHORT: Duration = Duration::from_millis(150);

const EMPTY_OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn client() -> Client {
    Client::with_roots(RootCertStore::empty()).unwrap()
}

pub(crate) async fn post_within(client: &Client, url: &str, timeout: Duration) -> Reply {
    let body = Bytes::from_static(b"{\"a\":1}");
    let url = url.parse().unwrap();
    let attempt = client.send(&url, HeaderMap::new(), body, timeout, Timestamp::from_millis(0));
    tokio::time::timeout(DEADLINE, attempt).await.expect("the attempt outlived its timeout")
}

pub(crate) async fn post(url: &str) -> Reply {
    post_within(&client(), url, AMPLE).await
}

/// The reply to a scripted answer.
async fn reply(script: Vec<Act>) -> Reply {
    post(&Receiver::start(script).await.url("/")).await
}

async fn answer(response: &str) -> Answer {
    reply(vec![Act::Send(response.as_bytes().to_vec())]).await.unwrap()
}

#[tokio::test]
async fn an_attempt_posts_the_headers_and_the_exact_bytes() {
    let mut receiver = Receiver::answering(EMPTY_OK).await;
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("e1"));
    headers.insert("user-agent", HeaderValue::from_static("ringback/1"));
    let body = Bytes::from_static(b" {\"b\":2,\n\"a\":\"\xc3\xa9\"} ");
    let url = receiver.url("/in?x=1");
    let reply =
        client().send(&url.parse().unwrap(), headers, body.clone(), AMPLE, Timestamp::from_millis(0)).await;
    assert_eq!(reply, Ok(Answer { status: 200, ..Answer::default() }));
    let request = receiver.request().await;
    assert_eq!(request.line, "POST /in?x=1 HTTP/1.1");
    assert_eq!(request.header("webhook-id"), Some("e1"));
    assert_eq!(request.header("user-agent"), Some("ringback/1"));
    assert_eq!(request.header("host"), Some(receiver.address.to_string().as_str()));
    assert_eq!(request.body, body);
}

#[tokio::test]
async fn credentials_in_the_url_become_basic_authorization_and_leave_the_request_line() {
    let mut receiver = Receiver::answering(EMPTY_OK).await;
    let url = format!("http://bob:p%40ss@{}/in", receiver.address);
    assert!(post(&url).await.is_ok());
    let request = receiver.request().await;
    // base64 of "bob:p@ss"
    assert_eq!(request.header("authorization"), Some("Basic Ym9iOnBAc3M="));
    assert_eq!(request.line, "POST /in HTTP/1.1");
    assert_eq!(request.header("referer"), None);
}

#[tokio::test]
async fn an_authorization_of_the_endpoint_goes_before_that_of_its_url() {
    let mut receiver = Receiver::answering(EMPTY_OK).await;
    let url = format!("http://bob:p%40ss@{}/in", receiver.address).parse().unwrap();
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789"))]);
    let sent = client().send(&url, headers, Bytes::new(), AMPLE, Timestamp::from_millis(0)).await;
    assert_eq!(sent.unwrap().status, 200);
    let request = receiver.request().await;
    let given: Vec<_> = request.headers.iter().filter(|(name, _)| name == "authorization").collect();
    assert_eq!(given, [&("authorization".to_owned(), "Bearer 0123456789".to_owned())]);
}

#[tokio::test]
async fn any_status_is_an_answer() {
    for status in [200u16, 204, 299, 400, 404, 408, 410, 418, 425, 429, 500, 503, 599] {
        let answer = answer(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(answer, Answer { status, ..Answer::default() });
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let answer = answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!((answer.status, answer.excerpt.as_str()), (202, "hi"));
}

#[tokio::test]
async fn redirects_are_not_followed_and_show_their_location() {
    let mut target = Receiver::answering(EMPTY_OK).await;
    for status in [301u16, 302, 303, 307, 308] {
        let location = target.url("/else");
        let answer =
            answer(&format!("HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))
                .await;
        assert_eq!((answer.status, answer.location), (status, Some(location)));
    }
    assert_eq!(target.connections(), 0);
    assert!(target.saw_nothing_more());
}

#[tokio::test]
async fn a_location_without_a_redirect_means_nothing() {
    let answer = answer("HTTP/1.1 201 Created\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(answer.location, None);
}

#[tokio::test]
async fn responses_are_not_decompressed_and_compression_is_not_asked_for() {
    // gzip of "hello" begins 1f 8b 08.
    let mut response = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n".to_vec();
    response.extend([0x1f, 0x8b, 0x08, b'!']);
    let mut receiver = Receiver::start(vec![Act::Send(response)]).await;
    let answer = post(&receiver.url("/")).await.unwrap();
    assert_eq!(answer.excerpt, "\\u{1f}\u{fffd}\\u{8}!");
    let request = receiver.request().await;
    assert_eq!((request.header("accept-encoding"), request.header("accept")), (None, Some("*/*")));
}

#[tokio::test]
async fn cookies_are_not_kept() {
    let mut receiver =
        Receiver::answering("HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n").await;
    let client = client();
    for _ in 0..2 {
        assert!(post_within(&client, &receiver.url("/"), AMPLE).await.is_ok());
        assert_eq!(receiver.request().await.header("cookie"), None);
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver =
        Receiver::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
    let client = client();
    for _ in 0..5 {
        // Clones share the connections.
        assert_eq!(post_within(&client.clone(), &receiver.url("/"), AMPLE).await.unwrap().excerpt, "ok");
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_receiver_that_closes_after_each_answer_gets_every_attempt_once() {
    let script = vec![
        Act::Send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec()),
        Act::HangUp,
    ];
    let mut receiver = Receiver::start(script).await;
    let client = client();
    for _ in 0..5 {
        assert!(post_within(&client, &receiver.url("/"), AMPLE).await.is_ok());
        receiver.request().await;
    }
    assert_eq!(receiver.connections(), 5);
    assert!(receiver.saw_nothing_more());
}

#[tokio::test]
async fn one_kibibyte_of_the_body_is_kept_as_text_without_control_characters() {
    let long = "x".repeat(5000);
    let answer_to_long =
        answer(&format!("HTTP/1.1 500 X\r\ncontent-length: {}\r\n\r\n{long}", long.len())).await;
    assert_eq!(answer_to_long.excerpt, long[..EXCERPT_LIMIT]);
    let mut response = b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\n".to_vec();
    response.extend(b"a\r\n\x1b[0m\xff\x7f");
    let answer = reply(vec![Act::Send(response)]).await.unwrap();
    assert_eq!(answer.excerpt, "a\\r\\n\\u{1b}[0m\u{fffd}\\u{7f}");
}

#[tokio::test]
async fn an_exchange_gives_the_body_as_it_came_up_to_64_kib() {
    for (length, want) in [(70_000, BODY_LIMIT), (5_000, 5_000)] {
        let said = "\n/in/T0123456789";
        let body = format!("{said}{}", "x".repeat(length - said.len()));
        let response = format!("HTTP/1.1 404 X\r\ncontent-length: {length}\r\n\r\n{body}");
        let receiver = Receiver::answering(&response).await;
        let url = receiver.url("/in/T0123456789").parse().unwrap();
        let client = client();
        let exchange =
            client.exchange(&url, HeaderMap::new(), Bytes::new(), AMPLE, Timestamp::from_millis(0));
        let (answer, got) = exchange.await.unwrap();
        assert_eq!((answer.status, got.as_slice()), (404, &body.as_bytes()[..want]));
        assert!(answer.excerpt.starts_with("\\n/in/***x"), "{}", answer.excerpt);
    }
}

#[tokio::test]
async fn what_a_receiver_repeats_of_the_url_is_masked() {
    let receiver = Receiver::answering(
        "HTTP/1.1 404 X\r\ncontent-length: 53\r\n\r\nCannot POST /in/T0123456789?k=abcdefgh12 (bob, s3cret)",
    )
    .await;
    let url = format!("http://bob:s3cret@{}/in/T0123456789?k=abcdefgh12", receiver.address);
    assert_eq!(post(&url).await.unwrap().excerpt, "Cannot POST /in/***?k=*** (***, ***");
}

#[tokio::test]
async fn after_64_kib_of_the_body_the_connection_is_dropped_and_the_status_counts() {
    let endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let mut receiver =
        Receiver::start(vec![Act::Send(endless), Act::SendForEver(vec![b'x'; 16 * 1024])]).await;
    let answer = post(&receiver.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.excerpt.len()), (200, EXCERPT_LIMIT));
    receiver.request().await;
    assert_eq!(receiver.next().await, Seen::Gone);
}

#[tokio::test]
async fn after_64_kib_nothing_more_is_waited_for_and_before_that_it_is() {
    for (length, want) in [(BODY_LIMIT, Ok(500)), (BODY_LIMIT - 1, Err(Failure::Timeout))] {
        let mut response = b"HTTP/1.1 500 X\r\ncontent-length: 1000000\r\n\r\n".to_vec();
        response.extend(vec![b'x'; length]);
        let receiver = Receiver::start(vec![Act::Send(response), Act::FallSilent]).await;
        // Only the second is meant to run out of time.
        let timeout = if want.is_ok() { AMPLE } else { SHORT };
        let reply = post_within(&client(), &receiver.url("/"), timeout).await;
        assert_eq!(reply.map(|answer| answer.status), want);
    }
}

#[tokio::test]
async fn a_body_of_less_than_64_kib_is_read_to_its_end() {
    let length = BODY_LIMIT - 1;
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
    let receiver = Receiver::answering(&response).await;
    let client = client();
    for _ in 0..2 {
        assert!(post_within(&client, &receiver.url("/"), AMPLE).await.is_ok());
    }
    assert_eq!(receiver.connections(), 1, "the connection was left clean");
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_within_the_timeout_counts() {
    let response = b"HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno".to_vec();
    let answer = reply(vec![Act::Drip(response)]).await.unwrap();
    assert_eq!(
        (answer.status, answer.retry_after, answer.excerpt.as_str()),
        (503, Some(Duration::from_secs(7)), "no")
    );
}

#[tokio::test]
async fn a_timeout_covers_everything_from_connect_to_the_end_of_the_response() {
    let head = Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec());
    for script in [
        vec![Act::FallSilent],
        vec![Act::Send(b"HTTP/1.1 2".to_vec()), Act::FallSilent],
        vec![Act::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), Act::FallSilent],
        vec![head.clone(), Act::FallSilent],
        vec![head, Act::DripForEver(Duration::from_millis(1))],
    ] {
        let mut receiver = Receiver::start(script.clone()).await;
        let reply = post_within(&client(), &receiver.url("/"), SHORT).await;
        assert_eq!(reply, Err(Failure::Timeout), "{script:?}");
        receiver.request().await;
        assert_eq!(receiver.next().await, Seen::Gone, "the connection ends with the attempt: {script:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_never_accepts_times_out() {
    // The kernel completes the connection out of the backlog; nobody ever reads from it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    assert_eq!(post_within(&client(), &url, SHORT).await, Err(Failure::Timeout));
}

#[tokio::test]
async fn dropping_the_attempt_ends_its_connection() {
    let mut receiver = Receiver::start(vec![Act::FallSilent]).await;
    let client = client();
    let url = receiver.url("/");
    let attempt = tokio::spawn(async move { post_within(&client, &url, AMPLE).await });
    receiver.request().await;
    attempt.abort();
    assert_eq!(receiver.next().await, Seen::Gone);
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_refused() {
    let (port, _held) = silent_port();
    assert_eq!(post(&format!("http://127.0.0.1:{port}/")).await, Err(Failure::Refused));
    assert_eq!(post(&format!("http://localhost:{port}/")).await, Err(Failure::Refused));
}

/// A port on which nobody listens, and that nobody else gets as long as the socket is held.
fn silent_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

#[tokio::test]
async fn a_reset_or_an_early_end_is_a_broken_connection() {
    let head = Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec());
    let chunked = Act::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab".to_vec());
    for script in [
        vec![Act::Reset],
        vec![Act::HangUp],
        vec![Act::Send(b"HTTP/1.1 200".to_vec()), Act::HangUp],
        vec![head.clone(), Act::HangUp],
        vec![head, Act::Reset],
        vec![chunked, Act::HangUp],
    ] {
        let reply = reply(script.clone()).await;
        assert!(
            matches!(&reply, Err(Failure::Broken(text)) if !text.is_empty()),
            "{script:?} gave {reply:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_http_is_a_broken_answer() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 twohundred OK\r\n\r\n",
        "\0\0\0\0",
    ] {
        let reply = reply(vec![Act::Send(garbage.into()), Act::HangUp]).await;
        assert!(matches!(&reply, Err(Failure::Broken(_))), "{garbage:?} gave {reply:?}");
    }
}

#[tokio::test]
async fn endless_headers_are_a_broken_answer() {
    let script = vec![
        Act::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::SendForEver(format!("a: {}\r\n", "x".repeat(1000)).into()),
    ];
    let reply = reply(script).await;
    assert!(matches!(&reply, Err(Failure::Broken(_))), "{reply:?}");
}

#[tokio::test]
async fn a_name_without_an_address_is_a_dns_failure() {
    // Longer than a label of a name can be: no resolver has to be asked.
    let url = format!("http://{}.invalid/", "a".repeat(64));
    let reply = post(&url).await;
    assert!(matches!(&reply, Err(Failure::Dns(text)) if !text.is_empty()), "{reply:?}");
}

/// Linux has no route for a TCP connection to a multicast address; other systems word it differently.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_route_is_unreachable() {
    let allow = ["224.0.0.0/4".parse().unwrap()].into();
    let client = client().under(Policy { allow, ..Policy::default() });
    let reply = post_within(&client, "http://224.0.0.1:9/", AMPLE).await;
    assert!(matches!(&reply, Err(Failure::Unreachable(_))), "{reply:?}");
}

#[tokio::test]
async fn no_error_text_holds_the_url_or_its_credentials() {
    let silent = Receiver::start(vec![Act::FallSilent]).await;
    let reset = Receiver::start(vec![Act::Reset]).await;
    let garbage = Receiver::answering("T0123456789\r\n\r\n").await;
    let (closed, _held) = silent_port();
    let long_label = "a".repeat(64);
    for (scheme, host) in [
        ("http", silent.address.to_string()),
        ("http", reset.address.to_string()),
        ("http", garbage.address.to_string()),
        ("http", format!("127.0.0.1:{closed}")),
        ("http", long_label),
        ("https", garbage.address.to_string()),
        ("ftp", garbage.address.to_string()),
    ] {
        let url = format!("{scheme}://alice:s3cret@{host}/in/T0123456789?k=abcdefgh12");
        let shown = format!("{:?}", post_within(&client(), &url, SHORT).await.unwrap_err());
        for part in ["alice", "s3cret", "T0123456789", "abcdefgh12", "/in", "k="] {
            assert!(!shown.contains(part), "{shown} holds {part}");
        }
    }
}

#[tokio::test]
async fn retry_after_is_read_relative_to_the_attempts_time() {
    let receiver = Receiver::answering(
        "HTTP/1.1 503 X\r\nretry-after: Thu, 01 Jan 1970 01:00:00 GMT\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    // The attempt is made at 1970-01-01T00:00:00Z, and an hour less its own duration is left.
    let wait = post(&receiver.url("/")).await.unwrap().retry_after.unwrap();
    let hour = Duration::from_secs(3600);
    assert!(wait <= hour && wait >= hour - AMPLE, "{wait:?}");
}

#[tokio::test]
async fn a_receiver_says_that_it_wants_no_more() {
    let disable = |header: &str| format!("HTTP/1.1 200 OK\r\n{header}\r\ncontent-length: 0\r\n\r\n");
    assert!(answer(&disable("webhook-delivery: disable")).await.disable);
    assert!(answer(&disable("Webhook-Delivery:  Disable ")).await.disable);
    assert!(!answer(&disable("webhook-delivery: enable")).await.disable);
    assert!(!answer(&disable("x: y")).await.disable);
}
