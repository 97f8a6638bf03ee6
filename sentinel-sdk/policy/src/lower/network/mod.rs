//! Endpoints: `ADDRESS[/PREFIX]:PORT[/tcp|udp]`, and `NAME:PORT[/tcp|udp]` where connections go out.
//!
//! Invariant: an entry opens exactly what it shows. An address has one spelling, a name has one spelling, and neither is ever taken for
//! the other.

mod address;
mod name;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use sentinel_engine::{Cidr, NamePattern, NameRule, NetworkRule, Protocol};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::problem::{Complaint, Findings};
use crate::quoted::{Quoted, shown};
use crate::scalar::truth;
use crate::shape::{Key, Keys, Needed, Shape, Text};
use crate::tree::{Entry, Value};

macro_rules! address {
    () => {
        r"[0-9.]+(/[0-9]+)?|\[[0-9A-Fa-f:.]+(/[0-9]+)?\]"
    };
}
macro_rules! name {
    () => {
        r"(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)+[a-z]([a-z0-9_-]*[a-z0-9_])?"
    };
}
macro_rules! port {
    () => {
        r":([0-9]+|\*)(/(tcp|udp))?"
    };
}

/// What `network` and `allow` are for, wherever they stand.
pub(super) const ABOUT: &str = "Endpoints that may be connected to, as `ADDRESS[/PREFIX]:PORT[/tcp|udp]` or `NAME:PORT[/tcp|udp]`: IPv6 addresses in brackets, `*` for any port, `*.` in front of a name for any one label more.";

/// What `listen` is for, wherever it stands.
pub(super) const ABOUT_LISTEN: &str = "Own addresses that sockets may be bound to for others to come to, as `ADDRESS[/PREFIX]:PORT[/tcp|udp]`; `0.0.0.0` and `[::]` are those that stand for all.";

pub(super) const SHAPE: Shape = Shape::List {
    of: &Shape::Either(&[ENDPOINT, Shape::Section(&KEYS)]),
    example: "['127.0.0.1:8080', 'api.example.com:443']",
};
pub(super) const LISTEN: Shape = Shape::List { of: &ADDRESS, example: "['127.0.0.1:8080']" };

const ENDPOINT: Shape = Shape::Text(Text {
    what: "an endpoint",
    example: "127.0.0.1:8080",
    most: None,
    pattern: Some(concat!("^(", address!(), "|", name!(), ")", port!(), "$")),
});
const ADDRESS: Shape = Shape::Text(Text {
    what: "an endpoint",
    example: "127.0.0.1:8080",
    most: None,
    pattern: Some(concat!("^(", address!(), ")", port!(), "$")),
});
const NAME: Shape = Shape::Text(Text {
    what: "a host's name and port",
    example: "db.internal.example:5432",
    most: None,
    pattern: Some(concat!("^", name!(), port!(), "$")),
});

const KEYS: Keys = Keys {
    known: &[
        Key { name: "host", about: "`NAME:PORT[/tcp|udp]`.", shape: NAME },
        Key {
            name: "allow_private",
            about: "`true`: also where the name stands for an address of a private network or of this machine.",
            shape: Shape::Truth,
        },
    ],
    needed: Needed::Each(&["host"]),
    later: &[],
    example: "{host: 'db.internal.example:5432', allow_private: true}",
};

/// What an entry of a list can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entries {
    /// Addresses and names, to connect to.
    Any,
    /// Own addresses.
    Addresses,
}

impl Entries {
    fn form(self) -> &'static str {
        match self {
            Self::Any => "ADDRESS[/PREFIX]:PORT[/tcp|udp]` or `NAME:PORT[/tcp|udp]",
            Self::Addresses => "ADDRESS[/PREFIX]:PORT[/tcp|udp]",
        }
    }
}

/// Where to connections may go.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    pub(super) network: Vec<NetworkRule>,
    pub(super) names: Vec<NameRule>,
}

/// The rules of a list of endpoints to connect to.
pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Destinations {
    let mut to = Destinations::default();
    // Whether each name may stand for a private address, and the line that says so first.
    let mut privacy: BTreeMap<_, (bool, u32)> = BTreeMap::new();
    for field in field.items(found).unwrap_or_default() {
        let entry = match &field.node.value {
            Value::Map(entries) => with_options(&field, entries, found),
            Value::Scalar(_) | Value::List(_) | Value::Reported => {
                plain(&field, Entries::Any, found).map(|endpoint| (endpoint, false))
            }
        };
        let Some((Endpoint { host, port, protocol }, allow_private)) = entry else { continue };
        let line = field.line();
        match host {
            Host::Network(cidr) => {
                let rule = NetworkRule { protocol, cidr, port, line };
                mentions.endpoint(rule, &field);
                to.network.push(rule);
            }
            Host::Name(name) => {
                let (said, of_line) =
                    *privacy.entry((name.clone(), port, protocol)).or_insert((allow_private, line));
                if said != allow_private {
                    field.complain(contradiction(of_line), found);
                    continue;
                }
                let rule = NameRule { protocol, name, port, allow_private, line };
                mentions.name(&rule, &field);
                to.names.push(rule);
            }
        }
    }
    to
}

fn contradiction(line: u32) -> Complaint {
    let message = format!("the name is in this list with and without `allow_private: true`, see line {line}");
    Complaint::new(message, "remove the one that isn't meant")
}

/// The rules of a list of own addresses.
pub(super) fn read_listen(field: &Field<'_>, found: &mut Findings) -> Vec<NetworkRule> {
    let mut rules = Vec::new();
    for field in field.items(found).unwrap_or_default() {
        let Some(Endpoint { host, port, protocol }) = plain(&field, Entries::Addresses, found) else {
            continue;
        };
        if let Host::Network(cidr) = host {
            rules.push(NetworkRule { protocol, cidr, port, line: field.line() });
        }
    }
    rules
}

/// An entry that is a text.
fn plain(field: &Field<'_>, entries: Entries, found: &mut Findings) -> Option<Endpoint> {
    if matches!(field.node.value, Value::List(_) | Value::Map(_)) {
        let complaint = Complaint::new(
            "a list or mapping stands here, not an endpoint",
            "write one endpoint as a text; quotes keep YAML from reading brackets: `'[fd00::/8]:443'`",
        );
        field.complain(complaint, found);
        return None;
    }
    let scalar = field.text(found)?;
    endpoint(&scalar.text, entries).map_err(|complaint| field.complain(complaint, found)).ok()
}

/// An entry that is a mapping: a name, and whether it may stand for a private address.
fn with_options(field: &Field<'_>, entries: &[Entry], found: &mut Findings) -> Option<(Endpoint, bool)> {
    if let Some(complaint) = space_behind_colon(entries) {
        field.complain(complaint, found);
        return None;
    }
    let section = field.section(found)?;
    let allow_private = section.field("allow_private").map(|field| truth(field, found));
    let host = section.field("host")?;
    let endpoint = plain(host, Entries::Any, found)?;
    if let Host::Network(_) = endpoint.host {
        let complaint = Complaint::new(
            "this is an address, and `host` is a name",
            format!("write `{}` as an entry by itself", endpoint.text()),
        );
        host.complain(complaint, found);
        return None;
    }
    let allow_private = match allow_private {
        Some(said) => said?,
        None => false,
    };
    Some((endpoint, allow_private))
}

/// What is to be said of `api.example.com: 443`, which is a mapping.
fn space_behind_colon(entries: &[Entry]) -> Option<Complaint> {
    let [Entry { key, value, .. }] = entries else { return None };
    let Value::Scalar(port) = &value.value else { return None };
    let meant = format!("{}:{}", key.text, port.text);
    endpoint(&meant, Entries::Any).ok().map(|_| {
        Complaint::new(
            "the space behind the colon makes this a mapping, not an endpoint",
            format!("write `{}`", shown(&meant)),
        )
    })
}

/// A rule as a policy's text would name it: `10.0.0.0/8:5432/tcp`, `[::1]:443/udp`.
#[must_use]
pub fn network_entry(rule: &NetworkRule) -> String {
    let NetworkRule { protocol, cidr, port, line: _ } = *rule;
    Endpoint { host: Host::Network(cidr), port, protocol }.text()
}

/// A rule as a policy's text would name it: `api.example.com:443/tcp`, `*.internal.example:5432/tcp`.
#[must_use]
pub fn name_entry(rule: &NameRule) -> String {
    let NameRule { protocol, name, port, allow_private: _, line: _ } = rule;
    Endpoint { host: Host::Name(name.clone()), port: *port, protocol: *protocol }.text()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Network(Cidr),
    Name(NamePattern),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    host: Host,
    port: Option<u16>,
    protocol: Protocol,
}

impl Endpoint {
    fn text(&self) -> String {
        let host = match &self.host {
            Host::Network(cidr) => address::host(*cidr),
            Host::Name(name) => name.to_string(),
        };
        let port = self.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        format!("{host}:{port}/{protocol}")
    }
}

fn endpoint(text: &str, entries: Entries) -> Result<Endpoint, Complaint> {
    let quoted = Quoted(text);
    if let Some((scheme, behind)) = text.split_once("://") {
        let meant = endpoint_of_url(scheme, behind).filter(|meant| endpoint(meant, entries).is_ok());
        let right = meant.as_deref().map_or_else(|| entries.form().to_owned(), shown);
        return Err(Complaint::new(
            format!("{quoted} is a URL, not an endpoint"),
            format!("write `{right}`"),
        ));
    }
    if text.contains(char::is_whitespace) {
        return Err(Complaint::new(
            format!("{quoted} holds a space"),
            "write one endpoint an entry, without spaces",
        ));
    }
    let (host, behind) = split(text, entries)?;
    let (port, protocol) = behind.split_once('/').map_or((behind, None), |(port, name)| (port, Some(name)));
    // The host first: of several mistakes it is the one to hear of.
    let host = if address::is_meant(host) {
        Host::Network(address::network_of(host, behind)?)
    } else if entries == Entries::Addresses {
        return Err(name::not_an_own_address(host, behind));
    } else {
        Host::Name(name::pattern(host, behind)?)
    };
    Ok(Endpoint { host, port: port_of(port, text)?, protocol: protocol_of(protocol)? })
}

/// Where a URL leads to, without what comes behind the port.
fn endpoint_of_url(scheme: &str, behind: &str) -> Option<String> {
    let authority = behind.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let is_whole = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if is_whole {
        return Some(host.to_owned());
    }
    match scheme {
        "https" | "wss" => Some(format!("{host}:443")),
        "http" | "ws" => Some(format!("{host}:80")),
        _ => None,
    }
}

/// The part before the port, brackets included, and the part behind the colon.
fn split(text: &str, entries: Entries) -> Result<(&str, &str), Complaint> {
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
    let Some((host, port)) = text.rsplit_once(':') else { return Err(portless(text, text)) };
    if host.contains(':') {
        return Err(several_colons(text, host, port, entries));
    }
    Ok((host, port))
}

fn several_colons(text: &str, host: &str, port: &str, entries: Entries) -> Complaint {
    let address = host.split_once('/').map_or(host, |(address, _)| address);
    if address.contains(|c: char| !c.is_ascii_hexdigit() && !matches!(c, ':' | '.' | '%')) {
        return Complaint::new(
            format!("{} has more than one colon", Quoted(text)),
            format!("write `{}`", entries.form()),
        );
    }
    let way_out = if address.parse::<Ipv6Addr>().is_ok() {
        format!("write `[{}]:{}`", shown(host), shown(port))
    } else {
        format!("write `[{}]:443`, with the port behind the bracket", shown(text))
    };
    Complaint::new(format!("the IPv6 address in {} has no brackets", Quoted(text)), way_out)
}

fn portless(text: &str, host: &str) -> Complaint {
    let host = host.trim_end_matches(':');
    Complaint::new(
        format!("{} names no port", Quoted(text)),
        format!("write `{0}:443` for one port or `{0}:*` for all", shown(host)),
    )
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
