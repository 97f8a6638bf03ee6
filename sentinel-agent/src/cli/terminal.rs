//! Text of others on a terminal.

use sentinel_proto::is_visible;

/// The text with control characters, and those that hide or reorder others, as escapes.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_any_script_is_not() {
        assert_eq!(visible("a\u{1b}[2J\r\u{202e}\u{9b}\n"), r"a\u{1b}[2J\r\u{202e}\u{9b}\n");
        assert_eq!(visible("поиск `web` \"x\""), "поиск `web` \"x\"");
    }
}
