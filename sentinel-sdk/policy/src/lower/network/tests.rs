//! Every form of an endpoint, and what each wrong one is answered with.

use proptest::prelude::*;

use super::*;

fn text_of(endpoint: Endpoint) -> String {
    network_entry(&endpoint.rule(1))
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
        assert_eq!(endpoint(text).map(text_of).as_deref(), Ok(canonical), "{text}");
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
        ("example.com:443", "write its addresses"),
        ("*.example.com:443", "write its addresses"),
        ("0x7f.0.0.1:443", "write its addresses"),
        ("localhost:8080", "`127.0.0.1:8080`"),
        ("*:443", "`0.0.0.0/0:443`"),
        (":443", "`0.0.0.0/0:443`"),
        ("443", "`443:443`"),
        ("https://192.0.2.1/", "ADDRESS[/PREFIX]:PORT[/tcp|udp]"),
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
        let complaint = endpoint(text).unwrap_err();
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
    ] {
        let Complaint { message, way_out } = endpoint(text).unwrap_err();
        assert!(!format!("{message}{way_out}").contains('\u{1b}'), "{message} {way_out}");
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
        Endpoint { cidr, port, protocol: if udp { Protocol::Udp } else { Protocol::Tcp } }
    }
}

proptest! {
    #[test]
    fn an_endpoint_survives_its_own_text(any in any_endpoint()) {
        prop_assume!(check_mapped(any.cidr, "").is_ok());
        prop_assert_eq!(endpoint(&text_of(any)), Ok(any));
    }

    #[test]
    fn no_text_makes_an_endpoint_that_reads_differently(text in r"\[?[0-9a-f:./%*]{0,24}\]?(:[0-9*]{0,6})?(/[a-z]{0,4})?") {
        if let Ok(read) = endpoint(&text) {
            prop_assert_eq!(endpoint(&text_of(read)), Ok(read));
            prop_assert!(check_mapped(read.cidr, "").is_ok());
            prop_assert_ne!(read.port, Some(0));
        }
    }
}
