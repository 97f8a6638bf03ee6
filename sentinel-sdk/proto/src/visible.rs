//! Which characters of a text show themselves.
//!
//! Invariant: what consists of these alone can go to a terminal or a log as it is, and is what whoever reads it sees.

/// Whether a character shows itself: no control character, and none of those that are invisible, or that reorder or hide others.
#[must_use]
pub fn is_visible(character: char) -> bool {
    let hides = matches!(character,
        // The soft hyphen, the mark of Arabic letters, fillers of Hangul, selectors and the separator of Mongolian vowels.
        '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
        // Spaces of no width, joiners and marks of direction; line and paragraph separators, embeddings and overrides; what is invisible in
        // formulas, isolates; the byte-order mark; annotations between lines.
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{fffb}'
        // Tags, and all that may come to be beside them.
        | '\u{e0000}'..='\u{e0fff}');
    !character.is_control() && !hides
}

#[cfg(test)]
mod tests {
    use super::is_visible;

    #[test]
    fn what_hides_or_reorders_text_does_not_show_itself() {
        for hidden in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0100}',
        ] {
            assert!(!is_visible(hidden), "{}", hidden.escape_unicode());
        }
    }

    #[test]
    fn letters_of_any_script_marks_on_them_and_pictures_do() {
        for shown in ['a', ' ', 'ß', 'ж', 'ק', 'ع', 'ै', '語', '한', '\u{301}', '\u{fe0f}', '🦀'] {
            assert!(is_visible(shown), "{}", shown.escape_unicode());
        }
    }
}
