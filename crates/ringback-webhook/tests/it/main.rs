//! The contract of the wire, sentence by sentence, over real loopback sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a broken fixture ends the test, in helpers too"
)]

mod client;
mod conformance;
mod documentation;
mod environment;
mod format;
mod guard;
mod proxy;
mod reach;
mod receiver;
mod request;
mod senders;
mod sign;
mod tls;
mod verify;
