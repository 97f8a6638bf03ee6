//! The JSON Schema (draft 2020-12) of a policy, for editors: `policy.schema.json` in this crate's folder.
//!
//! An editor with a YAML language server completes and checks a policy by it where the policy's first line is
//! `# yaml-language-server: $schema=/path/to/policy.schema.json`.
//!
//! Invariant: every policy fits it. Not all that fits it is a policy: which time zones there are, that an address has no bits
//! behind its prefix, or below which names anybody can have one, only the reader knows.

use sentinel_proto::{ActionName, Money};
use serde_json::{Map, Number, Value, json};

use crate::lower::POLICY;
use crate::shape::{Keys, Needed, Shape, Text};

/// The JSON Schema of a policy, as the file has it.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = schema_of(&POLICY.shape);
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Sentinel policy"));
    schema.insert(
        "description".to_owned(),
        json!(
            "What an AI agent may do. All keys are optional. A list that is absent limits nothing; a list that is empty lets nothing through."
        ),
    );
    format!("{:#}\n", Value::Object(schema))
}

fn schema_of(shape: &Shape) -> Map<String, Value> {
    let schema = match shape {
        Shape::Truth => json!({"type": "boolean"}),
        Shape::Dollars => json!({"type": "number", "minimum": 0, "maximum": most_dollars()}),
        Shape::Whole { what: _, range } => {
            json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
        }
        Shape::Word(words) => json!({"enum": words}),
        Shape::Text(text) => return schema_of_text(text),
        Shape::List { of, example: _ } => json!({"type": "array", "items": schema_of(of)}),
        Shape::Section(keys) => return schema_of_keys(keys),
        Shape::Table { of, example: _ } => json!({
            "type": "object",
            "propertyNames": {"minLength": 1, "maxLength": ActionName::MAX},
            "additionalProperties": schema_of(of),
        }),
        Shape::Either(shapes) => json!({"anyOf": shapes.iter().map(schema_of).collect::<Vec<_>>()}),
    };
    if let Value::Object(schema) = schema { schema } else { Map::new() }
}

fn schema_of_text(text: &Text) -> Map<String, Value> {
    let mut schema = Map::new();
    let mut put = |key: &str, value: Value| schema.insert(key.to_owned(), value);
    put("type", json!("string"));
    put("minLength", json!(1));
    put("examples", json!([text.example]));
    if let Some(most) = text.most {
        put("maxLength", json!(most));
    }
    if let Some(pattern) = text.pattern {
        put("pattern", json!(pattern));
    }
    schema
}

fn schema_of_keys(keys: &Keys) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in keys.known {
        let mut schema = schema_of(&key.shape);
        schema.insert("description".to_owned(), json!(key.about));
        properties.insert(key.name.to_owned(), Value::Object(schema));
    }
    let mut schema = Map::new();
    let mut put = |key: &str, value: Value| schema.insert(key.to_owned(), value);
    put("type", json!("object"));
    put("properties", Value::Object(properties));
    put("additionalProperties", json!(false));
    match keys.needed {
        Needed::Nothing => None,
        Needed::OneAtLeast => put("minProperties", json!(1)),
        Needed::Each(names) => put("required", json!(names)),
    };
    schema
}

fn most_dollars() -> Number {
    // Whole dollars: no decimal that a JSON number could not hold.
    Number::from(Money::MAX.nanos().div_ceil(1_000_000_000))
}
