//! JSON text in a form of its own, so that two writers of the same value write the same bytes.
//!
//! Invariant: two texts have the same form only if they say the same: strings and numbers stay as they are written (`1.0` is not `1`), and an
//! object that names a key twice keeps its text. What differs without need only asks a human once more.

use sentinel_proto::{ActionId, Payload};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// Whether both say the same.
#[must_use]
pub fn say_the_same(one: &Payload, other: &Payload) -> bool {
    one == other || canonical(one.as_json()) == canonical(other.as_json())
}

/// What tells the inputs of an action apart where they can't be written as they are: the SHA-256 of its id and of their form, in hex.
/// With the id in it, equal secrets of two actions aren't seen to be equal; one that is short enough to be guessed can be confirmed by it.
#[must_use]
pub fn inputs_digest(action_id: ActionId, inputs: &Payload) -> String {
    let mut hash = Sha256::new();
    hash.update(action_id.0.as_bytes());
    hash.update(canonical(inputs.as_json()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form of a JSON text: no space between tokens, keys sorted.
pub(crate) fn canonical(json: &str) -> String {
    let mut form = String::with_capacity(json.len());
    write(json, &mut form);
    form
}

fn write(json: &str, form: &mut String) {
    let json = json.trim_ascii();
    let written = match json.as_bytes().first() {
        Some(b'{') => object(json, form),
        Some(b'[') => array(json, form),
        _ => None,
    };
    if written.is_none() {
        form.push_str(json);
    }
}

fn object(json: &str, form: &mut String) -> Option<()> {
    let Entries(mut entries) = serde_json::from_str(json).ok()?;
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let is_ambiguous = entries.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other));
    if is_ambiguous {
        return None;
    }
    form.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            form.push(',');
        }
        form.push_str(&serde_json::to_string(key).ok()?);
        form.push(':');
        write(value.get(), form);
    }
    form.push('}');
    Some(())
}

fn array(json: &str, form: &mut String) -> Option<()> {
    let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    form.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            form.push(',');
        }
        write(item.get(), form);
    }
    form.push(']');
    Some(())
}

/// An object's entries as they stand, also those of the same key.
struct Entries<'json>(Vec<(String, &'json RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn space_and_the_order_of_keys_make_no_difference() {
        let one = r#"{"args": [1, {"b": 2, "a": [ ]}], "kwargs": {}}"#;
        let other = r#"{"kwargs":{},"args":[1,{"a":[],"b":2}]}"#;
        assert_eq!(canonical(one), canonical(other));
        assert_eq!(canonical(one), r#"{"args":[1,{"a":[],"b":2}],"kwargs":{}}"#);
    }

    #[test]
    fn what_says_something_else_has_another_form() {
        let texts = [
            "[1]",
            "[1.0]",
            "[18446744073709551616]",
            "[18446744073709551617]",
            r#"["1"]"#,
            r#"{"a":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"[" 1"]"#,
            "[1e999]",
            "null",
        ];
        let forms: std::collections::BTreeSet<String> = texts.iter().map(|text| canonical(text)).collect();
        assert_eq!(forms.len(), texts.len());
    }
}
