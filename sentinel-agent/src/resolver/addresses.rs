//! Which addresses a name may have.
//!
//! Invariant: unless a name's rule allows private addresses, no answer leads to this host, to its links or to a private network, in
//! whatever form the address is written: who controls a name's zone would choose there what the session reaches (DNS rebinding).
//! Documentation ranges (192.0.2.0/24, 2001:db8::/32 and the like) pass: no host has them, and tests use them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an answer may have the address.
pub(super) fn is_allowed(address: IpAddr, allow_private: bool) -> bool {
    match address {
        IpAddr::V4(v4) => is_one_host(v4) && (allow_private || is_public_v4(v4)),
        IpAddr::V6(v6) => {
            let is_one_host = !v6.is_unspecified() && !v6.is_multicast();
            match carried(v6) {
                Carried::Nothing => is_one_host && (allow_private || is_public_v6(v6)),
                Carried::One(v4) => is_allowed(v4.into(), allow_private),
                Carried::Both(server, client) => {
                    is_allowed(server.into(), allow_private) && is_allowed(client.into(), allow_private)
                }
            }
        }
    }
}

/// Not nobody's and not many hosts'.
fn is_one_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_refused = match (a, b, c) {
        // "This network", private, loopback.
        (0 | 10 | 127, _, _) => true,
        // Shared by carriers' customers.
        (100, b, _) => b & 0xc0 == 64,
        // Link-local; the clouds' metadata services are there, at 169.254.169.254.
        (169, 254, _) => true,
        (172, b, _) => b & 0xf0 == 16,
        // Protocol assignments, and private.
        (192, 0, 0) | (192, 168, _) => true,
        // Benchmarks within one network.
        (198, b, _) => b & 0xfe == 18,
        // Multicast, reserved, broadcast.
        (224.., _, _) => true,
        _ => false,
    };
    !is_refused
}

/// Only 2000::/3 is handed out as global unicast. So fc00::/7 (fd00:ec2::254, a metadata service, is in it), fe80::/10, fec0::/10, ::1 and
/// 64:ff9b:1::/48, the prefix of translators within one network, are none.
fn is_public_v6(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xe000 == 0x2000
}

/// The IPv4 addresses to which an IPv6 address leads.
enum Carried {
    Nothing,
    One(Ipv4Addr),
    /// Of a Teredo address.
    Both(Ipv4Addr, Ipv4Addr),
}

fn carried(address: Ipv6Addr) -> Carried {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // ::1 and :: are the host's own and nobody's, and no IPv4 address in IPv6 form.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Carried::Nothing,
        // Compatible, mapped, translated (RFC 2765), and the well-known prefix of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Carried::One(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Carried::One(v4(high, low)),
        // Teredo: its server, and its client with every bit flipped.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            Carried::Both(v4(high, low), v4(!client_high, !client_low))
        }
        _ => Carried::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_public(text: &str) -> bool {
        is_allowed(text.parse().unwrap(), false)
    }

    #[test]
    fn every_range_of_ipv4_that_is_not_public_is_refused_to_its_edges() {
        for (inside, outside) in [
            (["0.0.0.0", "0.255.255.255"], ["1.0.0.0", "1.1.1.1"]),
            (["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0"]),
            (["100.64.0.0", "100.127.255.255"], ["100.63.255.255", "100.128.0.0"]),
            (["127.0.0.1", "127.255.255.255"], ["126.255.255.255", "128.0.0.0"]),
            (["169.254.0.0", "169.254.169.254"], ["169.253.255.255", "169.255.0.0"]),
            (["172.16.0.0", "172.31.255.255"], ["172.15.255.255", "172.32.0.0"]),
            (["192.0.0.0", "192.0.0.255"], ["191.255.255.255", "192.0.1.0"]),
            (["192.168.0.0", "192.168.255.255"], ["192.167.255.255", "192.169.0.0"]),
            (["198.18.0.0", "198.19.255.255"], ["198.17.255.255", "198.20.0.0"]),
            (["224.0.0.0", "255.255.255.255"], ["223.255.255.255", "223.0.0.0"]),
        ] {
            for text in inside {
                assert!(!is_public(text), "{text}");
            }
            for text in outside {
                assert!(is_public(text), "{text}");
            }
        }
    }

    #[test]
    fn of_ipv6_only_global_unicast_is_public() {
        for text in [
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff:ffff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "64:ff9b:1::c000:201",
            "4000::1",
        ] {
            assert!(!is_public(text), "{text}");
        }
        for text in ["2000::1", "2606:4700::1111", "3fff:ffff::1", "2001:4860::8888"] {
            assert!(is_public(text), "{text}");
        }
    }

    #[test]
    fn documentation_addresses_pass_since_tests_use_them() {
        for text in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"] {
            assert!(is_public(text), "{text}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_judged_as_what_it_leads_to() {
        for form in ["::ffff:{}", "::{}", "::ffff:0:{}", "64:ff9b::{}"] {
            for (v4, public) in
                [("169.254.169.254", false), ("127.0.0.1", false), ("10.1.2.3", false), ("192.0.2.1", true)]
            {
                let text = form.replace("{}", v4);
                assert_eq!(is_public(&text), public, "{text}");
            }
        }
        // 6to4 of 10.0.0.1 and of 192.0.2.1.
        assert!(!is_public("2002:a00:1::1") && is_public("2002:c000:201::1"));
        // Teredo, server 192.0.2.1: clients 10.0.0.1 and 192.0.2.1; then server 10.0.0.1.
        assert!(!is_public("2001:0:c000:201::f5ff:fffe"));
        assert!(is_public("2001:0:c000:201::3fff:fdfe"));
        assert!(!is_public("2001:0:a00:1::3fff:fdfe"));
    }

    #[test]
    fn a_rule_that_allows_private_addresses_allows_all_that_are_one_hosts() {
        for text in
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"]
        {
            assert!(is_allowed(text.parse().unwrap(), true), "{text}");
        }
        for text in
            ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:0.0.0.0", "64:ff9b::e000:1"]
        {
            assert!(!is_allowed(text.parse().unwrap(), true), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_form_of_an_ipv4_address_is_judged_more_kindly_than_itself(bits: u32, allow_private: bool) {
            let plain = is_allowed(Ipv4Addr::from(bits).into(), allow_private);
            let low = u128::from(bits);
            let mapped = 0xffff_u128 << 32 | low;
            let translated = 0xffff_u128 << 48 | low;
            let nat64 = 0x64_ff9b_u128 << 96 | low;
            let six_to_four = 0x2002_u128 << 112 | low << 80;
            let teredo_client = 0x2001_u128 << 112 | 0xc000_0201_u128 << 64 | u128::from(!bits);
            let teredo_server = 0x2001_u128 << 112 | low << 64 | u128::from(!0xc000_0201_u32);
            for form in [mapped, translated, nat64, six_to_four, teredo_client, teredo_server] {
                let form = Ipv6Addr::from(form);
                prop_assert_eq!(is_allowed(form.into(), allow_private), plain, "{}", form);
            }
        }

        #[test]
        fn what_is_public_is_allowed_with_private_addresses_too(v4: u32, v6: u128) {
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert!(!is_allowed(address, false) || is_allowed(address, true));
            }
        }

        #[test]
        fn what_the_standard_library_calls_the_hosts_own_or_private_is_refused(v4: u32, v6: u128) {
            let v4 = Ipv4Addr::from(v4);
            if v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_broadcast() || v4.is_multicast() {
                prop_assert!(!is_allowed(v4.into(), false));
            }
            let v6 = Ipv6Addr::from(v6);
            if v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_loopback() {
                prop_assert!(!is_allowed(v6.into(), false));
            }
        }
    }
}
