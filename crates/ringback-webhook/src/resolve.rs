//! Names to addresses. Every connection of the client asks here, at the moment it is made, and goes only to the
//! addresses that it gets: a name that meant another address a moment ago is judged by what it means now.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::guard::{self, Policy};

/// A place where names are looked up.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name, at this moment.
    fn resolve(&self, name: &str) -> Resolving;
}

/// The answer of a [`Resolve`].
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Passes on the addresses of a name if the policy allows every one of them. An answer with a single refused address
/// is refused as a whole: nobody has a good reason to give one.
#[derive(Clone)]
pub(crate) struct Guarded {
    /// Where names are looked up.
    pub(crate) names: Arc<dyn Resolve>,
    /// What is allowed.
    pub(crate) policy: Arc<Policy>,
    /// The port that the connections go to; zero if it is none of ringback's own.
    pub(crate) own_port: u16,
}

/// `getaddrinfo`, off the event loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemResolver;

/// The name has no address right now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The resolver said so.
    #[error("{0}")]
    Lookup(io::Error),
    /// The resolver's answer was empty.
    #[error("the name has no address")]
    NoAddress,
}

impl Guarded {
    /// The addresses of a name, all of them allowed, without ports.
    ///
    /// # Errors
    /// [`guard::Denied`] or [`ResolveError`].
    pub(crate) fn look_up(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>>> + Send + use<> {
        let found = self.names.resolve(name);
        let (policy, port) = (Arc::clone(&self.policy), self.own_port);
        async move {
            let found = found.await.map_err(ResolveError::Lookup)?;
            for ip in &found {
                guard::vet(*ip, port, &policy, is_ours)?;
            }
            // The connector puts the URL's port in the place of zero.
            let found = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            let addresses = without_unroutable(found, has_route);
            if addresses.is_empty() { Err(ResolveError::NoAddress.into()) } else { Ok(addresses) }
        }
    }
}

impl Service<Name> for Guarded {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.look_up(name.as_str());
        Box::pin(async move { found.await.map(Vec::into_iter) })
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> Resolving {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Whether an address is one of this machine's: then a socket can be bound to it. Any doubt counts as yes.
pub(crate) fn is_ours(ip: IpAddr) -> bool {
    match UdpSocket::bind(SocketAddr::new(ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// Leaves out addresses that this machine has no route to, if there are others. The connector reports the error of
/// the last address it tried: on a machine without IPv6, a refusal over IPv4 must not look like a missing route,
/// which would cost the endpoint no attempt.
fn without_unroutable(
    addresses: Vec<SocketAddr>,
    has_route: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    let routable: Vec<SocketAddr> = addresses.iter().copied().filter(has_route).collect();
    if routable.is_empty() { addresses } else { routable }
}

/// Connecting a UDP socket sends nothing; it only asks the routing table.
fn has_route(address: &SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    // The port does not matter for the route, but zero is not accepted everywhere.
    let mut target = *address;
    target.set_port(9);
    UdpSocket::bind(any).and_then(|socket| socket.connect(target)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (SocketAddr, SocketAddr) {
        (([192, 0, 2, 1], 0).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 0).into())
    }

    #[test]
    fn an_address_without_a_route_is_left_out_when_there_is_another() {
        let (v4, v6) = addresses();
        assert_eq!(without_unroutable(vec![v4, v6], |a| a.is_ipv4()), [v4]);
    }

    #[test]
    fn without_any_route_the_connector_gets_all_addresses_and_says_so() {
        let (v4, v6) = addresses();
        assert_eq!(without_unroutable(vec![v4, v6], |_| false), [v4, v6]);
    }

    #[test]
    fn a_machine_s_own_addresses_are_told_from_others() {
        assert!(is_ours([127, 0, 0, 1].into()));
        assert!(!is_ours([192, 0, 2, 1].into()));
    }

    #[test]
    fn there_is_a_route_to_this_machine() {
        assert!(has_route(&([127, 0, 0, 1], 0).into()));
    }
}
