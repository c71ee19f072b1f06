//! What the tests put around ringback: a scripted receiver, a scripted model, a home of its own, real agents.
//!
//! Owns: both ends of the wire, so that a test reads as a story. [`Receiver`] is the endpoint that webhooks go to;
//! [`ModelServer`] is the model that a real agent CLI talks to; [`FakeDiscord`] is where a notifier's messages go;
//! [`Home`] is a directory and an environment in which the binary and the agents run; [`Agents`] are the installed
//! CLIs.
//!
//! Deliberately absent: ringback's own wire code. Requests are read by a parser that is written here, and
//! signatures are computed anew, so that a mistake in the product is not repeated by its judge.
//!
//! Everything that cannot go on panics with what was seen so far: a test wants the story, not an error to handle.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this crate is the test side: a panic is how it says that a test failed"
)]

mod agents;
mod daemon;
mod discord;
mod home;
mod http;
mod model_server;
mod port;
mod program;
mod providers;
mod proxy;
mod receiver;
mod signature;

pub use nix::sys::signal::Signal;

pub use agents::{Agents, is_ci, skipped};
pub use daemon::Daemon;
pub use discord::{DiscordFault, DiscordMessage, FakeDiscord, FakeDiscordConfig, check_discord_message};
pub use home::Home;
pub use http::{Message, Reply, request};
pub use model_server::{Asked, ModelRequest, ModelServer, Script, Truth, Turn};
pub use port::free_port;
pub use program::{Ended, Line, Program, Stream};
pub use providers::{FakeProvider, Service};
pub use proxy::{Asked as ProxyAsked, Proxy};
pub use receiver::{Answer, Received, Receiver};
pub use signature::Unverified;

/// How long the kit waits for something that has to happen before it says that it never did. Long on purpose: it
/// is only ever used up by a test that fails.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
