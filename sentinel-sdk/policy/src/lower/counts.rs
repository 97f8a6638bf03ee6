//! `max_calls` and `max_concurrent`: how many starts there may be, of all actions or of one.

use sentinel_engine::{CountLimit, CountLimits, MAX_IN_FLIGHT};

use crate::field::{Field, Section};
use crate::problem::{Complaint, Findings};
use crate::scalar::whole_number;
use crate::shape::{Key, Keys, Needed, Shape};

/// More starts than this no session lives to see.
const MAX_CALLS: u64 = 999_999_999;

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

pub(super) const CALLS: Shape = Shape::Whole { what: "a count of starts", range: 0..=MAX_CALLS };
pub(super) const CONCURRENT: Shape =
    Shape::Whole { what: "a count of actions in flight", range: 0..=MAX_IN_FLIGHT };

const KEYS: Keys = Keys {
    known: &[
        Key { name: "max_calls", about: "The most starts over all runs of the session.", shape: CALLS },
        Key { name: "max_concurrent", about: "The most actions in flight at once.", shape: CONCURRENT },
    ],
    needed: Needed::Nothing,
    later: &[],
    example: "{max_calls: 1000, max_concurrent: 10}",
};

/// `limits:`, for all actions together.
pub(super) fn of_session(field: &Field<'_>, found: &mut Findings) -> CountLimits {
    let Some(section) = field.section(found) else { return CountLimits::default() };
    read(&section, found)
}

/// The two keys of a section that may have others too.
pub(super) fn read(section: &Section<'_>, found: &mut Findings) -> CountLimits {
    let mut count = |key: &str| {
        let field = section.field(key)?;
        let most = whole_number(field, found)?;
        if most == 0 {
            let complaint = Complaint::new(
                format!("with `{key}: 0` there is never a start"),
                "write at least 1; to shut a single action out, `denied_actions` says so plainly",
            );
            found.warning(field.place(), &field.path, complaint);
        }
        Some(CountLimit { most, line: field.line() })
    };
    CountLimits { calls: count("max_calls"), concurrent: count("max_concurrent") }
}
