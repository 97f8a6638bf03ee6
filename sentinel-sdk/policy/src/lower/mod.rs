//! From the tree to the policy, section by section.
//!
//! Invariant: every part is read whatever is wrong with the others, so that all problems come at once. What a part with
//! problems yields never leaves this crate.

mod actions;
mod approvals;
mod budgets;
mod counts;
mod enforcement;
mod exec;
mod grants;
mod hours;
mod lists;
mod network;
pub(crate) mod path;
mod rates;
mod tls_names;
mod zone;

use sentinel_engine::Policy;

use crate::doubts::{self, Mentions};
use crate::field::{Document, Field};
use crate::problem::{Complaint, Findings};
use crate::quoted::Quoted;
use crate::scalar;
use crate::shape::{Key, Keys, Needed, Shape};
use crate::tree::{Node, Value};

pub use network::{name_entry, network_entry};

/// What a policy is.
pub(crate) static POLICY: Document = Document { called: "a policy", shape: Shape::Section(&KEYS) };

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "budgets",
            about: "What may be spent, in dollars. An absent limit limits nothing.",
            shape: budgets::SHAPE,
        },
        Key {
            name: "denied_actions",
            about: "Actions that never run, whatever else the policy says.",
            shape: lists::DENIED,
        },
        Key {
            name: "allowed_actions",
            about: "The only actions that may run. Absent: any; an empty list: none.",
            shape: lists::ALLOWED,
        },
        Key { name: "rate_limits", about: "How often single actions may start.", shape: rates::SHAPE },
        Key {
            name: "limits",
            about: "How many starts there may be, whatever the action.",
            shape: counts::SHAPE,
        },
        Key { name: "hours", about: "When actions may start. Absent: always.", shape: hours::SHAPE },
        Key {
            name: "strict_mode",
            about: "Whether a broken rule stops the action. `false`: it is only recorded as `warned`; but `denied_actions`, approvals and the agent's own quotas still stop it, and the kernel still refuses.",
            shape: Shape::Truth,
        },
        Key {
            name: "approvals",
            about: "Which actions need a human's word before they start: those that any of the criteria fits; without any criterion, all.",
            shape: approvals::SHAPE,
        },
        Key { name: "actions", about: "What is said of single actions.", shape: actions::SHAPE },
        Key {
            name: "enforcement",
            about: "What the kernel holds the session to, and what is open to it without any action.",
            shape: enforcement::SHAPE,
        },
        Key { name: "tls_names", about: tls_names::ABOUT, shape: tls_names::SHAPE },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "budgets: {session: 5.0}",
};

/// The policy that the tree says; not to be used if anything was wrong.
pub(crate) fn policy(root: &Node, found: &mut Findings) -> Policy {
    let mut policy = Policy::empty();
    let mut mentions = Mentions::default();
    let root = Field::root(root, &POLICY);
    if let Value::Scalar(text) = &root.node.value {
        let complaint = Complaint::new(
            format!("the file is the single value {}, not a mapping", Quoted(&text.text)),
            "write `key: value` with a space behind each colon",
        );
        root.complain(complaint, found);
        return policy;
    }
    let Some(section) = root.section(found) else { return policy };
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
        policy.strict = strict_mode(field, found);
    }
    if let Some(field) = section.field("limits") {
        policy.limits = counts::of_session(field, found);
    }
    if let Some(field) = section.field("hours") {
        policy.hours = hours::read(field, found);
    }
    if let Some(field) = section.field("approvals") {
        policy.approvals = approvals::read(field, &mut mentions, found);
    }
    if let Some(field) = section.field("enforcement") {
        enforcement::read(field, &mut policy, &mut mentions, found);
    }
    if let Some(field) = section.field("actions") {
        actions::read(field, &mut policy, &mut mentions, found);
    }
    if let Some(field) = section.field("tls_names") {
        policy.tls_names = tls_names::read(field, &mut mentions, found);
        tls_names::refuse_datagrams(&mentions, found);
    }
    doubts::look(&policy, &mentions, found);
    policy
}

fn strict_mode(field: &Field<'_>, found: &mut Findings) -> bool {
    let is_strict = scalar::truth(field, found).unwrap_or(true);
    if !is_strict {
        let complaint = Complaint::new(
            "with `strict_mode: false` a broken rule is only recorded as `warned`, and the action goes on",
            "write `strict_mode: true` once the records are as expected; until then `denied_actions`, approvals and the agent's own quotas still stop an action, and the kernel still refuses",
        );
        found.warning(field.place(), &field.path, complaint);
    }
    is_strict
}
