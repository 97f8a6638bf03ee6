//! Values that text gives to names of secrets: `password=…`, `"api_key": "…"`, `Cookie: …`, `--token …`; also in JSON that is quoted within the
//! text, however often.
//!
//! Invariant: what is looked at before a name is bounded, and what is looked at behind it is either replaced or bounded by a fixed number of
//! delimiters; so the time is linear.

use super::{LABEL, Secret, names};

/// The kind of a value that its name tells to be a secret.
const BY_NAME: &str = "key";
/// The longest name that is looked at.
const LONGEST_NAME: usize = 48;
/// What programs and schemas have where a value is missing.
const NO_VALUES: [&str; 17] = [
    "none",
    "null",
    "nil",
    "true",
    "false",
    "undefined",
    "str",
    "string",
    "&str",
    "int",
    "integer",
    "bool",
    "boolean",
    "bytes",
    "any",
    "optional",
    "required",
];

/// The value of a name of a secret that ends before the `:` or `=` here.
pub(super) fn assigned(text: &[u8], sign_at: usize) -> Option<Secret> {
    let name = name_before(text.get(..sign_at)?)?;
    if !names::is_secret(name.text) {
        return None;
    }
    let sign = *text.get(sign_at)?;
    let rest = text.get(sign_at.saturating_add(1)..)?;
    // A path in a program, like `Token::new`.
    if sign == b':' && rest.starts_with(b":") {
        return None;
    }
    let operator = rest.iter().take(2).take_while(|byte| matches!(byte, b'=' | b'>')).count();
    let start = sign_at.saturating_add(1).saturating_add(operator);
    let start = start.saturating_add(spaces(text.get(start..)?));
    let rest = text.get(start..)?;
    match (rest.first()?, name.quote) {
        // A block, which may go on for many lines.
        _ if contains_block(rest) => None,
        (b'{' | b'[', Some(quote)) if name.is_closed => secret(rest, start, (0, container(rest, quote))),
        (first, opened) if sign == b':' && names::is_header(name.text) && !is_quote(*first) => {
            secret(rest, start, (0, line(rest, opened)))
        }
        _ => value(rest, start),
    }
}

/// The value behind an option like `--password` whose dashes begin here.
pub(super) fn option(text: &[u8], dashes_at: usize) -> Option<Secret> {
    let before = text.get(..dashes_at)?;
    let rest = text.get(dashes_at..)?.strip_prefix(b"--")?;
    if before.last() == Some(&b'-') {
        return None;
    }
    let length =
        rest.iter().take(LONGEST_NAME).take_while(|byte| is_of_name(**byte) && **byte != b' ').count();
    let name = std::str::from_utf8(rest.get(..length)?).ok()?;
    let gap = spaces(rest.get(length..)?);
    let start = dashes_at.saturating_add(2).saturating_add(length).saturating_add(gap);
    if gap == 0 || text.get(start) == Some(&b'-') || !is_option_name(name) {
        return None;
    }
    value(text.get(start..)?, start)
}

/// Whether this is an option like `--password` and nothing else: what follows it in a list is its value.
pub(super) fn is_option(text: &str) -> bool {
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
    name.is_some_and(|name| name.bytes().all(|byte| is_of_name(byte) && byte != b' ') && is_option_name(name))
}

fn is_option_name(name: &str) -> bool {
    names::is_secret(name) && !name.starts_with("no-")
}

/// A name before a `:` or `=`.
struct Name<'text> {
    text: &'text str,
    /// The quote before it.
    quote: Option<Quote>,
    /// There is one behind it, too.
    is_closed: bool,
}

/// A quote, and how many backslashes it has.
#[derive(Clone, Copy)]
struct Quote {
    byte: u8,
    depth: usize,
}

impl Quote {
    /// Whether this byte behind so many backslashes is the other quote of the pair. Each time that JSON is quoted in JSON, every backslash is
    /// doubled and every quote gets one.
    fn is_closed_by(self, byte: u8, backslashes: usize) -> bool {
        let period = self.depth.saturating_add(1).saturating_mul(2);
        byte == self.byte && backslashes.checked_rem(period) == Some(self.depth)
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b' ')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

fn spaces(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// The name that these bytes end with.
fn name_before(before: &[u8]) -> Option<Name<'_>> {
    let before = before.get(before.len().saturating_sub(2 * LONGEST_NAME)..)?.trim_ascii_end();
    let before = before.strip_suffix(b"]").unwrap_or(before);
    let quoting = before.iter().rev().take_while(|byte| is_quote(**byte) || **byte == b'\\').count();
    let before = before.get(..before.len().saturating_sub(quoting))?;
    let length = before.iter().rev().take(LONGEST_NAME).take_while(|byte| is_of_name(**byte)).count();
    let (before, name) = before.split_at_checked(before.len().saturating_sub(length))?;
    if before.ends_with(LABEL.as_bytes()) {
        return None;
    }
    let quote = before.split_last().filter(|(byte, _)| is_quote(**byte)).map(|(byte, before)| Quote {
        byte: *byte,
        depth: before.iter().rev().take_while(|byte| **byte == b'\\').count(),
    });
    Some(Name { text: std::str::from_utf8(name).ok()?, quote, is_closed: quoting > 0 })
}

/// Whether a block of PEM begins here, whose own search follows.
fn contains_block(text: &[u8]) -> bool {
    let quotes =
        text.iter().take(LONGEST_NAME).take_while(|byte| is_quote(**byte) || **byte == b'\\').count();
    text.get(quotes..).is_some_and(|text| text.starts_with(b"-----BEGIN "))
}

/// A value, with or without quotes, that begins a text and stands at a place.
fn value(text: &[u8], at: usize) -> Option<Secret> {
    let prefix = match text {
        [b'b' | b'B' | b'r' | b'R' | b'f' | b'u', quote, ..] if is_quote(*quote) => 1,
        _ => 0,
    };
    secret(text, at, quoted(text, prefix).unwrap_or_else(|| (0, plain(text))))
}

/// What begins behind so many bytes of a text at a place, and is so long; unless it is none.
fn secret(text: &[u8], at: usize, (skipped, length): (usize, usize)) -> Option<Secret> {
    let value = text.get(skipped..skipped.saturating_add(length))?;
    if value.is_empty() || NO_VALUES.iter().any(|none| value.eq_ignore_ascii_case(none.as_bytes())) {
        return None;
    }
    let start = at.saturating_add(skipped);
    Some(Secret { start, end: start.saturating_add(length), kind: BY_NAME })
}

/// Where a value in quotes begins behind so many bytes, and how long it is. Without a closing quote on its line, it is the rest of the line.
fn quoted(text: &[u8], skipped: usize) -> Option<(usize, usize)> {
    let opening = text.get(skipped..)?;
    let depth = opening.iter().take_while(|byte| **byte == b'\\').count();
    let byte = *opening.get(depth).filter(|byte| is_quote(**byte))?;
    let inner = opening.get(depth.saturating_add(1)..)?;
    let mut backslashes: usize = 0;
    let mut length = inner.len();
    for (at, next) in inner.iter().enumerate() {
        if *next == b'\n' {
            length = at;
            break;
        }
        if (Quote { byte, depth }).is_closed_by(*next, backslashes) {
            length = at.saturating_sub(depth);
            break;
        }
        backslashes = if *next == b'\\' { backslashes.saturating_add(1) } else { 0 };
    }
    Some((skipped.saturating_add(depth).saturating_add(1), length))
}

/// The length of an object or a list whose strings have these quotes; to the end of the text, if it isn't closed.
fn container(text: &[u8], quote: Quote) -> usize {
    let (mut depth, mut backslashes): (usize, usize) = (0, 0);
    let mut in_string = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            byte if quote.is_closed_by(*byte, backslashes) => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at.saturating_add(1);
        }
        backslashes = if *byte == b'\\' { backslashes.saturating_add(1) } else { 0 };
    }
    text.len()
}

/// The length of the rest of a line, or up to the quote that was opened before.
fn line(text: &[u8], opened: Option<Quote>) -> usize {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r') || opened.is_some_and(|quote| quote.byte == *byte);
    text.iter().position(ends).unwrap_or(text.len())
}

/// The length of a value without quotes.
fn plain(text: &[u8]) -> usize {
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let ends = match first {
            b',' | b';' | b'&' | b'|' | b'<' | b'>' => true,
            b'\\' => matches!(behind, [b'n' | b'r' | b't' | b'"' | b'\'' | b'\\', ..]),
            // A bracket may be part of it, unless nothing else follows.
            b')' | b']' | b'}' => behind.first().is_none_or(|next| !next.is_ascii_alphanumeric()),
            byte => byte.is_ascii_whitespace() || is_quote(*byte),
        };
        if ends {
            break;
        }
        rest = behind;
    }
    text.len().saturating_sub(rest.len())
}
