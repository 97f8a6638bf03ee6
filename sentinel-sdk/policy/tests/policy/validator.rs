//! As much of YAML and of JSON Schema as policies and their schema use. A keyword that isn't known here fails the test.

use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// A policy's text as an editor hands it to a schema: plain scalars are what YAML 1.2 takes them for.
pub(crate) fn json_of(text: &str) -> Option<Value> {
    let mut open: Vec<Vec<Value>> = vec![Vec::new()];
    for event in Parser::new_from_str(text) {
        match event.ok()?.0 {
            Event::Scalar(text, style, _, _) => open.last_mut()?.push(scalar(&text, style)),
            Event::SequenceStart(..) | Event::MappingStart(..) => open.push(Vec::new()),
            Event::SequenceEnd => {
                let items = open.pop()?;
                open.last_mut()?.push(Value::Array(items));
            }
            Event::MappingEnd => {
                let mut entries = Map::new();
                for entry in open.pop()?.chunks_exact(2) {
                    let key = entry[0].as_str().map_or_else(|| entry[0].to_string(), str::to_owned);
                    entries.insert(key, entry[1].clone());
                }
                open.last_mut()?.push(Value::Object(entries));
            }
            _ => {}
        }
    }
    open.pop()?.pop()
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::from(text);
    }
    let number = || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number = digits.contains(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
            && digits.matches('.').count() <= 1;
        let whole = || text.parse::<i64>().ok().map(Number::from);
        is_number.then(|| whole().or_else(|| Number::from_f64(text.parse().ok()?))).flatten()
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number().map_or_else(|| Value::from(text), Value::Number),
    }
}

/// Whether a value fits a schema, or what of it doesn't.
pub(crate) fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = schema.as_object().unwrap();
    for (keyword, expected) in schema {
        let is_fit = match keyword.as_str() {
            "$schema" | "title" | "description" | "examples" | "additionalProperties" => true,
            "type" => is_of_type(value, expected.as_str().unwrap()),
            "enum" => expected.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= expected.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= expected.as_f64().unwrap()),
            "minLength" => length(value).is_none_or(|length| length >= count(expected)),
            "maxLength" => length(value).is_none_or(|length| length <= count(expected)),
            "pattern" => value
                .as_str()
                .is_none_or(|text| Regex::new(expected.as_str().unwrap()).unwrap().is_match(text)),
            "minProperties" => value.as_object().is_none_or(|object| object.len() >= count(expected)),
            "required" => value.as_object().is_none_or(|object| {
                expected.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
            }),
            "propertyNames" => {
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .try_for_each(|(name, _)| fits(expected, &name.as_str().into()))?;
                true
            }
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| fits(expected, item))?;
                true
            }
            "properties" => {
                for (name, child) in value.as_object().into_iter().flatten() {
                    match (expected.get(name), schema.get("additionalProperties")) {
                        (Some(expected), _) => fits(expected, child)?,
                        (None, Some(Value::Bool(false))) => {
                            return Err(format!("the key `{name}` is unknown"));
                        }
                        (None, _) => {}
                    }
                }
                true
            }
            "anyOf" => expected.as_array().unwrap().iter().any(|schema| fits(schema, value).is_ok()),
            other => panic!("the keyword `{other}` is not known here"),
        };
        if !is_fit {
            return Err(format!("{value} doesn't fit `{keyword}: {expected}`"));
        }
    }
    if let (None, Some(expected), Some(object)) =
        (schema.get("properties"), schema.get("additionalProperties"), value.as_object())
    {
        object.values().try_for_each(|child| fits(expected, child))?;
    }
    Ok(())
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type `{other}` is not known here"),
    }
}

fn length(value: &Value) -> Option<usize> {
    value.as_str().map(|text| text.chars().count())
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}
