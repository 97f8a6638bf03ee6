//! Where the secrets are in a payload's JSON text.
//!
//! Invariant: only tokens are told apart, values are never read; so numbers that are too large, halves of surrogate pairs and keys that come
//! twice stay what they are.

use super::escapes::Unescaped;
use super::{Edit, Secret, assignments, is_label, names, search};

/// What is to be replaced in well-formed JSON, in order and apart from each other.
pub(super) fn edits(json: &str) -> Vec<Edit> {
    let text = json.as_bytes();
    let mut edits = Vec::new();
    let mut at = 0;
    while let Some(quote) = text.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'"')) {
        let start = at.saturating_add(quote).saturating_add(1);
        let end = closing_quote(text, start);
        let string = Unescaped::of(json.get(start..end).unwrap_or_default());
        edits.extend(search::secrets(&string.text).into_iter().map(
            |Secret { start: from, end: to, kind }| {
                let place = |place| start.saturating_add(string.in_json(place));
                Edit { secret: Secret { start: place(from), end: place(to), kind }, quoted: false }
            },
        ));
        at = end.saturating_add(1);
        if let Some(secret) = value_behind(text, at, &string.text) {
            at = secret.end;
            if is_secret(text.get(secret.start..secret.end).unwrap_or_default()) {
                edits.push(Edit { secret, quoted: true });
            }
        }
    }
    edits
}

/// The value that belongs to a string that ended before this, if it tells that its value is a secret: a key, or an option in a list.
fn value_behind(text: &[u8], at: usize, string: &str) -> Option<Secret> {
    let sign = token(text, at);
    let start = token(text, sign.saturating_add(1));
    let end = match text.get(sign)? {
        b':' if names::is_secret(string) => value_end(text, start),
        b',' if assignments::is_option(string) && text.get(start) == Some(&b'"') => {
            let end = value_end(text, start);
            // In an object, this is its next key.
            Some(end).filter(|end| text.get(token(text, *end)) != Some(&b':'))?
        }
        _ => return None,
    };
    Some(Secret { start, end, kind: "key" })
}

/// Nothing is told by `null`, and what was redacted needs no more of it.
fn is_secret(value: &[u8]) -> bool {
    let string = value.strip_prefix(b"\"").and_then(|string| string.strip_suffix(b"\""));
    value != b"null" && !string.is_some_and(is_label)
}

/// Where the next token begins.
fn token(text: &[u8], at: usize) -> usize {
    let spaces =
        text.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
    at.saturating_add(spaces)
}

/// Where the string ends that begins here, behind its opening quote.
fn closing_quote(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(next) = text.get(at..).and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'\\')))
    {
        at = at.saturating_add(next);
        if text.get(at) == Some(&b'"') {
            return at;
        }
        at = at.saturating_add(2);
    }
    text.len()
}

/// Where the value ends that begins here.
fn value_end(text: &[u8], start: usize) -> usize {
    let mut depth: usize = 0;
    let mut at = start;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = closing_quote(text, at.saturating_add(1)),
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at = at.saturating_add(1);
        let is_string_or_container = matches!(byte, b'"' | b'}' | b']');
        let is_last =
            || matches!(text.get(at), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
        if depth == 0 && (is_string_or_container || is_last()) {
            return at;
        }
    }
    text.len()
}
