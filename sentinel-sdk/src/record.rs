//! What goes to the ledger: inputs and outputs as JSON, within bounds.
//!
//! Invariant: recording never fails. A value that is no JSON leaves a text that says so, and one that is too long its
//! beginning and a digest of the whole.

use sentinel_proto::{MAX_PAYLOAD_BYTES, Payload};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// So much of a long payload is kept. Escaped once more it takes twice that at most.
const KEPT_BYTES: usize = 16 * 1024;

/// A long payload's place in the ledger.
#[derive(Serialize)]
struct Truncated<'json> {
    /// The beginning of its JSON text.
    truncated: &'json str,
    /// The length of the whole.
    bytes: usize,
    /// The digest of the whole, in hexadecimal digits.
    sha256: String,
}

/// The JSON text of a value.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| text(&format!("<no JSON: {error}>")))
}

/// The JSON text of a text.
pub(crate) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The payload of a value.
pub(crate) fn payload<T: Serialize + ?Sized>(value: &T) -> Payload {
    bounded(&json(value))
}

/// The payload of a JSON text.
pub(crate) fn bounded(json: &str) -> Payload {
    if json.len() > MAX_PAYLOAD_BYTES {
        return truncated(json);
    }
    serde_json::from_str(json).unwrap_or_else(|_no_json| truncated(json))
}

fn truncated(json: &str) -> Payload {
    let sha256 = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = json.get(..json.floor_char_boundary(KEPT_BYTES)).unwrap_or_default();
    // Plain fields always make JSON.
    Payload::of(&Truncated { truncated: kept, bytes: json.len(), sha256 }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sentinel_proto::MAX_PAYLOAD_BYTES;

    use super::payload;

    #[test]
    fn a_value_within_bounds_is_kept_as_it_is() {
        assert_eq!(payload(&("a", 1, [2.5])).as_json(), r#"["a",1,[2.5]]"#);
        let longest = "x".repeat(MAX_PAYLOAD_BYTES - 2);
        assert_eq!(payload(&longest).as_json().len(), MAX_PAYLOAD_BYTES);
    }

    #[test]
    fn a_longer_one_leaves_its_beginning_its_length_and_its_digest() {
        let long = "\"ü".repeat(MAX_PAYLOAD_BYTES);
        let payload = payload(&long);
        assert!(payload.as_json().len() <= MAX_PAYLOAD_BYTES);
        let kept: serde_json::Value = serde_json::from_str(payload.as_json()).unwrap();
        // Two quotes around it, and each quote inside is escaped.
        assert_eq!(kept["bytes"], 4 * MAX_PAYLOAD_BYTES + 2);
        assert_eq!(kept["sha256"].as_str().unwrap().len(), 64);
        assert!(kept["truncated"].as_str().unwrap().starts_with("\"\\\"ü"));
    }

    #[test]
    fn what_is_no_json_says_so() {
        let no_json = BTreeMap::from([((1, 2), 3)]);
        assert!(payload(&no_json).as_json().starts_with("\"<no JSON: "));
    }
}
