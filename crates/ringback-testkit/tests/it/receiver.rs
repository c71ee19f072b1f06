//! The receiver does what its script says, and says what it saw.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringback_testkit::{Answer, DEADLINE, Receiver};

/// One request over a bare socket; gives the status, or `None` when the connection broke.
async fn post(to: SocketAddr, path: &'static str, body: &'static str) -> Option<u16> {
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(to).ok()?;
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-Mark: Yes\r\nContent-Length: {}\r\n", body.len());
        stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok()?;
        std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
    });
    sent.await.unwrap()
}

#[tokio::test]
async fn answers_follow_the_script_and_the_last_one_stays() {
    let script = [Answer::Status(500), Answer::Reset, Answer::with_headers(429, &[("Retry-After", "3")])];
    let receiver = Receiver::scripted(script).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(post(receiver.addr(), "/", "{}").await);
    }
    assert_eq!(answers, [Some(500), None, Some(429), Some(429)]);
}

#[tokio::test]
async fn a_request_is_recorded_with_its_bytes_before_it_is_answered() {
    let receiver = Receiver::always(Answer::Hang).await;
    let addr = receiver.addr();
    let hanging = tokio::spawn(post(addr, "/in?a=1", "{\"n\": 1}"));
    let seen = receiver.wait_for(1, DEADLINE).await;
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("POST", "/in?a=1"));
    assert_eq!(seen[0].header("x-mark"), Some("Yes"));
    assert_eq!(seen[0].message.text(), "{\"n\": 1}");
    assert!(!hanging.is_finished());
    receiver.stop().await;
    assert_eq!(hanging.await.unwrap(), None);
}

#[tokio::test]
async fn the_address_of_a_stopped_receiver_can_be_taken_again() {
    let first = Receiver::always(Answer::Status(200)).await;
    let addr = first.addr();
    assert_eq!(post(addr, "/", "").await, Some(200));
    assert_eq!(first.stop().await.len(), 1);
    assert_eq!(post(addr, "/", "").await, None);
    let second = Receiver::bind(addr, |_| Answer::Status(204)).await;
    assert_eq!(post(addr, "/", "").await, Some(204));
    assert_eq!(second.requests().len(), 1);
}

#[tokio::test]
async fn a_flaky_receiver_fails_about_its_share_and_the_same_one_each_time() {
    let flaky = |_: &_| Answer::Flaky { seed: 7, fail_ratio: 0.3 };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let receiver = Receiver::answering(flaky).await;
        let mut failed = Vec::new();
        for n in 0..100 {
            if post(receiver.addr(), "/", "").await == Some(500) {
                failed.push(n);
            }
        }
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
    assert!((15..=45).contains(&runs[0].len()), "{:?}", runs[0]);
}

#[tokio::test]
async fn requests_answered_side_by_side_are_counted() {
    let receiver = Receiver::always(Answer::Hang).await;
    let addr = receiver.addr();
    let posts: Vec<_> = (0..3).map(|_| tokio::spawn(post(addr, "/", ""))).collect();
    receiver.wait_for(3, DEADLINE).await;
    assert_eq!(receiver.most_at_once(), 3);
    receiver.stop().await;
    for post in posts {
        assert_eq!(post.await.unwrap(), None);
    }
}
