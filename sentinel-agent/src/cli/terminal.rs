//! Text of others on a terminal.

/// The text with control characters, and those that hide or reorder others, as escapes.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let hides = matches!(character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || hides {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
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
