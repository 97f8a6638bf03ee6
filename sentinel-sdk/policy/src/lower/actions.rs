//! `actions:`: what is said of single actions.

use sentinel_engine::{ActionRule, Policy};

use crate::doubts::Mentions;
use crate::field::{Field, Keys};
use crate::lower::grants::Grants;
use crate::lower::lists::{action_name, tags};
use crate::problem::Findings;
use crate::scalar::{money, whole_number};

/// The longest that an action's doors stay open: a day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

const KEYS: Keys = Keys {
    known: &["cost_usd", "tags", "grants", "max_seconds"],
    later: &[],
    example: "{cost_usd: 0.01, grants: {network: ['192.0.2.10:443']}}",
};

/// Reads the rules of the actions, and their grants behind the baseline.
pub(super) fn read(field: &Field<'_>, policy: &mut Policy, mentions: &mut Mentions, found: &mut Findings) {
    let mut grants = Grants::behind(std::mem::take(&mut policy.grants));
    for (entry, field) in field.table("{search_web: {cost_usd: 0.01}}", found).unwrap_or_default() {
        let name = action_name(&entry.key, entry.key_place, &field.path, found);
        let rule = rule(&field, &mut grants, mentions, found);
        if let (Some(name), Some(rule)) = (name, rule) {
            mentions.rule(&name, &field);
            if !rule.cost_floor.eq(&ActionRule::default().cost_floor) {
                mentions.cost_floor(&name, &field);
            }
            policy.actions.insert(name, rule);
        }
    }
    policy.grants = grants.finish();
}

fn rule(
    field: &Field<'_>,
    grants: &mut Grants,
    mentions: &mut Mentions,
    found: &mut Findings,
) -> Option<ActionRule> {
    let section = field.section(&KEYS, found)?;
    let mut rule = ActionRule { line: field.line(), ..ActionRule::default() };
    if let Some(cost) = section.field("cost_usd").and_then(|field| money(field, found)) {
        rule.cost_floor = cost;
    }
    if let Some(field) = section.field("tags") {
        rule.tags = tags(field, found);
    }
    if let Some(field) = section.field("grants") {
        rule.grant = grants.read(field, mentions, found);
    }
    if let Some(field) = section.field("max_seconds") {
        rule.max_seconds = whole_number(field, "a number of seconds", 1..=MAX_SECONDS, found)?;
    }
    Some(rule)
}
