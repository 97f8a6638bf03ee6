//! Names that clients choose: of actions, sessions, tags, risk levels and whatever they count themselves to.
//!
//! Invariant: a name holds no control characters, so it can stand in a ledger line and on a terminal as it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::is_visible;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name is empty; write 1 to {max} characters")]
    Empty {
        /// The most characters such a name has.
        max: usize,
    },
    /// Longer than such a name may be.
    #[error("a name has {length} characters; at most {max} are allowed")]
    TooLong {
        /// Its length in characters.
        length: usize,
        /// The most characters such a name has.
        max: usize,
    },
    /// A character that such a name can't have.
    #[error("a name has the character {character:?} at position {position}; {allowed} are allowed")]
    Character {
        /// The character.
        character: char,
        /// Its position, from 1.
        position: usize,
        /// What is allowed instead.
        allowed: &'static str,
    },
}

fn check(
    text: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { max });
    }
    let length = text.chars().count();
    if length > max {
        return Err(NameError::TooLong { length, max });
    }
    match text.chars().zip(1..).find(|(character, _)| !is_allowed(*character)) {
        Some((character, position)) => Err(NameError::Character { character, position, allowed }),
        None => Ok(()),
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $allowed:literal, $is_allowed:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The most characters.
            pub const MAX: usize = $max;

            /// The name, if the text is one.
            ///
            /// # Errors
            /// A [`NameError`] that says what is wrong and what would be right.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text, Self::MAX, $allowed, $is_allowed)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name of a guarded action. Compared exactly, upper and lower case apart.
    ActionName, 128, "printable characters", is_visible
}
name! {
    /// The name of a session that outlives its processes. Also a folder's name, so plain characters only.
    SessionName, 64, "letters, digits and `. _ -`", is_plain
}
name! {
    /// A tag on an action.
    Tag, 64, "printable characters", is_visible
}
name! {
    /// An id that an application gives itself: of an agent, a run, a task, a mission.
    Label, 128, "printable characters", is_visible
}
name! {
    /// How risky an action is: a word of the operator's and the application's own, such as `high`. Upper and lower case are alike.
    RiskLevel, 32, "letters, digits and `. _ -`", is_plain
}

impl RiskLevel {
    /// Whether both are the same level.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_terminal_escape_is_refused() {
        let error = ActionName::new("search\u{1b}[2J").unwrap_err();
        assert_eq!(
            error,
            NameError::Character { character: '\u{1b}', position: 7, allowed: "printable characters" }
        );
    }

    #[test]
    fn a_name_that_reorders_text_is_refused() {
        for hidden in ['\u{202e}', '\u{61c}', '\u{ad}', '\u{e0041}'] {
            assert!(ActionName::new(format!("a{hidden}b")).is_err(), "{}", hidden.escape_unicode());
        }
    }

    #[test]
    fn an_ordinary_name_in_any_script_is_taken() {
        assert_eq!(ActionName::new("поиск web").unwrap().as_str(), "поиск web");
    }

    #[test]
    fn a_session_name_is_no_path() {
        assert!(SessionName::new("../etc").is_err());
        assert!(SessionName::new("web-agent.1").is_ok());
    }

    #[test]
    fn a_name_of_no_characters_or_too_many_is_refused() {
        assert!(ActionName::new("").is_err());
        assert!(ActionName::new("x".repeat(129)).is_err());
        assert!(ActionName::new("x".repeat(128)).is_ok());
    }
}
