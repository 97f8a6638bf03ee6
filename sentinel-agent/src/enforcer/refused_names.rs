//! Names that were not resolved, in words, with the policy text that would allow it.
//!
//! Invariant: what a program asked for stands here in printable characters only.

use sentinel_ebpf_common::BASELINE;
use sentinel_engine::{Attempt, Mode};

use super::records::{Circumstances, printable};
use super::suggestion::{self, Entry};

/// A name that was not resolved.
#[derive(Clone, Copy, Debug)]
pub struct NameRefused<'a> {
    /// It, or what was asked for in its place.
    pub target: &'a str,
    /// Why: `no_rule`, `door_closed`, `private_address`, `limited` or `no_host_name`.
    pub verdict: &'a str,
    /// The grants that list it.
    pub bits: u64,
    /// Whether it is its addresses that no rule allows.
    pub private: bool,
}

/// Says it like [`records::describe`](super::records::describe) says what the kernel side refused.
#[must_use]
pub fn describe(refused: &NameRefused<'_>, pid: u32, around: &Circumstances<'_>) -> Attempt {
    let entry = match (refused.verdict, refused.private) {
        ("no_rule" | "door_closed", _) => Some(Entry::Host(refused.target.to_owned())),
        _ => None,
    };
    let audits = around.policy.mode == Mode::Audit;
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    Attempt {
        operation: "resolve".to_owned(),
        target: printable(refused.target),
        verdict: refused.verdict.to_owned(),
        fate: if audits { "recorded" } else { "refused" }.to_owned(),
        process: printable(String::from_utf8_lossy(&comm).trim_end()),
        pid,
        would_allow: entry.map(|entry| would_allow(refused.bits, around, &entry)),
    }
}

fn would_allow(bits: u64, around: &Circumstances<'_>, entry: &Entry) -> String {
    if bits & BASELINE != 0 {
        return suggestion::keep_when_exhausted();
    }
    let opened_by = suggestion::actions_that_open(around.policy, bits);
    suggestion::allow(entry, &around.in_flight, &opened_by)
}
