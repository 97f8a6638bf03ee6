//! `grants:` of an action, and their numbers.
//!
//! Invariant: equal sets of doors share a number whatever their order, different ones never do; number 0 is the
//! baseline, and no number is above 63.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sentinel_engine::{Cidr, Grant, MAX_GRANTS, NamePattern, NetworkRule, Protocol};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::network::Destinations;
use crate::lower::{exec, network};
use crate::problem::{Complaint, Findings};
use crate::scalar::truth;
use crate::shape::{Key, Keys, Needed, Shape};

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

const KEYS: Keys = Keys {
    known: &[
        Key { name: "network", about: network::ABOUT, shape: network::SHAPE },
        Key { name: "listen", about: network::ABOUT_LISTEN, shape: network::LISTEN },
        Key {
            name: "keep_alive",
            about: "`true`: connections outlive the action, for the next one with equal grants of the same process to use. Nothing leaves by them in between.",
            shape: Shape::Truth,
        },
        Key { name: "exec", about: "Files that may be executed.", shape: exec::SHAPE },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{network: ['192.0.2.10:443'], exec: [/usr/bin/make]}",
};

/// What a grant opens, without order and lines.
type Doors = (Endpoints, Names, BTreeSet<(PathBuf, bool)>, Endpoints, bool);
type Endpoints = BTreeSet<(Protocol, Cidr, Option<u16>)>;
/// Each with whether it may stand for a private address.
type Names = BTreeSet<(Protocol, NamePattern, Option<u16>, bool)>;

/// The grants so far.
pub(super) struct Grants {
    grants: Vec<Grant>,
    indices: BTreeMap<Doors, usize>,
}

impl Grants {
    /// Grants that come behind those: the baseline.
    pub(super) fn behind(baseline: Vec<Grant>) -> Self {
        Self { grants: baseline, indices: BTreeMap::new() }
    }

    pub(super) fn finish(self) -> Vec<Grant> {
        self.grants
    }

    /// The number of an action's grant; none if it opens nothing beyond the baseline.
    pub(super) fn read(
        &mut self,
        field: &Field<'_>,
        mentions: &mut Mentions,
        found: &mut Findings,
    ) -> Option<usize> {
        let problems_before = found.problem_count();
        let section = field.section(found)?;
        let network = section.field("network").map(|field| network::read(field, mentions, found));
        let exec = section.field("exec").map(|field| exec::read(field, mentions, found));
        let listen = section.field("listen").map(|field| network::read_listen(field, found));
        let keep_alive = section.field("keep_alive").map(|field| (truth(field, found), field));
        if found.problem_count() > problems_before {
            return None;
        }
        let Destinations { network, names } = network.unwrap_or_default();
        let mut grant = Grant {
            network,
            names,
            exec: exec.unwrap_or_default(),
            listen: listen.unwrap_or_default(),
            keep_alive: false,
        };
        if let Some((Some(true), field)) = keep_alive {
            grant.keep_alive =
                !(grant.network.is_empty() && grant.names.is_empty() && grant.listen.is_empty());
            if !grant.keep_alive {
                let complaint = Complaint::new(
                    "without `network` or `listen` there is no connection to keep alive",
                    "name endpoints, or remove it",
                );
                found.warning(field.label, &field.path, complaint);
            }
        }
        self.index_of(grant, field, found)
    }

    fn index_of(&mut self, grant: Grant, field: &Field<'_>, found: &mut Findings) -> Option<usize> {
        if grant == Grant::default() {
            return None;
        }
        let endpoints = |rules: &[NetworkRule]| {
            rules.iter().map(|rule| (rule.protocol, rule.cidr, rule.port)).collect::<Endpoints>()
        };
        let doors: Doors = (
            endpoints(&grant.network),
            grant
                .names
                .iter()
                .map(|rule| (rule.protocol, rule.name.clone(), rule.port, rule.allow_private))
                .collect(),
            grant.exec.iter().map(|rule| (rule.path.clone(), rule.writable_accepted)).collect(),
            endpoints(&grant.listen),
            grant.keep_alive,
        );
        if let Some(index) = self.indices.get(&doors) {
            return Some(*index);
        }
        let index = self.grants.len();
        if index > MAX_GRANTS {
            let complaint = Complaint::new(
                format!("this is the grant number {index}; a policy has at most {MAX_GRANTS} different ones"),
                "give actions that open nearly the same doors equal grants, which count once",
            );
            found.problem(field.label, &field.path, complaint);
        }
        self.indices.insert(doors, index);
        self.grants.push(grant);
        Some(index)
    }
}
