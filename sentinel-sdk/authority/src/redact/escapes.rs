//! A JSON string's text, and where each part of it stands in the JSON.
//!
//! Invariant: every place in the text that begins a character has its place in the JSON, so that what is replaced in the text can be replaced
//! in the JSON, and nothing else there changes.

use std::borrow::Cow;

/// What stands for half of a surrogate pair, which no text can hold.
const HALF: char = '\u{fffd}';

/// A string between its quotes, without escapes.
pub(super) struct Unescaped<'json> {
    pub(super) text: Cow<'json, str>,
    /// Beginnings of stretches: in the text, and in the JSON. Within a stretch both run alike.
    stretches: Vec<(usize, usize)>,
}

impl<'json> Unescaped<'json> {
    /// Of what stands between a string's quotes.
    pub(super) fn of(raw: &'json str) -> Self {
        let mut unescaped = Self { text: Cow::Borrowed(raw), stretches: Vec::new() };
        let mut text = String::new();
        let mut rest = raw;
        while let Some((plain, escape)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
            text.push_str(plain);
            unescaped.stretches.push((text.len(), raw.len().saturating_sub(escape.len())));
            let (character, length) = character(escape);
            text.push(character);
            rest = escape.get(length..).unwrap_or_default();
            unescaped.stretches.push((text.len(), raw.len().saturating_sub(rest.len())));
        }
        if !unescaped.stretches.is_empty() {
            text.push_str(rest);
            unescaped.text = Cow::Owned(text);
        }
        unescaped
    }

    /// Where the JSON has what the text has here, counted from the opening quote's end.
    pub(super) fn in_json(&self, place: usize) -> usize {
        let later = self.stretches.partition_point(|(in_text, _)| *in_text <= place);
        let stretch = later.checked_sub(1).and_then(|last| self.stretches.get(last));
        let (in_text, in_json) = stretch.copied().unwrap_or_default();
        in_json.saturating_add(place.saturating_sub(in_text))
    }
}

/// The character of the escape that a text begins with, and the escape's length.
fn character(escape: &str) -> (char, usize) {
    let plain = match escape.as_bytes().get(1) {
        Some(b'u') => return unicode(escape),
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(itself) => char::from(*itself),
        None => HALF,
    };
    (plain, 2)
}

fn unicode(escape: &str) -> (char, usize) {
    let unit = |from: usize| {
        let digits = escape.get(from..from.saturating_add(4))?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(2).unwrap_or(0xd800);
    let second = if escape.get(6..8) == Some("\\u") { unit(8) } else { None };
    let mut units = char::decode_utf16([first].into_iter().chain(second));
    match units.next() {
        Some(Ok(character)) if character.len_utf16() == 2 => (character, 12),
        Some(Ok(character)) => (character, 6),
        _ => (HALF, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_every_character_knows_its_place() {
        let raw = r#"a\n\u0073\ud83d\ude00\ud800x\udc00\"é"#;
        let unescaped = Unescaped::of(raw);
        assert_eq!(unescaped.text, "a\ns\u{1f600}\u{fffd}x\u{fffd}\"é");
        let places: Vec<usize> = unescaped.text.char_indices().map(|(at, _)| unescaped.in_json(at)).collect();
        assert_eq!(places, [0, 1, 3, 9, 21, 27, 28, 34, 36]);
        assert_eq!(unescaped.in_json(unescaped.text.len()), raw.len());
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let unescaped = Unescaped::of("plain é");
        assert!(matches!(unescaped.text, Cow::Borrowed("plain é")));
        assert_eq!(unescaped.in_json(6), 6);
    }
}
