//! The daemon: wiring and no policy.
//!
//! Owns: configuration, the state directory and its lock, the API, and the loops that connect the crates around
//! it. Rules live in `ringback_model`; the wire in `ringback_webhook`; agents' files in `ringback_observe`; what
//! is kept in `ringback_store`.
//!
//! The out path in order: [`supervise`] starts the observer, whose sightings reach [`record`], which journals
//! state and event at once and wakes [`deliver`], which claims, signs, sends and settles.

pub mod supervise;

pub mod record;
pub mod storage;

pub mod lane;

mod changes;
pub mod endpoints;
mod follow;

pub mod deliver;

pub mod hook;
pub mod run;

pub mod mcp;
pub mod notify;

pub mod connect;

pub mod feed;
pub mod view;
mod watching;

mod http;

pub mod client;

pub mod doctor;

pub mod clock;
pub mod config;
pub mod env;
mod filesystem;
pub mod state_dir;
