//! `denied_actions:`, `allowed_actions:`, tags and risk levels: names and lists of them.

use std::collections::BTreeMap;

use sentinel_engine::Allowlist;
use sentinel_proto::{ActionName, NameError, RiskLevel, Tag, app::MAX_TAGS};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;
use crate::scalar::unambiguous;
use crate::shape::{Shape, Text};
use crate::tree::Scalar;

/// A list of names of actions.
macro_rules! action_list {
    ($example:literal) => {
        Shape::List {
            of: &Shape::Text(Text {
                what: "an action's name",
                example: $example,
                most: Some(ActionName::MAX),
                pattern: None,
            }),
            example: concat!("[", $example, "]"),
        }
    };
}

pub(super) const DENIED: Shape = action_list!("delete_database");
pub(super) const ALLOWED: Shape = action_list!("search_web");
pub(super) const NEEDING_APPROVAL: Shape = action_list!("send_money");
pub(super) const TAGS: Shape = Shape::List { of: &TAG, example: "[search]" };
pub(super) const RISK_LEVELS: Shape = Shape::List { of: &RISK_LEVEL, example: "[high]" };
pub(super) const RISK_LEVEL: Shape = Shape::Text(Text {
    what: "a risk level",
    example: "high",
    most: Some(RiskLevel::MAX),
    pattern: Some("^[A-Za-z0-9._-]+$"),
});
const TAG: Shape =
    Shape::Text(Text { what: "a tag", example: "search", most: Some(Tag::MAX), pattern: None });

pub(super) fn denied(
    field: &Field<'_>,
    mentions: &mut Mentions,
    found: &mut Findings,
) -> BTreeMap<ActionName, u32> {
    let mut names = BTreeMap::new();
    for (name, field) in action_names(field, found).unwrap_or_default() {
        mentions.denied(&name, &field);
        names.insert(name, field.line());
    }
    names
}

/// None only where the list is no list, which is a problem: an empty one allows nothing.
pub(super) fn allowed(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Option<Allowlist> {
    let mut names = BTreeMap::new();
    for (name, field) in action_names(field, found)? {
        mentions.allowed(&name, &field);
        names.insert(name, field.line());
    }
    Some(Allowlist { names, line: field.line() })
}

/// The actions that need a human's word.
pub(super) fn needing_approval(
    field: &Field<'_>,
    mentions: &mut Mentions,
    found: &mut Findings,
) -> BTreeMap<ActionName, u32> {
    let mut names = BTreeMap::new();
    for (name, field) in action_names(field, found).unwrap_or_default() {
        mentions.rule(&name, &field);
        names.insert(name, field.line());
    }
    names
}

/// Tags with their lines.
pub(super) fn tag_lines(field: &Field<'_>, found: &mut Findings) -> BTreeMap<Tag, u32> {
    let tags = names(field, Tag::new, found).unwrap_or_default();
    tags.into_iter().map(|(tag, field)| (tag, field.line())).collect()
}

/// Risk levels with their lines. In small letters, as upper and lower case are alike.
pub(super) fn risk_levels(field: &Field<'_>, found: &mut Findings) -> Vec<(RiskLevel, u32)> {
    let level = |text: String| RiskLevel::new(text.to_ascii_lowercase());
    let levels = names(field, level, found).unwrap_or_default();
    levels.into_iter().map(|(level, field)| (level, field.line())).collect()
}

/// The risk level of an action.
pub(super) fn risk_level(field: &Field<'_>, found: &mut Findings) -> Option<RiskLevel> {
    let scalar = field.text(found)?;
    let level =
        unambiguous(scalar).and_then(|text| RiskLevel::new(text).map_err(|error| unnameable(text, error)));
    level.map_err(|complaint| field.complain(complaint, found)).ok()
}

/// The tags of an action.
pub(super) fn tags(field: &Field<'_>, found: &mut Findings) -> Vec<Tag> {
    let tags = names(field, Tag::new, found).unwrap_or_default();
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

fn action_names<'t>(field: &Field<'t>, found: &mut Findings) -> Option<Vec<(ActionName, Field<'t>)>> {
    names(field, ActionName::new, found)
}

/// The different names of a list, with their places.
fn names<'t, N: PartialEq + Ord + Clone>(
    field: &Field<'t>,
    name: impl Fn(String) -> Result<N, NameError>,
    found: &mut Findings,
) -> Option<Vec<(N, Field<'t>)>> {
    let mut first_lines: BTreeMap<N, u32> = BTreeMap::new();
    let mut names = Vec::new();
    for field in field.items(found)? {
        let Some(scalar) = field.text(found) else { continue };
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
