//! What the process environment does to the client. The environment belongs to the whole process, so each case runs
//! in a child: this test binary again, with one test and one more variable.

use std::env;

use ringback_webhook::Client;

use crate::client::post_within;
use crate::receiver::{DEADLINE, Receiver};
use crate::tls::Authority;

/// Tells the child that it is one, and where to send.
const TARGET: &str = "RINGBACK_TEST_TARGET";

/// In the child: whether the client that a daemon would make reaches the target.
#[tokio::test]
async fn child() {
    let Ok(url) = env::var(TARGET) else { return };
    let client = Client::new().unwrap();
    assert_eq!(post_within(&client, &url, DEADLINE).await.map(|answer| answer.status), Ok(200));
}

async fn child_succeeds(url: String, variables: &[(&str, &str)]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a child is the only way to another environment")]
    let mut command = std::process::Command::new(env::current_exe().unwrap());
    command.args(["--exact", "environment::child"]).env(TARGET, url).envs(variables.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap().status.success()).await.unwrap()
}

#[tokio::test]
async fn proxies_from_the_environment_are_not_used() {
    let proxy = Receiver::answering("HTTP/1.1 502 Proxy\r\ncontent-length: 0\r\n\r\n").await;
    let target = Receiver::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let through = proxy.url("");
    let variables =
        [("HTTP_PROXY", &*through), ("http_proxy", &*through), ("ALL_PROXY", &*through), ("NO_PROXY", "")];
    assert!(child_succeeds(target.url("/"), &variables).await);
    assert_eq!((proxy.connections(), target.connections()), (0, 1));
}

#[tokio::test]
async fn ssl_cert_file_names_the_trusted_authorities() {
    let authority = Authority::new();
    let url = authority.serve("127.0.0.1").await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let ours = write("ours.pem", authority.pem());
    let other = write("other.pem", Authority::new().pem());
    let trusted = child_succeeds(url.clone(), &[("SSL_CERT_FILE", &ours)]).await;
    let distrusted = child_succeeds(url, &[("SSL_CERT_FILE", &other)]).await;
    assert_eq!((trusted, distrusted), (true, false));
}
