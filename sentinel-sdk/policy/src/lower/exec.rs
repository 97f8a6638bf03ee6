//! Executables: an absolute path, or `{path: …, writable: accept}`.

use sentinel_engine::ExecRule;

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::path::{PathKind, absolute, path_shape};
use crate::problem::{Complaint, Findings};
use crate::scalar::choice;
use crate::shape::{Key, Keys, Needed, Shape};
use crate::tree::Value;

pub(super) const SHAPE: Shape = Shape::List { of: &ENTRY, example: "[/usr/bin/make]" };

const ENTRY: Shape = Shape::Either(&[PATH, Shape::Section(&KEYS)]);
const PATH: Shape = path_shape("/usr/bin/make");

const KEYS: Keys = Keys {
    known: &[
        Key { name: "path", about: "The file's absolute path.", shape: PATH },
        Key {
            name: "writable",
            about: "`accept`: also where the session's own user can write the file, and so replace it.",
            shape: Shape::Word(&["accept"]),
        },
    ],
    needed: Needed::Each(&["path"]),
    later: &[],
    example: "{path: /home/app/.venv/bin/python, writable: accept}",
};

/// The rules of a list, each once.
pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Vec<ExecRule> {
    let mut rules: Vec<ExecRule> = Vec::new();
    for field in field.items(found).unwrap_or_default() {
        let Some(rule) = entry(&field, found) else { continue };
        match rules.iter().find(|earlier| earlier.path == rule.path) {
            Some(earlier) if earlier.writable_accepted == rule.writable_accepted => {
                let message = format!("the path is in this list already, on line {}", earlier.line);
                found.warning(field.place(), &field.path, Complaint::new(message, "remove one of the two"));
            }
            Some(earlier) => {
                let message = format!(
                    "the path is in this list with and without `writable: accept`, see line {}",
                    earlier.line
                );
                field.complain(Complaint::new(message, "remove the one that isn't meant"), found);
            }
            None => {
                mentions.executable(&rule, &field);
                rules.push(rule);
            }
        }
    }
    rules
}

fn entry(field: &Field<'_>, found: &mut Findings) -> Option<ExecRule> {
    match &field.node.value {
        Value::Map(_) => with_options(field, found),
        Value::Scalar(_) | Value::List(_) | Value::Reported => rule(field, field, false, found),
    }
}

fn with_options(field: &Field<'_>, found: &mut Findings) -> Option<ExecRule> {
    let section = field.section(found)?;
    let writable = section.field("writable").map(|field| choice(field, &[("accept", true)], found));
    let path = section.field("path")?;
    let accepted = match writable {
        Some(accepted) => accepted?,
        None => false,
    };
    rule(field, path, accepted, found)
}

fn rule(
    entry: &Field<'_>,
    path: &Field<'_>,
    writable_accepted: bool,
    found: &mut Findings,
) -> Option<ExecRule> {
    let scalar = path.text(found)?;
    let absolute = absolute(&scalar.text, PathKind::Executable);
    let file = absolute.map_err(|complaint| path.complain(complaint, found)).ok()?;
    Some(ExecRule { path: file, writable_accepted, line: entry.line() })
}
