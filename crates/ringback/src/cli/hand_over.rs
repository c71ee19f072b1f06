//! `ringback hand-over`: the hook that `ringback connect` installs.
//!
//! Runs with every prompt of the user, so that it must never be in the way: one second at most, exit 0 whatever
//! happens, and not a word unless there is an update for this very session.

use std::io::Read;
use std::time::Duration;

use reqwest::Method;
use ringback_daemon::connect::hand_over;
use serde_json::json;

use super::Context;
use crate::exit_code::Error;
use crate::output;

const LIMIT: Duration = Duration::from_millis(900);
/// Longest input that is read, in bytes.
const MAX_INPUT: u64 = 8 << 20;

/// Print pending updates for the session whose prompt is on standard input
#[derive(clap::Args)]
pub(crate) struct HandOver {
    /// The agent that calls
    agent: String,
}

impl HandOver {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        if self.agent == "claude" {
            // Too late, or no daemon, or no output: nothing to be done about it, and nothing is lost.
            let _ = tokio::time::timeout(LIMIT, hand_over(context)).await;
        }
        Ok(())
    }
}

async fn hand_over(context: &Context) -> Option<()> {
    const PATH: &str = "/api/updates/hand-over";
    let input = tokio::task::spawn_blocking(|| {
        let mut input = Vec::new();
        std::io::stdin().take(MAX_INPUT).read_to_end(&mut input).ok().map(|_| input)
    });
    let input = input.await.ok()??;
    let is_run = context.env.get("RINGBACK_RUN").is_some();
    let session = hand_over::session(&input, is_run)?;
    let client = context.client().ok()?;
    let answer = client.call(Method::POST, PATH, Some(&json!({ "session_id": session }))).await.ok()?;
    let block = answer["block"].as_str()?;
    output::raw(&hand_over::answer(block)).ok()?;
    // Only now: what was not printed in time is printed with the next prompt.
    client.call(Method::POST, PATH, Some(&json!({ "session_id": session, "done": true }))).await.ok()?;
    Some(())
}
