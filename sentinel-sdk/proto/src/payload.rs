//! Inputs and outputs of actions: JSON text that is carried and recorded, never decided on.
//!
//! Invariant: the text is one well-formed JSON value on one line, of at most [`MAX_PAYLOAD_BYTES`] and nested no deeper
//! than [`MAX_PAYLOAD_DEPTH`]. So whatever an application sends, the ledger line that holds it can be read again.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The longest payload; the SDK replaces a longer one by a digest and the beginning.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// How many arrays and objects may lie within each other: readers of JSON give up a little deeper.
pub const MAX_PAYLOAD_DEPTH: usize = 100;

/// A JSON value, kept as text.
#[derive(Clone, Debug)]
pub struct Payload(Box<RawValue>);

/// Why a JSON value is no payload.
#[derive(Debug, thiserror::Error)]
enum PayloadError {
    #[error("a payload has {0} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")]
    TooLong(usize),
    #[error("a payload is nested deeper than {MAX_PAYLOAD_DEPTH} arrays and objects")]
    TooDeep,
}

impl Payload {
    /// The payload of this value.
    ///
    /// # Errors
    /// It is too long or nested too deep; or the serialiser's, for example for a map with keys that are no strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Self::new(serde_json::value::to_raw_value(value)?).map_err(serde::ser::Error::custom)
    }

    /// `null`: nothing to say.
    #[must_use]
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    fn new(raw: Box<RawValue>) -> Result<Self, PayloadError> {
        let length = raw.get().len();
        if length > MAX_PAYLOAD_BYTES {
            return Err(PayloadError::TooLong(length));
        }
        if depth(raw.get()) > MAX_PAYLOAD_DEPTH {
            return Err(PayloadError::TooDeep);
        }
        if !raw.get().contains(LINE_BREAKS) {
            return Ok(Self(raw));
        }
        // Line breaks stand between tokens only: within strings JSON wants them escaped.
        let one_line = raw.get().replace(LINE_BREAKS, " ");
        RawValue::from_string(one_line).map(Self).map_err(|_never| PayloadError::TooLong(length))
    }
}

const LINE_BREAKS: [char; 2] = ['\n', '\r'];

/// How many arrays and objects lie within each other at most, in JSON text that is well-formed.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth = depth.saturating_add(1),
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

impl Default for Payload {
    fn default() -> Self {
        Self::null()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Payload {}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    /// Takes any JSON value within the bounds. Line breaks between its tokens become spaces, for a ledger line is one
    /// line.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Box::<RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn a_payload_never_breaks_a_line() {
        let payload: Payload = serde_json::from_str("{\n \"a\": [1e400,\r\n2, \"\\n\"]\n}").unwrap();
        assert_eq!(payload.as_json(), "{  \"a\": [1e400,  2, \"\\n\"] }", "and is the same otherwise");
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let text = |length: usize| format!("\"{}\"", "x".repeat(length.saturating_sub(2)));
        assert!(serde_json::from_str::<Payload>(&text(MAX_PAYLOAD_BYTES)).is_ok());
        assert!(serde_json::from_str::<Payload>(&text(MAX_PAYLOAD_BYTES + 1)).is_err());
        assert!(Payload::of(&"x".repeat(MAX_PAYLOAD_BYTES)).is_err());
    }

    #[test]
    fn a_payload_that_is_nested_too_deep_is_refused() {
        assert!(serde_json::from_str::<Payload>(&nested(MAX_PAYLOAD_DEPTH)).is_ok());
        let error = serde_json::from_str::<Payload>(&nested(MAX_PAYLOAD_DEPTH + 1)).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 100"), "{error}");
        let brackets_in_a_string = Payload::of(&format!("\\\"{}", "[{".repeat(MAX_PAYLOAD_DEPTH)));
        assert!(brackets_in_a_string.is_ok());
    }

    proptest! {
        #[test]
        fn what_was_taken_once_is_taken_again_as_it_is(text in "[\\[\\]{}\",:0-9e\\n\r\\\\ ]{1,40}") {
            if let Ok(payload) = serde_json::from_str::<Payload>(&text) {
                let again: Payload = serde_json::from_str(payload.as_json()).unwrap();
                prop_assert_eq!(&again, &payload);
                prop_assert!(!payload.as_json().contains(LINE_BREAKS));
            }
        }

        #[test]
        fn the_depth_is_that_of_the_value(value in values()) {
            fn of(value: &serde_json::Value) -> usize {
                match value {
                    serde_json::Value::Array(items) => items.iter().map(of).max().unwrap_or(0).saturating_add(1),
                    serde_json::Value::Object(items) => items.values().map(of).max().unwrap_or(0).saturating_add(1),
                    _ => 0,
                }
            }
            prop_assert_eq!(depth(&value.to_string()), of(&value));
        }
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = "[\\[\\]{}\"\\\\a]{0,6}".prop_map(serde_json::Value::from);
        leaf.prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[\\[\\]{}\"\\\\a]{0,3}", inner, 0..4)
                    .prop_map(|items| serde_json::Value::Object(items.into_iter().collect())),
            ]
        })
    }
}
