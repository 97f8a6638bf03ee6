//! `rate_limits:`: how often an action may start.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_engine::RateLimit;
use sentinel_proto::ActionName;

use crate::doubts::Mentions;
use crate::field::Field;
use crate::lower::lists::action_name;
use crate::problem::{Complaint, Findings};
use crate::scalar::whole_number;
use crate::shape::{Key, Keys, Needed, Shape};

/// What an absent `max_count` means.
const DEFAULT_MAX_COUNT: u64 = 999_999;
/// What an absent `window_seconds` means.
const DEFAULT_WINDOW_SECONDS: u64 = 60;
/// The longest window: 31 days.
const MAX_WINDOW_SECONDS: u64 = 31 * 24 * 60 * 60;

pub(super) const SHAPE: Shape =
    Shape::Table { of: &Shape::Section(&KEYS), example: "{search_web: {max_count: 10, window_seconds: 60}}" };

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "max_count",
            about: "The most starts in any such window.",
            shape: Shape::Whole { what: "a count of starts", range: 0..=DEFAULT_MAX_COUNT },
        },
        Key {
            name: "window_seconds",
            about: "The window's length, which slides along; 60 where it is absent.",
            shape: Shape::Whole { what: "a number of seconds", range: 1..=MAX_WINDOW_SECONDS },
        },
    ],
    needed: Needed::OneAtLeast,
    later: &[],
    example: "{max_count: 10, window_seconds: 60}",
};

pub(super) fn read(
    field: &Field<'_>,
    mentions: &mut Mentions,
    found: &mut Findings,
) -> BTreeMap<ActionName, RateLimit> {
    let mut rates = BTreeMap::new();
    for (entry, field) in field.table(found).unwrap_or_default() {
        let name = action_name(&entry.key, entry.key_place, &field.path, found);
        if let (Some(limit), Some(name)) = (rate(&field, found), name) {
            mentions.rule(&name, &field);
            rates.insert(name, limit);
        }
    }
    rates
}

fn rate(field: &Field<'_>, found: &mut Findings) -> Option<RateLimit> {
    let section = field.section(found)?;
    let (max_count, window) = (section.field("max_count"), section.field("window_seconds"));
    if max_count.is_none() {
        let complaint = Complaint::new(
            format!("without `max_count` it is {DEFAULT_MAX_COUNT}, which limits next to nothing"),
            "write `max_count`",
        );
        found.warning(field.label, &field.path, complaint);
    }
    let max_count = max_count.map_or(Some(DEFAULT_MAX_COUNT), |field| whole_number(field, found));
    let window = window.map_or(Some(DEFAULT_WINDOW_SECONDS), |field| whole_number(field, found));
    Some(RateLimit { max_count: max_count?, window: Duration::from_secs(window?), line: field.line() })
}
