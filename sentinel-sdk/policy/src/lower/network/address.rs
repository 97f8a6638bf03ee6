//! Addresses and networks: `ADDRESS[/PREFIX]`, IPv6 in brackets.
//!
//! Invariant: what is read is exactly what the text shows. No bits behind the prefix, no second spelling of an IPv4 address, and no IPv6
//! network in whose midst all of IPv4 lies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sentinel_engine::Cidr;

use crate::problem::Complaint;
use crate::quoted::{Quoted, shown};

/// Whether the part before the port is meant as an address, be it a wrong one.
pub(super) fn is_meant(host: &str) -> bool {
    let address = host.split_once('/').map_or(host, |(address, _)| address);
    host.starts_with('[') || address == "*" || address.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// A network as it stands in an entry, before the port.
pub(super) fn host(cidr: Cidr) -> String {
    let Cidr { address, prefix } = cidr;
    let network = if prefix == width(address) { address.to_string() } else { format!("{address}/{prefix}") };
    if address.is_ipv6() { format!("[{network}]") } else { network }
}

pub(super) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(super) fn network_of(network: &str, behind: &str) -> Result<Cidr, Complaint> {
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
        if matches!(text, "" | "*") {
            let way_out = format!("write `0.0.0.0/0:{0}` for every IPv4 address", shown(behind));
            return Complaint::new("the endpoint names no address", way_out);
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
pub(super) fn check_mapped(cidr: Cidr, behind: &str) -> Result<(), Complaint> {
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

pub(super) fn first_address(cidr: Cidr) -> IpAddr {
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
