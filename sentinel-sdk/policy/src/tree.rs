//! The text as a tree of values that know their places.
//!
//! Invariant: no key stands twice in a mapping, keys are texts, every scalar stands on one line.

use crate::problem::Place;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that is reported already: whoever meets it passes on in silence.
    Reported,
}

/// What is neither list nor mapping.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    /// Its text, without the quotes.
    pub(crate) text: String,
    /// In quotes it is text, whatever it looks like.
    pub(crate) quoted: bool,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Scalar,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Scalar {
    /// Whether it says "nothing": `key:` without a value among them.
    pub(crate) fn is_null(&self) -> bool {
        !self.quoted && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// The path of a value in a mapping.
pub(crate) fn path_to_key(parent: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key.len() <= 64
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let step = if plain { key.to_owned() } else { format!("\"{}\"", crate::quoted::shown(key)) };
    if parent.is_empty() { step } else { format!("{parent}.{step}") }
}

/// The path of a value in a list.
pub(crate) fn path_to_item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}
