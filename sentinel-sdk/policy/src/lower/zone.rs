//! Time zones, by their names in the tz database.
//!
//! Invariant: a name that isn't exactly one of them is a problem, however near it comes.

use chrono_tz::TZ_VARIANTS;
use sentinel_engine::TimeZone;

use crate::field::Field;
use crate::problem::{Complaint, Findings};
use crate::quoted::Quoted;
use crate::shape::{Shape, Text};
use crate::suggest::closest;

/// A wrong name is compared with some 600 right ones. Among more problems than this nobody looks for a hint.
const MOST_COMPARED: usize = 200;
/// More names than this help nobody.
const MOST_SUGGESTED: usize = 3;

pub(super) const SHAPE: Shape = Shape::Text(Text {
    what: "a time zone",
    example: "Europe/Berlin",
    most: None,
    pattern: Some("^[A-Za-z0-9_+/-]+$"),
});

pub(super) fn read(field: &Field<'_>, found: &mut Findings) -> Option<TimeZone> {
    let scalar = field.text(found)?;
    let zone = scalar.text.parse().ok();
    if zone.is_none() {
        let near = if found.problem_count() < MOST_COMPARED { near(&scalar.text) } else { Vec::new() };
        field.complain(unknown(&scalar.text, &near), found);
    }
    zone
}

fn unknown(name: &str, near: &[&str]) -> Complaint {
    let hint = if near.is_empty() {
        String::new()
    } else {
        let near: Vec<String> = near.iter().map(|zone| format!("`{zone}`")).collect();
        format!("did you mean {}? ", near.join(" or "))
    };
    Complaint::new(
        format!("{} is no time zone", Quoted(name)),
        format!("{hint}write a name of the tz database such as `Europe/Berlin` or `UTC`"),
    )
}

/// The zones that may be meant: those of this city, or else the one written nearly so.
fn near(name: &str) -> Vec<&'static str> {
    let wanted = simplified(name);
    let zones = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let same: Vec<&str> = zones()
        .filter(|zone| simplified(zone) == wanted || simplified(city(zone)) == wanted)
        .take(MOST_SUGGESTED)
        .collect();
    if !same.is_empty() {
        return same;
    }
    let written_like = |part: fn(&str) -> &str| {
        let names: Vec<String> = zones().map(|zone| simplified(part(zone))).collect();
        let meant = closest(&wanted, names.iter().map(String::as_str))?;
        zones().find(|zone| simplified(part(zone)) == meant)
    };
    written_like(|zone| zone).or_else(|| written_like(city)).into_iter().collect()
}

fn city(zone: &str) -> &str {
    zone.rsplit('/').next().unwrap_or(zone)
}

/// Upper and lower case, spaces and dashes are what people get wrong first.
fn simplified(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_city_or_a_slip_leads_to_the_zone() {
        for (written, meant) in [
            ("Berlin", "Europe/Berlin"),
            ("europe/berlin", "Europe/Berlin"),
            ("New York", "America/New_York"),
            ("Europe/Berln", "Europe/Berlin"),
            ("Kolkatta", "Asia/Kolkata"),
            ("utc", "UTC"),
            ("CEST", "CET"),
        ] {
            assert!(near(written).contains(&meant), "{written}: {:?}", near(written));
        }
    }

    #[test]
    fn what_resembles_no_zone_gets_no_suggestion() {
        for written in ["", "+02:00", "Middle-earth/Rivendell", &"Berlin".repeat(1_000)] {
            assert_eq!(near(written), Vec::<&str>::new(), "{written}");
        }
    }
}
