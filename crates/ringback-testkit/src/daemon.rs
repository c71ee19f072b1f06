//! A running `ringback up`, with its API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use tokio::time::Instant;

use crate::DEADLINE;
use crate::home::Home;
use crate::http::{self, Reply};
use crate::program::{Ended, Line, Program};

/// How often the lock file and `/readyz` are looked at: neither can be waited for otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The content of the lock file (api-cli.md, "One daemon, thin clients").
#[derive(Deserialize)]
struct Lock {
    pid: i32,
    /// Address, with or without `http://`.
    api: Option<String>,
}

/// `ringback up` as a child process. Dropping it kills it.
pub struct Daemon {
    program: Program,
    api: SocketAddr,
    token_path: PathBuf,
}

impl Daemon {
    pub(crate) async fn start(home: &Home, binary: &Path) -> Daemon {
        let config = home.config_path();
        let mut args = vec!["up".to_owned()];
        if config.exists() {
            args.extend(["--config".to_owned(), config.to_string_lossy().into_owned()]);
        }
        let mut program = home.spawn(binary, &args);
        let state = home.state_dir();
        let give_up = Instant::now() + DEADLINE;
        loop {
            let seen = match api_of(&state.join("lock"), program.pid()) {
                Some(api) => match http::send(api, "GET", "/readyz", &[], b"").await {
                    Ok(Reply { status: 200, .. }) => {
                        return Daemon { program, api, token_path: state.join("api-token") };
                    }
                    Ok(reply) => format!("/readyz says {}: {}", reply.status, reply.message.text()),
                    Err(e) => format!("/readyz on {api}: {e}"),
                },
                None => "no API address in the lock file".to_owned(),
            };
            if program.has_ended() {
                let ended = program.wait(DEADLINE).await;
                panic!(
                    "ringback ended by itself, code {:?}:\n{}{}",
                    ended.code,
                    ended.stdout(),
                    ended.stderr()
                );
            }
            if Instant::now() > give_up {
                panic!("ringback is not ready after {DEADLINE:?} ({seen}):\n{}", program.transcript());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where its API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The API's token.
    pub fn token(&self) -> String {
        let token = fs::read_to_string(&self.token_path).expect("a ready daemon has written its token");
        token.trim().to_owned()
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// GET with the token.
    pub async fn api_get(&self, target: &str) -> Reply {
        self.call("GET", target, None).await
    }

    /// PUT of a JSON body with the token.
    pub async fn api_put(&self, target: &str, body: &serde_json::Value) -> Reply {
        self.call("PUT", target, Some(body)).await
    }

    /// POST of a JSON body with the token.
    pub async fn api_post(&self, target: &str, body: &serde_json::Value) -> Reply {
        self.call("POST", target, Some(body)).await
    }

    /// DELETE with the token.
    pub async fn api_delete(&self, target: &str) -> Reply {
        self.call("DELETE", target, None).await
    }

    /// A request with exactly these headers beside connection, content-length and, unless it is given, host: no
    /// token.
    pub async fn raw(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        http::send(self.api, method, target, headers, body)
            .await
            .unwrap_or_else(|e| panic!("{method} {target}: {e}\n{}", self.program.transcript()))
    }

    /// What it has written so far.
    pub fn lines(&self) -> Vec<Line> {
        self.program.lines()
    }

    /// Waits for a line that contains `part`, on either stream. Panics when there is none in time.
    pub async fn wait_for_line(&self, part: &str, deadline: Duration) -> Line {
        self.program.wait_for_line(part, deadline).await
    }

    /// Sends a signal and does not wait for what comes of it.
    pub fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Waits for the end. Panics with all output when the deadline passes first.
    pub async fn wait(self, deadline: Duration) -> Ended {
        self.program.wait(deadline).await
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(self) -> Ended {
        self.program.terminate().await
    }

    /// Sends SIGKILL and waits for the end: nothing is written any more, nothing is cleaned up.
    pub async fn kill9(self) -> Ended {
        self.program.kill9().await
    }

    async fn call(&self, method: &str, target: &str, body: Option<&serde_json::Value>) -> Reply {
        let authorization = format!("Bearer {}", self.token());
        let mut headers = vec![("authorization", authorization.as_str())];
        let body = body.map(ToString::to_string).unwrap_or_default();
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        self.raw(method, target, &headers, body.as_bytes()).await
    }
}

/// The API's address, once the lock file is that of this process. That of a killed predecessor may still lie there.
fn api_of(lock: &Path, pid: i32) -> Option<SocketAddr> {
    let lock: Lock = serde_json::from_str(&fs::read_to_string(lock).ok()?).ok()?;
    let api = lock.api.filter(|_| lock.pid == pid)?;
    api.trim_start_matches("http://").trim_end_matches('/').parse().ok()
}
