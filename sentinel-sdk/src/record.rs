//! What goes into the ledger of inputs and outputs. It never makes a call fail: what can't be written has a placeholder.

use sentinel_proto::{MAX_PAYLOAD_BYTES, Payload};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// How much of a too long payload is kept: escaped once more, it must still fit.
const KEPT_BYTES: usize = 8 * 1024;

/// The value as JSON; what is longer than 64 KiB is replaced by its beginning, its length and its digest.
pub(crate) fn payload<T: Serialize + ?Sized>(value: &T) -> Payload {
    match Payload::of(value) {
        Ok(payload) if payload.as_json().len() <= MAX_PAYLOAD_BYTES => payload,
        Ok(payload) => shortened(payload.as_json()),
        Err(error) => Payload::of(&format!("can't be written as JSON: {error}")).unwrap_or_default(),
    }
}

#[derive(Serialize)]
struct Shortened<'text> {
    truncated: &'text str,
    bytes: usize,
    sha256: String,
}

fn shortened(json: &str) -> Payload {
    let sha256 = Sha256::digest(json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let shortened =
        Shortened { truncated: &json[..json.floor_char_boundary(KEPT_BYTES)], bytes: json.len(), sha256 };
    Payload::of(&shortened).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_too_long_is_shortened_and_says_so() {
        let payload = payload(&"é".repeat(MAX_PAYLOAD_BYTES));
        assert!(payload.as_json().len() <= MAX_PAYLOAD_BYTES);
        assert!(payload.as_json().contains("\"bytes\":131074"), "{}", &payload.as_json()[..100]);
    }

    #[test]
    fn a_value_that_is_no_json_has_a_placeholder() {
        let odd = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert!(payload(&odd).as_json().contains("can't be written"));
    }

    #[test]
    fn not_a_number_is_valid_json() {
        assert_eq!(payload(&f64::NAN).as_json(), "null");
    }
}
