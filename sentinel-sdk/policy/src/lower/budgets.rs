//! `budgets:`: what may be spent.

use sentinel_engine::{Budgets, Limit};

use crate::doubts::Mentions;
use crate::field::{Field, Keys};
use crate::lower::lists::action_name;
use crate::problem::Findings;
use crate::scalar;

const KEYS: Keys =
    Keys { known: &["session", "run", "actions"], later: &["day"], example: "{session: 5.0, run: 1.0}" };

pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Budgets {
    let mut budgets = Budgets::default();
    let Some(section) = field.section(&KEYS, found) else { return budgets };
    if let Some(field) = section.field("session") {
        budgets.session = limit(field, found);
        mentions.session_limit(field);
    }
    if let Some(field) = section.field("run") {
        budgets.run = limit(field, found);
        mentions.run_limit(field);
    }
    let actions = section.field("actions").and_then(|field| field.table("{expensive_llm: 0.50}", found));
    for (entry, field) in actions.unwrap_or_default() {
        let name = action_name(&entry.key, entry.key_place, &field.path, found);
        let limit = limit(&field, found);
        if let (Some(name), Some(limit)) = (name, limit) {
            mentions.action_limit(&name, &field);
            budgets.actions.insert(name, limit);
        }
    }
    budgets
}

fn limit(field: &Field<'_>, found: &mut Findings) -> Option<Limit> {
    scalar::money(field, found).map(|amount| Limit { amount, line: field.line() })
}
