//! Inputs and outputs of actions: JSON text that is carried and recorded, never decided on.
//!
//! Invariant: the text is one well-formed JSON value on one line, of at most [`MAX_PAYLOAD_BYTES`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The longest payload; the SDK replaces a longer one by a digest and the beginning.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

/// A JSON value, kept as text.
#[derive(Clone, Debug)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// The payload of this value.
    ///
    /// # Errors
    /// The serialiser's, for example for a map with keys that are no strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
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
    /// Takes any JSON value. A value with line breaks between its tokens is written anew without them, for a
    /// ledger line is one line; one that is too long is refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().len() > MAX_PAYLOAD_BYTES {
            let length = raw.get().len();
            return Err(D::Error::custom(format!(
                "a payload has {length} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
            )));
        }
        if !raw.get().contains(['\n', '\r']) {
            return Ok(Self(raw));
        }
        let value: serde_json::Value = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        Self::of(&value).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_never_breaks_a_line() {
        let payload: Payload = serde_json::from_str("{\n \"a\": [1,\r\n2]\n}").unwrap();
        assert_eq!(payload.as_json(), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let text = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES));
        assert!(serde_json::from_str::<Payload>(&text).is_err());
    }
}
