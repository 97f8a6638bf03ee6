//! `denied_actions:`, `allowed_actions:` and tags: lists of names.

use std::collections::BTreeMap;

use sentinel_engine::Allowlist;
use sentinel_proto::{ActionName, NameError, Tag, app::MAX_TAGS};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;
use crate::scalar::unambiguous;
use crate::tree::Scalar;

pub(super) fn denied(
    field: &Field<'_>,
    mentions: &mut Mentions,
    found: &mut Findings,
) -> BTreeMap<ActionName, u32> {
    let mut names = BTreeMap::new();
    for (name, field) in action_names(field, "[delete_database]", found).unwrap_or_default() {
        mentions.denied(&name, &field);
        names.insert(name, field.line());
    }
    names
}

/// None only where the list is no list, which is a problem: an empty one allows nothing.
pub(super) fn allowed(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Option<Allowlist> {
    let mut names = BTreeMap::new();
    for (name, field) in action_names(field, "[search_web]", found)? {
        mentions.allowed(&name, &field);
        names.insert(name, field.line());
    }
    Some(Allowlist { names, line: field.line() })
}

/// The tags of an action.
pub(super) fn tags(field: &Field<'_>, found: &mut Findings) -> Vec<Tag> {
    let tags = names(field, "a tag", "[search]", Tag::new, found).unwrap_or_default();
    if tags.len() > MAX_TAGS {
        let message = format!("there are {} tags", tags.len());
        field.complain(Complaint::new(message, format!("write at most {MAX_TAGS}")), found);
    }
    tags.into_iter().map(|(tag, _)| tag).collect()
}

/// The name of an action, where it stands as a key.
pub(super) fn action_name(
    key: &Scalar,
    place: Place,
    path: &str,
    found: &mut Findings,
) -> Option<ActionName> {
    let name =
        unambiguous(key).and_then(|text| ActionName::new(text).map_err(|error| unnameable(text, error)));
    name.map_err(|complaint| found.problem(place, path, complaint)).ok()
}

fn action_names<'t>(
    field: &Field<'t>,
    example: &str,
    found: &mut Findings,
) -> Option<Vec<(ActionName, Field<'t>)>> {
    names(field, "an action's name", example, ActionName::new, found)
}

/// The different names of a list, with their places.
fn names<'t, N: PartialEq + Ord + Clone>(
    field: &Field<'t>,
    what: &str,
    example: &str,
    name: impl Fn(String) -> Result<N, NameError>,
    found: &mut Findings,
) -> Option<Vec<(N, Field<'t>)>> {
    let mut first_lines: BTreeMap<N, u32> = BTreeMap::new();
    let mut names = Vec::new();
    let sample = example.trim_matches(['[', ']']);
    for field in field.items(example, found)? {
        let Some(scalar) = field.scalar(what, sample, found) else { continue };
        let text = scalar.text.as_str();
        let read = unambiguous(scalar)
            .and_then(|text| name(text.to_owned()).map_err(|error| unnameable(text, error)));
        let name = match read {
            Ok(name) => name,
            Err(complaint) => {
                field.complain(complaint, found);
                continue;
            }
        };
        if !scalar.quoted && text.contains(' ') {
            found.warning(field.place(), &field.path, one_name_with_a_space(text));
        }
        if let Some(line) = first_lines.get(&name) {
            let complaint = Complaint::new(
                format!("{} is in this list already, on line {line}", Quoted(text)),
                "remove one of the two",
            );
            found.warning(field.place(), &field.path, complaint);
            continue;
        }
        first_lines.insert(name.clone(), field.line());
        names.push((name, field));
    }
    Some(names)
}

fn one_name_with_a_space(text: &str) -> Complaint {
    let several = text.split_whitespace().collect::<Vec<_>>().join(", ");
    Complaint::new(
        format!("{} is one name with a space in it", Quoted(text)),
        format!(
            "write `{}` if several are meant; put it in quotes if it is one",
            crate::quoted::shown(&several)
        ),
    )
}

fn unnameable(text: &str, error: NameError) -> Complaint {
    match error {
        NameError::Empty { max } => {
            Complaint::new("the name is empty", format!("write 1 to {max} characters"))
        }
        NameError::TooLong { length, max } => Complaint::new(
            format!("the name {} has {length} characters", Quoted(text)),
            format!("write at most {max}"),
        ),
        NameError::Character { character, position, allowed } => Complaint::new(
            format!("the name {} has the character {character:?} at position {position}", Quoted(text)),
            format!("write {allowed} only"),
        ),
    }
}
