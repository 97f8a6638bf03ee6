//! The user's text inside our messages.
//!
//! Invariant: what comes out holds no control character and nothing invisible, so it can go to a terminal as it is.

use std::fmt;

use sentinel_proto::is_visible;

/// How much of a text a message repeats.
const MAX_CHARACTERS: usize = 72;

/// A character as it may stand on a terminal: itself, or its escape where it doesn't show itself.
pub(crate) fn push_shown(character: char, shown: &mut String) {
    if is_visible(character) && (character == ' ' || !character.is_whitespace()) {
        shown.push(character);
    } else if matches!(character, '\t' | '\n' | '\r') {
        shown.extend(character.escape_default());
    } else {
        shown.extend(character.escape_unicode());
    }
}

/// A text of the user's in backticks, escaped and cut to a readable length.
pub(crate) struct Quoted<'t>(pub(crate) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", shown(self.0))
    }
}

/// A text of the user's, escaped and cut to a readable length.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    let mut characters = text.chars();
    for character in characters.by_ref().take(MAX_CHARACTERS) {
        push_shown(character, &mut shown);
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(Quoted("a\u{1b}[2J\tb\u{202e}").to_string(), "`a\\u{1b}[2J\\tb\\u{202e}`");
    }

    #[test]
    fn a_space_that_only_looks_like_one_is_escaped() {
        assert_eq!(shown("run:\u{a0}1 2"), "run:\\u{a0}1 2");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shown(&"x".repeat(1_000_000)).chars().count(), MAX_CHARACTERS + 1);
    }
}
