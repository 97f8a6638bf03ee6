//! What stands in a policy beside names of hosts and takes their meaning away.

use sentinel_engine::{NamePattern, NameRule, Policy};

use super::{Mentions, Spot, warn};
use crate::problem::Findings;
use crate::quoted::Quoted;

const DNS: u16 = 53;
/// Where what is spoken first isn't TLS: FTP, SSH, mail, HTTP, LDAP, databases. Some go over to TLS later.
const BEGIN_WITHOUT_TLS: [u16; 12] = [21, 22, 25, 80, 110, 143, 389, 587, 1433, 3306, 5432, 6379];
/// DNS over TLS or QUIC, multicast DNS, and link-local name resolution.
const OTHER_DNS: [u16; 3] = [853, 5353, 5355];

/// Public resolvers that are asked over HTTPS, where nobody on the way sees for what.
const PUBLIC_RESOLVERS: [&str; 8] = [
    "cloudflare-dns.com",
    "dns.adguard-dns.com",
    "dns.google",
    "dns.nextdns.io",
    "dns.quad9.net",
    "doh.cleanbrowsing.org",
    "doh.opendns.com",
    "one.one.one.one",
];
/// Each name below it is one too: `mozilla.cloudflare-dns.com`, `chrome.cloudflare-dns.com`.
const RESOLVERS_BELOW: &str = "cloudflare-dns.com";

pub(super) fn look(policy: &Policy, mentions: &Mentions, found: &mut Findings) {
    if policy.has_names() {
        for door in &mentions.endpoints {
            ways_around(door.rule.port, &door.spot, found);
        }
    }
    if let Some(spot) = &mentions.tls_names
        && !policy.has_names()
    {
        let message = "no host is named, and TLS is looked into only where one is: this never matters";
        warn(spot, message, "name hosts in place of their addresses, or remove this", found);
    }
    for door in &mentions.names {
        if mentions.tls_names.is_some() {
            begins_without_tls(&door.rule, &door.spot, found);
        }
        // A name at any port is asked for much else than DNS.
        if door.rule.port.is_some() {
            ways_around(door.rule.port, &door.spot, found);
        }
        resolver(&door.rule, &door.spot, found);
        private_wildcard(&door.rule, &door.spot, found);
    }
}

/// With names, what the session asks DNS is answered by the agent alone; an address that answers too makes names of no account.
fn ways_around(port: Option<u16>, spot: &Spot, found: &mut Findings) {
    match port {
        Some(DNS) => warn(
            spot,
            "with names in the policy, DNS of the session goes to the agent whatever this rule says",
            "remove it",
            found,
        ),
        Some(port) if OTHER_DNS.contains(&port) => warn(
            spot,
            "with names in the policy, DNS of the session goes to the agent's resolver; this rule opens a way around it",
            "remove it, unless what answers there is no resolver",
            found,
        ),
        None => warn(
            spot,
            "with names in the policy, DNS of the session goes to the agent's resolver; this rule, of any port, opens a way around it",
            "name the ports that are needed",
            found,
        ),
        Some(_) => {}
    }
}

/// Nothing passes there under `tls_names: enforce`.
fn begins_without_tls(rule: &NameRule, spot: &Spot, found: &mut Findings) {
    if let Some(port) = rule.port.filter(|port| BEGIN_WITHOUT_TLS.contains(port)) {
        let message = format!(
            "what is spoken at port {port} mostly doesn't begin with TLS, and `tls_names: enforce` refuses that"
        );
        warn(
            spot,
            message,
            "name the address in place of the host, unless it is TLS from its first byte",
            found,
        );
    }
}

fn resolver(rule: &NameRule, spot: &Spot, found: &mut Findings) {
    let is_known = match &rule.name {
        NamePattern::Exactly(name) => {
            PUBLIC_RESOLVERS.contains(&name.as_str()) || apex_of(name.as_str()) == Some(RESOLVERS_BELOW)
        }
        NamePattern::OneBelow(apex) => {
            let apex = apex.as_str();
            apex == RESOLVERS_BELOW || PUBLIC_RESOLVERS.iter().any(|name| apex_of(name) == Some(apex))
        }
    };
    if is_known {
        let message = format!(
            "{} is a resolver: what is asked of it is seen by nobody here",
            Quoted(&rule.name.to_string())
        );
        warn(spot, message, "remove it, unless the application needs just this", found);
    }
}

fn apex_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, apex)| apex)
}

fn private_wildcard(rule: &NameRule, spot: &Spot, found: &mut Findings) {
    if let NamePattern::OneBelow(apex) = &rule.name
        && rule.allow_private
    {
        let message = format!(
            "whoever has a name below {} can let it stand for any address of this network, and of this machine",
            Quoted(apex.as_str())
        );
        warn(spot, message, "give `allow_private` to single names", found);
    }
}
