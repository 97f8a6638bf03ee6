//! Where the secrets are in a text.
//!
//! Invariant: the text is gone through once. Each kind of secret is looked for where a byte is that few other texts have.

use super::formats::{Formats, begins_word, dashed, dotted, run};
use super::{Secret, assignments, is_label};

/// The longest line that a private key begins with.
const LONGEST_HEADING: usize = 64;
/// The shortest web token that means anything.
const SHORTEST_JWT: usize = 30;

/// All secrets of a text, in order and apart from each other.
pub(super) fn secrets(text: &str) -> Vec<Secret> {
    let mut search =
        Search { text: text.as_bytes(), address_end: 0, no_jwt_before: 0, formats: Formats::default() };
    let mut found: Vec<Secret> = Vec::new();
    let mut at = 0;
    while let Some(next) = search.text.get(at..).and_then(|rest| rest.iter().position(|byte| is_rare(*byte)))
    {
        let rare_at = at.saturating_add(next);
        at = rare_at.saturating_add(1);
        let Some(mut secret) = search.around(rare_at) else { continue };
        // Something before it was replaced already.
        secret.start = secret.start.max(found.last().map_or(0, |before| before.end));
        at = at.max(secret.end);
        if search.text.get(secret.start..secret.end).is_some_and(|text| !is_label(text)) {
            found.push(secret);
        }
    }
    found
}

fn is_rare(byte: u8) -> bool {
    matches!(byte, b':' | b'=' | b'-' | b'_' | b'.' | b'I' | b'J' | b'z' | b'B' | b'b')
}

struct Search<'text> {
    text: &'text [u8],
    /// Up to here goes the host of a URL, whose port is no secret.
    address_end: usize,
    /// No web token begins before this, for one that begins earlier in the same word would have been one.
    no_jwt_before: usize,
    formats: Formats,
}

impl Search<'_> {
    /// The secret that has its rare byte here.
    fn around(&mut self, at: usize) -> Option<Secret> {
        match self.text.get(at)? {
            b':' => self.url_password(at).or_else(|| self.telegram(at)).or_else(|| self.assigned(at)),
            b'=' => self.assigned(at),
            b'-' => self
                .formats
                .around(self.text, at)
                .or_else(|| self.private_key(at))
                .or_else(|| assignments::option(self.text, at)),
            b'J' => self.jwt(at),
            b'B' | b'b' => self.bearer(at).or_else(|| self.basic(at)),
            _ => self.formats.around(self.text, at),
        }
    }

    fn assigned(&self, at: usize) -> Option<Secret> {
        if at < self.address_end { None } else { assignments::assigned(self.text, at) }
    }

    /// Of `scheme://user:password@host`.
    fn url_password(&mut self, at: usize) -> Option<Secret> {
        let authority = self.text.get(at..)?.strip_prefix(b"://")?;
        if !self.text.get(at.checked_sub(1)?)?.is_ascii_alphanumeric() {
            return None;
        }
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'`<>\\".contains(byte);
        let authority = authority.get(..authority.iter().position(ends).unwrap_or(authority.len()))?;
        let start = at.saturating_add(3);
        self.address_end = start.saturating_add(authority.len());
        let user = authority.get(..authority.iter().rposition(|byte| *byte == b'@')?)?;
        let name = user.iter().position(|byte| *byte == b':')?.saturating_add(1);
        let secret = Secret {
            start: start.saturating_add(name),
            end: start.saturating_add(user.len()),
            kind: "url-password",
        };
        (secret.start < secret.end).then_some(secret)
    }

    /// A bot's number and its token.
    fn telegram(&self, at: usize) -> Option<Secret> {
        let digits =
            self.text.get(..at)?.iter().rev().take(16).take_while(|byte| byte.is_ascii_digit()).count();
        let token = self.text.get(at.saturating_add(1)..)?;
        if digits < 6 || token.first() != Some(&b'A') {
            return None;
        }
        let length = run(token, dashed);
        let secret = Secret {
            start: at.saturating_sub(digits),
            end: at.saturating_add(1).saturating_add(length),
            kind: "telegram-token",
        };
        (length >= 34).then_some(secret)
    }

    fn jwt(&mut self, at: usize) -> Option<Secret> {
        let start = at.checked_sub(2).filter(|start| *start >= self.no_jwt_before)?;
        let rest = self.text.get(start..)?.strip_prefix(b"eyJ").and_then(|_| self.text.get(start..))?;
        let length = run(rest, dotted);
        let token = rest.get(..length)?;
        let dots = token.iter().filter(|byte| **byte == b'.').count();
        if dots < 2 || length < SHORTEST_JWT {
            self.no_jwt_before = start.saturating_add(length);
            return None;
        }
        Some(Secret { start, end: start.saturating_add(length), kind: "jwt" })
    }

    /// A block of PEM with a private key, or as much of it as there is.
    fn private_key(&self, at: usize) -> Option<Secret> {
        let block = self.text.get(at..)?;
        let heading = block.strip_prefix(b"-----BEGIN ")?;
        let heading = heading.get(..LONGEST_HEADING).unwrap_or(heading);
        let heading = heading.get(..find(heading, b"-----")?)?;
        find(heading, b"PRIVATE KEY")?;
        let length = find(block, b"-----END").map_or(block.len(), |end| {
            let last = end.saturating_add(8);
            let behind = block.get(last..).unwrap_or_default();
            let behind = behind.get(..LONGEST_HEADING).unwrap_or(behind);
            last.saturating_add(find(behind, b"-----").map_or(0, |end| end.saturating_add(5)))
        });
        Some(Secret { start: at, end: at.saturating_add(length), kind: "private-key" })
    }

    /// What follows `Bearer`, unless it is a word.
    fn bearer(&self, at: usize) -> Option<Secret> {
        let (start, token) = self.header(at, b"bearer")?;
        let is_token = token.len() >= 8 && token.iter().any(u8::is_ascii_digit) || token.len() >= 24;
        let secret = Secret { start, end: start.saturating_add(token.len()), kind: "bearer" };
        is_token.then_some(secret)
    }

    /// What follows `Basic`, if it is a user and a password.
    fn basic(&self, at: usize) -> Option<Secret> {
        let (start, token) = self.header(at, b"basic")?;
        let decoded = base64(token)?;
        let is_user_and_password = decoded.contains(&b':') && !decoded.iter().any(u8::is_ascii_control);
        let secret = Secret { start, end: start.saturating_add(token.len()), kind: "basic" };
        is_user_and_password.then_some(secret)
    }

    /// What follows this word and spaces.
    fn header(&self, at: usize, word: &[u8]) -> Option<(usize, &[u8])> {
        let end = at.saturating_add(word.len());
        if !self.text.get(at..end)?.eq_ignore_ascii_case(word) || !begins_word(self.text.get(..at)?) {
            return None;
        }
        let rest = self.text.get(end..)?;
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = rest.get(spaces..)?;
        let token =
            rest.get(..run(rest, |byte| dotted(byte) || matches!(byte, b'~' | b'+' | b'/' | b'=')))?;
        (spaces > 0).then_some((end.saturating_add(spaces), token))
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// What Base64 stands for, without what doesn't fill a byte at its end.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut bits, mut held): (u16, u32) = (0, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte.wrapping_sub(b'A'),
            b'a'..=b'z' => byte.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => byte.wrapping_sub(b'0').wrapping_add(52),
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits.wrapping_shl(6) | u16::from(six);
        held = held.saturating_add(6);
        if held >= 8 {
            held = held.saturating_sub(8);
            let [_, byte] = bits.wrapping_shr(held).to_be_bytes();
            decoded.push(byte);
        }
    }
    Some(decoded)
}
