//! An agent's own configuration: what it demands of its host, which cgroups it governs without having started what is in them, and whom it asks for names.
//!
//! ```yaml
//! minimum_tier: kill
//! bind:
//!   - {unit: web-agent.service, policy: web, user: web-agent}
//!   - {cgroup: /batch/agents, policy: batch, user: batch, session: nightly}
//! resolver: {upstreams: ['192.0.2.53', 'tls://192.0.2.54#dns.example'], timeout_seconds: 2}
//! ```
//!
//! Invariant: as for a policy: a text in which anything was misunderstood configures nothing, and all problems are told at once.

use std::path::PathBuf;

use sentinel_proto::{SessionName, is_visible};

use crate::field::{Document, Field};
use crate::lower::path::{PathKind, absolute, path_shape};
use crate::problem::{Complaint, Findings, Problems, Warnings};
use crate::quoted::Quoted;
use crate::scalar::choice;
use crate::shape::{Key, Keys, Needed, Shape, Text};
use crate::upstreams::{RESOLVER_KEYS, resolver};
use crate::{build, source};

pub use crate::upstreams::{Resolver, Upstream};

static CONFIGURATION: Document = Document { called: "the configuration", shape: Shape::Section(&KEYS) };

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "minimum_tier",
            about: "The least that the host has to enforce for the agent to start: `kill` or `lsm`.",
            shape: Shape::Word(&["kill", "lsm"]),
        },
        Key {
            name: "bind",
            about: "Cgroups that are governed with all that runs in them, whoever started it.",
            shape: Shape::List {
                of: &Shape::Section(&BINDING_KEYS),
                example: "[{unit: web-agent.service, policy: web, user: web-agent}]",
            },
        },
        Key {
            name: "resolver",
            about: "How the names that sessions ask for are resolved.",
            shape: Shape::Section(&RESOLVER_KEYS),
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "minimum_tier: kill",
};

const BINDING_KEYS: Keys = Keys {
    known: &[
        Key {
            name: "unit",
            about: "A systemd service of `system.slice`; or give `cgroup`.",
            shape: Shape::Text(Text {
                what: "a unit's name",
                example: "web-agent.service",
                most: Some(MAX_UNIT_BYTES),
                pattern: None,
            }),
        },
        Key {
            name: "cgroup",
            about: "A cgroup's path below the root of cgroup2, as in `/proc/PID/cgroup`; or give `unit`.",
            shape: path_shape("/batch/agents"),
        },
        Key {
            name: "policy",
            about: "The policy's name.",
            shape: Shape::Text(Text { what: "a policy's name", example: "web", most: None, pattern: None }),
        },
        Key {
            name: "user",
            about: "Whom its processes run as, by name or uid; never root.",
            shape: Shape::Text(Text { what: "a user", example: "web-agent", most: None, pattern: None }),
        },
        Key {
            name: "session",
            about: "The session's name. Absent: that of the unit or cgroup.",
            shape: Shape::Text(Text {
                what: "a session's name",
                example: "web-agent",
                most: Some(64),
                pattern: None,
            }),
        },
    ],
    needed: Needed::Each(&["policy", "user"]),
    later: &[],
    example: "{unit: web-agent.service, policy: web, user: web-agent}",
};

/// The longest name of a unit that systemd takes.
const MAX_UNIT_BYTES: usize = 255;

/// A tier that a host can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MinimumTier {
    /// Network before the packet; a forbidden image is killed before its first instruction.
    Kill,
    /// Everything is refused before it happens.
    Lsm,
}

/// A cgroup that is governed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its path below the root of cgroup2, with a leading `/`.
    pub cgroup: PathBuf,
    /// The policy's name.
    pub policy: String,
    /// The user's name or uid, as written.
    pub user: String,
    /// The session's name.
    pub session: SessionName,
    /// The line of the configuration.
    pub line: u32,
}

/// What an agent is configured with. The default is an absent file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The least that the host has to enforce; none: whatever it can, but not nothing.
    pub minimum_tier: Option<MinimumTier>,
    /// What is governed besides what operators start.
    pub bind: Vec<Binding>,
    /// How the sessions' names are resolved.
    pub resolver: Resolver,
}

/// Reads a configuration from a file's bytes. Render its problems against [`String::from_utf8_lossy`] of the bytes.
///
/// # Errors
/// Every problem of the text, sorted by place; never none.
pub fn parse(bytes: &[u8]) -> Result<(Configuration, Warnings), Problems> {
    let text = source::decoded(bytes).map_err(Problems::one)?;
    let mut found = Findings::default();
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let read = source::checked(text, &mut found).and_then(|text| {
        if is_empty {
            return Some(Configuration::default());
        }
        build::tree(text, &mut found)
            .map(|root| configuration(&Field::root(&root, &CONFIGURATION), &mut found))
    });
    found.conclude(read)
}

fn configuration(root: &Field<'_>, found: &mut Findings) -> Configuration {
    let mut configuration = Configuration::default();
    let Some(section) = root.section(found) else { return configuration };
    if let Some(field) = section.field("minimum_tier") {
        configuration.minimum_tier =
            choice(field, &[("kill", MinimumTier::Kill), ("lsm", MinimumTier::Lsm)], found);
    }
    if let Some(read) = section.field("resolver").and_then(|field| resolver(field, found)) {
        configuration.resolver = read;
    }
    for field in section.field("bind").and_then(|field| field.items(found)).unwrap_or_default() {
        let Some(binding) = binding(&field, found) else { continue };
        let clash = configuration.bind.iter().find_map(|earlier| clash(earlier, &binding));
        match clash {
            Some(complaint) => field.complain(complaint, found),
            None => configuration.bind.push(binding),
        }
    }
    configuration
}

/// Why two bindings can't both be.
fn clash(earlier: &Binding, later: &Binding) -> Option<Complaint> {
    let line = earlier.line;
    if earlier.cgroup.starts_with(&later.cgroup) || later.cgroup.starts_with(&earlier.cgroup) {
        let message = format!(
            "`{}` is the cgroup of the entry on line {line}, or one of the two holds the other",
            later.cgroup.display()
        );
        return Some(Complaint::new(message, "bind cgroups that stand apart"));
    }
    (earlier.session == later.session).then(|| {
        let message = format!("the entry on line {line} has the session `{}` too", later.session);
        Complaint::new(message, "give one of them another `session`")
    })
}

fn binding(field: &Field<'_>, found: &mut Findings) -> Option<Binding> {
    let section = field.section(found)?;
    let cgroup = match (section.field("unit"), section.field("cgroup")) {
        (Some(unit), None) => named(unit, found, unit_cgroup),
        (None, Some(cgroup)) => named(cgroup, found, |path| absolute(path, PathKind::Cgroup)),
        (Some(_), Some(second)) => {
            let complaint = Complaint::new("`unit` and `cgroup` both stand here", "keep one of them");
            second.complain(complaint, found);
            None
        }
        (None, None) => {
            let complaint = Complaint::new(
                "it isn't said what is bound",
                "write `unit: NAME.service`, or `cgroup: /PATH`",
            );
            field.complain(complaint, found);
            None
        }
    };
    let policy = section.field("policy").and_then(|field| named(field, found, plain));
    let user = section.field("user").and_then(|field| named(field, found, user));
    let session = match section.field("session") {
        Some(field) => named(field, found, |text| session_name(text, "write letters, digits and `. _ -`")),
        None => cgroup.as_ref().and_then(|cgroup| {
            let last = cgroup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let last = last.strip_suffix(".service").unwrap_or(last);
            session_name(last, "give it a `session`")
                .map_err(|complaint| field.complain(complaint, found))
                .ok()
        }),
    };
    Some(Binding { cgroup: cgroup?, policy: policy?, user: user?, session: session?, line: field.line() })
}

fn named<T>(
    field: &Field<'_>,
    found: &mut Findings,
    read: impl FnOnce(&str) -> Result<T, Complaint>,
) -> Option<T> {
    let scalar = field.text(found)?;
    read(&scalar.text).map_err(|complaint| field.complain(complaint, found)).ok()
}

fn unit_cgroup(unit: &str) -> Result<PathBuf, Complaint> {
    // As systemd has it (systemd.unit(5)); an escaped name holds `\`.
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if !unit.ends_with(".service") || unit.len() > MAX_UNIT_BYTES || !unit.chars().all(is_known) {
        let message = format!("{} is not the name of a service", Quoted(unit));
        return Err(Complaint::new(
            message,
            "write it whole, such as `web-agent.service`; other units by `cgroup`",
        ));
    }
    Ok(PathBuf::from("/system.slice").join(unit))
}

fn session_name(text: &str, way_out: &str) -> Result<SessionName, Complaint> {
    SessionName::new(text).map_err(|error| {
        Complaint::new(format!("{} can't be a session's name: {error}", Quoted(text)), way_out)
    })
}

fn plain(text: &str) -> Result<String, Complaint> {
    if text.is_empty() || text.contains('/') || text.chars().any(|character| !is_visible(character)) {
        let message = format!("{} is not the name of a policy", Quoted(text));
        return Err(Complaint::new(message, "write the name of its file without `.yaml`"));
    }
    Ok(text.to_owned())
}

fn user(text: &str) -> Result<String, Complaint> {
    if text == "root" || text == "0" {
        return Err(Complaint::new(
            "a bound cgroup can't be root's: root leaves every cgroup and writes every map",
            "run it as a user of its own (`User=` in the unit), and name that one",
        ));
    }
    if text.is_empty() || text.chars().any(|character| !is_visible(character) || character.is_whitespace()) {
        let message = format!("{} is not the name of a user", Quoted(text));
        return Err(Complaint::new(message, "write a name or a uid"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Configuration {
        parse(text.as_bytes()).unwrap().0
    }

    fn problems(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_file_without_a_word_demands_nothing() {
        for text in ["", "\n", "# minimum_tier: lsm\n", "{}"] {
            assert_eq!(read(text), Configuration::default(), "{text:?}");
        }
    }

    #[test]
    fn a_unit_is_its_cgroup_in_the_system_slice_and_names_the_session() {
        let configuration =
            read("minimum_tier: lsm\nbind:\n  - {unit: web-agent.service, policy: web, user: web}\n");
        assert_eq!(configuration.minimum_tier, Some(MinimumTier::Lsm));
        assert_eq!(configuration.bind.len(), 1);
        let binding = &configuration.bind[0];
        assert_eq!(binding.cgroup, PathBuf::from("/system.slice/web-agent.service"));
        assert_eq!(binding.session.as_str(), "web-agent");
        assert_eq!((binding.policy.as_str(), binding.user.as_str(), binding.line), ("web", "web", 3));
    }

    #[test]
    fn a_cgroup_is_bound_by_its_path_under_a_name_of_its_own() {
        let configuration =
            read("bind: [{cgroup: /batch/agents, policy: a, user: '1001', session: nightly}]");
        assert_eq!(configuration.bind.len(), 1);
        let binding = &configuration.bind[0];
        assert_eq!(binding.cgroup, PathBuf::from("/batch/agents"));
        assert_eq!(binding.session.as_str(), "nightly");
    }

    #[test]
    fn every_problem_is_told_at_its_place() {
        let told = problems(
            "minimum_tier: audit\nbinds: []\nbind:\n  - {unit: x, policy: a, user: u}\n  - {unit: a.service, cgroup: /a, policy: a, user: u}\n  - {policy: a/b, user: root}\n",
        );
        for part in [
            "line 1, column 15: minimum_tier: `audit` is not known here",
            "line 2, column 1: binds: `binds` is no key of the configuration",
            "bind[0].unit: `x` is not the name of a service",
            "bind[1].cgroup: `unit` and `cgroup` both stand here",
            "bind[2]: it isn't said what is bound",
            "bind[2].policy: `a/b` is not the name of a policy",
            "bind[2].user: a bound cgroup can't be root's",
        ] {
            assert!(told.contains(part), "{part} is missing in\n{told}");
        }
    }

    #[test]
    fn one_cgroup_has_one_session_and_one_session_one_cgroup() {
        let nested = "bind:\n  - {cgroup: /a, policy: p, user: u}\n  - {cgroup: /a/b, policy: p, user: u}\n";
        assert!(problems(nested).contains("one of the two holds the other"));
        let same_name = "bind:\n  - {cgroup: /a, policy: p, user: u, session: s}\n  - {cgroup: /b, policy: p, user: u, session: s}\n";
        assert!(problems(same_name).contains("has the session `s` too"));
        let apart = "bind:\n  - {cgroup: /a, policy: p, user: u}\n  - {cgroup: /ab, policy: p, user: u}\n";
        assert_eq!(read(apart).bind.len(), 2);
    }
}
