//! The rules that name hosts, found by a host's name.
//!
//! Invariant: what it finds for a name is what [`NamePattern::matches`] picks of all rules, at a cost that doesn't grow with their number.

use std::collections::HashMap;

use sentinel_proto::HostName;

use crate::{Grant, GrantSet, NamePattern, NameRule, Protocol};

/// What one rule says of the names that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameEntry {
    /// The grant that it is of; empty for one beyond those that bits tell apart, which opens nothing.
    pub grant: GrantSet,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which port; none: any.
    pub port: Option<u16>,
    /// Whether the name may stand for an address of a private network or of this machine.
    pub allow_private: bool,
    /// Whether it is a wildcard.
    pub is_wildcard: bool,
    /// The policy's line, from 1.
    pub line: u32,
}

/// One policy's rules that name hosts.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    exact: HashMap<HostName, Vec<NameEntry>>,
    /// By what stands behind the first label.
    one_below: HashMap<HostName, Vec<NameEntry>>,
}

impl NameTable {
    /// The rules of these grants.
    #[must_use]
    pub fn of(grants: &[Grant]) -> Self {
        let mut table = Self::default();
        for (index, grant) in grants.iter().enumerate() {
            for rule in &grant.names {
                table.insert(GrantSet::of(index), rule);
            }
        }
        table
    }

    fn insert(&mut self, grant: GrantSet, rule: &NameRule) {
        let (entries, name, is_wildcard) = match &rule.name {
            NamePattern::Exactly(name) => (&mut self.exact, name, false),
            NamePattern::OneBelow(apex) => (&mut self.one_below, apex, true),
        };
        // Most names are listed once.
        let entries = entries.entry(name.clone()).or_insert_with(|| Vec::with_capacity(1));
        entries.push(NameEntry {
            grant,
            protocol: rule.protocol,
            port: rule.port,
            allow_private: rule.allow_private,
            is_wildcard,
            line: rule.line,
        });
    }

    /// The rules that list a name.
    pub fn listing(&self, name: &HostName) -> impl Iterator<Item = &NameEntry> {
        let exact = self.exact.get(name);
        let parent = name.as_str().split_once('.').map(|(_, parent)| parent);
        let one_below = parent.and_then(|parent| self.one_below.get(parent));
        exact.into_iter().chain(one_below).flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = HostName> {
        "[ab](\\.[ab]){0,3}".prop_map(|text| HostName::parse(&text).unwrap())
    }

    fn rule() -> impl Strategy<Value = NameRule> {
        let pattern = (any::<bool>(), name()).prop_map(|(is_wildcard, name)| {
            if is_wildcard { NamePattern::OneBelow(name) } else { NamePattern::Exactly(name) }
        });
        let protocol = any::<bool>().prop_map(|is_tcp| if is_tcp { Protocol::Tcp } else { Protocol::Udp });
        (pattern, protocol, any::<Option<u16>>(), any::<bool>(), any::<u32>()).prop_map(
            |(name, protocol, port, allow_private, line)| NameRule {
                protocol,
                name,
                port,
                allow_private,
                line,
            },
        )
    }

    fn grants() -> impl Strategy<Value = Vec<Grant>> {
        vec(vec(rule(), 0..8).prop_map(|names| Grant { names, ..Grant::default() }), 0..6)
    }

    /// Every rule that lists the name, looked through one by one.
    fn listed_naively(grants: &[Grant], name: &HostName) -> Vec<NameEntry> {
        let rules = grants
            .iter()
            .enumerate()
            .flat_map(|(index, grant)| grant.names.iter().map(move |rule| (index, rule)));
        rules
            .filter(|(_, rule)| rule.name.matches(name))
            .map(|(index, rule)| NameEntry {
                grant: GrantSet::of(index),
                protocol: rule.protocol,
                port: rule.port,
                allow_private: rule.allow_private,
                is_wildcard: matches!(rule.name, NamePattern::OneBelow(_)),
                line: rule.line,
            })
            .collect()
    }

    /// As often as each is there, in no order.
    fn counted(entries: impl Iterator<Item = NameEntry>) -> HashMap<NameEntry, u32> {
        entries.fold(HashMap::new(), |mut counts, entry| {
            *counts.entry(entry).or_default() += 1;
            counts
        })
    }

    proptest! {
        #[test]
        fn a_name_is_listed_by_the_rules_whose_patterns_match_it(grants in grants(), name in name()) {
            let table = NameTable::of(&grants);
            let expected = listed_naively(&grants, &name);
            prop_assert_eq!(counted(table.listing(&name).copied()), counted(expected.into_iter()));
        }
    }
}
