//! `enforcement:`: what the kernel holds a session to, and what is open without any action.

use std::path::PathBuf;

use sentinel_engine::{Mode, OnExhausted, Policy};

use crate::doubts::Mentions;
use crate::field::{Field, Keys};
use crate::lower::path::{PathKind, absolute};
use crate::lower::{exec, network};
use crate::problem::{Complaint, Findings};
use crate::scalar::choice;

const KEYS: Keys = Keys {
    known: &["mode", "on_exhausted", "network", "exec", "unix"],
    later: &[],
    example: "{mode: enforce, network: {allow: ['127.0.0.1:8080']}}",
};
const NETWORK_KEYS: Keys =
    Keys { known: &["allow"], later: &["listen"], example: "{allow: ['127.0.0.1:8080']}" };
const EXEC_KEYS: Keys =
    Keys { known: &["allow", "libraries"], later: &[], example: "{allow: [/usr/bin/python3.11]}" };
const UNIX_KEYS: Keys =
    Keys { known: &["allow"], later: &[], example: "{allow: [/run/postgresql/.s.PGSQL.5432]}" };

pub(super) fn read(field: &Field<'_>, policy: &mut Policy, mentions: &mut Mentions, found: &mut Findings) {
    let Some(section) = field.section(&KEYS, found) else { return };
    if let Some(field) = section.field("mode") {
        let mode = choice(field, &[("enforce", Mode::Enforce), ("audit", Mode::Audit)], found);
        policy.mode = mode.unwrap_or_default();
        if mode == Some(Mode::Audit) {
            let complaint = Complaint::new(
                "the kernel refuses nothing in mode `audit`: it only records what it would have refused",
                "write `mode: enforce` once the records are as expected",
            );
            found.warning(field.place(), &field.path, complaint);
        }
    }
    if let Some(field) = section.field("on_exhausted") {
        let chosen = choice(field, &[("close", OnExhausted::Close), ("keep", OnExhausted::Keep)], found);
        policy.on_exhausted = chosen.unwrap_or_default();
    }
    let mut baseline = policy.grants.first().cloned().unwrap_or_default();
    mentions.enter_baseline();
    if let Some(section) = section.field("network").and_then(|field| field.section(&NETWORK_KEYS, found))
        && let Some(field) = section.field("allow")
    {
        baseline.network = network::read(field, mentions, found);
    }
    if let Some(section) = section.field("exec").and_then(|field| field.section(&EXEC_KEYS, found)) {
        if let Some(field) = section.field("allow") {
            baseline.exec = exec::read(field, mentions, found);
        }
        if let Some(field) = section.field("libraries") {
            policy.exec_libraries = paths(field, PathKind::Folder, "[/home/app/.venv]", found);
            warn_of_libraries(field, &policy.exec_libraries, found);
        }
    }
    mentions.leave_baseline();
    if let Some(section) = section.field("unix").and_then(|field| field.section(&UNIX_KEYS, found))
        && let Some(field) = section.field("allow")
    {
        policy.unix_allow = paths(field, PathKind::Socket, "[/run/postgresql/.s.PGSQL.5432]", found);
    }
    policy.grants = vec![baseline];
}

fn warn_of_libraries(field: &Field<'_>, libraries: &[PathBuf], found: &mut Findings) {
    if !libraries.is_empty() {
        let complaint = Complaint::new(
            "`libraries` matters only where BPF LSM is active; elsewhere a process may load any library",
            "count on `exec.allow` alone on a host of tier `kill`",
        );
        found.warning(field.label, &field.path, complaint);
    }
}

/// A list of paths, each once.
fn paths(field: &Field<'_>, kind: PathKind, example: &str, found: &mut Findings) -> Vec<PathBuf> {
    let sample = example.trim_matches(['[', ']']);
    let mut paths: Vec<PathBuf> = Vec::new();
    for field in field.items(example, found).unwrap_or_default() {
        let Some(scalar) = field.scalar("a path", sample, found) else { continue };
        match absolute(&scalar.text, kind) {
            Ok(path) if paths.contains(&path) => {
                found.warning(
                    field.place(),
                    &field.path,
                    Complaint::new("the path is in this list already", "remove one"),
                );
            }
            Ok(path) => paths.push(path),
            Err(complaint) => field.complain(complaint, found),
        }
    }
    paths
}
