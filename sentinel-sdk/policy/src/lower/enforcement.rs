//! `enforcement:`: what the kernel holds a session to, and what is open without any action.

use std::path::PathBuf;

use sentinel_engine::{Mode, OnExhausted, Policy};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::network::Destinations;
use crate::lower::path::{PathKind, absolute, path_shape};
use crate::lower::{exec, network};
use crate::problem::{Complaint, Findings};
use crate::scalar::choice;
use crate::shape::{Key, Keys, Needed, Shape};

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "mode",
            about: "`enforce`: the kernel refuses. `audit`: it only records what it would have refused.",
            shape: Shape::Word(&["enforce", "audit"]),
        },
        Key {
            name: "on_exhausted",
            about: "What a spent budget of session, run or day does to the network that is open without any action: `close` or `keep`.",
            shape: Shape::Word(&["close", "keep"]),
        },
        Key {
            name: "network",
            about: "Where to connections may go, and where they may come in.",
            shape: Shape::Section(&NETWORK_KEYS),
        },
        Key { name: "exec", about: "What may be executed.", shape: Shape::Section(&EXEC_KEYS) },
        Key {
            name: "unix",
            about: "Which Unix sockets may be connected to.",
            shape: Shape::Section(&UNIX_KEYS),
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{mode: enforce, network: {allow: ['127.0.0.1:8080']}}",
};

const NETWORK_KEYS: Keys = Keys {
    known: &[
        Key { name: "allow", about: network::ABOUT, shape: network::SHAPE },
        Key { name: "listen", about: network::ABOUT_LISTEN, shape: network::LISTEN },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{allow: ['127.0.0.1:8080']}",
};

const EXEC_KEYS: Keys = Keys {
    known: &[
        Key { name: "allow", about: "Files that may be executed.", shape: exec::SHAPE },
        Key {
            name: "libraries",
            about: "Trees whose files may be mapped executable, besides root-owned ones. Matters only where BPF LSM is active.",
            shape: Shape::List { of: &path_shape("/home/app/.venv"), example: "[/home/app/.venv]" },
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{allow: [/usr/bin/python3.11]}",
};

const UNIX_KEYS: Keys = Keys {
    known: &[Key {
        name: "allow",
        about: "Absolute paths of sockets.",
        shape: Shape::List {
            of: &path_shape("/run/postgresql/.s.PGSQL.5432"),
            example: "[/run/postgresql/.s.PGSQL.5432]",
        },
    }],
    needed: Needed::Nothing,
    later: &[],
    example: "{allow: [/run/postgresql/.s.PGSQL.5432]}",
};

pub(super) fn read(field: &Field<'_>, policy: &mut Policy, mentions: &mut Mentions, found: &mut Findings) {
    let Some(section) = field.section(found) else { return };
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
    if let Some(section) = section.field("network").and_then(|field| field.section(found)) {
        if let Some(field) = section.field("allow") {
            let Destinations { network, names } = network::read(field, mentions, found);
            (baseline.network, baseline.names) = (network, names);
        }
        if let Some(field) = section.field("listen") {
            baseline.listen = network::read_listen(field, found);
        }
    }
    if let Some(section) = section.field("exec").and_then(|field| field.section(found)) {
        if let Some(field) = section.field("allow") {
            baseline.exec = exec::read(field, mentions, found);
        }
        if let Some(field) = section.field("libraries") {
            policy.exec_libraries = paths(field, PathKind::Folder, found);
            warn_of_libraries(field, &policy.exec_libraries, found);
        }
    }
    mentions.leave_baseline();
    if let Some(section) = section.field("unix").and_then(|field| field.section(found))
        && let Some(field) = section.field("allow")
    {
        policy.unix_allow = paths(field, PathKind::Socket, found);
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
fn paths(field: &Field<'_>, kind: PathKind, found: &mut Findings) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for field in field.items(found).unwrap_or_default() {
        let Some(scalar) = field.text(found) else { continue };
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
