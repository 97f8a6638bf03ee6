//! Executables: an absolute path, or `{path: …, writable: accept}`.

use sentinel_engine::ExecRule;

use crate::doubts::Mentions;
use crate::field::{Field, Keys};
use crate::lower::path::{PathKind, absolute};
use crate::problem::{Complaint, Findings};
use crate::scalar::choice;
use crate::tree::Value;

const KEYS: Keys = Keys {
    known: &["path", "writable"],
    later: &[],
    example: "{path: /home/app/.venv/bin/python, writable: accept}",
};

/// The rules of a list, each once.
pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Vec<ExecRule> {
    let mut rules: Vec<ExecRule> = Vec::new();
    for field in field.items("[/usr/bin/make]", found).unwrap_or_default() {
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
    let problems_before = found.problem_count();
    let section = field.section(&KEYS, found)?;
    if found.problem_count() > problems_before {
        // A misspelt key: whether another one is missing can't be said.
        return None;
    }
    let writable = section.field("writable").map(|field| choice(field, &[("accept", true)], found));
    let Some(path) = section.field("path") else {
        let complaint = Complaint::new("the entry names no path", format!("write `{}`", KEYS.example));
        field.complain(complaint, found);
        return None;
    };
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
    let scalar = path.scalar("a path", "/usr/bin/make", found)?;
    let absolute = absolute(&scalar.text, PathKind::Executable);
    let file = absolute.map_err(|complaint| path.complain(complaint, found)).ok()?;
    Some(ExecRule { path: file, writable_accepted, line: entry.line() })
}
