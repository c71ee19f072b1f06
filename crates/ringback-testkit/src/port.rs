//! Ports for programs that have to be told one.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that systems give to outgoing connections: no other test's connection takes one of these between two
/// starts of a program.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of this machine that nobody listens on, another one with each call.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test processes begin elsewhere.
    let offset = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    let free = (0..COUNT).find_map(|_| {
        let n = (offset + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(n).unwrap_or(0);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    });
    free.expect("one of 20,000 ports is free")
}
