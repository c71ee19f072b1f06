//! Which addresses an attempt may go to (outbound.md, "Network").
//!
//! Pure rules: an address, a port and a [`Policy`] in, yes or the reason why not out. [`vet_url`] judges what a URL
//! says by itself, [`vet`] one address, be it written in the URL or resolved. Looking names up, and asking at each
//! connection, is `resolve.rs`.
//!
//! An address is judged by where its packets would end: one that wraps an IPv4 address (mapped, NAT64, 6to4, Teredo)
//! is no way around what is refused for the wrapped one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Url;

/// The network profile: which addresses are allowed before `allow` adds some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// Public addresses, this machine and its local networks.
    #[default]
    Local,
    /// Public addresses.
    Server,
}

/// What one endpoint's attempts may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The profile.
    pub network: Network,
    /// Addresses beyond the profile. Opens neither [`Denied::Range`]s that are never allowed nor own ports.
    pub allow: BTreeSet<IpNet>,
    /// Ports that ringback itself listens on, on whatever address of this machine.
    pub own_ports: BTreeSet<u16>,
}

/// Why an address is refused. The texts hold no part of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The address is in a range that the policy does not allow.
    #[error("{what} ({net})")]
    Range {
        /// The range.
        net: IpNet,
        /// What it is for.
        what: &'static str,
    },
    /// The name stands for a cloud's metadata service.
    #[error("name of a cloud metadata service")]
    MetadataName,
    /// ringback listens there.
    #[error("port {0} of this machine is ringback's own")]
    OwnPort(u16),
    /// There is nothing to judge.
    #[error("the url has no host and port")]
    NoHost,
}

/// Judges one address. `is_ours` says whether an address is one of this machine's; it is asked only about ringback's
/// own ports, and not about loopback.
///
/// # Errors
/// Why the address is refused.
pub fn vet(ip: IpAddr, port: u16, policy: &Policy, is_ours: impl Fn(IpAddr) -> bool) -> Result<(), Denied> {
    let ip = ip.to_canonical();
    for end in wrapped(ip).into_iter().flatten().map(IpAddr::V4).chain([ip]) {
        if policy.own_ports.contains(&port) && (end.is_loopback() || end.is_unspecified() || is_ours(end)) {
            return Err(Denied::OwnPort(port));
        }
        if let Some(range) = range(end).filter(|range| range.standing == Standing::Never) {
            return Err(range.denied());
        }
    }
    // The well-known prefix is only the way an IPv6-only network writes an IPv4 address.
    let end = match (ip, wrapped(ip)) {
        (IpAddr::V6(v6), [Some(v4), _]) if NAT64.contains(&v6) => IpAddr::V4(v4),
        _ => ip,
    };
    if policy.allow.iter().any(|net| net.contains(&ip) || net.contains(&end)) {
        return Ok(());
    }
    match range(end) {
        None => Ok(()),
        Some(range) if range.standing == Standing::Local && policy.network == Network::Local => Ok(()),
        Some(range) => Err(range.denied()),
    }
}

/// Judges what a URL says by itself: an address in any spelling that the URL standard knows, or the name of a
/// metadata service. Any other name is allowed here; its addresses are not yet known.
///
/// # Errors
/// Why the host is refused.
pub fn vet_url(url: &Url, policy: &Policy, is_ours: impl Fn(IpAddr) -> bool) -> Result<(), Denied> {
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(Denied::NoHost);
    };
    // The parser has brought every spelling of an address into the usual one.
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return vet(ip, port, policy, is_ours);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_metadata = METADATA_NAMES.iter().any(|known| {
        name.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    });
    if is_metadata { Err(Denied::MetadataName) } else { Ok(()) }
}

/// The range that makes it pointless to allow `net`: no address in it is ever allowed.
pub fn never_allowed(net: &IpNet) -> Option<Denied> {
    let known = RANGES.iter().find(|range| range.standing == Standing::Never && range.net.contains(net))?;
    Some(known.denied())
}

/// A range of addresses that are not simply public.
struct Range {
    net: IpNet,
    what: &'static str,
    standing: Standing,
}

/// Who may reach a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody, whatever is configured.
    Never,
    /// Whoever is under [`Network::Local`].
    Local,
    /// Whom `allow` names it for.
    Listed,
}

impl Range {
    fn denied(&self) -> Denied {
        Denied::Range { net: self.net, what: self.what }
    }
}

fn range(ip: IpAddr) -> Option<&'static Range> {
    RANGES.iter().find(|range| range.net.contains(&ip))
}

/// The IPv4 addresses that packets to an IPv6 address may be passed on to.
fn wrapped(ip: IpAddr) -> [Option<Ipv4Addr>; 2] {
    let IpAddr::V6(v6) = ip else { return [None, None] };
    let o = v6.octets();
    let last = Ipv4Addr::new(o[12], o[13], o[14], o[15]);
    if NAT64.contains(&v6) || COMPATIBLE.contains(&v6) || TRANSLATED.contains(&v6) {
        [Some(last), None]
    } else if NAT64_LOCAL.contains(&v6) {
        // The network chooses a prefix length; these are the shortest and the longest that fit (RFC 6052, 2.2).
        [Some(last), Some(Ipv4Addr::new(o[6], o[7], o[9], o[10]))]
    } else if SIX_TO_FOUR.contains(&v6) {
        [Some(Ipv4Addr::new(o[2], o[3], o[4], o[5])), None]
    } else if TEREDO.contains(&v6) {
        // The client is written inverted (RFC 4380, 4); before it stands the server.
        let client = Ipv4Addr::new(!o[12], !o[13], !o[14], !o[15]);
        [Some(client), Some(Ipv4Addr::new(o[4], o[5], o[6], o[7]))]
    } else {
        [None, None]
    }
}

/// Names under which clouds tell a machine its own credentials, with everything below them. They mostly resolve to
/// refused addresses; the name alone is enough.
const METADATA_NAMES: [&str; 9] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "api.metadata.cloud.ibm.com",
];

const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const COMPATIBLE: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 0], 96);
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(s: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), length)
}

const fn never(net: IpNet, what: &'static str) -> Range {
    Range { net, what, standing: Standing::Never }
}

const fn local(net: IpNet, what: &'static str) -> Range {
    Range { net, what, standing: Standing::Local }
}

const fn listed(net: IpNet, what: &'static str) -> Range {
    Range { net, what, standing: Standing::Listed }
}

const METADATA: &str = "cloud metadata";

/// Everything that is not public, first match first: a range stands before those that contain it. From the IANA
/// special-purpose address registries and the clouds' own documentation.
static RANGES: [Range; 46] = [
    never(v4([169, 254, 0, 0], 16), "link-local and cloud metadata"),
    never(v4([100, 100, 100, 200], 32), METADATA), // Alibaba
    never(v4([100, 96, 0, 96], 32), METADATA),     // Volcengine
    never(v4([168, 63, 129, 16], 32), METADATA),   // Azure
    never(v4([192, 0, 0, 192], 32), METADATA),     // Oracle
    never(IpNet::V6(v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)), "link-local"),
    never(IpNet::V6(v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32)), METADATA), // AWS
    never(IpNet::V6(v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128)), METADATA), // Google
    never(IpNet::V6(v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128)), METADATA), // Oracle
    never(IpNet::V6(v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128)), METADATA), // Linode
    never(IpNet::V6(v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128)), METADATA), // Scaleway
    local(v4([127, 0, 0, 0], 8), "loopback"),
    local(v4([10, 0, 0, 0], 8), "private network"),
    local(v4([172, 16, 0, 0], 12), "private network"),
    local(v4([192, 168, 0, 0], 16), "private network"),
    // Overlay networks between one's own machines use these.
    local(v4([100, 64, 0, 0], 10), "shared address space"),
    // So do proxies on this machine that answer every name with an address of their own.
    local(v4([198, 18, 0, 0], 15), "benchmarking"),
    local(IpNet::V6(v6([0, 0, 0, 0, 0, 0, 0, 1], 128)), "loopback"),
    local(IpNet::V6(v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)), "unique local"),
    listed(v4([0, 0, 0, 0], 8), "this network"),
    listed(v4([192, 0, 0, 0], 24), "protocol assignments"),
    listed(v4([192, 0, 2, 0], 24), "documentation"),
    listed(v4([192, 88, 99, 0], 24), "6to4 relays"),
    listed(v4([198, 51, 100, 0], 24), "documentation"),
    listed(v4([203, 0, 113, 0], 24), "documentation"),
    listed(v4([224, 0, 0, 0], 4), "multicast"),
    listed(v4([255, 255, 255, 255], 32), "broadcast"),
    listed(v4([240, 0, 0, 0], 4), "reserved"),
    listed(IpNet::V6(v6([0, 0, 0, 0, 0, 0, 0, 0], 128)), "unspecified"),
    listed(IpNet::V6(COMPATIBLE), "ipv4-compatible"),
    listed(IpNet::V6(TRANSLATED), "ipv4-translated"),
    listed(IpNet::V6(NAT64_LOCAL), "local nat64"),
    listed(IpNet::V6(v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64)), "discard"),
    listed(IpNet::V6(TEREDO), "teredo"),
    listed(IpNet::V6(v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23)), "protocol assignments"),
    listed(IpNet::V6(v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32)), "documentation"),
    listed(IpNet::V6(SIX_TO_FOUR), "6to4"),
    listed(IpNet::V6(v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20)), "documentation"),
    listed(IpNet::V6(v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16)), "segment routing"),
    listed(IpNet::V6(v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10)), "site-local"),
    listed(IpNet::V6(v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8)), "multicast"),
    // Public addresses are in 2000::/3; this is the rest.
    listed(IpNet::V6(v6([0, 0, 0, 0, 0, 0, 0, 0], 3)), "not public"),
    listed(IpNet::V6(v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2)), "not public"),
    listed(IpNet::V6(v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 2)), "not public"),
    listed(IpNet::V6(v6([0xc000, 0, 0, 0, 0, 0, 0, 0], 3)), "not public"),
    listed(IpNet::V6(v6([0xe000, 0, 0, 0, 0, 0, 0, 0], 3)), "not public"),
];
