//! Which host names a rule means.
//!
//! Invariant: names are compared label by label: a wildcard stands for exactly one whole label, so that `*.example.com` is neither
//! `example.com`, nor `a.b.example.com`, nor `anexample.com`.

use std::fmt;

use sentinel_proto::HostName;

/// One name, or all that are one label longer than another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// This name.
    Exactly(HostName),
    /// Any name of one label more in front of this one: `*.internal.example`. The name itself is another one.
    OneBelow(HostName),
}

impl NamePattern {
    /// Whether it means this name.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exactly(only) => name == only,
            Self::OneBelow(apex) => {
                name.as_str().split_once('.').is_some_and(|(_, rest)| rest == apex.as_str())
            }
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => name.fmt(f),
            Self::OneBelow(apex) => write!(f, "*.{apex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_itself_however_it_was_spelt_and_no_other() {
        let pattern = NamePattern::Exactly(name("api.example.com"));
        assert!(pattern.matches(&name("api.example.com")));
        assert!(pattern.matches(&name("API.example.com.")));
        for other in ["example.com", "x.api.example.com", "xapi.example.com", "api.example.org"] {
            assert!(!pattern.matches(&name(other)), "{other}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label_and_never_the_apex() {
        let pattern = NamePattern::OneBelow(name("internal.example"));
        for one_below in ["db.internal.example", "a-b.internal.example"] {
            assert!(pattern.matches(&name(one_below)), "{one_below}");
        }
        for other in ["internal.example", "a.b.internal.example", "xinternal.example", "example"] {
            assert!(!pattern.matches(&name(other)), "{other}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_a_policy_writes_it() {
        assert_eq!(NamePattern::Exactly(name("a.example")).to_string(), "a.example");
        assert_eq!(NamePattern::OneBelow(name("a.example")).to_string(), "*.a.example");
    }

    /// Label by label, from the shown form.
    fn matches_naively(pattern: &str, name: &str) -> bool {
        let (pattern, name): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), name.split('.').collect());
        pattern.len() == name.len() && pattern.iter().zip(name).all(|(of, label)| *of == "*" || *of == label)
    }

    proptest! {
        #[test]
        fn matching_is_label_by_label(apex in "[ab](\\.[ab]){0,2}", other in "[ab](\\.[ab]){0,3}") {
            let (apex, other) = (name(&apex), name(&other));
            for pattern in [NamePattern::Exactly(apex.clone()), NamePattern::OneBelow(apex)] {
                let expected = matches_naively(&pattern.to_string(), other.as_str());
                prop_assert_eq!(pattern.matches(&other), expected, "{} {}", pattern, other);
            }
        }
    }
}
