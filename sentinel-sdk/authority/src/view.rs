//! A ledger line for people to read: its particulars, without its payload.
//!
//! Invariant: nothing that an application sent hides its line. A payload is any JSON text, also one that readers of values refuse, such as
//! `1e999` or half of a surrogate pair; so it is never taken apart here.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::LineError;

/// All keys of a line but `payload`, whatever version wrote it.
///
/// # Errors
/// It is no JSON object. Its chain is not looked at.
pub fn particulars(line: &[u8]) -> Result<Value, LineError> {
    let mut keys: BTreeMap<String, &RawValue> = serde_json::from_slice(line)?;
    keys.remove("payload");
    let values = keys.into_iter().map(|(key, text)| Ok((key, serde_json::from_str(text.get())?)));
    Ok(Value::Object(values.collect::<Result<_, serde_json::Error>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_payload_hides_its_line() {
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        for payload in ["null", "1e999", r#""\ud800""#, &deep] {
            let line = format!(r#"{{"id":"a","action":"sneaky","payload":{{"inputs":{payload}}},"seq":3}}"#);
            let seen = particulars(line.as_bytes()).unwrap();
            assert_eq!(seen, serde_json::json!({"id": "a", "action": "sneaky", "seq": 3}), "{payload:.20}");
        }
    }

    #[test]
    fn what_is_no_line_is_an_error() {
        for text in ["", "garbage", "[1]", r#"{"id":"#] {
            assert!(particulars(text.as_bytes()).is_err(), "{text}");
        }
    }
}
