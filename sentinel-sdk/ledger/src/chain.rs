//! The rule of the chain: how a line is sealed, and how a sealed line is checked.

use sha2::{Digest as _, Sha256};

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}";
const BEFORE_SEQ: &[u8] = b",\"seq\":";
const BEFORE_PREVIOUS: &[u8] = b",\"previous\":\"";
const HEX_DIGITS: usize = 64;

/// A line's number and hash; what the next line goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The line's number; 0 before the first.
    pub seq: u64,
    /// The line's hash in lower-case hex; 64 zeros before the first.
    pub hash: String,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It doesn't end as a sealed line does.
    #[error("it doesn't end with a hash")]
    NoHash,
    /// It has no number where one belongs.
    #[error("it has no `seq` before its hash")]
    NoSeq,
    /// Its number is not the next one: lines are missing, repeated or swapped.
    #[error("its `seq` is {found}, and {expected} is next")]
    Seq {
        /// The number that it has.
        found: u64,
        /// The number that is next.
        expected: u64,
    },
    /// Its hash is not that of its bytes and the line before.
    #[error("its hash is not that of its bytes and the line before: one of them was changed")]
    Hash,
}

impl Head {
    /// Before the first line.
    #[must_use]
    pub fn genesis() -> Self {
        Self { seq: 0, hash: "0".repeat(HEX_DIGITS) }
    }

    /// Seals a body behind this line: appends it to `out`, with its number, hash and line break, and answers the new head.
    #[must_use]
    pub(crate) fn seal(&self, body: &[u8], out: &mut Vec<u8>) -> Self {
        let seq = self.seq.saturating_add(1);
        let start = out.len();
        out.extend_from_slice(body);
        out.extend_from_slice(BEFORE_SEQ);
        out.extend_from_slice(seq.to_string().as_bytes());
        let hash = self.hash_of(out.get(start..).unwrap_or_default());
        out.extend_from_slice(BEFORE_HASH);
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(AFTER_HASH);
        out.push(b'\n');
        Self { seq, hash }
    }

    /// Seals a body as the first line of a part: with the hash of the line before it, so that the part can be checked alone.
    #[must_use]
    pub(crate) fn seal_first(&self, body: &[u8], out: &mut Vec<u8>) -> Self {
        let body = [body, BEFORE_PREVIOUS, self.hash.as_bytes(), b"\""].concat();
        self.seal(&body, out)
    }

    /// What lies before a part, by its first line: nothing before line 1, else the line that it names. None: it names none.
    #[must_use]
    pub fn before(first_line: &[u8]) -> Option<Self> {
        let line = first_line.strip_suffix(AFTER_HASH)?;
        let (rest, _) = line.split_at_checked(line.len().checked_sub(HEX_DIGITS)?)?;
        let content = rest.strip_suffix(BEFORE_HASH)?;
        let seq = number_at_end(content)?;
        if seq == 1 {
            return Some(Self::genesis());
        }
        let digits = content.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let body = content.get(..content.len().checked_sub(digits)?)?.strip_suffix(BEFORE_SEQ)?;
        let body = body.strip_suffix(b"\"")?;
        let (rest, hash) = body.split_at_checked(body.len().checked_sub(HEX_DIGITS)?)?;
        rest.ends_with(BEFORE_PREVIOUS).then_some(())?;
        let is_hex = hash.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = std::str::from_utf8(hash).ok().filter(|_| is_hex)?.to_owned();
        Some(Self { seq: seq.saturating_sub(1), hash })
    }

    /// The number and hash that a line says it has. Checks neither.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(AFTER_HASH)?;
        let (rest, hash) = line.split_at_checked(line.len().checked_sub(HEX_DIGITS)?)?;
        let seq = number_at_end(rest.strip_suffix(BEFORE_HASH)?)?;
        Some(Self { seq, hash: std::str::from_utf8(hash).ok()?.to_owned() })
    }

    /// Checks the line that is next, without its line break, and answers the new head.
    ///
    /// # Errors
    /// The line was not sealed behind this one as it stands.
    pub fn check(&self, line: &[u8]) -> Result<Self, Broken> {
        let line = line.strip_suffix(AFTER_HASH).ok_or(Broken::NoHash)?;
        let (rest, hash) =
            line.split_at_checked(line.len().saturating_sub(HEX_DIGITS)).ok_or(Broken::NoHash)?;
        let content = rest.strip_suffix(BEFORE_HASH).ok_or(Broken::NoHash)?;
        let found = number_at_end(content).ok_or(Broken::NoSeq)?;
        let expected = self.seq.saturating_add(1);
        if found != expected {
            return Err(Broken::Seq { found, expected });
        }
        let calculated = self.hash_of(content);
        if calculated.as_bytes() != hash {
            return Err(Broken::Hash);
        }
        Ok(Self { seq: found, hash: calculated })
    }

    fn hash_of(&self, content: &[u8]) -> String {
        let digest = Sha256::new().chain_update(self.hash.as_bytes()).chain_update(content).finalize();
        let mut hex = Vec::with_capacity(HEX_DIGITS);
        for byte in digest {
            hex.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        String::from_utf8(hex).unwrap_or_default()
    }
}

/// Of a number below 16. Without a table: it is asked for 64 times a line.
const fn hex_digit(nibble: u8) -> u8 {
    let letters = if nibble > 9 { b'a' - b'0' - 10 } else { 0 };
    b'0'.wrapping_add(nibble).wrapping_add(letters)
}

fn number_at_end(content: &[u8]) -> Option<u64> {
    let digits = content.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, number) = content.split_at_checked(content.len().checked_sub(digits)?)?;
    rest.ends_with(BEFORE_SEQ).then_some(())?;
    // Written without leading zeros, so that a number has one form.
    let number = std::str::from_utf8(number).ok().filter(|number| !number.starts_with('0'))?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_checks_and_its_form_is_the_documented_one() {
        let mut line = Vec::new();
        let head = Head::genesis().seal(b"{\"a\":1", &mut line);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text, format!("{{\"a\":1,\"seq\":1,\"hash\":\"{}\"}}\n", head.hash));
        // printf '%064d{"a":1,"seq":1' 0 | sha256sum
        assert_eq!(
            head.hash, "8994f4ece8de92cb7d52d9461e501111abfc1c4b64b88011b6d6fa990fb3f6e3",
            "the rule has changed"
        );
        assert_eq!(Head::genesis().check(text.trim_end().as_bytes()), Ok(head));
    }
}
