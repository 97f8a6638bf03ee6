//! `budgets:`: what may be spent.

use sentinel_engine::{Budgets, DayLimit, Limit, TimeZone};

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::lists::action_name;
use crate::lower::zone;
use crate::problem::Findings;
use crate::scalar;
use crate::shape::{Key, Keys, Needed, Shape};
use crate::tree::Value;

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

const KEYS: Keys = Keys {
    known: &[
        Key { name: "session", about: "For the session as a whole.", shape: Shape::Dollars },
        Key {
            name: "run",
            about: "For each of its runs: from one reset to the next.",
            shape: Shape::Dollars,
        },
        Key {
            name: "day",
            about: "For all sessions under this policy together, each day; a plain amount counts the days of UTC.",
            shape: Shape::Either(&[Shape::Dollars, Shape::Section(&DAY_KEYS)]),
        },
        Key {
            name: "actions",
            about: "For single actions, over all runs.",
            shape: Shape::Table { of: &Shape::Dollars, example: "{expensive_llm: 0.50}" },
        },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{session: 5.0, run: 1.0}",
};

const DAY_KEYS: Keys = Keys {
    known: &[
        Key { name: "limit", about: "The amount.", shape: Shape::Dollars },
        Key {
            name: "timezone",
            about: "Where the day begins and ends, by the zone's name in the tz database; UTC where it is absent.",
            shape: zone::SHAPE,
        },
    ],
    needed: Needed::Each(&["limit"]),
    later: &[],
    example: "{limit: 20.0, timezone: Europe/Berlin}",
};

pub(super) fn read(field: &Field<'_>, mentions: &mut Mentions, found: &mut Findings) -> Budgets {
    let mut budgets = Budgets::default();
    let Some(section) = field.section(found) else { return budgets };
    if let Some(field) = section.field("session") {
        budgets.session = limit(field, found);
        mentions.session_limit(field);
    }
    if let Some(field) = section.field("run") {
        budgets.run = limit(field, found);
        mentions.run_limit(field);
    }
    if let Some(field) = section.field("day") {
        budgets.day = day(field, found);
    }
    let actions = section.field("actions").and_then(|field| field.table(found));
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

/// An amount, or a mapping that says where the day begins too.
fn day(field: &Field<'_>, found: &mut Findings) -> Option<DayLimit> {
    match &field.node.value {
        Value::Map(_) => day_somewhere(field, found),
        Value::Scalar(_) | Value::List(_) | Value::Reported => {
            limit(field, found).map(|limit| DayLimit { limit, timezone: TimeZone::UTC })
        }
    }
}

fn day_somewhere(field: &Field<'_>, found: &mut Findings) -> Option<DayLimit> {
    let section = field.section(found)?;
    let limit = section.field("limit").and_then(|field| limit(field, found));
    let timezone = section.field("timezone").map_or(Some(TimeZone::UTC), |field| zone::read(field, found));
    Some(DayLimit { limit: limit?, timezone: timezone? })
}
