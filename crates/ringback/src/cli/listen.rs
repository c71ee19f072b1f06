//! `ringback listen`: a receiver to try deliveries with.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::http::StatusCode;
use ringback_daemon::clock;
use ringback_model::Secret;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::exit_code::Error;
use crate::fault::Fault;
use crate::output;
use crate::receiver::{self, Manner, Received};

/// Receive webhooks on this machine: verify signatures and print what comes
///
/// Examples: ringback listen --secret "$SECRET"; ringback listen --fail 500 --delay 2s;
/// ringback listen --fault trickle
#[derive(clap::Args)]
pub(crate) struct Listen {
    /// Port on 127.0.0.1; 0 = any free one
    #[arg(long, default_value = "8080")]
    port: u16,

    /// Secret to verify signatures with; a request that does not match gets 401. Better set in the environment
    /// than on the command line
    #[arg(long, env = "RINGBACK_LISTEN_SECRET", hide_env_values = true)]
    secret: Vec<String>,

    /// Answer every request with this status
    #[arg(long, value_name = "STATUS")]
    fail: Option<u16>,

    /// Wait before each answer, in milliseconds or as "2s"
    #[arg(long, value_name = "TIME", value_parser = delay)]
    delay: Option<Duration>,

    /// Never answer
    #[arg(long)]
    hang: bool,

    /// Misbehave in every answer; --fail and --delay hold as well
    #[arg(long, value_name = "KIND", conflicts_with = "hang")]
    fault: Option<Fault>,

    /// Print one JSON object per request
    #[arg(long)]
    json: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    if let Ok(ms) = text.parse::<u64>() {
        return Ok(Duration::from_millis(ms));
    }
    ringback_daemon::config::duration(text)
        .ok_or_else(|| "expected a time such as 500, 500ms or 2s".to_owned())
}

impl Listen {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let status = match self.fail.map(StatusCode::from_u16) {
            None => StatusCode::OK,
            Some(Ok(status)) if status.as_u16() >= 200 && status.as_u16() < 600 => status,
            Some(_) => return Err(Error::usage("--fail takes a status from 200 to 599")),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.map_err(|e| {
            Error::usage(format!("cannot listen on 127.0.0.1:{}: {}", self.port, e.kind()))
                .mend("name another one with --port")
        })?;
        let address = listener.local_addr()?;
        let secrets: Vec<Secret> =
            self.secret.iter().filter(|s| !s.is_empty()).map(|s| Secret::new(s.as_str())).collect();
        if !self.json {
            let scheme = if self.fault == Some(Fault::TlsStall) { "https" } else { "http" };
            output::line(&format!("listening  {scheme}://{address}/  (Ctrl-C ends)"))?;
            if secrets.is_empty() {
                output::line("no --secret given: signatures are not checked")?;
            }
        }
        let manner =
            Manner { status, delay: self.delay.unwrap_or_default(), hang: self.hang, fault: self.fault };
        let (out, mut received) = mpsc::channel(64);
        let server = tokio::spawn(async move { receiver::serve(listener, &secrets, manner, out).await });
        loop {
            tokio::select! {
                Some(request) = received.recv() => print(&request, self.json)?,
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        server.abort();
        Ok(())
    }
}

fn print(received: &Received, json: bool) -> Result<(), Error> {
    let body = String::from_utf8_lossy(&received.body);
    let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    let header = |name: &str| received.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-");
    let signature = signature(received);
    if json {
        let one = serde_json::json!({
            "event": value, "signature": signature,
            "webhook_id": header("webhook-id"), "attempt": header("x-ringback-attempt"),
        });
        return Ok(output::line(&one.to_string())?);
    }
    output::line(&summary(&value, &signature, header("x-ringback-attempt")))?;
    if value.is_null() {
        let text: String = body.chars().take(1000).collect();
        output::line(&text)?;
    } else {
        output::json(&value)?;
    }
    Ok(())
}

/// What a request's signatures are worth, in words.
pub(crate) fn signature(received: &Received) -> String {
    match &received.verdict {
        None => "not checked".to_owned(),
        Some(verdict) if verdict.is_authentic() => "verified".to_owned(),
        Some(verdict) => match (&verdict.standard, &verdict.lazyagent) {
            (Err(why), _) | (_, Err(why)) => format!("REFUSED: {why}"),
            (Ok(()), Ok(())) => "verified".to_owned(),
        },
    }
}

/// One line about a request.
pub(crate) fn summary(event: &Value, signature: &str, attempt: &str) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    let reason = event["reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
    let time = text("timestamp").parse().unwrap_or_else(|_| clock::now()).to_string();
    let clock = time.get(11..19).unwrap_or("-").to_owned();
    format!(
        "{clock}  {:<8} {:<10} > {:<10}{reason}  #{}  attempt {attempt}  signature {signature}",
        text("agent"),
        text("from"),
        text("to"),
        event["sequence"]
    )
}
