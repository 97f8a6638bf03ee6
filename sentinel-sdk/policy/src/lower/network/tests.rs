//! Every form of an endpoint, and what each wrong one is answered with.

use proptest::prelude::*;

use std::net::{IpAddr, Ipv4Addr};

use sentinel_proto::HostName;

use super::address::{check_mapped, first_address, width};
use super::*;

fn read(text: &str) -> Result<Endpoint, Complaint> {
    endpoint(text, Entries::Any)
}

fn text_of(endpoint: Endpoint) -> String {
    endpoint.text()
}

#[test]
fn every_form_is_read_as_what_it_shows() {
    for (text, canonical) in [
        ("127.0.0.1:8080", "127.0.0.1:8080/tcp"),
        ("127.0.0.1:8080/tcp", "127.0.0.1:8080/tcp"),
        ("127.0.0.1:53/udp", "127.0.0.1:53/udp"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432/tcp"),
        ("10.0.0.0/8:*", "10.0.0.0/8:*/tcp"),
        ("10.1.2.3/32:*/udp", "10.1.2.3:*/udp"),
        ("0.0.0.0/0:65535", "0.0.0.0/0:65535/tcp"),
        ("[fd00::/8]:443", "[fd00::/8]:443/tcp"),
        ("[::1]:443/udp", "[::1]:443/udp"),
        ("[::1/128]:1", "[::1]:1/tcp"),
        ("[2000::/3]:*", "[2000::/3]:*/tcp"),
        ("[2001:DB8::0:1]:443", "[2001:db8::1]:443/tcp"),
        ("[::ffff:0:0:0/96]:1", "[::ffff:0:0:0/96]:1/tcp"),
    ] {
        assert_eq!(read(text).map(text_of).as_deref(), Ok(canonical), "{text}");
    }
}

#[test]
fn every_wrong_form_is_answered_with_the_right_one() {
    for (text, right) in [
        ("127.0.0.1", "`127.0.0.1:443`"),
        ("10.0.0.0/8", "`10.0.0.0/8:443`"),
        ("[::1]", "`[::1]:443`"),
        ("127.0.0.1:", "1 to 65535"),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:080", "leading zeros"),
        ("127.0.0.1:65536", "1 to 65535"),
        ("127.0.0.1:+80", "1 to 65535"),
        ("127.0.0.1:http", "1 to 65535"),
        ("127.0.0.1:80/sctp", "`/udp`"),
        ("127.0.0.1:80/TCP", "`/tcp`"),
        ("127.0.0.1:80/", "`/tcp`"),
        ("10.0.0.1/8:5432", "`10.0.0.0/8:5432`"),
        ("10.0.0.1/8:5432", "`10.0.0.1:5432`"),
        ("[fd00::1/8]:443/udp", "`[fd00::/8]:443/udp`"),
        ("10.0.0.0/33:1", "0 to 32"),
        ("10.0.0.0/08:1", "0 to 32"),
        ("10.0.0.0/+8:1", "0 to 32"),
        ("10.0.0.0/:1", "0 to 32"),
        ("[fd00::/129]:1", "0 to 128"),
        ("010.0.0.1:80", "`10.0.0.1`"),
        ("10.0.0.00:80", "`10.0.0.0`"),
        ("10.0.0.256:80", "0 to 255"),
        ("10.0.0:80", "0 to 255"),
        ("167772161:80", "0 to 255"),
        ("localhost:8080", "`127.0.0.1:8080`"),
        ("*:443", "`0.0.0.0/0:443`"),
        (":443", "`0.0.0.0/0:443`"),
        ("443", "`443:443`"),
        ("https://192.0.2.1/", "`192.0.2.1:443`"),
        ("http://[::1]:8080/x", "`[::1]:8080`"),
        ("ftp://192.0.2.1/", "ADDRESS[/PREFIX]:PORT[/tcp|udp]"),
        ("10.0.0.1:80, 10.0.0.2:80", "one endpoint an entry"),
        ("::1:443", "`[::1]:443`"),
        ("2001:db8:0:0:0:0:0:1", "`[2001:db8:0:0:0:0:0:1]:443`"),
        ("fd00::/8:443", "`[fd00::/8]:443`"),
        ("[::1:443", "`[ADDRESS/PREFIX]:PORT`"),
        ("[fd00::]/8:443", "`[fd00::/8]:443`"),
        ("[fe80::1%eth0]:443", "leave out the `%`"),
        ("[10.0.0.1]:443", "`10.0.0.1:443`"),
        ("[example]:443", "`[::1]:443`"),
        ("[::ffff:10.0.0.1]:80", "`10.0.0.1:80`"),
        ("[::ffff:a00:0/104]:80/udp", "`10.0.0.0/8:80/udp`"),
        ("[::ffff:0:0/96]:80", "`0.0.0.0/0:80`"),
        ("[::/0]:443", "`[2000::/3]:443`"),
        ("[::/80]:443", "`0.0.0.0/0:443`"),
        ("", "`:443`"),
    ] {
        let complaint = read(text).unwrap_err();
        assert!(complaint.way_out.contains(right), "{text}: {complaint:?}");
    }
}

#[test]
fn control_characters_of_an_entry_are_escaped() {
    for text in [
        "\u{1b}[2J:80",
        "127.0.0.1:\u{1b}",
        "127.0.0.1:80/\u{1b}",
        "[\u{1b}]:80",
        "127.0.0.1/\u{1b}:80",
        "10.0.0.1/8:\u{1b}",
        "a.example.org/\u{1b}:80",
        "a.example.org:80:\u{1b}",
        "a\u{202e}.example.org:80",
        "a\u{301}\u{202e}*.example.org:80",
        "https://\u{1b}/",
        "db:\u{1b}",
        "*.com:\u{1b}",
    ] {
        let Complaint { message, way_out } = read(text).unwrap_err();
        assert!(!format!("{message}{way_out}").contains(['\u{1b}', '\u{202e}']), "{message} {way_out}");
    }
}

#[test]
fn a_name_is_read_as_what_it_shows() {
    for (text, canonical) in [
        ("api.openai.com:443", "api.openai.com:443/tcp"),
        ("api.openai.com:*", "api.openai.com:*/tcp"),
        ("ntp.example.org:123/udp", "ntp.example.org:123/udp"),
        ("*.internal.example:5432", "*.internal.example:5432/tcp"),
        ("*.example.co.uk:443", "*.example.co.uk:443/tcp"),
        ("*.octocat.github.io:443", "*.octocat.github.io:443/tcp"),
        ("github.io:443", "github.io:443/tcp"),
        ("_sip._tcp.example.org:5060", "_sip._tcp.example.org:5060/tcp"),
        ("xn--mnchen-3ya.de:443", "xn--mnchen-3ya.de:443/tcp"),
        ("3com.com:80", "3com.com:80/tcp"),
        ("127.0.0.1.example.org:80", "127.0.0.1.example.org:80/tcp"),
    ] {
        let endpoint = read(text).unwrap();
        assert!(matches!(endpoint.host, Host::Name(_)), "{text}");
        assert_eq!(endpoint.text(), canonical);
    }
}

#[test]
fn every_wrong_name_is_answered_with_the_right_one() {
    let long_label = format!("{}.example.org:443", "a".repeat(64));
    let long_name = format!("{}example.org:443", "a.".repeat(130));
    let long_wildcard = format!("*.{}example.org:443", "a.".repeat(121));
    for (text, right) in [
        ("API.OpenAI.com:443", "write `api.openai.com:443`"),
        ("api.openai.com.:443/tcp", "write `api.openai.com:443/tcp`"),
        ("*.Internal.Example.:5432", "write `*.internal.example:5432`"),
        ("api.openai.com", "write `api.openai.com:443` for one port or `api.openai.com:*` for all"),
        ("api.openai.com:", "1 to 65535"),
        ("api.openai.com:0", "1 to 65535"),
        ("api.openai.com:443/quic", "`/udp`"),
        ("api.openai.com:443:tcp", "`NAME:PORT[/tcp|udp]`"),
        ("api.openai.com/v1:443", "write `api.openai.com:443` without `/v1`"),
        ("https://api.openai.com/v1/chat", "write `api.openai.com:443`"),
        ("http://user@api.openai.com:8080", "write `api.openai.com:8080`"),
        ("postgres://db.example.org/", "`NAME:PORT[/tcp|udp]`"),
        ("https://API.openai.com/", "`NAME:PORT[/tcp|udp]`"),
        ("münchen.de:443", "write `xn--mnchen-3ya.de:443` if"),
        ("MÜNCHEN.DE:443", "write `xn--mnchen-3ya.de:443` if"),
        ("*.münchen.de:443", "write `*.xn--mnchen-3ya.de:443` if"),
        ("\u{430}pi.openai.com:443", "write `xn--pi-6kc.openai.com:443` if"),
        ("api\u{3002}openai.com:443", "write `api.openai.com:443` if"),
        ("１２７.1:443", "write the name in its `xn--` form"),
        ("*.рф:443", "write the name in its `xn--` form"),
        ("xn--a.example.org:443", "copy the name"),
        ("xn--abc-.example.org:443", "a letter or a digit"),
        ("api.openai.com\0.evil.example:443", "letters, digits"),
        ("user@api.openai.com:443", "letters, digits"),
        ("api..com:443", "one dot"),
        (".example.com:443", "one dot"),
        ("api.-x.com:443", "a letter or a digit"),
        (&long_label, "at most 63"),
        (&long_name, "at most 253"),
        (&long_wildcard, "at most 253"),
        ("localhost:8080", "write `127.0.0.1:8080`, and `[::1]:8080`"),
        ("LOCALHOST.:8080", "write `127.0.0.1:8080`"),
        ("web.localhost:8080", "write `127.0.0.1:8080`"),
        ("*.localhost:8080", "write `127.0.0.1:8080`"),
        ("db:5432", "`db.internal.example:5432`"),
        ("0x7f.0.0.1:443", "four numbers"),
        ("0x7f.1:443", "four numbers"),
        ("example.1:443", "four numbers"),
        ("a.0x:443", "four numbers"),
        ("10.0.0.0-255:443", "`192.0.2.0/24:443`"),
        ("10.0.0.*:443", "`192.0.2.0/24:443`"),
        ("*.0.0.1:443", "four numbers"),
        ("**:443", "each name by itself"),
        ("a.*:443", "each name by itself"),
        ("a*.example.org:443", "write `*.example.org:443` for"),
        ("*a.example.org:443", "write `*.example.org:443` for"),
        ("**.example.org:443", "write `*.example.org:443` for"),
        ("*.*.example.org:443", "write `*.example.org:443` for"),
        ("a.*.example.org:443", "write `*.example.org:443` for"),
        ("*example.org:443", "each name by itself"),
        ("a*.com:443", "each name by itself"),
        ("*.com:443", "`*.example.com:443`"),
        ("*.co.uk:443", "`*.example.com:443`"),
        ("*.github.io:443", "`*.example.com:443`"),
        ("*.GitHub.io:443", "`*.example.com:443`"),
        ("*.s3.amazonaws.com:443", "`*.example.com:443`"),
        ("*.internal:5432", "`*.example.com:5432`"),
        // Whatever is below these is a public suffix, though they are none.
        ("*.compute-1.amazonaws.com:443", "`*.example.com:443`"),
        ("*.kawasaki.jp:443", "`*.example.com:443`"),
        ("*.xn--p1ai:443", "`*.example.com:443`"),
    ] {
        let complaint = read(text).unwrap_err();
        assert!(complaint.way_out.contains(right), "{text}: {complaint:?}");
    }
}

#[test]
fn own_addresses_are_never_names() {
    let listen = |text| endpoint(text, Entries::Addresses);
    assert!(listen("0.0.0.0:8080").is_ok());
    for (text, right) in [
        ("example.org:8080", "`0.0.0.0:8080` and `[::]:8080`"),
        ("Localhost:8080", "`127.0.0.1:8080`"),
        ("*.example.org:8080", "`0.0.0.0:8080`"),
        ("http://example.org/", "write `ADDRESS[/PREFIX]:PORT[/tcp|udp]`"),
        ("a.example:80:tcp", "write `ADDRESS[/PREFIX]:PORT[/tcp|udp]`"),
    ] {
        let complaint = listen(text).unwrap_err();
        assert!(complaint.way_out.contains(right), "{text}: {complaint:?}");
    }
}

prop_compose! {
    fn any_endpoint()(bits: u128, small_bits: u32, four: bool, prefix in 0..=128_u8, port in prop::option::of(1..=u16::MAX), udp: bool) -> Endpoint {
        let address = if four {
            IpAddr::V4(Ipv4Addr::from_bits(small_bits))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        let prefix = prefix.min(width(address));
        let cidr = Cidr { address: first_address(Cidr { address, prefix }), prefix };
        Endpoint { host: Host::Network(cidr), port, protocol: if udp { Protocol::Udp } else { Protocol::Tcp } }
    }
}

proptest! {
    #[test]
    fn an_endpoint_survives_its_own_text(any in any_endpoint()) {
        let Host::Network(cidr) = any.host else { unreachable!("made above") };
        prop_assume!(check_mapped(cidr, "").is_ok());
        prop_assert_eq!(read(&text_of(any.clone())), Ok(any));
    }

    #[test]
    fn no_text_makes_an_endpoint_that_reads_differently(text in r"\[?[0-9a-f:./%*]{0,24}\]?(:[0-9*]{0,6})?(/[a-z]{0,4})?") {
        if let Ok(endpoint) = read(&text) {
            prop_assert_eq!(read(&text_of(endpoint.clone())), Ok(endpoint.clone()));
            if let Host::Network(cidr) = endpoint.host {
                prop_assert!(check_mapped(cidr, "").is_ok());
            }
            prop_assert_ne!(endpoint.port, Some(0));
        }
    }

    #[test]
    fn a_name_survives_its_own_text(name in "([a-z0-9_]{1,3}\\.){1,3}[a-z]{2,4}", wildcard: bool, port in prop::option::of(1..=u16::MAX), udp: bool) {
        let name = HostName::parse(&name).unwrap();
        let name = if wildcard { NamePattern::OneBelow(name) } else { NamePattern::Exactly(name) };
        let any = Endpoint { host: Host::Name(name), port, protocol: if udp { Protocol::Udp } else { Protocol::Tcp } };
        match read(&text_of(any.clone())) {
            Ok(endpoint) => prop_assert_eq!(endpoint, any),
            Err(complaint) => prop_assert!(wildcard && complaint.message.contains("anybody"), "{:?}", complaint),
        }
    }

    #[test]
    fn a_name_that_is_taken_is_spelt_as_it_is_compared(text in r"(\*\.)?[a-zA-Z0-9_.*ü-]{0,16}\.[a-zA-Z]{2,3}\.?:1") {
        if let Ok(endpoint) = read(&text) {
            prop_assert_eq!(format!("{text}/tcp"), text_of(endpoint));
        }
    }
}
