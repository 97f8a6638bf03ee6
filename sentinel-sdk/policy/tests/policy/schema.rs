//! The JSON Schema against the reader: every policy fits it, no unknown key does, and every key in it can be read.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sentinel-policy` writes `policy.schema.json` anew.

use std::fs;
use std::path::{Path, PathBuf};

use sentinel_policy::{json_schema, parse, parse_bytes};
use serde_json::{Map, Value, json};

use crate::validator::{fits, json_of};

pub(crate) fn schema() -> Value {
    serde_json::from_str(&json_schema()).unwrap()
}

/// Every `*.yaml` of the repository.
fn yaml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or(".");
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            yaml_files(&path, files);
        } else if name.ends_with(".yaml") {
            files.push(path);
        }
    }
}

#[test]
fn the_shipped_schema_is_the_readers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, json_schema()).unwrap();
    }
    let shipped = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(shipped, json_schema(), "`{}` is stale; UPDATE_GOLDEN=1 writes it anew", file.display());
}

#[test]
fn every_policy_of_the_repository_fits() {
    let schema = schema();
    let mut files = Vec::new();
    yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &mut files);
    let mut policies = 0;
    for file in files {
        let bytes = fs::read(&file).unwrap();
        if parse_bytes(&bytes).is_err() {
            continue;
        }
        policies += 1;
        let value = json_of(std::str::from_utf8(&bytes).unwrap()).unwrap();
        fits(&schema, &value).unwrap_or_else(|problem| panic!("{}: {problem}", file.display()));
    }
    assert!(policies >= 15, "only {policies} policies found");
}

#[test]
fn an_unknown_key_fits_nowhere() {
    fn closed(schema: &Value, path: &str) {
        if schema.get("type") == Some(&json!("object")) && schema.get("propertyNames").is_none() {
            assert_eq!(schema.get("additionalProperties"), Some(&json!(false)), "{path}");
        }
        children(schema).for_each(|(step, child)| closed(child, &format!("{path}/{step}")));
    }
    closed(&schema(), "");
    let schema = schema();
    for text in [
        "evidence: {}",
        "budgets: {sesion: 1}",
        "budgets: {day: {limit: 1, zone: UTC}}",
        "enforcement: {network: {listn: []}}",
        "actions: {a: {grants: {keepalive: true}}}",
        "enforcement: {exec: {allow: [{path: /a, writeable: accept}]}}",
        "enforcement: {network: {allow: [{host: 'a.example.org:443', private: true}]}}",
    ] {
        assert!(parse(text).is_err(), "{text}");
        assert!(fits(&schema, &json_of(text).unwrap()).is_err(), "{text}");
    }
}

#[test]
fn what_an_editor_can_see_to_be_wrong_doesnt_fit() {
    let schema = schema();
    for text in [
        "budgets: {session: '5.0'}",
        "budgets: {session: -1}",
        "budgets: {session: 4000001}",
        "budgets: {day: {timezone: UTC}}",
        "rate_limits: {a: {}}",
        "limits: {max_concurrent: 1025}",
        "hours: {timezone: UTC}",
        "hours: {timezone: UTC, allow: ['9:00-17:00']}",
        "hours: {timezone: UTC, allow: ['mon']}",
        "hours: {timezone: UTC, allow: ['24:00-01:00']}",
        "strict_mode: yes",
        "approvals: {approvers: [alice]}",
        "approvals: {timeout_seconds: 0}",
        "actions: {a: {risk_level: very high}}",
        "enforcement: {mode: audti}",
        "enforcement: {network: {allow: ['Example.org:443']}}",
        "enforcement: {network: {allow: ['example.org.:443']}}",
        "enforcement: {network: {allow: ['a*.example.org:443']}}",
        "enforcement: {network: {allow: ['localhost:8080']}}",
        "enforcement: {network: {allow: [{host: '192.0.2.1:443', allow_private: true}]}}",
        "enforcement: {network: {allow: [{allow_private: true}]}}",
        "enforcement: {network: {listen: ['example.org:443']}}",
        "enforcement: {network: {listen: [{host: 'example.org:443'}]}}",
        "enforcement: {network: {listen: [8080]}}",
        "actions: {a: {grants: {keep_alive: 'yes'}}}",
        "enforcement: {exec: {allow: [make]}}",
        "denied_actions: delete_database",
        "denied_actions: ~",
        "actions: {'': {}}",
    ] {
        assert!(parse(text).is_err(), "{text}");
        assert!(fits(&schema, &json_of(text).unwrap()).is_err(), "{text}");
    }
}

#[test]
fn every_key_word_and_bound_of_the_schema_is_read() {
    let mut values = Vec::new();
    push_values(&schema(), &mut values);
    for value in &values {
        // JSON is YAML too.
        let text = value.to_string();
        if let Err(problems) = parse(&text) {
            panic!("{}", problems.render("from-the-schema.yaml", &text));
        }
    }
    assert!(values.len() > 60, "only {} values", values.len());
}

/// The parts of a schema that are schemas.
fn children(schema: &Value) -> impl Iterator<Item = (String, &Value)> {
    let of_object = |key: &str| schema.get(key).and_then(Value::as_object).into_iter().flatten();
    let properties = of_object("properties").map(|(name, child)| (name.clone(), child));
    let rest = ["items", "additionalProperties"].into_iter().filter_map(|key| {
        schema.get(key).filter(|child| child.is_object()).map(|child| (key.to_owned(), child))
    });
    let either = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    properties.chain(rest).chain(either.map(|child| ("anyOf".to_owned(), child)))
}

/// Values that fit: together they have every key, every word and both ends of every range.
fn push_values(schema: &Value, values: &mut Vec<Value>) {
    for key in ["minimum", "maximum"] {
        values.extend(schema.get(key).cloned());
    }
    for key in ["enum", "examples"] {
        values.extend(schema.get(key).and_then(Value::as_array).into_iter().flatten().cloned());
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => values.extend([json!(true), json!(false)]),
        Some("array") => values.push(json!([])),
        Some("object") if schema.get("minProperties").is_none() && schema.get("required").is_none() => {
            values.push(json!({}));
        }
        Some(_) | None => {}
    }
    let required = required(schema);
    for (step, child) in children(schema) {
        let mut of_child = Vec::new();
        push_values(child, &mut of_child);
        values.extend(of_child.into_iter().map(|value| match step.as_str() {
            "anyOf" => value,
            "items" => json!([value]),
            "additionalProperties" => json!({"some_action": value}),
            name => {
                let mut object = required.clone();
                object.insert(name.to_owned(), value);
                Value::Object(object)
            }
        }));
    }
}

/// The keys that an object can't be without, with values that fit.
fn required(schema: &Value) -> Map<String, Value> {
    let names = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let mut object = Map::new();
    for name in names.map(|name| name.as_str().unwrap()) {
        let mut values = Vec::new();
        push_values(&schema["properties"][name], &mut values);
        object.insert(name.to_owned(), values.swap_remove(0));
    }
    object
}
