//! The API's client, for every interface that is not the daemon itself.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use ringback_model::Secret;
use serde_json::Value;

use crate::state_dir::{self, Holder};

/// Speaks to the daemon that holds the lock.
pub struct Client {
    http: reqwest::Client,
    api: String,
    token: Secret,
}

/// The daemon did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon holds the lock.
    #[error("no ringback is running")]
    NotRunning,
    /// It runs without an API.
    #[error("the running ringback (process {pid}) has no API: its configuration says listen = \"none\"")]
    NoApi {
        /// The daemon.
        pid: u32,
    },
    /// It has an API, and the file with its token is gone.
    #[error("the running ringback (process {pid}) has no file api-token in its state directory any more")]
    NoToken {
        /// The daemon.
        pid: u32,
    },
    /// The token cannot be read.
    #[error(transparent)]
    State(#[from] state_dir::Error),
    /// The daemon does not answer.
    #[error("the running ringback does not answer: {0}")]
    Silent(String),
    /// It refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The API's error text.
        message: String,
    },
}

impl Client {
    /// A client of the daemon whose state directory this is.
    ///
    /// # Errors
    /// None runs, it has no API, or its token cannot be read.
    pub fn connect(state: &Path) -> Result<Client, Error> {
        let Holder { pid, api, .. } = state_dir::running(state).ok_or(Error::NotRunning)?;
        let api = api.ok_or(Error::NoApi { pid })?;
        let token = state_dir::read_token(state)?.ok_or(Error::NoToken { pid })?;
        #[expect(clippy::disallowed_methods, reason = "this client speaks to our own daemon only")]
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| Error::Silent(e.to_string()))?;
        Ok(Client { http, api, token })
    }

    /// GETs a path with query pairs; the answer's JSON.
    ///
    /// # Errors
    /// The daemon does not answer or refuses.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Error> {
        self.call(Method::GET, &with_query(path, query), None).await
    }

    /// GETs all pages of a listing: its first answer, with the items of the others behind its own.
    ///
    /// # Errors
    /// The daemon does not answer or refuses.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Error> {
        let most = [query, &[("limit", "1000")]].concat();
        let mut whole = self.get(path, &most).await?;
        while let Some(cursor) = whole["next"].as_str().map(str::to_owned) {
            let mut page = self.get(path, &[&most[..], &[("cursor", &cursor)]].concat()).await?;
            if let (Some(items), Some(more)) = (whole["items"].as_array_mut(), page["items"].as_array_mut()) {
                items.append(more);
            }
            whole["next"] = page["next"].take();
        }
        Ok(whole)
    }

    /// Sends a request with an optional JSON body; the answer's JSON.
    ///
    /// # Errors
    /// The daemon does not answer or refuses.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.api))
            .bearer_auth(self.token.reveal())
            .timeout(Duration::from_secs(30));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(silent)?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(silent)?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let message = value["error"].as_str().map_or_else(|| format!("status {status}"), str::to_owned);
        Err(Error::Refused { status, message })
    }

    /// A run's output from a byte on, at most a part of it, and whether the run still goes on.
    ///
    /// # Errors
    /// The daemon does not answer or refuses.
    pub async fn log(&self, run: &str, from: u64) -> Result<(Vec<u8>, bool), Error> {
        let path = format!("/api/runs/{}/log?from={from}", crate::record::percent_encoded(run));
        let request = self.http.get(format!("{}{path}", self.api)).bearer_auth(self.token.reveal());
        let response = request.timeout(Duration::from_secs(30)).send().await.map_err(silent)?;
        let status = response.status().as_u16();
        if status != 200 {
            let message = if status == 404 { "run not found".to_owned() } else { format!("status {status}") };
            return Err(Error::Refused { status, message });
        }
        let state = response.headers().get("x-ringback-run-state").and_then(|s| s.to_str().ok());
        let is_open = matches!(state, Some("queued" | "working"));
        Ok((response.bytes().await.map_err(silent)?.to_vec(), is_open))
    }

    /// Follows the event stream; calls `each` with the kind and JSON of every event until it says stop. The first is
    /// an `update`, whatever `kinds` says.
    ///
    /// # Errors
    /// The stream cannot be opened, or broke.
    pub async fn follow(
        &self,
        kinds: &str,
        mut each: impl FnMut(&str, &Value) -> std::ops::ControlFlow<()>,
    ) -> Result<(), Error> {
        let path = with_query("/api/events", &[("events", kinds)]);
        let request = self.http.get(format!("{}{path}", self.api)).bearer_auth(self.token.reveal());
        let response = request.send().await.map_err(silent)?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(Error::Refused { status, message: format!("status {status}") });
        }
        let mut bytes = response.bytes_stream();
        let mut pending: Vec<u8> = Vec::new();
        while let Some(chunk) = bytes.next().await {
            pending.extend_from_slice(&chunk.map_err(silent)?);
            while let Some(end) = pending.windows(2).position(|w| w == b"\n\n") {
                let block: Vec<u8> = pending.drain(..end + 2).collect();
                let block = String::from_utf8_lossy(&block);
                let field =
                    |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::trim_start);
                if let (Some(kind), Some(data)) = (field("event:"), field("data:"))
                    && let Ok(value) = serde_json::from_str(data)
                    && each(kind, &value).is_break()
                {
                    return Ok(());
                }
            }
        }
        Err(Error::Silent("the event stream ended".to_owned()))
    }
}

fn silent(error: reqwest::Error) -> Error {
    Error::Silent(error.without_url().to_string())
}

/// Appends percent-encoded query pairs.
fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (i, (key, value)) in query.iter().enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        out.push_str(key);
        out.push('=');
        out.push_str(&crate::record::percent_encoded(value));
    }
    out
}
