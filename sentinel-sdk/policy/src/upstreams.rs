//! The DNS servers that an agent asks for its sessions.
//!
//! Invariant: a server is an address, never a name: none has to be looked up to look up another.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use sentinel_proto::HostName;

use crate::field::Field;
use crate::lower::path::{PathKind, absolute, path_shape};
use crate::problem::{Complaint, Findings};
use crate::quoted::Quoted;
use crate::scalar::whole_number;
use crate::shape::{Key, Keys, Needed, Shape, Text};

pub(crate) const RESOLVER_KEYS: Keys = Keys {
    known: &[
        Key {
            name: "upstreams",
            about: "The DNS servers that are asked, the first first. Absent: those of the host's `/etc/resolv.conf`; empty: none.",
            shape: Shape::List {
                of: &Shape::Text(Text {
                    what: "a DNS server's address",
                    example: "192.0.2.53",
                    most: Some(MAX_UPSTREAM_BYTES),
                    pattern: None,
                }),
                example: "['192.0.2.53', 'tls://192.0.2.53#dns.example']",
            },
        },
        Key {
            name: "timeout_seconds",
            about: "For how long one of them is waited for.",
            shape: Shape::Whole { what: "a number of seconds", range: 1..=30 },
        },
        Key {
            name: "roots",
            about: "A PEM file of the certificate authorities that servers asked over TLS are held to. Absent: the public ones.",
            shape: path_shape("/etc/agent-sentinel/dns-roots.pem"),
        },
    ],
    needed: Needed::OneAtLeast,
    later: &[],
    example: "{upstreams: ['192.0.2.53']}",
};

/// More than the longest address with the longest name.
const MAX_UPSTREAM_BYTES: usize = 320;
/// A question that every server leaves unanswered takes the sum of their timeouts.
const MOST_UPSTREAMS: usize = 8;
const DNS_PORT: u16 = 53;
const DNS_OVER_TLS_PORT: u16 = 853;
const DEFAULT_TIMEOUT_SECONDS: u64 = 2;

/// How names are resolved for the sessions. The default is an absent section's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Whom to ask, the first first. None: the host's own; empty: nobody.
    pub upstreams: Option<Vec<Upstream>>,
    /// For how long one of them is waited for.
    pub timeout_seconds: u64,
    /// The certificate authorities of those that are asked over TLS. None: the public ones.
    pub roots: Option<PathBuf>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { upstreams: None, timeout_seconds: DEFAULT_TIMEOUT_SECONDS, roots: None }
    }
}

/// A DNS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// The name in its certificate, for one that is asked over TLS and over nothing else. None: UDP and TCP.
    pub tls_name: Option<String>,
}

pub(crate) fn resolver(field: &Field<'_>, found: &mut Findings) -> Option<Resolver> {
    let section = field.section(found)?;
    let mut resolver = Resolver::default();
    if let Some(list) = section.field("upstreams") {
        resolver.upstreams = upstreams(list, found);
    }
    if let Some(seconds) = section.field("timeout_seconds").and_then(|field| whole_number(field, found)) {
        resolver.timeout_seconds = seconds;
    }
    if let Some(roots) = section.field("roots") {
        let text = roots.text(found)?;
        resolver.roots =
            absolute(&text.text, PathKind::Roots).map_err(|complaint| roots.complain(complaint, found)).ok();
    }
    Some(resolver)
}

fn upstreams(list: &Field<'_>, found: &mut Findings) -> Option<Vec<Upstream>> {
    let items = list.items(found)?;
    if items.len() > MOST_UPSTREAMS {
        let message = format!("{} servers stand here", items.len());
        list.complain(Complaint::new(message, format!("name at most {MOST_UPSTREAMS}")), found);
        return None;
    }
    let mut upstreams: Vec<Upstream> = Vec::new();
    for item in items {
        let Some(text) = item.text(found) else { continue };
        match upstream(&text.text) {
            Ok(upstream) if upstreams.contains(&upstream) => {
                let message = format!("{} stands here twice", Quoted(&text.text));
                item.complain(Complaint::new(message, "keep one of them"), found);
            }
            Ok(upstream) => upstreams.push(upstream),
            Err(complaint) => item.complain(complaint, found),
        }
    }
    Some(upstreams)
}

fn upstream(text: &str) -> Result<Upstream, Complaint> {
    let (where_it_is, tls_name) = match text.strip_prefix("tls://") {
        None => (text, None),
        Some(rest) => {
            let Some((where_it_is, name)) = rest.split_once('#') else {
                let message = format!("{} doesn't say the name in the server's certificate", Quoted(text));
                return Err(Complaint::new(message, "write it behind a `#`, such as `#dns.example`"));
            };
            (where_it_is, Some(certificate_name(name)?))
        }
    };
    let port = if tls_name.is_some() { DNS_OVER_TLS_PORT } else { DNS_PORT };
    let Some(address) = socket_address(where_it_is, port) else {
        let message = format!("{} is not the address of a DNS server", Quoted(text));
        let way_out = "write an address and perhaps a port: `192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::1]:53`, `tls://192.0.2.53#dns.example`";
        return Err(Complaint::new(message, way_out));
    };
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || is_broadcast || address.port() == 0 {
        let message = format!("nobody answers at {}", Quoted(text));
        return Err(Complaint::new(message, "write the address of one DNS server"));
    }
    Ok(Upstream { address, tls_name })
}

fn socket_address(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        // A zone has a meaning on one link of one host.
        return match address {
            SocketAddr::V6(address) if address.scope_id() != 0 => None,
            SocketAddr::V4(_) | SocketAddr::V6(_) => Some(address),
        };
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = match inner {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => text.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

fn certificate_name(name: &str) -> Result<String, Complaint> {
    HostName::parse(name).map(String::from).map_err(|error| {
        let message = format!("{} can't be the name in a certificate: {error}", Quoted(name));
        Complaint::new(message, "write it as in `dns.example`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::parse;

    fn read(text: &str) -> Resolver {
        parse(text.as_bytes()).unwrap().0.resolver
    }

    fn problems(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    fn one(text: &str) -> Upstream {
        read(&format!("resolver: {{upstreams: ['{text}']}}")).upstreams.unwrap().remove(0)
    }

    #[test]
    fn an_absent_list_means_the_hosts_servers_and_an_empty_one_means_none() {
        assert_eq!(read("minimum_tier: kill").upstreams, None);
        assert_eq!(read("resolver: {timeout_seconds: 3}").upstreams, None);
        assert_eq!(read("resolver: {upstreams: []}").upstreams, Some(Vec::new()));
    }

    #[test]
    fn a_server_is_an_address_with_the_usual_port_or_its_own() {
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            ("127.0.0.53", "127.0.0.53:53"),
        ] {
            assert_eq!(one(text), Upstream { address: address.parse().unwrap(), tls_name: None }, "{text}");
        }
    }

    #[test]
    fn a_server_over_tls_has_the_name_of_its_certificate() {
        for (text, address) in [
            ("tls://192.0.2.53#dns.example", "192.0.2.53:853"),
            ("tls://192.0.2.53:8853#DNS.example", "192.0.2.53:8853"),
            ("tls://[2001:db8::1]:853#dns.example", "[2001:db8::1]:853"),
        ] {
            let tls_name = Some("dns.example".to_owned());
            assert_eq!(one(text), Upstream { address: address.parse().unwrap(), tls_name }, "{text}");
        }
    }

    #[test]
    fn every_problem_is_told_at_its_place() {
        let told = problems(
            "resolver:\n  upstreams: [dns.example, 'tls://192.0.2.1', 'tls://192.0.2.1#-', '0.0.0.0', '192.0.2.1:0', '[fe80::1%2]:53', '192.0.2.7', '192.0.2.7:53']\n  timeout_seconds: 0\n  roots: ca.pem\n  servers: []\n",
        );
        for part in [
            "resolver.upstreams[0]: `dns.example` is not the address of a DNS server",
            "resolver.upstreams[1]: `tls://192.0.2.1` doesn't say the name in the server's certificate",
            "resolver.upstreams[2]: `-` can't be the name in a certificate",
            "resolver.upstreams[3]: nobody answers at `0.0.0.0`",
            "resolver.upstreams[4]: nobody answers at `192.0.2.1:0`",
            "resolver.upstreams[5]: `[fe80::1%2]:53` is not the address of a DNS server",
            "resolver.upstreams[7]: `192.0.2.7:53` stands here twice",
            "resolver.timeout_seconds: `0` is too small",
            "resolver.roots: the path `ca.pem` is not absolute",
            "resolver.servers: `servers` is no key of `resolver`",
        ] {
            assert!(told.contains(part), "{part} is missing in\n{told}");
        }
        assert!(!told.contains("upstreams[6]"), "{told}");
    }

    #[test]
    fn there_are_as_many_servers_as_can_be_waited_for() {
        let list = |count: usize| {
            let servers: Vec<_> = (1..=count).map(|n| format!("'192.0.2.{n}'")).collect();
            format!("resolver: {{upstreams: [{}]}}", servers.join(", "))
        };
        assert_eq!(read(&list(8)).upstreams.unwrap().len(), 8);
        assert!(problems(&list(9)).contains("name at most 8"));
    }

    #[test]
    fn timeout_and_roots_are_taken_as_written() {
        let resolver = read("resolver: {timeout_seconds: 5, roots: /etc/ca.pem}");
        assert_eq!((resolver.timeout_seconds, resolver.roots), (5, Some("/etc/ca.pem".into())));
        assert_eq!(read("").timeout_seconds, 2);
    }
}
