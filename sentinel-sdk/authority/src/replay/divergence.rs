//! How a replayed program differs from what was recorded of it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// At most so many differences are told.
const MOST_TOLD: usize = 20;
/// A value that differs is told up to so many characters.
const MOST_CHARACTERS: usize = 120;

/// A call that is not the one that was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Divergence {
    /// Another action was recorded here.
    ActionMismatch {
        /// Which take, from 0.
        index: usize,
        /// The action that was recorded.
        expected: String,
        /// The action that is called.
        actual: String,
    },
    /// It was called with something else.
    InputMismatch {
        /// Which take, from 0.
        index: usize,
        /// Which action.
        action: String,
        /// What was recorded, without its secrets.
        expected_inputs: Value,
        /// What it is called with.
        actual_inputs: Value,
        /// Where both differ, a line for each side.
        diff: Vec<String>,
    },
    /// Nothing is left.
    Exhausted {
        /// How many takes there were.
        index: usize,
        /// The action that is called.
        actual: String,
    },
    /// It was recorded, but has no value: it was given up, or its process died.
    NoValue {
        /// Which take, from 0.
        index: usize,
        /// Which action.
        action: String,
        /// How it ended.
        outcome: String,
    },
}

impl Divergence {
    pub(super) fn of_inputs(index: usize, action: &str, expected: Value, actual: Value) -> Self {
        let mut diff = Vec::new();
        differences("inputs", &expected, &actual, &mut diff);
        if diff.is_empty() {
            diff.push("  they differ in what was redacted".to_owned());
        }
        if diff.len() > MOST_TOLD {
            let more = diff.len().saturating_sub(MOST_TOLD);
            diff.truncate(MOST_TOLD);
            diff.push(format!("  … and {more} more lines"));
        }
        Self::InputMismatch {
            index,
            action: action.to_owned(),
            expected_inputs: expected,
            actual_inputs: actual,
            diff,
        }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ActionMismatch { index, expected, actual } => {
                write!(
                    f,
                    "the replay diverges at call {index}: `{expected}` was recorded, `{actual}` is called"
                )
            }
            Self::InputMismatch { index, action, diff, .. } => {
                let diff = diff.join("\n");
                write!(
                    f,
                    "the replay diverges at call {index}: `{action}` is called with something else than was recorded\n{diff}"
                )
            }
            Self::Exhausted { index, actual } => {
                write!(
                    f,
                    "the replay diverges: `{actual}` is called, but all {index} recorded calls are used up"
                )
            }
            Self::NoValue { index, action, outcome } => write!(
                f,
                "the replay diverges at call {index}: `{action}` was recorded as `{outcome}`, so there is nothing to return"
            ),
        }
    }
}

/// A `-` line for what was recorded and a `+` line for what is there now, wherever both differ.
fn differences(path: &str, expected: &Value, actual: &Value, told: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                let path = format!("{path}.{key}");
                match actual.get(key) {
                    Some(other) => differences(&path, value, other, told),
                    None => told.push(format!("- {path}: {}", short(value))),
                }
            }
            for (key, value) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                told.push(format!("+ {path}.{key}: {}", short(value)));
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            for (index, value) in expected.iter().enumerate() {
                let path = format!("{path}[{index}]");
                match actual.get(index) {
                    Some(other) => differences(&path, value, other, told),
                    None => told.push(format!("- {path}: {}", short(value))),
                }
            }
            for (index, value) in actual.iter().enumerate().skip(expected.len()) {
                told.push(format!("+ {path}[{index}]: {}", short(value)));
            }
        }
        _ if expected == actual => {}
        _ => {
            told.push(format!("- {path}: {}", short(expected)));
            told.push(format!("+ {path}: {}", short(actual)));
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}
