//! Compiles a policy's endpoints into what the kernel side looks up.
//!
//! Invariant: an address is open under a set of grants exactly if a rule of one of them names it. The kernel side asks
//! a table of single addresses and one of prefixes, of which only the longest answers: so each entry here has the
//! grants of all that cover it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use sentinel_ebpf_common::Endpoint;
use sentinel_engine::{Grant, GrantSet, NetworkRule, Protocol};
use sentinel_policy::network_entry;

use super::EnforcerError;

/// The prefix length of all IPv4 addresses among the IPv6 ones.
const MAPPED: u8 = 96;
/// That of a single address.
const SINGLE: u8 = 128;

/// Addresses with the same first bits, and what opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Door {
    place: Place,
    /// The grants that open it.
    pub(super) bits: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// With [`Endpoint::LISTEN`] where it is an own address.
    protocol: u16,
    /// 0 is any.
    port: u16,
    /// How many bits of the address count.
    prefix: u8,
    /// The address, IPv4 as IPv4-mapped.
    address: u128,
}

impl Door {
    /// How many bits of the address count.
    pub(super) fn prefix(&self) -> u32 {
        u32::from(self.place.prefix)
    }

    /// Whether it is one address.
    pub(super) fn is_single(&self) -> bool {
        self.place.prefix == SINGLE
    }

    /// Its key, as a session's.
    pub(super) fn endpoint(&self, session: u32, generation: u32) -> Endpoint {
        let Place { protocol, port, address, .. } = self.place;
        Endpoint { session, generation, protocol, port, address: address.to_be_bytes() }
    }
}

/// The doors of all grants.
///
/// # Errors
/// A rule can't be told to the kernel side as it is meant.
pub(super) fn compile(grants: &[Grant]) -> Result<Vec<Door>, EnforcerError> {
    let mut doors: BTreeMap<Place, u64> = BTreeMap::new();
    for (index, grant) in grants.iter().enumerate() {
        let network = grant.network.iter().map(|rule| (rule, 0));
        let listen = grant.listen.iter().map(|rule| (rule, Endpoint::LISTEN));
        for (rule, direction) in network.chain(listen) {
            let refuse = |cause: &str| EnforcerError::Rule {
                rule: network_entry(rule),
                line: rule.line,
                cause: cause.to_owned(),
            };
            let bits = GrantSet::of(index).0;
            if bits == 0 {
                return Err(refuse("it belongs to a grant beyond the 64 that the kernel side tells apart"));
            }
            let mut place = place(rule).map_err(refuse)?;
            place.protocol |= direction;
            *doors.entry(place).or_default() |= bits;
        }
    }
    let prefixes: BTreeSet<u8> = doors.keys().map(|place| place.prefix).collect();
    let with_covering = |place: &Place| {
        let covering = prefixes.iter().take_while(|prefix| **prefix <= place.prefix);
        covering
            .filter_map(|&prefix| {
                doors.get(&Place { prefix, address: masked(place.address, prefix), ..*place })
            })
            .fold(0, |bits, more| bits | more)
    };
    Ok(doors.keys().map(|place| Door { place: *place, bits: with_covering(place) }).collect())
}

fn place(rule: &NetworkRule) -> Result<Place, &'static str> {
    let NetworkRule { protocol, cidr, port, line: _ } = *rule;
    let protocol = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let port = match port {
        Some(0) => return Err("no endpoint has port 0; write `*` for any"),
        Some(port) => port,
        None => 0,
    };
    let (address, prefix, widest) = match cidr.address {
        IpAddr::V4(address) => {
            (address.to_ipv6_mapped().to_bits(), cidr.prefix.saturating_add(MAPPED), MAPPED)
        }
        IpAddr::V6(address) => (address.to_bits(), cidr.prefix, 0),
    };
    if prefix > SINGLE || prefix < widest {
        return Err("its prefix is longer than an address");
    }
    let address = masked(address, prefix);
    let ipv4 = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().to_bits();
    if cidr.address.is_ipv6() && masked(address, prefix.min(MAPPED)) == masked(ipv4, prefix.min(MAPPED)) {
        return Err("it would open IPv4 addresses too; name them as IPv4, and IPv6 by `2000::/3`");
    }
    Ok(Place { protocol, port, prefix, address })
}

/// The address with all bits behind the prefix 0.
fn masked(address: u128, prefix: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(SINGLE.saturating_sub(prefix))).map_or(0, |mask| address & mask)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;
    use sentinel_engine::Cidr;

    use super::*;

    fn rule(protocol: Protocol, address: IpAddr, prefix: u8, port: Option<u16>) -> NetworkRule {
        NetworkRule { protocol, cidr: Cidr { address, prefix }, port, line: 1 }
    }

    fn grant(network: Vec<NetworkRule>) -> Grant {
        Grant { network, ..Grant::default() }
    }

    /// What the kernel side does with the doors: for the port and for any, one address and the longest prefix.
    fn looked_up(doors: &[Door], protocol: u16, address: u128, port: u16) -> u64 {
        let mut bits = 0;
        for port in [port, 0] {
            let here = |door: &&Door| {
                let Place { protocol: of, port: at, prefix, address: network } = door.place;
                of == protocol && at == port && masked(address, prefix) == network
            };
            let single = doors.iter().filter(here).find(|door| door.is_single());
            let longest =
                doors.iter().filter(here).filter(|door| !door.is_single()).max_by_key(|door| door.prefix());
            bits |= single.map_or(0, |door| door.bits) | longest.map_or(0, |door| door.bits);
        }
        bits
    }

    /// One rule at a time.
    fn named(grants: &[Grant], protocol: Protocol, address: IpAddr, port: u16) -> u64 {
        let mut bits = 0;
        for (index, grant) in grants.iter().enumerate() {
            for rule in &grant.network {
                let within = match (rule.cidr.address, address) {
                    (IpAddr::V4(network), IpAddr::V4(address)) => {
                        let shift = 32 - u32::from(rule.cidr.prefix);
                        network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
                    }
                    (IpAddr::V6(network), IpAddr::V6(address)) => {
                        let shift = 128 - u32::from(rule.cidr.prefix);
                        network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
                    }
                    _ => false,
                };
                if within && rule.protocol == protocol && rule.port.is_none_or(|named| named == port) {
                    bits |= 1 << index;
                }
            }
        }
        bits
    }

    /// Few enough that rules and targets meet: near 10.0.0.0 and fd00::.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..16, 0_u32..4).prop_map(|(low, high)| IpAddr::V4((0x0a00_0000 | high << 20 | low).into())),
            (0_u128..16, 0_u128..4)
                .prop_map(|(low, high)| IpAddr::V6((0xfd << 120 | high << 64 | low).into())),
        ]
    }

    fn protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
    }

    fn any_rule() -> impl Strategy<Value = NetworkRule> {
        let length =
            prop_oneof![Just(0_u8), Just(2), Just(8), Just(12), Just(28), Just(30), Just(31), Just(32)];
        (protocol(), address(), length, prop::option::of(1_u16..4)).prop_map(
            |(protocol, address, length, port)| {
                match address {
                    IpAddr::V4(v4) => {
                        let network =
                            v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                        rule(protocol, IpAddr::V4(network.into()), length, port)
                    }
                    IpAddr::V6(v6) => {
                        // No `::/0`: it would open IPv4 too, and is refused.
                        let length = if length < 8 { 8 } else { length * 4 };
                        rule(protocol, IpAddr::V6(masked(v6.to_bits(), length).into()), length, port)
                    }
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_kernels_lookups_find_what_the_rules_say_one_by_one(
            grants in prop::collection::vec(prop::collection::vec(any_rule(), 0..6).prop_map(grant), 1..6),
            protocol in protocol(),
            address in address(),
            port in 1_u16..5,
        ) {
            let doors = compile(&grants).unwrap();
            let mapped = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let number = if protocol == Protocol::Tcp { 6 } else { 17 };
            prop_assert_eq!(
                looked_up(&doors, number, mapped.to_bits(), port),
                named(&grants, protocol, address, port)
            );
        }
    }

    #[test]
    fn a_narrow_rule_of_one_grant_does_not_hide_a_wide_one_of_another() {
        let wide = rule(Protocol::Tcp, IpAddr::from([10, 0, 0, 0]), 8, Some(443));
        let narrow = rule(Protocol::Tcp, IpAddr::from([10, 1, 0, 0]), 16, Some(443));
        let doors = compile(&[Grant::default(), grant(vec![wide]), grant(vec![narrow])]).unwrap();
        let bits = |prefix: u32| doors.iter().find(|door| door.prefix() == prefix).unwrap().bits;
        assert_eq!((bits(96 + 8), bits(96 + 16)), (0b10, 0b110));
    }

    #[test]
    fn a_rule_that_would_mean_something_else_in_the_kernel_is_refused() {
        let any_v6 = rule(Protocol::Tcp, IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, None);
        let mapped = rule(Protocol::Tcp, IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()), 128, Some(80));
        let port_0 = rule(Protocol::Tcp, IpAddr::V4(Ipv4Addr::LOCALHOST), 32, Some(0));
        let too_long = rule(Protocol::Tcp, IpAddr::V4(Ipv4Addr::LOCALHOST), 33, Some(80));
        for wrong in [any_v6, mapped, port_0, too_long] {
            assert!(compile(&[grant(vec![wrong])]).is_err(), "{wrong:?}");
        }
        let right = rule(Protocol::Tcp, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, None);
        assert_eq!(compile(&[grant(vec![right])]).unwrap().len(), 1, "all of IPv4 is a rule");
    }
}
