//! The shape of a policy: every key, what stands behind it and what it is for.
//!
//! Invariant: this is the one table of both the reader, which takes a key, a word or a number only if it stands here, and
//! the JSON Schema, which is written from it: neither can know a key that the other doesn't.

use std::ops::RangeInclusive;

/// What a value has to be.
#[derive(Debug)]
pub(crate) enum Shape {
    Truth,
    /// An amount in dollars.
    Dollars,
    Whole {
        /// What it counts.
        what: &'static str,
        range: RangeInclusive<u64>,
    },
    /// One of these.
    Word(&'static [&'static str]),
    Text(Text),
    List {
        of: &'static Shape,
        example: &'static str,
    },
    /// A mapping with fixed keys.
    Section(&'static Keys),
    /// A mapping whose keys are names of actions.
    Table {
        of: &'static Shape,
        example: &'static str,
    },
    /// Any of these, of which no two are the same kind of value.
    Either(&'static [Shape]),
}

/// A text of the user's own.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) what: &'static str,
    pub(crate) example: &'static str,
    /// The most characters; none: the pattern says enough.
    pub(crate) most: Option<usize>,
    /// A regular expression that every such text matches, if others may match too.
    pub(crate) pattern: Option<&'static str>,
}

/// The keys that a mapping may have.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) known: &'static [Key],
    pub(crate) needed: Needed,
    /// Keys of the design that this version can't keep to.
    pub(crate) later: &'static [&'static str],
    pub(crate) example: &'static str,
}

/// Which of the keys have to be there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needed {
    Nothing,
    OneAtLeast,
    Each(&'static [&'static str]),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it is for, as an editor shows it.
    pub(crate) about: &'static str,
    pub(crate) shape: Shape,
}

/// What a shape has that is asked for something it isn't: a mapping without any key.
const NO_KEYS: Keys = Keys { known: &[], needed: Needed::Nothing, later: &[], example: "{}" };
const NO_TEXT: Text = Text { what: "nothing", example: "", most: None, pattern: None };
const NO_SHAPE: Shape = Shape::Section(&NO_KEYS);

impl Shape {
    fn alternatives(&'static self) -> &'static [Self] {
        if let Self::Either(shapes) = self { shapes } else { std::slice::from_ref(self) }
    }

    fn find<T>(&'static self, part: impl Fn(&'static Self) -> Option<T>) -> Option<T> {
        self.alternatives().iter().find_map(part)
    }

    pub(crate) fn keys(&'static self) -> &'static Keys {
        self.find(|shape| if let Self::Section(keys) = shape { Some(*keys) } else { None })
            .unwrap_or(&NO_KEYS)
    }

    /// The shape of a list's items, and an example of such a list.
    pub(crate) fn items(&'static self) -> (&'static Self, &'static str) {
        self.find(|shape| if let Self::List { of, example } = shape { Some((*of, *example)) } else { None })
            .unwrap_or((&NO_SHAPE, "[]"))
    }

    /// The shape of a table's values, and an example of such a table.
    pub(crate) fn table(&'static self) -> (&'static Self, &'static str) {
        self.find(|shape| if let Self::Table { of, example } = shape { Some((*of, *example)) } else { None })
            .unwrap_or((&NO_SHAPE, "{}"))
    }

    pub(crate) fn text(&'static self) -> &'static Text {
        self.find(|shape| if let Self::Text(text) = shape { Some(text) } else { None }).unwrap_or(&NO_TEXT)
    }

    /// What a whole number counts, and from where to where.
    pub(crate) fn whole(&'static self) -> (&'static str, RangeInclusive<u64>) {
        self.find(
            |shape| if let Self::Whole { what, range } = shape { Some((*what, range.clone())) } else { None },
        )
        .unwrap_or(("nothing", 0..=0))
    }

    pub(crate) fn words(&'static self) -> &'static [&'static str] {
        self.find(|shape| if let Self::Word(words) = shape { Some(*words) } else { None }).unwrap_or(&[])
    }
}

impl Keys {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.known.iter().find(|key| key.name == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().map(|key| key.name)
    }

    /// The sections that have this key, for one that is written in the wrong place; empty: the top level.
    pub(crate) fn homes(&self, name: &str) -> Vec<String> {
        let mut homes = Vec::new();
        self.push_homes("", name, &mut homes);
        homes
    }

    fn push_homes(&self, path: &str, name: &str, homes: &mut Vec<String>) {
        if self.key(name).is_some() {
            homes.push(path.to_owned());
        }
        for key in self.known {
            let step = |more: &str| {
                let dot = if path.is_empty() { "" } else { "." };
                format!("{path}{dot}{}{more}", key.name)
            };
            let of_each = key.shape.table().0.keys();
            key.shape.keys().push_homes(&step(""), name, homes);
            of_each.push_homes(&step(".ACTION"), name, homes);
        }
    }
}
