//! Reading the tree: a value, the path to it, and what it is expected to be.
//!
//! Invariant: a value of another kind than the expected one is reported here, once, and yields nothing.

use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;
use crate::suggest::closest;
use crate::tree::{Entry, Node, Scalar, Value, path_to_item, path_to_key};

/// A value and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Field<'t> {
    pub(crate) node: &'t Node,
    /// The key's place; for an entry of a list, its own.
    pub(crate) label: Place,
    pub(crate) path: String,
}

/// The keys that a mapping may have.
pub(crate) struct Keys {
    pub(crate) known: &'static [&'static str],
    /// Keys of the design that this version can't keep to.
    pub(crate) later: &'static [&'static str],
    pub(crate) example: &'static str,
}

/// Where keys stand, for those written in the wrong place; empty: at the top level.
const HOMES: [(&str, &str); 20] = [
    ("session", "budgets"),
    ("run", "budgets"),
    ("max_count", "rate_limits.ACTION"),
    ("window_seconds", "rate_limits.ACTION"),
    ("cost_usd", "actions.ACTION"),
    ("tags", "actions.ACTION"),
    ("grants", "actions.ACTION"),
    ("max_seconds", "actions.ACTION"),
    ("mode", "enforcement"),
    ("on_exhausted", "enforcement"),
    ("network", "enforcement"),
    ("exec", "enforcement"),
    ("unix", "enforcement"),
    ("libraries", "enforcement.exec"),
    ("budgets", ""),
    ("denied_actions", ""),
    ("allowed_actions", ""),
    ("rate_limits", ""),
    ("strict_mode", ""),
    ("enforcement", ""),
];

impl<'t> Field<'t> {
    pub(crate) fn root(node: &'t Node) -> Self {
        Self { node, label: node.place, path: String::new() }
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

    /// Its value, if it is one of a mapping's fixed keys; unknown keys are reported.
    pub(crate) fn section(&self, keys: &Keys, found: &mut Findings) -> Option<Section<'t>> {
        let entries = self.entries(keys.example, found)?;
        let mut fields = Vec::new();
        for entry in entries {
            let key = entry.key.text.as_str();
            let field = self.child(entry);
            if let Some(known) = keys.known.iter().copied().find(|known| *known == key) {
                fields.push((known, field));
            } else {
                found.problem(entry.key_place, &field.path, self.unknown(key, keys));
            }
        }
        Some(Section { fields })
    }

    fn unknown(&self, key: &str, keys: &Keys) -> Complaint {
        let here = if self.path.is_empty() { "a policy".to_owned() } else { format!("`{}`", self.path) };
        let allowed = keys.known.join(", ");
        if keys.later.contains(&key) {
            return Complaint::new(
                format!("{} is not supported by this version", Quoted(key)),
                format!("remove it: nothing would keep to it; {here} can have: {allowed}"),
            );
        }
        let home = HOMES.iter().find(|(known, home)| *known == key && *home != self.path);
        if key.contains(':') {
            return Complaint::new(
                format!("{} is no key of {here}", Quoted(key)),
                "write a space behind the colon",
            );
        }
        let hint = match (closest(key, keys.known.iter().copied()), home) {
            (Some(meant), _) => format!("did you mean `{meant}`? "),
            (None, Some((_, ""))) => "it stands at the top level; ".to_owned(),
            (None, Some((_, home))) => format!("it stands under `{home}`; "),
            (None, None) => String::new(),
        };
        Complaint::new(
            format!("{} is no key of {here}", Quoted(key)),
            format!("{hint}{here} can have: {allowed}"),
        )
    }

    /// The entries of a mapping whose keys are the user's own.
    pub(crate) fn table(&self, example: &str, found: &mut Findings) -> Option<Vec<(&'t Entry, Self)>> {
        let entries = self.entries(example, found)?;
        Some(entries.iter().map(|entry| (entry, self.child(entry))).collect())
    }

    fn child(&self, entry: &'t Entry) -> Self {
        Self { node: &entry.value, label: entry.key_place, path: path_to_key(&self.path, &entry.key.text) }
    }

    fn entries(&self, example: &str, found: &mut Findings) -> Option<&'t [Entry]> {
        if let Value::Map(entries) = &self.node.value {
            return Some(entries);
        }
        self.mistyped("a mapping", example, found);
        None
    }

    /// The items of a list.
    pub(crate) fn items(&self, example: &str, found: &mut Findings) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::List(items) => {
                let field = |(index, node): (usize, &'t Node)| Self {
                    node,
                    label: node.place,
                    path: path_to_item(&self.path, index),
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
