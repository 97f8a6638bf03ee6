//! Which servers TLS may ask for, of a session whose policy has it looked into.
//!
//! Invariant: what the kernel side finds for a name and a port is the grants that have a rule which means both; names are compared byte by byte,
//! for whoever has a zone could find a name in it with any hash.

use std::collections::BTreeMap;

use sentinel_ebpf_common::{SERVER_NAME_BYTES, ServerNameKey};
use sentinel_engine::{GrantSet, NamePattern, Policy, Protocol, TlsNames};
use sentinel_policy::name_entry;

use super::EnforcerError;

/// Name by name, the grants that have it; none of a policy that doesn't have TLS looked into.
///
/// # Errors
/// A rule can't be told to the kernel side as it is meant.
pub(super) fn compile(
    session: u32,
    generation: u32,
    policy: &Policy,
) -> Result<BTreeMap<ServerNameKey, u64>, EnforcerError> {
    let mut names = BTreeMap::new();
    if policy.tls_names != TlsNames::Enforce {
        return Ok(names);
    }
    for (index, grant) in policy.grants.iter().enumerate() {
        for rule in &grant.names {
            let refuse = |cause: &str| EnforcerError::Rule {
                rule: name_entry(rule),
                line: rule.line,
                cause: cause.to_owned(),
            };
            if rule.protocol != Protocol::Tcp {
                return Err(refuse("under `tls_names: enforce` no host is open by UDP; name its address"));
            }
            let (name, one_below) = match &rule.name {
                NamePattern::Exactly(name) => (name, 0),
                NamePattern::OneBelow(apex) => (apex, 1),
            };
            let bytes = name.as_str().as_bytes();
            let mut padded = [0; SERVER_NAME_BYTES];
            let place = padded.get_mut(..bytes.len()).ok_or_else(|| refuse("its name is too long"))?;
            place.copy_from_slice(bytes);
            let length = u32::try_from(bytes.len()).map_err(|_too_long| refuse("its name is too long"))?;
            let port = rule.port.unwrap_or(0);
            let key = ServerNameKey { session, generation, port, one_below, length, name: padded };
            // A grant beyond those that bits tell apart opens nothing.
            *names.entry(key).or_default() |= GrantSet::of(index).0;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use sentinel_engine::{Grant, NameRule};
    use sentinel_proto::HostName;

    use super::*;

    fn rule(protocol: Protocol, pattern: NamePattern) -> NameRule {
        NameRule { protocol, name: pattern, port: Some(443), allow_private: false, line: 3 }
    }

    fn policy(tls_names: TlsNames, rules: Vec<Vec<NameRule>>) -> Policy {
        let grants = rules.into_iter().map(|names| Grant { names, ..Grant::default() }).collect();
        Policy { tls_names, grants, ..Policy::empty() }
    }

    fn name() -> HostName {
        HostName::parse("a.example").unwrap()
    }

    #[test]
    fn grants_that_list_a_name_share_its_entry_and_a_wildcard_is_another() {
        let exactly = rule(Protocol::Tcp, NamePattern::Exactly(name()));
        let below = rule(Protocol::Tcp, NamePattern::OneBelow(name()));
        let rules = vec![vec![exactly.clone()], vec![], vec![exactly, below]];
        let names = compile(7, 2, &policy(TlsNames::Enforce, rules.clone())).unwrap();
        let told: Vec<_> = names.iter().map(|(key, bits)| (key.one_below, key.length, *bits)).collect();
        assert_eq!(told, [(0, 9, 0b101), (1, 9, 0b100)]);
        assert!(names.keys().all(|key| (key.session, key.generation, key.port) == (7, 2, 443)));
        assert!(compile(7, 2, &policy(TlsNames::Off, rules)).unwrap().is_empty());
    }

    #[test]
    fn a_host_by_udp_is_refused_where_it_could_not_be_looked_into() {
        let rules = vec![vec![rule(Protocol::Udp, NamePattern::Exactly(name()))]];
        let error = compile(7, 2, &policy(TlsNames::Enforce, rules.clone())).unwrap_err().to_string();
        assert!(error.contains("a.example:443/udp") && error.contains('3'), "{error}");
        assert!(compile(7, 2, &policy(TlsNames::Off, rules)).is_ok());
    }
}
