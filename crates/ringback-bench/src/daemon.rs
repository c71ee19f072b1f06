//! The program with a configuration, and waiting for what its API shows.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ringback_testkit::{Daemon, Home};
use serde_json::{Value, json};

use crate::row::Bench;
use crate::sink::{Answer, Sink};

const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts the program in a home. `more`: further tables of the configuration.
pub(crate) async fn start(bench: &Bench, home: &Home, webhooks: Vec<Value>, more: Value) -> Daemon {
    let mut config = json!({ "server": { "listen": "127.0.0.1:0" }, "webhooks": webhooks });
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    home.write_config(&config.to_string());
    home.up(&bench.binary).await
}

/// Signed endpoints of a sink; `more`: further keys of each.
pub(crate) fn endpoints(sink: &Sink, answer: Answer, count: usize, more: &Value) -> Vec<Value> {
    let entry = |n: usize| {
        let mut entry = json!({ "name": format!("e{n}"), "url": sink.url(answer, n), "secret": SECRET });
        if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
            entry.extend(more.clone());
        }
        entry
    };
    (0..count).map(entry).collect()
}

/// The secret of every endpoint, of the sender's ceiling too.
pub(crate) const SECRET: &str = "the-secret-of-every-endpoint";

/// Waits until this number of `/api/stats` is `wanted`.
pub(crate) async fn wait_for(daemon: &Daemon, stat: &str, wanted: usize) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let stats = daemon.api_get("/api/stats").await.json();
        if stats[stat].as_u64() == u64::try_from(wanted).ok() {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("{stat} is not {wanted} after {PATIENCE:?}: {stats}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
