//! The wire: how an event becomes a signed HTTP request, and how a receiver's answer is read.
//!
//! Owns: the two signature schemes and their verification, how the senders of incoming webhooks prove themselves
//! ([`senders`]), the header set of a delivery, which addresses it may go to, and the one HTTP client of the process. It
//! turns (event, secrets, instant) into bytes on a socket and gives back a
//! [`Reply`](ringback_model::delivery::Reply).
//!
//! Deliberately absent: the store, retries, queues and configuration. Nothing here decides what a reply means (that
//! is `ringback_model::delivery`) or reads a clock: the instant is always an argument.

pub mod client;
pub mod format;
pub mod guard;
pub mod proxy;
pub mod request;
pub mod samples;
pub mod senders;
pub mod sign;
pub mod verify;

mod connect;
mod failure;
mod redact;
mod resolve;

pub use client::Client;
pub use resolve::{Resolve, Resolving};
pub use sign::Key;
