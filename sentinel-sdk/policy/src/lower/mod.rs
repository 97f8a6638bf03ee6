//! From the tree to the policy, section by section.
//!
//! Invariant: every part is read whatever is wrong with the others, so that all problems come at once. What a part with
//! problems yields never leaves this crate.

mod actions;
mod budgets;
mod enforcement;
mod exec;
mod grants;
mod lists;
mod network;
mod path;
mod rates;

use sentinel_engine::Policy;

use crate::doubts::{self, Mentions};
use crate::field::{Field, Keys};
use crate::problem::{Complaint, Findings};
use crate::quoted::Quoted;
use crate::scalar;
use crate::tree::{Node, Value};

pub use network::network_entry;

const KEYS: Keys = Keys {
    known: &[
        "budgets",
        "denied_actions",
        "allowed_actions",
        "rate_limits",
        "strict_mode",
        "actions",
        "enforcement",
    ],
    later: &["approvals"],
    example: "budgets: {session: 5.0}",
};

/// The policy that the tree says; not to be used if anything was wrong.
pub(crate) fn policy(root: &Node, found: &mut Findings) -> Policy {
    let mut policy = Policy::empty();
    let mut mentions = Mentions::default();
    let root = Field::root(root);
    if let Value::Scalar(text) = &root.node.value {
        let complaint = Complaint::new(
            format!("the file is the single value {}, not a mapping", Quoted(&text.text)),
            "write `key: value` with a space behind each colon",
        );
        root.complain(complaint, found);
        return policy;
    }
    let Some(section) = root.section(&KEYS, found) else { return policy };
    if let Some(field) = section.field("budgets") {
        policy.budgets = budgets::read(field, &mut mentions, found);
    }
    if let Some(field) = section.field("denied_actions") {
        policy.denied = lists::denied(field, &mut mentions, found);
    }
    if let Some(field) = section.field("allowed_actions") {
        policy.allowed = lists::allowed(field, &mut mentions, found);
    }
    if let Some(field) = section.field("rate_limits") {
        policy.rates = rates::read(field, &mut mentions, found);
    }
    if let Some(field) = section.field("strict_mode") {
        strict_mode(field, found);
    }
    if let Some(field) = section.field("enforcement") {
        enforcement::read(field, &mut policy, &mut mentions, found);
    }
    if let Some(field) = section.field("actions") {
        actions::read(field, &mut policy, &mut mentions, found);
    }
    doubts::look(&policy, &mentions, found);
    policy
}

/// Nothing but `true` can be kept to: a violation always stops the action.
fn strict_mode(field: &Field<'_>, found: &mut Findings) {
    if scalar::truth(field, found) == Some(false) {
        let complaint = Complaint::new(
            "`strict_mode: false` is not supported by this version",
            "write `strict_mode: true`, or leave the key out, which means the same; `enforcement: {mode: audit}` makes the kernel record without refusing",
        );
        field.complain(complaint, found);
    }
}
