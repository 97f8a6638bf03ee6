//! Doors that are wide, odd or open already.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use sentinel_engine::{Cidr, NamePattern, NameRule, NetworkRule, OnExhausted, Policy};

use super::{Door, Mentions, Spot, warn};
use crate::lower::{name_entry, network_entry};
use crate::problem::Findings;

/// With more endpoints of a kind than this, they are not compared with each other: that takes the square of their number.
const MAX_COMPARED: usize = 1_000;

/// A rule that opens endpoints.
trait Opens {
    /// What a message calls it.
    fn shown(&self) -> String;

    fn line(&self) -> u32;

    /// Whether whatever the other one opens is open by this one.
    fn covers(&self, narrow: &Self) -> bool;
}

impl Opens for NetworkRule {
    fn shown(&self) -> String {
        format!("`{}`", network_entry(self))
    }

    fn line(&self) -> u32 {
        self.line
    }

    fn covers(&self, narrow: &Self) -> bool {
        self.protocol == narrow.protocol
            && (self.port.is_none() || self.port == narrow.port)
            && self.cidr.prefix <= narrow.cidr.prefix
            && shared_bits(self.cidr.address, narrow.cidr.address) >= Some(u32::from(self.cidr.prefix))
    }
}

impl Opens for NameRule {
    fn shown(&self) -> String {
        let entry = name_entry(self);
        if self.allow_private { format!("`{entry}` with `allow_private`") } else { format!("`{entry}`") }
    }

    fn line(&self) -> u32 {
        self.line
    }

    fn covers(&self, narrow: &Self) -> bool {
        let covers_name = match &narrow.name {
            NamePattern::Exactly(name) => self.name.matches(name),
            NamePattern::OneBelow(_) => self.name == narrow.name,
        };
        covers_name
            && self.protocol == narrow.protocol
            && (self.port.is_none() || self.port == narrow.port)
            && (self.allow_private || !narrow.allow_private)
    }
}

pub(super) fn endpoints(policy: &Policy, mentions: &Mentions, found: &mut Findings) {
    let has_limit = policy.budgets.session.is_some() || policy.budgets.run.is_some();
    let baseline_stays = policy.on_exhausted == OnExhausted::Keep || !has_limit;
    for door in &mentions.endpoints {
        wide_or_odd(&door.rule, &door.spot, found);
    }
    needless(&mentions.endpoints, baseline_stays, found);
    needless(&mentions.names, baseline_stays, found);
}

/// Warns of doors that others open already.
fn needless<R: Opens>(doors: &[Door<R>], baseline_stays: bool, found: &mut Findings) {
    if doors.len() > MAX_COMPARED {
        return;
    }
    for door in doors {
        let Some(other) = doors.iter().find(|other| makes_needless(other, door, baseline_stays)) else {
            continue;
        };
        let message = format!("{} of line {} opens this already", other.rule.shown(), other.rule.line());
        let way_out = if other.in_baseline && !door.in_baseline {
            "remove it here, or from the baseline if only this action needs it"
        } else {
            "remove it, or the wider one if that is too wide"
        };
        warn(&door.spot, message, way_out, found);
    }
}

/// Whether a rule adds nothing to another one of its list (of two equal ones, the second) or of the baseline. A baseline
/// that closes with the budget makes no grant needless: an action in flight keeps its own doors.
fn makes_needless<R: Opens>(other: &Door<R>, door: &Door<R>, baseline_stays: bool) -> bool {
    if !other.rule.covers(&door.rule) {
        return false;
    }
    if other.spot.list() == door.spot.list() {
        return !door.rule.covers(&other.rule) || other.spot.place < door.spot.place;
    }
    baseline_stays && other.in_baseline && !door.in_baseline
}

fn wide_or_odd(rule: &NetworkRule, spot: &Spot, found: &mut Findings) {
    let Cidr { address, prefix } = rule.cidr;
    if prefix == 0 {
        let message = "this opens every address of the Internet, and this machine's own services too";
        warn(spot, message, "name the networks that are needed", found);
    } else if address.is_unspecified()
        && matches!((address, prefix), (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128))
    {
        let message = format!("`{address}` is not any address, but this machine");
        warn(spot, message, "write `0.0.0.0/0` for any IPv4 address, or `127.0.0.1` for this machine", found);
    }
}

/// How many first bits two addresses share; none for addresses of different families.
fn shared_bits(one: IpAddr, other: IpAddr) -> Option<u32> {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => Some((one.to_bits() ^ other.to_bits()).leading_zeros()),
        (IpAddr::V6(one), IpAddr::V6(other)) => Some((one.to_bits() ^ other.to_bits()).leading_zeros()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

pub(super) fn executables(mentions: &Mentions, found: &mut Findings) {
    let baseline: BTreeMap<&PathBuf, u32> = mentions
        .executables
        .iter()
        .filter(|door| door.in_baseline)
        .map(|door| (&door.rule.path, door.rule.line))
        .collect();
    for Door { rule, spot, in_baseline } in &mentions.executables {
        if rule.writable_accepted {
            let message = "the application can replace what is behind this path and run that instead";
            warn(spot, message, "use a file that only root can write, where there is one", found);
        }
        if let Some(line) = baseline.get(&rule.path).filter(|_| !in_baseline) {
            let message = format!("line {line} allows this to any action already");
            warn(spot, message, "remove it here, or from the baseline if only this action needs it", found);
        }
    }
}
