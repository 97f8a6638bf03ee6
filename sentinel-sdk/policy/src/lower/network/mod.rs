//! Endpoints: `ADDRESS[/PREFIX]:PORT[/tcp|udp]`.
//!
//! Invariant: an entry opens exactly the addresses that it shows. No host names, no bits behind the prefix, no second
//! spelling of an IPv4 address, and no IPv6 network in whose midst all of IPv4 lies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sentinel_engine::{Cidr, NetworkRule, Protocol};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::problem::{Complaint, Findings};
use crate::quoted::{Quoted, shown};
use crate::shape::{Shape, Text};
use crate::tree::Value;

const FORM: &str = "ADDRESS[/PREFIX]:PORT[/tcp|udp]";

pub(super) const SHAPE: Shape = Shape::List { of: &ENDPOINT, example: "['127.0.0.1:8080']" };

/// What `listen` is for, wherever it stands.
pub(super) const ABOUT_LISTEN: &str = "Own addresses that sockets may be bound to for others to come to, as `ADDRESS[/PREFIX]:PORT[/tcp|udp]`; `0.0.0.0` and `[::]` are those that stand for all.";

const ENDPOINT: Shape = Shape::Text(Text {
    what: "an endpoint",
    example: "127.0.0.1:8080",
    most: None,
    pattern: Some(r"^([0-9.]+(/[0-9]+)?|\[[0-9A-Fa-f:.]+(/[0-9]+)?\]):([0-9]+|\*)(/(tcp|udp))?$"),
});

/// The rules of a list of endpoints to connect to.
pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Vec<NetworkRule> {
    entries(field, found)
        .into_iter()
        .map(|(rule, field)| {
            mentions.endpoint(rule, &field);
            rule
        })
        .collect()
}

/// The rules of a list of own addresses.
pub(super) fn read_listen(field: &Field<'_>, found: &mut Findings) -> Vec<NetworkRule> {
    entries(field, found).into_iter().map(|(rule, _)| rule).collect()
}

fn entries<'t>(field: &Field<'t>, found: &mut Findings) -> Vec<(NetworkRule, Field<'t>)> {
    let mut rules = Vec::new();
    for field in field.items(found).unwrap_or_default() {
        if matches!(field.node.value, Value::List(_) | Value::Map(_)) {
            let complaint = Complaint::new(
                "a list or mapping stands here, not an endpoint",
                "write one endpoint as a text; quotes keep YAML from reading brackets: `'[fd00::/8]:443'`",
            );
            field.complain(complaint, found);
            continue;
        }
        let Some(scalar) = field.text(found) else { continue };
        match endpoint(&scalar.text) {
            Ok(endpoint) => {
                let rule = endpoint.rule(field.line());
                rules.push((rule, field));
            }
            Err(complaint) => field.complain(complaint, found),
        }
    }
    rules
}

/// A rule as a policy's text would name it: `10.0.0.0/8:5432/tcp`, `[::1]:443/udp`.
#[must_use]
pub fn network_entry(rule: &NetworkRule) -> String {
    let NetworkRule { protocol, cidr, port, line: _ } = *rule;
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    format!("{}:{port}/{protocol}", host(cidr))
}

/// A network as it stands in an entry, before the port.
fn host(cidr: Cidr) -> String {
    let Cidr { address, prefix } = cidr;
    let network = if prefix == width(address) { address.to_string() } else { format!("{address}/{prefix}") };
    if address.is_ipv6() { format!("[{network}]") } else { network }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    cidr: Cidr,
    port: Option<u16>,
    protocol: Protocol,
}

impl Endpoint {
    fn rule(self, line: u32) -> NetworkRule {
        let Self { cidr, port, protocol } = self;
        NetworkRule { protocol, cidr, port, line }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, Complaint> {
    let quoted = Quoted(text);
    if text.contains("://") {
        return Err(Complaint::new(format!("{quoted} is a URL, not an endpoint"), format!("write `{FORM}`")));
    }
    if text.contains(char::is_whitespace) {
        return Err(Complaint::new(
            format!("{quoted} holds a space"),
            "write one endpoint an entry, without spaces",
        ));
    }
    let (network, behind) = split(text)?;
    let (port, protocol) = behind.split_once('/').map_or((behind, None), |(port, name)| (port, Some(name)));
    // The address first: of several mistakes it is the one to hear of.
    let address = network_of(network, behind)?;
    Ok(Endpoint { cidr: address, port: port_of(port, text)?, protocol: protocol_of(protocol)? })
}

/// The part before the port, brackets included, and the part behind the colon.
fn split(text: &str) -> Result<(&str, &str), Complaint> {
    if let Some(inside) = text.strip_prefix('[') {
        let Some((_, behind)) = inside.split_once(']') else {
            let message = format!("the `[` of {} is not closed", Quoted(text));
            return Err(Complaint::new(message, "write `[ADDRESS/PREFIX]:PORT`"));
        };
        let network = text.strip_suffix(behind).unwrap_or(text);
        return match behind.strip_prefix(':') {
            Some(port) => Ok((network, port)),
            None if behind.starts_with('/') => Err(Complaint::new(
                format!("the prefix of {} stands behind the bracket", Quoted(text)),
                "write it inside: `[fd00::/8]:443`",
            )),
            None => Err(portless(text, network)),
        };
    }
    let Some((network, port)) = text.rsplit_once(':') else { return Err(portless(text, text)) };
    if network.contains(':') {
        let address = network.split_once('/').map_or(network, |(address, _)| address);
        let way_out = if address.parse::<Ipv6Addr>().is_ok() {
            format!("write `[{}]:{}`", shown(network), shown(port))
        } else {
            format!("write `[{}]:443`, with the port behind the bracket", shown(text))
        };
        return Err(Complaint::new(format!("the IPv6 address in {} has no brackets", Quoted(text)), way_out));
    }
    Ok((network, port))
}

fn portless(text: &str, network: &str) -> Complaint {
    let network = network.trim_end_matches(':');
    Complaint::new(
        format!("{} names no port", Quoted(text)),
        format!("write `{0}:443` for one port or `{0}:*` for all", shown(network)),
    )
}

fn network_of(network: &str, behind: &str) -> Result<Cidr, Complaint> {
    let inside = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, prefix) = inside
        .unwrap_or(network)
        .split_once('/')
        .map_or_else(|| (inside.unwrap_or(network), None), |(address, prefix)| (address, Some(prefix)));
    let address = match inside {
        Some(_) => IpAddr::V6(ipv6(address, behind)?),
        None => IpAddr::V4(ipv4(address, behind)?),
    };
    let prefix = prefix.map_or_else(|| Ok(width(address)), |prefix| prefix_of(prefix, address))?;
    let cidr = Cidr { address, prefix };
    check_mapped(cidr, behind)?;
    let first = first_address(cidr);
    if first != address {
        let (whole, single) =
            (host(Cidr { address: first, prefix }), host(Cidr { address, prefix: width(address) }));
        return Err(Complaint::new(
            format!("`{address}` has bits behind its prefix of {prefix}"),
            format!(
                "write `{whole}:{0}` for the network or `{single}:{0}` for the one address",
                shown(behind)
            ),
        ));
    }
    Ok(cidr)
}

fn ipv4(text: &str, behind: &str) -> Result<Ipv4Addr, Complaint> {
    text.parse().map_err(|_error| {
        let quoted = Quoted(text);
        let octets: Vec<&str> = text.split('.').collect();
        let is_numeric = octets.iter().all(|octet| octet.chars().all(|c| c.is_ascii_digit()));
        if matches!(text, "" | "*") {
            let way_out = format!("write `0.0.0.0/0:{0}` for every IPv4 address", shown(behind));
            return Complaint::new("the endpoint names no address", way_out);
        }
        if !is_numeric {
            let way_out = if text == "localhost" {
                format!("write `127.0.0.1:{0}`, and `[::1]:{0}` for IPv6", shown(behind))
            } else {
                "write its addresses, one an entry".to_owned()
            };
            return Complaint::new(
                format!("{quoted} is not an address, and this version takes no host names"),
                way_out,
            );
        }
        if octets.iter().any(|octet| octet.len() > 1 && octet.starts_with('0')) {
            let plain = octets.iter().map(|octet| match octet.trim_start_matches('0') {
                "" => "0",
                plain => plain,
            });
            let plain = plain.collect::<Vec<_>>().join(".");
            let message = format!("a number in {quoted} begins with 0, which some readers take for octal");
            return Complaint::new(message, format!("write `{}`", shown(&plain)));
        }
        Complaint::new(
            format!("{quoted} is not an IPv4 address"),
            "write four numbers from 0 to 255: `192.0.2.10`",
        )
    })
}

fn ipv6(text: &str, behind: &str) -> Result<Ipv6Addr, Complaint> {
    text.parse().map_err(|_error| {
        let quoted = Quoted(text);
        if text.contains('%') {
            return Complaint::new(
                format!("{quoted} names a network interface"),
                "leave out the `%` and what follows",
            );
        }
        if text.parse::<Ipv4Addr>().is_ok() {
            let way_out = format!("write `{}:{}`", shown(text), shown(behind));
            return Complaint::new(
                format!("{quoted} is an IPv4 address, and brackets are for IPv6"),
                way_out,
            );
        }
        Complaint::new(
            format!("{quoted} is not an IPv6 address"),
            "write it as in `[fd00::/8]:443` or `[::1]:443`",
        )
    })
}

fn prefix_of(text: &str, address: IpAddr) -> Result<u8, Complaint> {
    let most = width(address);
    let is_plain = text == "0" || (!text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit()));
    text.parse().ok().filter(|prefix| is_plain && *prefix <= most).ok_or_else(|| {
        Complaint::new(
            format!("{} is no prefix length of `{address}`", Quoted(text)),
            format!("write how many of its bits count, from 0 to {most}"),
        )
    })
}

/// IPv4 has one spelling here, and no IPv6 network reaches into it: the kernel's tables hold IPv4 as IPv4-mapped.
fn check_mapped(cidr: Cidr, behind: &str) -> Result<(), Complaint> {
    const MAPPED_PREFIX: u8 = 96;
    let IpAddr::V6(address) = cidr.address else { return Ok(()) };
    if cidr.prefix >= MAPPED_PREFIX {
        let Some(mapped) = address.to_ipv4_mapped() else { return Ok(()) };
        let ipv4 = Cidr { address: mapped.into(), prefix: cidr.prefix.saturating_sub(MAPPED_PREFIX) };
        return Err(Complaint::new(
            format!("`{address}` is an IPv4 address in IPv6 form"),
            format!("write `{}:{}`", host(ipv4), shown(behind)),
        ));
    }
    let all_mapped = Cidr { address: Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into(), prefix: cidr.prefix };
    if first_address(all_mapped) == first_address(cidr) {
        return Err(Complaint::new(
            format!("the network `{}` holds all IPv4 addresses in their IPv6 form", host(cidr)),
            format!(
                "write `[2000::/3]:{0}` for all public IPv6 addresses, and `0.0.0.0/0:{0}` for IPv4",
                shown(behind)
            ),
        ));
    }
    Ok(())
}

fn first_address(cidr: Cidr) -> IpAddr {
    let behind_prefix = u32::from(width(cidr.address).saturating_sub(cidr.prefix));
    match cidr.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(behind_prefix).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(behind_prefix).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn port_of(text: &str, entry: &str) -> Result<Option<u16>, Complaint> {
    if text == "*" {
        return Ok(None);
    }
    let port = text.parse::<u16>().ok().filter(|_| text.chars().all(|c| c.is_ascii_digit()));
    match port {
        Some(port) if port > 0 && !text.starts_with('0') => Ok(Some(port)),
        Some(_) | None => {
            let message = if text.is_empty() {
                format!("{} names no port behind the colon", Quoted(entry))
            } else {
                format!("{} is not a port", Quoted(text))
            };
            Err(Complaint::new(
                message,
                "write a number from 1 to 65535 without leading zeros, or `*` for all",
            ))
        }
    }
}

fn protocol_of(name: Option<&str>) -> Result<Protocol, Complaint> {
    match name {
        None | Some("tcp") => Ok(Protocol::Tcp),
        Some("udp") => Ok(Protocol::Udp),
        Some(other) => Err(Complaint::new(
            format!("{} is not a protocol that can be allowed", Quoted(other)),
            "write `/tcp`, `/udp`, or nothing for TCP",
        )),
    }
}

#[cfg(test)]
mod tests;
