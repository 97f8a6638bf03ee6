//! The JSON text of plain Python values, made without a call into Python.
//!
//! Invariant: it is the very text that `json.dumps` makes. What isn't plain has none here, and is left to the package: a class of the program's, a
//! number that is not finite, a key that is no text, half a surrogate pair, deep nesting.

use std::fmt::Write as _;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Deeper nesting is left to the package, which has an eye on values that hold themselves.
const MOST_DEPTH: usize = 32;

/// What isn't plain.
struct NotPlain;

/// The JSON text of a value; none where it isn't plain.
#[pyfunction]
pub(crate) fn json(value: &Bound<'_, PyAny>) -> Option<String> {
    let mut text = String::new();
    write(&mut text, value, 0).ok()?;
    Some(text)
}

/// The JSON text of what a function is called with; none where something of it isn't plain.
#[pyfunction]
pub(crate) fn json_of_call(args: &Bound<'_, PyTuple>, kwargs: &Bound<'_, PyDict>) -> Option<String> {
    let mut text = String::from("{\"args\":");
    write_items(&mut text, args.iter(), 1).ok()?;
    text.push_str(",\"kwargs\":");
    write_entries(&mut text, kwargs, 1).ok()?;
    text.push('}');
    Some(text)
}

fn write(text: &mut String, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), NotPlain> {
    if depth > MOST_DEPTH {
        return Err(NotPlain);
    }
    if let Ok(value) = value.cast_exact::<PyString>() {
        return write_text(text, value);
    }
    if value.is_none() {
        text.push_str("null");
        return Ok(());
    }
    if let Ok(value) = value.cast_exact::<PyInt>() {
        let number: i64 = value.extract().map_err(|_too_large| NotPlain)?;
        return write!(text, "{number}").map_err(|_never| NotPlain);
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        text.push_str(if value.is_true() { "true" } else { "false" });
        return Ok(());
    }
    if let Ok(value) = value.cast_exact::<PyDict>() {
        return write_entries(text, value, depth + 1);
    }
    if let Ok(value) = value.cast_exact::<PyList>() {
        return write_items(text, value.iter(), depth + 1);
    }
    if let Ok(value) = value.cast_exact::<PyTuple>() {
        return write_items(text, value.iter(), depth + 1);
    }
    if let Ok(value) = value.cast_exact::<PyFloat>()
        && value.value().is_finite()
    {
        let shown = value.repr().map_err(|_failed| NotPlain)?;
        text.push_str(&shown.to_cow().map_err(|_failed| NotPlain)?);
        return Ok(());
    }
    Err(NotPlain)
}

fn write_items<'py, Items: IntoIterator<Item = Bound<'py, PyAny>>>(
    text: &mut String,
    items: Items,
    depth: usize,
) -> Result<(), NotPlain> {
    text.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(text, &item, depth)?;
    }
    text.push(']');
    Ok(())
}

fn write_entries(text: &mut String, entries: &Bound<'_, PyDict>, depth: usize) -> Result<(), NotPlain> {
    text.push('{');
    for (index, (key, item)) in entries.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_text(text, key.cast_exact().map_err(|_no_text| NotPlain)?)?;
        text.push(':');
        write(text, &item, depth)?;
    }
    text.push('}');
    Ok(())
}

fn write_text(text: &mut String, value: &Bound<'_, PyString>) -> Result<(), NotPlain> {
    let value = value.to_cow().map_err(|_half_a_pair| NotPlain)?;
    text.push('"');
    let mut rest = &*value;
    while let Some(special) =
        rest.bytes().position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'))
    {
        let (plain, from) = rest.split_at(special);
        text.push_str(plain);
        let mut characters = from.chars();
        let Some(character) = characters.next() else { break };
        write_escaped(text, character)?;
        rest = characters.as_str();
    }
    text.push_str(rest);
    text.push('"');
    Ok(())
}

fn write_escaped(text: &mut String, character: char) -> Result<(), NotPlain> {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\u{8}' => text.push_str("\\b"),
        '\u{c}' => text.push_str("\\f"),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").map_err(|_never| NotPlain)?;
            }
        }
    }
    Ok(())
}
