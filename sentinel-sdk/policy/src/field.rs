//! Reading the tree: a value, the path to it, and what it is expected to be.
//!
//! Invariant: a value of another kind than the expected one is reported here, once, and yields nothing.

use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;
use crate::shape::{Keys, Needed, Shape};
use crate::suggest::closest;
use crate::tree::{Entry, Node, Scalar, Value, path_to_item, path_to_key};

/// A value and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Field<'t> {
    pub(crate) node: &'t Node,
    /// What it has to be.
    pub(crate) shape: &'static Shape,
    /// The key's place; for an entry of a list, its own.
    pub(crate) label: Place,
    pub(crate) path: String,
    /// The document that it is a part of.
    pub(crate) document: &'static Document,
}

/// A kind of text that is read.
#[derive(Debug)]
pub(crate) struct Document {
    /// As it is called in a sentence.
    pub(crate) called: &'static str,
    pub(crate) shape: Shape,
}

/// With more homes than this, a misplaced key is not told where it belongs.
const MOST_HOMES: usize = 3;

impl<'t> Field<'t> {
    pub(crate) fn root(node: &'t Node, document: &'static Document) -> Self {
        Self { node, shape: &document.shape, label: node.place, path: String::new(), document }
    }

    /// Where to point at: the value, or its key where there is no value to see.
    pub(crate) fn place(&self) -> Place {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.text.is_empty() && !scalar.quoted => self.label,
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Reported => self.node.place,
        }
    }

    /// The line that a rule is known by.
    pub(crate) fn line(&self) -> u32 {
        self.label.line
    }

    pub(crate) fn complain(&self, complaint: Complaint, found: &mut Findings) {
        found.problem(self.place(), &self.path, complaint);
    }

    /// Its values by the fixed keys of its shape. Unknown keys and missing ones are reported.
    pub(crate) fn section(&self, found: &mut Findings) -> Option<Section<'t>> {
        let problems_before = found.problem_count();
        let keys = self.shape.keys();
        let mut fields = Vec::new();
        for entry in self.entries(keys.example, found)? {
            let name = entry.key.text.as_str();
            if let Some(key) = keys.key(name) {
                fields.push((key.name, self.child(entry, &key.shape)));
            } else {
                let path = path_to_key(&self.path, name);
                found.problem(entry.key_place, &path, self.unknown(name, keys));
            }
        }
        let section = Section { fields };
        // With a misspelt key, whether another one is missing can't be said.
        if found.problem_count() == problems_before {
            self.complain_of_missing(keys, &section, found);
        }
        Some(section)
    }

    fn complain_of_missing(&self, keys: &Keys, section: &Section<'_>, found: &mut Findings) {
        let way_out = format!("write `{}`", keys.example);
        match keys.needed {
            Needed::OneAtLeast if section.fields.is_empty() => {
                self.complain(Complaint::new("the mapping is empty", way_out), found);
            }
            Needed::Each(names) => {
                for name in names.iter().filter(|name| section.field(name).is_none()) {
                    let message = format!("the key `{name}` is missing");
                    self.complain(Complaint::new(message, way_out.clone()), found);
                }
            }
            Needed::Nothing | Needed::OneAtLeast => {}
        }
    }

    fn unknown(&self, key: &str, keys: &Keys) -> Complaint {
        let here =
            if self.path.is_empty() { self.document.called.to_owned() } else { format!("`{}`", self.path) };
        let allowed = keys.names().collect::<Vec<_>>().join(", ");
        if keys.later.contains(&key) {
            return Complaint::new(
                format!("{} is not supported by this version", Quoted(key)),
                format!("remove it: nothing would keep to it; {here} can have: {allowed}"),
            );
        }
        if key.contains(':') {
            return Complaint::new(
                format!("{} is no key of {here}", Quoted(key)),
                "write a space behind the colon",
            );
        }
        let hint = closest(key, keys.names())
            .map_or_else(|| self.hint_of_home(key), |meant| format!("did you mean `{meant}`? "));
        Complaint::new(
            format!("{} is no key of {here}", Quoted(key)),
            format!("{hint}{here} can have: {allowed}"),
        )
    }

    /// Where a key stands that is known elsewhere; the places below here first.
    fn hint_of_home(&self, key: &str) -> String {
        let mut homes = self.document.shape.keys().homes(key);
        let below = format!("{}.", self.path);
        if homes.iter().any(|home| home.starts_with(&below)) {
            homes.retain(|home| home.starts_with(&below));
        }
        if homes.is_empty() || homes.len() > MOST_HOMES {
            return String::new();
        }
        let places = homes.iter().map(|home| {
            if home.is_empty() { "at the top level".to_owned() } else { format!("under `{home}`") }
        });
        format!("it stands {}; ", places.collect::<Vec<_>>().join(" or "))
    }

    /// The entries of a mapping whose keys are the user's own.
    pub(crate) fn table(&self, found: &mut Findings) -> Option<Vec<(&'t Entry, Self)>> {
        let (of, example) = self.shape.table();
        let entries = self.entries(example, found)?;
        Some(entries.iter().map(|entry| (entry, self.child(entry, of))).collect())
    }

    fn child(&self, entry: &'t Entry, shape: &'static Shape) -> Self {
        let path = path_to_key(&self.path, &entry.key.text);
        Self { node: &entry.value, shape, label: entry.key_place, path, document: self.document }
    }

    fn entries(&self, example: &str, found: &mut Findings) -> Option<&'t [Entry]> {
        if let Value::Map(entries) = &self.node.value {
            return Some(entries);
        }
        self.mistyped("a mapping", example, found);
        None
    }

    /// The items of a list.
    pub(crate) fn items(&self, found: &mut Findings) -> Option<Vec<Self>> {
        let (of, example) = self.shape.items();
        match &self.node.value {
            Value::List(items) => {
                let field = |(index, node): (usize, &'t Node)| Self {
                    node,
                    shape: of,
                    label: node.place,
                    path: path_to_item(&self.path, index),
                    document: self.document,
                };
                Some(items.iter().enumerate().map(field).collect())
            }
            Value::Scalar(scalar) if !scalar.is_null() => {
                let brackets = scalar.text.starts_with('[') && scalar.quoted;
                let text = if brackets {
                    crate::quoted::shown(&scalar.text)
                } else {
                    format!("[{}]", crate::quoted::shown(&written(scalar)))
                };
                let key = self.path.rsplit('.').next().unwrap_or_default();
                let message = format!("{} is {}, not a list", Quoted(&written(scalar)), kind(scalar));
                self.complain(Complaint::new(message, format!("write `{key}: {text}`")), found);
                None
            }
            Value::Scalar(_) | Value::Map(_) | Value::Reported => {
                self.mistyped("a list", &format!("{example}` or `[]"), found);
                None
            }
        }
    }

    /// A text that is there, as its shape wants one.
    pub(crate) fn text(&self, found: &mut Findings) -> Option<&'t Scalar> {
        let text = self.shape.text();
        self.scalar(text.what, text.example, found)
    }

    /// A scalar that is there; what is expected instead is said otherwise.
    pub(crate) fn scalar(&self, expected: &str, example: &str, found: &mut Findings) -> Option<&'t Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) if !scalar.is_null() => Some(scalar),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) | Value::Reported => {
                self.mistyped(expected, example, found);
                None
            }
        }
    }

    /// Reports a value of the wrong kind.
    pub(crate) fn mistyped(&self, expected: &str, example: &str, found: &mut Findings) {
        let there = match &self.node.value {
            Value::Reported => return,
            Value::List(_) => "a list stands here".to_owned(),
            Value::Map(_) => "a mapping stands here".to_owned(),
            Value::Scalar(scalar) if scalar.is_null() => {
                let key = if self.path.ends_with(']') { "the entry" } else { "the key" };
                let message = format!("{key} has no value");
                let way_out = format!("write {}, or leave {key} out", such_as(expected, example));
                self.complain(Complaint::new(message, way_out), found);
                return;
            }
            Value::Scalar(scalar) => format!("{} is {}", Quoted(&written(scalar)), kind(scalar)),
        };
        let message = format!("{there}, not {expected}");
        self.complain(Complaint::new(message, format!("write {}", such_as(expected, example))), found);
    }
}

fn such_as(expected: &str, example: &str) -> String {
    if example.is_empty() { expected.to_owned() } else { format!("{expected} such as `{example}`") }
}

/// A scalar as it stands in the text, near enough for a message.
pub(crate) fn written(scalar: &Scalar) -> String {
    if scalar.quoted { format!("'{}'", scalar.text) } else { scalar.text.clone() }
}

/// What a scalar is, in words.
fn kind(scalar: &Scalar) -> &'static str {
    if scalar.quoted { "a text in quotes" } else { "a single value" }
}

/// A mapping's values by their fixed keys.
#[derive(Debug)]
pub(crate) struct Section<'t> {
    fields: Vec<(&'static str, Field<'t>)>,
}

impl<'t> Section<'t> {
    pub(crate) fn field(&self, key: &str) -> Option<&Field<'t>> {
        self.fields.iter().find(|(known, _)| *known == key).map(|(_, field)| field)
    }
}
