//! What looks like a secret is taken out of what applications send, before it is written where it stays.
//!
//! Invariants: what isn't secret stays byte for byte as it is, also JSON that readers of values refuse; the result is a payload whenever the
//! input was one; the time is linear in the length. It is a net for accidents, not a wall: a secret that has neither a known format nor a name
//! that tells goes through, and so does one that somebody disguises.

mod assignments;
mod escapes;
mod facts;
mod formats;
mod json;
mod names;
mod search;
#[cfg(test)]
mod tests;

use sentinel_proto::Payload;

pub(crate) use facts::fact;

/// What a payload becomes that would be too long with its secrets replaced.
const WHOLE: &str = "[redacted:whole]";

/// The payload without its secrets; none: there are none in it.
///
/// The value of a key like `password` becomes `"[redacted:key]"`, unless it is `null`; a known format in any string becomes `[redacted:KIND]`.
#[must_use]
pub fn payload(payload: &Payload) -> Option<Payload> {
    let json = payload.as_json();
    let edits = json::edits(json);
    if edits.is_empty() {
        return None;
    }
    let redacted = serde_json::from_str(&with_edits(json, &edits));
    Some(redacted.or_else(|_too_long| Payload::of(WHOLE)).unwrap_or_default())
}

/// The text without its secrets; none: there are none in it.
#[must_use]
pub fn text(text: &str) -> Option<String> {
    let edits: Vec<Edit> =
        search::secrets(text).into_iter().map(|secret| Edit { secret, quoted: false }).collect();
    (!edits.is_empty()).then(|| with_edits(text, &edits))
}

/// Where a secret is: the bytes of a text from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Secret {
    start: usize,
    end: usize,
    kind: &'static str,
}

/// Whether something was replaced in a payload, or it says so itself.
pub(crate) fn is_marked(payload: &Payload) -> bool {
    payload.as_json().contains(LABEL)
}

/// A secret's replacement by its label.
#[derive(Clone, Copy, Debug)]
struct Edit {
    secret: Secret,
    /// It stands for a whole JSON value, so it is a string of its own.
    quoted: bool,
}

/// What every label begins with. None of its characters is escaped in JSON.
const LABEL: &str = "[redacted:";

/// Whether it is a label, perhaps without its closing bracket, rather than a secret.
fn is_label(text: &[u8]) -> bool {
    let kind = text.strip_prefix(LABEL.as_bytes()).map(|kind| kind.strip_suffix(b"]").unwrap_or(kind));
    kind.is_some_and(|kind| {
        kind.len() < 20 && kind.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-')
    })
}

/// The text with its edits, which are in order and apart from each other.
fn with_edits(text: &str, edits: &[Edit]) -> String {
    let mut edited = String::with_capacity(text.len());
    let mut kept_from = 0;
    for Edit { secret: Secret { start, end, kind }, quoted } in edits {
        let quote = if *quoted { "\"" } else { "" };
        edited.push_str(text.get(kept_from..*start).unwrap_or_default());
        for part in [quote, LABEL, kind, "]", quote] {
            edited.push_str(part);
        }
        kept_from = *end;
    }
    edited.push_str(text.get(kept_from..).unwrap_or_default());
    edited
}
