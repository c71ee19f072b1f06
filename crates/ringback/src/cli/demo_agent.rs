//! `ringback demo-agent`: the scripted agent of the demo. Reads its prompt, pings the user through ringback's tools
//! as any agent would, and ends.

use std::io::Read;

use serde_json::{Value, json};

use super::Context;
use crate::exit_code::Error;

/// The agent that `ringback demo` runs
#[derive(clap::Args)]
pub(crate) struct DemoAgent {}

impl DemoAgent {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let missing =
            |name: &str| Error::usage(format!("{name} is not set")).mend("this is the demo's own agent");
        let url = context.env.get("RINGBACK_MCP_URL").ok_or_else(|| missing("RINGBACK_MCP_URL"))?;
        let token = context.env.get("RINGBACK_MCP_TOKEN").ok_or_else(|| missing("RINGBACK_MCP_TOKEN"))?;
        let mut prompt = String::new();
        std::io::stdin().read_to_string(&mut prompt)?;
        let task = prompt.lines().last().unwrap_or_default();
        for (tool, message) in [
            ("ping_user", format!("Looked into it: {task}")),
            ("report_updates", "The demo's agent has looked into it.".to_owned()),
        ] {
            call(url, token, tool, &message).await?;
        }
        Ok(())
    }
}

async fn call(url: &str, token: &str, tool: &str, message: &str) -> Result<(), Error> {
    let failed = |e: reqwest::Error| Error::failed(format!("the tools do not answer: {}", e.without_url()));
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": tool, "arguments": { "message": message } },
    });
    #[expect(clippy::disallowed_methods, reason = "speaks to our own tools on loopback only")]
    let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
    let request = client
        .post(url)
        .bearer_auth(token)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(request.to_string());
    let answer = request.send().await.map_err(failed)?.bytes().await.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    if answer["result"]["isError"] == true || answer["result"].is_null() {
        return Err(Error::failed(format!("{tool} failed: {answer}")));
    }
    Ok(())
}
