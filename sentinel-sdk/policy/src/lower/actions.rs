//! `actions:`: what is said of single actions.

use sentinel_engine::{ActionRule, Policy};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::grants::{self, Grants};
use crate::lower::lists::{action_name, risk_level, tags};
use crate::lower::{counts, hours, lists};
use crate::problem::Findings;
use crate::scalar::{money, whole_number};
use crate::shape::{Key, Keys, Needed, Shape};

/// The longest that an action's doors stay open: a day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

pub(super) const SHAPE: Shape =
    Shape::Table { of: &Shape::Section(&KEYS), example: "{search_web: {cost_usd: 0.01}}" };

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "cost_usd",
            about: "The least that it is charged, at begin and at end, whatever the application says.",
            shape: Shape::Dollars,
        },
        Key {
            name: "tags",
            about: "Tags that it carries whatever the application says.",
            shape: lists::TAGS,
        },
        Key {
            name: "risk_level",
            about: "How risky it is, whatever the application says: a word of your own, such as `high`.",
            shape: lists::RISK_LEVEL,
        },
        Key { name: "grants", about: "What it opens while it is in flight.", shape: grants::SHAPE },
        Key {
            name: "max_seconds",
            about: "After so many seconds it counts as expired and its doors close; 600 where it is absent.",
            shape: Shape::Whole { what: "a number of seconds", range: 1..=MAX_SECONDS },
        },
        Key {
            name: "max_calls",
            about: "The most starts of it over all runs of the session.",
            shape: counts::CALLS,
        },
        Key { name: "max_concurrent", about: "The most of it in flight at once.", shape: counts::CONCURRENT },
        Key {
            name: "hours",
            about: "When it may start, besides what `hours` at the top level says.",
            shape: hours::SHAPE,
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{cost_usd: 0.01, grants: {network: ['192.0.2.10:443']}}",
};

/// Reads the rules of the actions, and their grants behind the baseline.
pub(super) fn read(field: &Field<'_>, policy: &mut Policy, mentions: &mut Mentions, found: &mut Findings) {
    let mut grants = Grants::behind(std::mem::take(&mut policy.grants));
    for (entry, field) in field.table(found).unwrap_or_default() {
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
    let section = field.section(found)?;
    let mut rule = ActionRule { line: field.line(), ..ActionRule::default() };
    if let Some(cost) = section.field("cost_usd").and_then(|field| money(field, found)) {
        rule.cost_floor = cost;
    }
    if let Some(field) = section.field("tags") {
        rule.tags = tags(field, found);
    }
    if let Some(field) = section.field("risk_level") {
        rule.risk = risk_level(field, found);
    }
    if let Some(field) = section.field("grants") {
        rule.grant = grants.read(field, mentions, found);
    }
    if let Some(field) = section.field("max_seconds") {
        rule.max_seconds = whole_number(field, found)?;
    }
    rule.limits = counts::read(&section, found);
    if let Some(field) = section.field("hours") {
        rule.hours = hours::read(field, found);
    }
    Some(rule)
}
