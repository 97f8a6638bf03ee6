//! Names of hosts, as DNS knows them.
//!
//! Invariant: a host name has one form, whoever wrote it: ASCII in lower case, no dot at its end, no empty label, and nothing that a
//! reader of addresses takes for an address. What is equal as text is the same name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// Nothing at all.
    #[error("a host name is empty; write one as in `api.example.com`")]
    Empty,
    /// A character beyond ASCII, which DNS has in its `xn--` form only.
    #[error("a host name has the character {character:?} at position {position}; write its `xn--` form")]
    NotAscii {
        /// The character.
        character: char,
        /// Its position, from 1.
        position: usize,
    },
    /// A character that no host name has.
    #[error(
        "a host name has the character {character:?} at position {position}; letters, digits and `. _ -` are allowed"
    )]
    Character {
        /// The character.
        character: char,
        /// Its position, from 1.
        position: usize,
    },
    /// Two dots in a row, or one at the beginning.
    #[error("a host name has nothing before one of its dots; write one dot between two labels")]
    EmptyLabel,
    /// A label longer than DNS can carry.
    #[error("a label of a host name has {length} characters; at most {max} are allowed", max = HostName::MAX_LABEL)]
    LabelTooLong {
        /// Its length in characters.
        length: usize,
    },
    /// A name longer than DNS can carry.
    #[error("a host name has {length} characters; at most {max} are allowed", max = HostName::MAX)]
    TooLong {
        /// Its length in characters.
        length: usize,
    },
    /// A label that begins or ends with a hyphen.
    #[error("the label `{label}` of a host name begins or ends with `-`; remove that `-`")]
    Hyphen {
        /// The label.
        label: String,
    },
    /// What programs take for an IPv4 address: `127.1`, `0x7f.1`, `2130706433`.
    #[error("a host name ends in a number, so that programs take it for an IPv4 address; write the address")]
    LooksLikeAddress,
}

/// The name of a host, in the one form in which it is compared everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Arc<str>);

impl HostName {
    /// The most characters of a name.
    pub const MAX: usize = 253;
    /// The most characters between two dots.
    pub const MAX_LABEL: usize = 63;

    /// The name that the text is a spelling of. Upper case becomes lower case, and one dot at the end goes.
    ///
    /// # Errors
    /// A [`HostNameError`] that says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let found = |is_wrong: fn(char) -> bool| text.chars().zip(1..).find(|(c, _)| is_wrong(*c));
        if let Some((character, position)) = found(|c| !c.is_ascii()) {
            return Err(HostNameError::NotAscii { character, position });
        }
        if let Some((character, position)) = found(|c| !is_of_names(c)) {
            return Err(HostNameError::Character { character, position });
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(if text.is_empty() { HostNameError::Empty } else { HostNameError::EmptyLabel });
        }
        if name.len() > Self::MAX {
            return Err(HostNameError::TooLong { length: name.len() });
        }
        name.split('.').try_for_each(check_label)?;
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(HostNameError::LooksLikeAddress);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands between its dots, from the host's own label to the top-level domain. Never nothing, and none is empty.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

fn is_of_names(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

fn check_label(label: &str) -> Result<(), HostNameError> {
    if label.is_empty() {
        return Err(HostNameError::EmptyLabel);
    }
    if label.len() > HostName::MAX_LABEL {
        return Err(HostNameError::LabelTooLong { length: label.len() });
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostNameError::Hyphen { label: label.to_owned() });
    }
    Ok(())
}

/// Whether a last label makes the whole an address to `inet_aton` or to a reader of URLs. No top-level domain is a number.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
        Some(hexadecimal) => hexadecimal.chars().all(|c| c.is_ascii_hexdigit()),
        None => label.chars().all(|c| c.is_ascii_digit()),
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashed and compared as its text.
impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(text: String) -> Result<Self, HostNameError> {
        Self::parse(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(text: &str) -> String {
        HostName::parse(text).unwrap().to_string()
    }

    #[test]
    fn every_spelling_of_a_name_has_one_form() {
        for spelling in ["api.example.com", "API.Example.COM", "api.example.com.", "API.EXAMPLE.COM."] {
            assert_eq!(form(spelling), "api.example.com");
        }
    }

    #[test]
    fn a_single_label_an_underscore_and_a_punycode_label_are_names() {
        for name in ["localhost", "_sip._tcp.example.com", "xn--mnchen-3ya.de", "3com.com", "a--b.c"] {
            assert_eq!(form(name), name);
        }
    }

    #[test]
    fn nothing_but_letters_digits_underscores_hyphens_and_dots_is_taken() {
        for wrong in ['\0', ' ', '\n', '/', ':', '*', '@', '%', '\\', '\u{7f}'] {
            let refused = HostName::parse(&format!("a{wrong}.com")).unwrap_err();
            assert_eq!(refused, HostNameError::Character { character: wrong, position: 2 });
        }
    }

    #[test]
    fn a_character_beyond_ascii_is_an_error_of_its_own() {
        for (text, character, position) in [("münchen.de", 'ü', 2), ("a\u{3002}com", '\u{3002}', 2)] {
            let refused = HostName::parse(text).unwrap_err();
            assert_eq!(refused, HostNameError::NotAscii { character, position });
        }
    }

    #[test]
    fn no_label_is_empty() {
        assert_eq!(HostName::parse(""), Err(HostNameError::Empty));
        for text in [".", "..", ".a", "a..b", "a..", "a.b.."] {
            assert_eq!(HostName::parse(text), Err(HostNameError::EmptyLabel), "{text}");
        }
    }

    #[test]
    fn no_label_begins_or_ends_with_a_hyphen() {
        for text in ["-a.com", "a-.com", "-", "a.-b-.com"] {
            assert!(matches!(HostName::parse(text), Err(HostNameError::Hyphen { .. })), "{text}");
        }
    }

    #[test]
    fn labels_and_names_are_as_long_as_dns_carries_and_no_longer() {
        let (longest, longer) = ("a".repeat(63), "a".repeat(64));
        assert!(HostName::parse(&format!("{longest}.com")).is_ok());
        let refused = HostName::parse(&format!("{longer}.com"));
        assert_eq!(refused, Err(HostNameError::LabelTooLong { length: 64 }));
        let name = |last: usize| format!("{longest}.{longest}.{longest}.{}", "a".repeat(last));
        assert!(HostName::parse(&name(61)).is_ok());
        assert!(HostName::parse(&format!("{}.", name(61))).is_ok());
        assert_eq!(HostName::parse(&name(62)), Err(HostNameError::TooLong { length: 254 }));
    }

    #[test]
    fn what_a_program_takes_for_an_address_is_no_name() {
        for text in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "017700000001",
            "0x7f.1",
            "0x7f000001",
            "1.2.3.0XfF",
            "a.0x",
            "127.1.",
            "1.2.3.4.5",
            "example.1",
        ] {
            assert_eq!(HostName::parse(text), Err(HostNameError::LooksLikeAddress), "{text}");
        }
        for text in ["127.0.0.1.example.com", "0x7f.com", "a.0xg", "a.1x"] {
            assert!(HostName::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn labels_come_in_the_order_of_the_text() {
        let name = HostName::parse("a.b.example").unwrap();
        assert_eq!(name.labels().collect::<Vec<_>>(), ["a", "b", "example"]);
        assert_eq!(name.labels().next_back(), Some("example"));
    }

    #[test]
    fn a_name_that_comes_as_json_is_parsed_too() {
        let name: HostName = serde_json::from_str("\"API.example.com.\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"api.example.com\"");
        assert!(serde_json::from_str::<HostName>("\"127.1\"").is_err());
    }

    proptest! {
        #[test]
        fn the_form_of_a_name_is_its_own_form(text in "[a-zA-Z0-9_.-]{0,40}|.{0,20}|([a-z0-9-]{1,70}\\.){1,5}[a-z]{2,9}\\.?") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(name.as_str().len() <= HostName::MAX && !name.as_str().ends_with('.'));
                prop_assert!(!name.as_str().contains(|c: char| c.is_ascii_uppercase() || !is_of_names(c)));
                prop_assert!(name.labels().all(|label| (1..=HostName::MAX_LABEL).contains(&label.len())));
                let dotless = text.strip_suffix('.').unwrap_or(&text);
                prop_assert!(name.as_str().eq_ignore_ascii_case(dotless));
            }
        }
    }
}
