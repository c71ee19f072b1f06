//! From the HTTP library's error to the contract's word for it. The library's own texts may hold the URL, so only
//! its causes are read.

use std::error::Error;
use std::io;

use ringback_model::Failure;

use crate::guard::Denied;
use crate::redact::Hidden;
use crate::resolve::ResolveError;

/// Longest text of a failure.
const TEXT_BYTES: usize = 200;

/// Says why an attempt got no answer. `is_connecting`: before there was a connection.
pub(crate) fn classify(error: &(dyn Error + 'static), is_connecting: bool, hidden: &Hidden) -> Failure {
    let text = |error: &dyn Error| hidden.clean(&error.to_string(), TEXT_BYTES);
    let causes = causes(error);
    for cause in &causes {
        if let Some(denied) = cause.downcast_ref::<Denied>() {
            return Failure::Blocked(denied.to_string());
        }
        if let Some(error) = cause.downcast_ref::<ResolveError>() {
            return Failure::Dns(text(error));
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Failure::Tls(text(error));
        }
    }
    for cause in &causes {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(failure) = from_kind(io.kind(), is_connecting)
        {
            return failure;
        }
    }
    match causes.last() {
        Some(root) => Failure::Broken(text(*root)),
        None => Failure::Broken("the request could not be made".to_owned()),
    }
}

fn from_kind(kind: io::ErrorKind, connecting: bool) -> Option<Failure> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some(Failure::Refused),
        // The kernel gave up before we did.
        io::ErrorKind::TimedOut => Some(Failure::Timeout),
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown
        // No address of ours can talk to that one: a family that is switched off.
        | io::ErrorKind::AddrNotAvailable => Some(Failure::Unreachable(kind.to_string())),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Some(Failure::Broken(kind.to_string()))
        }
        // TCP has no end of stream before it is connected: this is the handshake above it.
        io::ErrorKind::UnexpectedEof if connecting => {
            Some(Failure::Tls("connection closed during the handshake".to_owned()))
        }
        _ => None,
    }
}

/// The error and everything below it, outermost first. `io::Error` passes over the error it wraps, so that
/// one is looked up by hand.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes: Vec<&'a (dyn Error + 'static)> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        causes.push(cause);
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    causes
}
