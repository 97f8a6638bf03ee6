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
