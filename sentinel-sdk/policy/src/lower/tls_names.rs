//! `tls_names`: whether connections to hosts by name are TLS that asks for just these.
//!
//! Invariant: where it holds no host is open by what isn't looked into.

use sentinel_engine::TlsNames;

use crate::doubts::Mentions;
use crate::field::Field;
use crate::problem::{Complaint, Findings};
use crate::scalar::choice;
use crate::shape::Shape;

pub(super) const SHAPE: Shape = Shape::Word(&["enforce"]);

pub(super) const ABOUT: &str = "`enforce`: a connection to a host by name has to begin with a TLS ClientHello that asks, in the clear, for a server that the policy lists; anything else is refused. Absent: what goes through isn't looked into.";

pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> TlsNames {
    let chosen = choice(field, &[("enforce", TlsNames::Enforce)], found).unwrap_or_default();
    if chosen == TlsNames::Enforce {
        mentions.tls_names(field);
    }
    chosen
}

/// To be called when all endpoints are read.
pub(super) fn refuse_datagrams(mentions: &Mentions, found: &mut Findings) {
    for (place, path) in mentions.hosts_by_udp_under_tls() {
        let complaint = Complaint::new(
            "under `tls_names: enforce` no host can be open by UDP: QUIC and other datagrams aren't looked into",
            "name the address, or remove `/udp`",
        );
        found.problem(place, path, complaint);
    }
}
