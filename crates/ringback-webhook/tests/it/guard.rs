//! outbound.md, "Network": the rules as a table, and the spellings of a host. What the client does with them is in
//! `reach`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use ringback_webhook::guard::{Denied, Network, Policy, never_allowed, vet, vet_url};
use url::Url;

pub(crate) fn policy(network: Network, allow: &[&str], own_ports: &[u16]) -> Policy {
    Policy {
        network,
        allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
        own_ports: own_ports.iter().copied().collect(),
    }
}

fn nobody(_: IpAddr) -> bool {
    false
}

/// `ok`, or the range that is named.
fn verdict(ip: &str, policy: &Policy) -> String {
    match vet(ip.parse().unwrap(), 443, policy, nobody) {
        Ok(()) => "ok".to_owned(),
        Err(Denied::Range { net, .. }) => net.to_string(),
        Err(other) => panic!("{ip}: {other}"),
    }
}

/// Both edges of every range and their neighbours: address, verdict of `local`, verdict of `server`.
const TABLE: &str = "
0.0.0.0 0.0.0.0/8 0.0.0.0/8
0.0.0.1 0.0.0.0/8 0.0.0.0/8
0.255.255.255 0.0.0.0/8 0.0.0.0/8
1.0.0.0 ok ok
1.1.1.1 ok ok
8.8.8.8 ok ok
9.255.255.255 ok ok
10.0.0.0 ok 10.0.0.0/8
10.1.2.3 ok 10.0.0.0/8
10.255.255.255 ok 10.0.0.0/8
11.0.0.0 ok ok
100.63.255.255 ok ok
100.64.0.0 ok 100.64.0.0/10
100.96.0.95 ok 100.64.0.0/10
100.96.0.96 100.96.0.96/32 100.96.0.96/32
100.96.0.97 ok 100.64.0.0/10
100.100.100.100 ok 100.64.0.0/10
100.100.100.199 ok 100.64.0.0/10
100.100.100.200 100.100.100.200/32 100.100.100.200/32
100.100.100.201 ok 100.64.0.0/10
100.127.255.255 ok 100.64.0.0/10
100.128.0.0 ok ok
126.255.255.255 ok ok
127.0.0.0 ok 127.0.0.0/8
127.0.0.1 ok 127.0.0.0/8
127.0.0.53 ok 127.0.0.0/8
127.0.1.1 ok 127.0.0.0/8
127.255.255.255 ok 127.0.0.0/8
128.0.0.0 ok ok
168.63.129.15 ok ok
168.63.129.16 168.63.129.16/32 168.63.129.16/32
168.63.129.17 ok ok
169.253.255.255 ok ok
169.254.0.0 169.254.0.0/16 169.254.0.0/16
169.254.0.23 169.254.0.0/16 169.254.0.0/16
169.254.42.42 169.254.0.0/16 169.254.0.0/16
169.254.169.123 169.254.0.0/16 169.254.0.0/16
169.254.169.253 169.254.0.0/16 169.254.0.0/16
169.254.169.254 169.254.0.0/16 169.254.0.0/16
169.254.170.2 169.254.0.0/16 169.254.0.0/16
169.254.170.23 169.254.0.0/16 169.254.0.0/16
169.254.255.255 169.254.0.0/16 169.254.0.0/16
169.255.0.0 ok ok
172.15.255.255 ok ok
172.16.0.0 ok 172.16.0.0/12
172.17.0.1 ok 172.16.0.0/12
172.31.255.255 ok 172.16.0.0/12
172.32.0.0 ok ok
191.255.255.255 ok ok
192.0.0.0 192.0.0.0/24 192.0.0.0/24
192.0.0.8 192.0.0.0/24 192.0.0.0/24
192.0.0.170 192.0.0.0/24 192.0.0.0/24
192.0.0.191 192.0.0.0/24 192.0.0.0/24
192.0.0.192 192.0.0.192/32 192.0.0.192/32
192.0.0.193 192.0.0.0/24 192.0.0.0/24
192.0.0.255 192.0.0.0/24 192.0.0.0/24
192.0.1.0 ok ok
192.0.1.255 ok ok
192.0.2.0 192.0.2.0/24 192.0.2.0/24
192.0.2.1 192.0.2.0/24 192.0.2.0/24
192.0.2.255 192.0.2.0/24 192.0.2.0/24
192.0.3.0 ok ok
192.31.196.1 ok ok
192.52.193.1 ok ok
192.88.98.255 ok ok
192.88.99.0 192.88.99.0/24 192.88.99.0/24
192.88.99.1 192.88.99.0/24 192.88.99.0/24
192.88.99.255 192.88.99.0/24 192.88.99.0/24
192.88.100.0 ok ok
192.167.255.255 ok ok
192.168.0.0 ok 192.168.0.0/16
192.168.1.1 ok 192.168.0.0/16
192.168.255.255 ok 192.168.0.0/16
192.169.0.0 ok ok
192.175.48.1 ok ok
198.17.255.255 ok ok
198.18.0.0 ok 198.18.0.0/15
198.19.255.255 ok 198.18.0.0/15
198.20.0.0 ok ok
198.51.99.255 ok ok
198.51.100.0 198.51.100.0/24 198.51.100.0/24
198.51.100.255 198.51.100.0/24 198.51.100.0/24
198.51.101.0 ok ok
203.0.112.255 ok ok
203.0.113.0 203.0.113.0/24 203.0.113.0/24
203.0.113.255 203.0.113.0/24 203.0.113.0/24
203.0.114.0 ok ok
223.255.255.255 ok ok
224.0.0.0 224.0.0.0/4 224.0.0.0/4
224.0.0.251 224.0.0.0/4 224.0.0.0/4
239.255.255.250 224.0.0.0/4 224.0.0.0/4
239.255.255.255 224.0.0.0/4 224.0.0.0/4
240.0.0.0 240.0.0.0/4 240.0.0.0/4
255.255.255.254 240.0.0.0/4 240.0.0.0/4
255.255.255.255 255.255.255.255/32 255.255.255.255/32
:: ::/128 ::/128
::1 ok ::1/128
::2 ::/96 ::/96
::7f00:1 ::/96 ::/96
::8.8.8.8 ::/96 ::/96
::ffff:ffff ::/96 ::/96
::1:0:0 ::/3 ::/3
::fffe:ffff:ffff ::/3 ::/3
::1:0:0:0 ::/3 ::/3
::ffff:0:808:808 ::ffff:0:0:0/96 ::ffff:0:0:0/96
::fffe:0:808:808 ::/3 ::/3
::ffff:1:808:808 ::/3 ::/3
64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff ::/3 ::/3
64:ff9b::808:808 ok ok
64:ff9b::a00:1 ok 10.0.0.0/8
64:ff9b::7f00:1 ok 127.0.0.0/8
64:ff9b::a9fe:a9fe 169.254.0.0/16 169.254.0.0/16
64:ff9b::1:808:808 ::/3 ::/3
64:ff9b:0:ffff:ffff:ffff:ffff:ffff ::/3 ::/3
64:ff9b:1:: 64:ff9b:1::/48 64:ff9b:1::/48
64:ff9b:1::808:808 64:ff9b:1::/48 64:ff9b:1::/48
64:ff9b:1::a9fe:a9fe 169.254.0.0/16 169.254.0.0/16
64:ff9b:1:a9fe:a9:fe00:: 169.254.0.0/16 169.254.0.0/16
64:ff9b:1:ffff:ffff:ffff:ffff:ffff 64:ff9b:1::/48 64:ff9b:1::/48
64:ff9b:2:: ::/3 ::/3
100:: 100::/64 100::/64
100::ffff:ffff:ffff:ffff 100::/64 100::/64
100:0:0:1:: ::/3 ::/3
1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ::/3 ::/3
2000:: ok ok
2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok ok
2001:: 2001::/32 2001::/32
2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::/32 2001::/32
2001:0:a9fe:a9fe:: 169.254.0.0/16 169.254.0.0/16
2001::5601:5601 169.254.0.0/16 169.254.0.0/16
2001:1::1 2001::/23 2001::/23
2001:2::1 2001::/23 2001::/23
2001:10::1 2001::/23 2001::/23
2001:20::1 2001::/23 2001::/23
2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff 2001::/23 2001::/23
2001:200:: ok ok
2001:4860:4860::8888 ok ok
2001:db7:ffff:ffff:ffff:ffff:ffff:ffff ok ok
2001:db8:: 2001:db8::/32 2001:db8::/32
2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8::/32 2001:db8::/32
2001:db9:: ok ok
2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok ok
2002:: 2002::/16 2002::/16
2002:808:808:: 2002::/16 2002::/16
2002:7f00:1:: 2002::/16 2002::/16
2002:a9fe:a9fe:: 169.254.0.0/16 169.254.0.0/16
2002:ffff:fffe:ffff:ffff:ffff:ffff:ffff 2002::/16 2002::/16
2003:: ok ok
2606:4700:4700::1111 ok ok
2620:4f:8000::1 ok ok
3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok ok
3fff:: 3fff::/20 3fff::/20
3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff 3fff::/20 3fff::/20
3fff:1000:: ok ok
3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok ok
4000:: 4000::/2 4000::/2
5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 4000::/2 4000::/2
5f00:: 5f00::/16 5f00::/16
5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff 5f00::/16 5f00::/16
5f01:: 4000::/2 4000::/2
7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 4000::/2 4000::/2
8000:: 8000::/2 8000::/2
bfff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 8000::/2 8000::/2
c000:: c000::/3 c000::/3
dfff:ffff:ffff:ffff:ffff:ffff:ffff:ffff c000::/3 c000::/3
e000:: e000::/3 e000::/3
fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff e000::/3 e000::/3
fc00:: ok fc00::/7
fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok fc00::/7
fd00:: ok fc00::/7
fd00:42::41 ok fc00::/7
fd00:42::42 fd00:42::42/128 fd00:42::42/128
fd00:42::43 ok fc00::/7
fd00:c1::a9fe:a9fd ok fc00::/7
fd00:c1::a9fe:a9fe fd00:c1::a9fe:a9fe/128 fd00:c1::a9fe:a9fe/128
fd00:c1::a9fe:a9ff ok fc00::/7
fd00:ec1:ffff:ffff:ffff:ffff:ffff:ffff ok fc00::/7
fd00:ec2:: fd00:ec2::/32 fd00:ec2::/32
fd00:ec2::23 fd00:ec2::/32 fd00:ec2::/32
fd00:ec2::254 fd00:ec2::/32 fd00:ec2::/32
fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff fd00:ec2::/32 fd00:ec2::/32
fd00:ec3:: ok fc00::/7
fd00:a9fe:a9fe:: ok fc00::/7
fd00:a9fe:a9fe::1 fd00:a9fe:a9fe::1/128 fd00:a9fe:a9fe::1/128
fd00:a9fe:a9fe::2 ok fc00::/7
fd20:ce::253 ok fc00::/7
fd20:ce::254 fd20:ce::254/128 fd20:ce::254/128
fd20:ce::255 ok fc00::/7
fd7a:115c:a1e0::1 ok fc00::/7
fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ok fc00::/7
fe00:: e000::/3 e000::/3
fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff e000::/3 e000::/3
fe80:: fe80::/10 fe80::/10
fe80::1 fe80::/10 fe80::/10
fe80::a9fe:a9fe fe80::/10 fe80::/10
febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::/10 fe80::/10
fec0:: fec0::/10 fec0::/10
feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0::/10 fec0::/10
ff00:: ff00::/8 ff00::/8
ff02::1 ff00::/8 ff00::/8
ff02::fb ff00::/8 ff00::/8
ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ff00::/8 ff00::/8
";

/// The ways to write an IPv4 address as an IPv6 one.
fn mapped(ip: Ipv4Addr) -> Ipv6Addr {
    ip.to_ipv6_mapped()
}

fn under(prefix: [u16; 6], ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = prefix;
    let [g, h] = halves(ip);
    Ipv6Addr::new(a, b, c, d, e, f, g, h)
}

fn halves(ip: Ipv4Addr) -> [u16; 2] {
    let bits = ip.to_bits().to_be_bytes();
    [u16::from_be_bytes([bits[0], bits[1]]), u16::from_be_bytes([bits[2], bits[3]])]
}

fn nat64(ip: Ipv4Addr) -> Ipv6Addr {
    under([0x64, 0xff9b, 0, 0, 0, 0], ip)
}

/// Those that no receiver is reached by nowadays.
fn outdated(ip: Ipv4Addr) -> [Ipv6Addr; 4] {
    let [a, b] = halves(ip);
    [
        Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, !a, !b),
        Ipv6Addr::new(0x2001, 0, a, b, 0, 0, !0x808, !0x808),
        under([0, 0, 0, 0, 0xffff, 0], ip),
    ]
}

#[test]
fn every_special_range_is_judged_at_both_edges() {
    let (local, server) = (policy(Network::Local, &[], &[]), policy(Network::Server, &[], &[]));
    let mut vectors = 0;
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let [ip, in_local, in_server] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line:?} has not three words")
        };
        assert_eq!((&*verdict(ip, &local), &*verdict(ip, &server)), (in_local, in_server), "{ip}");
        vectors += 1;
        // An IPv4 address is judged alike in the spellings in use, and never better in the others.
        let Ok(v4) = ip.parse::<Ipv4Addr>() else { continue };
        for same in [mapped(v4), nat64(v4)].map(|v6| v6.to_string()) {
            assert_eq!(
                (&*verdict(&same, &local), &*verdict(&same, &server)),
                (in_local, in_server),
                "{same}"
            );
            vectors += 1;
        }
        for refused in outdated(v4).map(|v6| v6.to_string()) {
            for policy in [&local, &server] {
                assert_ne!(verdict(&refused, policy), "ok", "{refused}");
            }
            vectors += 1;
        }
    }
    assert!(vectors >= 300, "{vectors}");
}

#[test]
fn allow_adds_addresses_to_a_profile() {
    for (allow, ip) in [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("10.0.0.0/8", "64:ff9b::a00:1"),
        ("64:ff9b::/96", "64:ff9b::a00:1"),
        ("10.1.0.0/16", "10.1.255.255"),
        ("fd00::/8", "fd12::1"),
        ("2002::/16", "2002:a00:1::"),
        ("64:ff9b:1::/48", "64:ff9b:1::a00:1"),
        ("0.0.0.0/0", "203.0.113.1"),
        ("::/0", "fec0::1"),
    ] {
        assert_eq!(verdict(ip, &policy(Network::Server, &[allow], &[])), "ok", "{ip} by {allow}");
    }
    let server = policy(Network::Server, &["10.1.0.0/16"], &[]);
    assert_eq!(verdict("10.2.0.0", &server), "10.0.0.0/8");
    assert_eq!(verdict("127.0.0.1", &server), "127.0.0.0/8");
}

#[test]
fn allow_opens_no_link_local_address_and_no_metadata() {
    for network in [Network::Local, Network::Server] {
        let all = policy(network, &["0.0.0.0/0", "::/0"], &[]);
        for ip in [
            "169.254.169.254",
            "169.254.1.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "100.96.0.96",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2001:0:808:808::5601:5601",
            "::ffff:0:169.254.169.254",
        ] {
            assert_ne!(verdict(ip, &all), "ok", "{ip}");
        }
    }
}

#[test]
fn allowing_what_is_never_allowed_is_known_to_be_pointless() {
    for pointless in ["169.254.0.0/16", "169.254.169.254/32", "fe80::/64", "fd00:ec2::254/128"] {
        assert!(never_allowed(&pointless.parse().unwrap()).is_some(), "{pointless}");
    }
    for useful in ["0.0.0.0/0", "169.0.0.0/8", "10.0.0.0/8", "fd00::/8", "8.8.8.8/32"] {
        assert_eq!(never_allowed(&useful.parse().unwrap()), None, "{useful}");
    }
}

#[test]
fn ringback_s_own_ports_are_refused_on_this_machine_and_nowhere_else() {
    let lan: IpAddr = [192, 168, 1, 2].into();
    let ours = |ip: IpAddr| ip == lan;
    for (network, allow) in [(Network::Local, &[][..]), (Network::Server, &["0.0.0.0/0", "::/0"])] {
        let policy = policy(network, allow, &[7421, 7879]);
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "::1",
            "::",
            "192.168.1.2",
            "::ffff:127.0.0.1",
            "::ffff:192.168.1.2",
            "64:ff9b::7f00:1",
            "64:ff9b::c0a8:102",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            for port in [7421, 7879] {
                let refused = vet(ip.parse().unwrap(), port, &policy, ours);
                assert_eq!(refused, Err(Denied::OwnPort(port)), "{ip}");
            }
            assert_ne!(vet(ip.parse().unwrap(), 7422, &policy, ours), Err(Denied::OwnPort(7422)), "{ip}");
        }
        for ip in ["192.168.1.3", "8.8.8.8"] {
            assert_eq!(vet(ip.parse().unwrap(), 7421, &policy, ours), Ok(()), "{ip}");
        }
    }
}

fn of_url(url: &str, policy: &Policy) -> Result<(), Denied> {
    vet_url(&Url::parse(url).unwrap(), policy, nobody)
}

/// Every spelling of a loopback address that the URL standard knows.
const LOOPBACK_URLS: &[&str] = &[
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/",
    "http://127.0.0.1./",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://2130706433./",
    "http://0x7f000001/",
    "http://0X7F.0.0.1/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.01/",
    "http://0177.0x0.0.1/",
    "http://127.0x1/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://127\u{3002}0\u{3002}0\u{3002}1/",
    "http://127\u{ff0e}0\u{ff0e}0\u{ff0e}1/",
    "http://\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}/",
    "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
    "http://1\u{ad}27.0.0.1/",
    "http://user@127.0.0.1/",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1:443/",
    "http://example.com%40evil@127.0.0.1/",
    "http:\\\\127.0.0.1\\x",
    "http:127.0.0.1/",
    "http:////127.0.0.1/",
    " http://127.0.0.1/ ",
    "http://127.0.\t0.1/",
    "http://127.0.0.1#@example.com/",
    "http://127.0.0.1?@example.com/",
    "http://127.0.0.1\\@example.com/",
    "https://127.0.0.1/",
    "https://127.0.0.1:0443/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000:0000::0001]:80/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::FFFF:7F00:1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://u:p@[::1]:9/",
];

#[test]
fn every_spelling_of_an_address_is_vetted_before_anything_is_done() {
    let (local, server) = (policy(Network::Local, &[], &[]), policy(Network::Server, &[], &[]));
    for url in LOOPBACK_URLS {
        assert_eq!(of_url(url, &local), Ok(()), "{url}");
        let denied = of_url(url, &server).expect_err(url);
        assert!(denied.to_string().starts_with("loopback ("), "{url}: {denied}");
        // The same spelling of the metadata address, where it has one.
        let metadata = url.replace("127.0.0.1", "169.254.169.254");
        if metadata != *url {
            assert!(matches!(of_url(&metadata, &local), Err(Denied::Range { .. })), "{metadata}");
        }
    }
    for url in [
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://0251.0376.0251.0376/",
        "http://025177524776/",
        "http://169.254.43518/",
        "http://169.16689662/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
    ] {
        assert!(matches!(of_url(url, &local), Err(Denied::Range { .. })), "{url}");
    }
    for url in ["http://example.com/", "http://127.0.0.1.example.com/", "http://8.8.8.8:80/", "http://x/"] {
        assert_eq!(of_url(url, &server), Ok(()), "{url}");
    }
}

#[test]
fn the_names_of_metadata_services_are_refused_in_every_spelling() {
    for url in [
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://metadata.google.internal./",
        "http://METADATA.Google.Internal/",
        "http://x.metadata.google.internal/",
        "http://metadata.goog/",
        "http://metadata.goog..:80/",
        "http://\u{ff4d}etadata.goog/",
        "http://m%65tadata.goog/",
        "http://user@metadata.goog/",
        "http://instance-data/latest/",
        "http://instance-data.ec2.internal/",
        "http://metadata.azure.internal/",
    ] {
        for network in [Network::Local, Network::Server] {
            let all = policy(network, &["0.0.0.0/0", "::/0"], &[]);
            assert_eq!(of_url(url, &all), Err(Denied::MetadataName), "{url}");
        }
    }
    for url in ["http://my-metadata.goog/", "http://metadata.goog.example.com/", "http://instance-data.com/"]
    {
        assert_eq!(of_url(url, &Policy::default()), Ok(()), "{url}");
    }
}

#[test]
fn the_port_of_a_url_is_the_one_that_is_meant() {
    let own = policy(Network::Local, &[], &[80, 443, 7421]);
    for (url, port) in [
        ("http://127.0.0.1/", 80),
        ("https://127.0.0.1/", 443),
        ("http://127.0.0.1:7421/", 7421),
        ("http://127.0.0.1:07421/", 7421),
        ("http://0/", 80),
        ("http://[::]:443/", 443),
    ] {
        assert_eq!(of_url(url, &own), Err(Denied::OwnPort(port)), "{url}");
    }
    assert_eq!(of_url("http://127.0.0.1:8080/", &own), Ok(()));
    assert_eq!(of_url("data:text/plain,x", &own), Err(Denied::NoHost));
}

#[test]
fn a_reason_names_the_range_and_nothing_of_the_url() {
    let server = policy(Network::Server, &[], &[7421]);
    for (url, reason) in [
        ("http://u:pw@10.1.2.3/secret?k=v", "private network (10.0.0.0/8)"),
        ("http://169.254.169.254/latest", "link-local and cloud metadata (169.254.0.0/16)"),
        ("http://metadata.goog/secret", "name of a cloud metadata service"),
        ("http://127.0.0.1:7421/secret", "port 7421 of this machine is ringback's own"),
    ] {
        assert_eq!(of_url(url, &server).unwrap_err().to_string(), reason);
    }
}

proptest! {
    #[test]
    fn no_way_to_write_an_address_is_better_than_the_address(bits: u32, server: bool) {
        let network = if server { Network::Server } else { Network::Local };
        let policy = policy(network, &[], &[]);
        let v4 = Ipv4Addr::from_bits(bits);
        let plain = vet(v4.into(), 443, &policy, nobody);
        prop_assert_eq!(vet(mapped(v4).into(), 443, &policy, nobody), plain);
        prop_assert_eq!(vet(nat64(v4).into(), 443, &policy, nobody), plain);
        for v6 in outdated(v4) {
            prop_assert!(vet(v6.into(), 443, &policy, nobody).is_err(), "{}", v6);
        }
    }

    #[test]
    fn what_a_server_may_reach_is_a_part_of_what_a_local_one_may(bits: u128) {
        let ip = Ipv6Addr::from_bits(bits);
        let [local, server] = [Network::Local, Network::Server].map(|n| policy(n, &[], &[]));
        if vet(ip.into(), 443, &server, nobody).is_ok() {
            prop_assert_eq!(vet(ip.into(), 443, &local, nobody), Ok(()));
            prop_assert_eq!(bits >> 125, 1, "public addresses begin with 001: {}", ip);
        }
    }
}
