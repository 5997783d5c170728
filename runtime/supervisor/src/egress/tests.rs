//! Two hundred spellings of places where no guest belongs, and an oracle that goes through ranges one by one.

use proptest::prelude::*;

use super::*;

/// IPv4 addresses that are not public, at both ends of their ranges where there is a range.
const INSIDE: &[&str] = &[
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.0",
    "172.17.0.1",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.1.1",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
];

/// IPv6 addresses that are not public and hold no IPv4 address.
const INSIDE_V6: &[&str] = &[
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::1",
    "64:ff9b:1:ffff::a00:1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fdff:ffff::1",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff00::1",
    "ff02::1",
    "ff0e::1",
    "4000::1",
    "1fff::1",
    "e000::1",
    "2620:4f:8000::1",
];

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001:80b::200e",
    "2001:200::1",
    "2001:4860:4860::8888",
    "3ffe::1",
    "2000::1",
    "2003::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
];

/// Names which old resolvers and careless programs take for addresses, or which carry something beside a host.
const NO_HOSTS: &[&str] = &[
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7F.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.01",
    "0000.0.0.0",
    "1.2.3.4.5",
    "127.0.0.1.",
    "3232235521",
    "0xc0a80001",
    "00.0.0.0",
    "256.256.256.256",
    "127.0.0.1:80",
    "user@127.0.0.1",
    "user:word@localhost",
    "localhost:22",
    "[::1",
    "::1",
    "[::1]:80",
    "[::ffff:7f00:1%1]",
    "[fe80::1%25eth0]",
    "[127.0.0.1]",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "lοcalhost",
    "bücher.example",
    "local host",
    " localhost",
    "localhost ",
    "local\thost",
    "localhost\0.example.com",
    "localhost%00",
    "%31%32%37.0.0.1",
    "localhost/",
    "localhost#@a",
    "localhost?a",
    "localhost\\a",
    "a..b",
    ".localhost",
    "",
    ".",
    "-",
    "-a.example",
    "a-.example",
    "169.254.169.254.0x0",
    "example.1",
    "example.0x1f",
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Every form in which an IPv4 address can stand in an IPv6 one and lead to it.
fn coats(v4: &str) -> [String; 3] {
    let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    [format!("::ffff:{v4}"), format!("64:ff9b::{v4}"), format!("2002:{high:x}:{low:x}::1")]
}

fn open_to_all() -> Capabilities {
    Capabilities {
        outbound_http: vec!["http://*".to_owned(), "https://*".to_owned()],
        sockets: vec!["*:80".to_owned()],
        ..Default::default()
    }
}

#[test]
fn two_hundred_spellings_lead_nowhere() {
    let mut spellings = 0;
    let v4 = INSIDE.iter().flat_map(|v4| coats(v4).into_iter().chain([(*v4).to_owned()]));
    for text in v4.chain(INSIDE_V6.iter().map(|text| (*text).to_owned())) {
        let found = permitted([address(&text)], &Opened::default());
        assert!(matches!(found, Err(Denial::NotPublic { .. })), "{text}: {found:?}");
        spellings += 1;
    }
    for text in NO_HOSTS {
        let found = granted(&open_to_all(), Using::Http, text, 80);
        // A dot at the end belongs to names only; as an address it is judged like any other.
        let is_address = matches!(found, Ok(Host::Address(address)) if not_public(address).is_some());
        assert!(matches!(found, Err(Denial::NoHost(_))) || is_address, "{text:?}: {found:?}");
        spellings += 1;
    }
    assert!(spellings >= 200, "only {spellings}");
    for text in PUBLIC {
        assert!(permitted([address(text)], &Opened::default()).is_ok(), "{text} is public");
    }
}

#[test]
fn a_name_with_inner_and_outer_addresses_leads_to_the_outer_ones_only() {
    let both = ["127.0.0.1", "8.8.8.8", "::1", "::ffff:10.0.0.1", "2606:4700::1111"].map(address);
    let left = permitted(both, &Opened::default()).unwrap();
    assert_eq!(left, ["8.8.8.8", "2606:4700::1111"].map(address));
    assert_eq!(permitted([], &Opened::default()), Ok(Vec::new()));
    let many = permitted((0..1000).map(|_| address("8.8.8.8")), &Opened::default()).unwrap();
    assert_eq!(many.len(), MAX_ADDRESSES);
}

#[test]
fn a_rebound_name_is_judged_by_the_address_that_it_has_now() {
    // First the name is public, then it is not: nothing is remembered from the first time.
    assert!(permitted([address("8.8.8.8")], &Opened::default()).is_ok());
    let denied = permitted([address("169.254.169.254")], &Opened::default()).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "egress_denied: 169.254.169.254 is the address of a cloud's metadata, \
         which `[egress] allow` of the node's config does not open"
    );
}

#[test]
fn an_opened_range_opens_its_addresses_and_their_mapped_form_and_no_others() {
    let opened: Opened =
        ["127.0.0.0/8", "fd00::/8", "10.1.2.3"].map(|text| text.parse().unwrap()).into_iter().collect();
    for text in ["127.0.0.1", "127.255.0.1", "fd00::1", "10.1.2.3"] {
        assert_eq!(permitted([address(text)], &opened), Ok(vec![address(text)]));
    }
    assert_eq!(permitted([address("::ffff:127.0.0.1")], &opened), Ok(vec![address("127.0.0.1")]));
    for text in ["::1", "10.1.2.4", "fc00::1", "128.0.0.1.0"] {
        let Ok(address) = text.parse() else { continue };
        assert!(permitted([address], &opened).is_err(), "{text}");
    }
    let everything: Opened = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into_iter().collect();
    assert!(permitted(["10.0.0.1", "::1"].map(address), &everything).is_ok());
    for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10/8", "a/8", "10.0.0.0/-1", "10.0.0.0/+8x"] {
        assert!(text.parse::<AddressRange>().is_err(), "{text:?}");
    }
}

#[test]
fn a_grant_binds_scheme_host_and_port() {
    let capabilities = Capabilities {
        outbound_http: vec!["https://*.example.org".to_owned()],
        sockets: vec!["db.example.org:5432".to_owned()],
        ..Default::default()
    };
    assert!(granted(&capabilities, Using::Https, "API.example.org.", 443).is_ok());
    assert!(granted(&capabilities, Using::Sockets, "db.example.org", 5432).is_ok());
    for (using, host, port) in [
        (Using::Http, "api.example.org", 443),
        (Using::Https, "api.example.org", 80),
        (Using::Https, "example.org", 443),
        (Using::Sockets, "db.example.org", 443),
        (Using::Https, "db.example.org", 5432),
        (Using::Https, "10.0.0.1", 443),
    ] {
        let denial = granted(&capabilities, using, host, port).unwrap_err();
        assert!(denial.to_string().starts_with("egress_denied: no `"), "{denial}");
    }
    assert!(granted(&open_to_all(), Using::Http, "a.example", 0).is_err());
}

#[test]
fn only_names_of_a_socket_grant_are_looked_up() {
    let capabilities = Capabilities {
        outbound_http: vec!["https://api.example.org".to_owned()],
        sockets: vec!["db.example.org:5432".to_owned(), "10.0.0.1:6379".to_owned()],
        ..Default::default()
    };
    assert_eq!(granted_lookup(&capabilities, "DB.example.org."), Ok("db.example.org".to_owned()));
    for name in ["api.example.org", "example.org", "10.0.0.1", "8.8.8.8", "[::1]"] {
        let denial = granted_lookup(&capabilities, name).unwrap_err();
        assert!(denial.to_string().starts_with("egress_denied: no `sockets` grant names "), "{denial}");
    }
    for name in NO_HOSTS {
        assert!(granted_lookup(&open_to_all(), name).is_err(), "{name:?}");
    }
}

#[test]
fn of_a_name_only_an_address_that_was_judged_is_connected() {
    let host: Host = "db.example.org".parse().unwrap();
    let judged = permitted(["10.0.0.1", "8.8.8.8"].map(address), &Opened::default()).unwrap();
    assert_eq!(chosen(&host, &judged, address("8.8.8.8")), Ok(address("8.8.8.8")));
    let denial = chosen(&host, &judged, address("10.0.0.1")).unwrap_err();
    assert_eq!(denial.to_string(), "egress_denied: db.example.org does not have the address 10.0.0.1");
}

/// The slow and obvious way: is the address in one of the ranges of the registries, one by one?
fn oracle(address: IpAddr) -> bool {
    const V4: &[&str] = &[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ];
    const V6: &[&str] = &["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"];
    let within = |ranges: &[&str], address| {
        ranges.iter().any(|range| range.parse::<AddressRange>().unwrap().contains(address))
    };
    match address {
        IpAddr::V4(_) => within(V4, address),
        IpAddr::V6(v6) => {
            let bytes = v6.octets();
            let last = IpAddr::from([bytes[12], bytes[13], bytes[14], bytes[15]]);
            if bytes[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
                || bytes[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]
            {
                return within(V4, last);
            }
            let is_global_unicast = bytes[0] >> 5 == 1;
            !is_global_unicast || within(V6, address)
        }
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    // Mostly near the ends of the ranges: anywhere in 128 bits there would be nothing to find.
    let prefix =
        prop::sample::select(INSIDE_V6.iter().chain(PUBLIC).chain(INSIDE).copied().collect::<Vec<_>>());
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
        (prefix, -2_i32..=2, 0_u32..8).prop_map(|(text, step, octets)| {
            match address(text) {
                IpAddr::V4(v4) => {
                    let step = step.cast_unsigned().wrapping_shl(8 * (octets % 4));
                    IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(step)))
                }
                IpAddr::V6(v6) => {
                    let step = i128::from(step).cast_unsigned().wrapping_shl(16 * octets);
                    IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().wrapping_add(step)))
                }
            }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_decision_is_that_of_the_list_of_ranges(address in any_address()) {
        prop_assert_eq!(not_public(address).is_some(), oracle(address), "{}", address);
    }

    #[test]
    fn no_text_is_a_host_that_leads_inside(text in "[0-9a-fx.:\\[\\]@%]{0,24}") {
        if let Ok(Host::Address(found)) = granted(&open_to_all(), Using::Http, &text, 80) {
            let inner = text.trim_start_matches('[').trim_end_matches(']');
            prop_assert_eq!(inner.parse::<IpAddr>().ok(), Some(found));
        }
    }
}
