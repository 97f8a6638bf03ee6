//! `hours:`: when actions may start.
//!
//! Invariant: a span whose days or times can be read in two ways is a problem; a time is always `HH:MM`.

use sentinel_engine::{Hours, Span};

use crate::field::Field;
use crate::lower::zone;
use crate::problem::{Complaint, Findings};
use crate::quoted::{Quoted, shown};
use crate::shape::{Key, Keys, Needed, Shape, Text};
use crate::suggest::closest;

/// One day or a range of days, as a regular expression.
macro_rules! days {
    () => {
        "(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?"
    };
}

/// A time of day, as a regular expression.
macro_rules! time {
    () => {
        "([01][0-9]|2[0-3]):[0-5][0-9]"
    };
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: &str = "daily";
const MINUTES_OF_A_DAY: u16 = 24 * 60;

pub(super) const SHAPE: Shape = Shape::Section(&KEYS);

const KEYS: Keys = Keys {
    known: &[
        Key {
            name: "timezone",
            about: "Whose time it is, by its name in the tz database.",
            shape: zone::SHAPE,
        },
        Key {
            name: "allow",
            about: "Days and times, such as `mon-fri 09:00-17:00`; without days every day. A span that ends before it begins ends on the next day. An empty list: never.",
            shape: Shape::List { of: &SPAN, example: "['mon-fri 09:00-17:00']" },
        },
    ],
    needed: Needed::Each(&["timezone", "allow"]),
    later: &[],
    example: "{timezone: Europe/Berlin, allow: ['mon-fri 09:00-17:00']}",
};

const SPAN: Shape = Shape::Text(Text {
    what: "a span of time",
    example: "mon-fri 09:00-17:00",
    most: None,
    pattern: Some(concat!(
        r"^\s*((daily|",
        days!(),
        "(,",
        days!(),
        r")*)\s+)?",
        time!(),
        "-(",
        time!(),
        r"|24:00)\s*$"
    )),
});

pub(super) fn read(field: &Field<'_>, found: &mut Findings) -> Option<Hours> {
    let section = field.section(found)?;
    let timezone = section.field("timezone").and_then(|field| zone::read(field, found));
    let spans = section.field("allow").and_then(|field| spans(field, found));
    Some(Hours { timezone: timezone?, spans: spans?, line: field.line() })
}

/// The spans of the list, each once.
fn spans(field: &Field<'_>, found: &mut Findings) -> Option<Vec<Span>> {
    let items = field.items(found)?;
    if items.is_empty() {
        let complaint =
            Complaint::new("with an empty list there is never a start", "write when, or leave `hours` out");
        found.warning(field.place(), &field.path, complaint);
    }
    let mut spans: Vec<(Span, u32)> = Vec::new();
    for field in items {
        let Some(scalar) = field.text(found) else { continue };
        let span = match span(&scalar.text) {
            Ok(span) => span,
            Err(complaint) => {
                field.complain(complaint, found);
                continue;
            }
        };
        let is_same =
            |earlier: &Span| (earlier.days, earlier.from, earlier.to) == (span.days, span.from, span.to);
        if let Some((_, line)) = spans.iter().find(|(earlier, _)| is_same(earlier)) {
            let message = format!("{} says the same as an entry on line {line}", Quoted(&scalar.text));
            found.warning(field.place(), &field.path, Complaint::new(message, "remove one of the two"));
            continue;
        }
        spans.push((span, field.line()));
    }
    Some(spans.into_iter().map(|(span, _)| span).collect())
}

/// `09:00-17:00`, with days before it or not.
fn span(text: &str) -> Result<Span, Complaint> {
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let (days, times) = match parts.as_slice() {
        [times] => (None, *times),
        [days, times] => (Some(*days), *times),
        _ => {
            return Err(Complaint::new(
                format!("{} is no span of time", Quoted(text)),
                "write days, one space and times: `mon-fri 09:00-17:00`; several days as `mon,wed`",
            ));
        }
    };
    if days.is_none() && times.split([',', '-']).all(|word| day(word).is_ok()) {
        return Err(Complaint::new(
            format!("{} names days without times", Quoted(text)),
            format!(
                "write `{} 00:00-24:00`; an entry with a comma in it needs quotes: `'mon,wed 09:00-17:00'`",
                shown(text)
            ),
        ));
    }
    let (from, to) = range(times)?;
    Ok(Span { days: days.map_or(Ok([true; 7]), week)?, from, to, text: parts.join(" ") })
}

fn range(times: &str) -> Result<(u16, u16), Complaint> {
    let Some((from_text, to_text)) = times.split_once('-') else {
        return Err(Complaint::new(
            format!("{} is no range of times", Quoted(times)),
            "write both ends: `09:00-17:00`",
        ));
    };
    let (from, to) = (minute(from_text)?, minute(to_text)?);
    if from == MINUTES_OF_A_DAY {
        return Err(Complaint::new(
            "`24:00` is the end of a day, where nothing begins",
            "write `00:00`, which is the beginning of the next day",
        ));
    }
    if from == to {
        return Err(Complaint::new(
            format!("{} begins where it ends", Quoted(times)),
            "write `00:00-24:00` for the whole day, or leave the entry out for no time at all",
        ));
    }
    Ok((from, to))
}

/// The minute of the day; `24:00` is one too.
fn minute(time: &str) -> Result<u16, Complaint> {
    let wrong = |way_out: String| Complaint::new(format!("{} is no time of day", Quoted(time)), way_out);
    let two_digits = |text: &str| match text.as_bytes() {
        [b'0'..=b'9', b'0'..=b'9'] => text.parse::<u16>().ok(),
        _ => None,
    };
    let example = || "write it as `HH:MM`, from `00:00` to `24:00`".to_owned();
    let (hour_text, minute_text) = time.split_once(':').ok_or_else(|| wrong(example()))?;
    let padded = format!("0{hour_text}");
    let (Some(hour), Some(minute)) = (two_digits(hour_text), two_digits(minute_text)) else {
        let is_short = two_digits(&padded).is_some() && two_digits(minute_text).is_some();
        return Err(wrong(if is_short { format!("write `{padded}:{minute_text}`") } else { example() }));
    };
    let total = hour.saturating_mul(60).saturating_add(minute);
    if minute >= 60 || total > MINUTES_OF_A_DAY { Err(wrong(example())) } else { Ok(total) }
}

/// `mon-fri`, `fri-mon`, `mon,wed`, `daily`: Monday first.
fn week(text: &str) -> Result<[bool; 7], Complaint> {
    if text == EVERY_DAY {
        return Ok([true; 7]);
    }
    let mut week = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let is_named = |day: usize| {
            if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last }
        };
        for (index, on) in week.iter_mut().enumerate() {
            *on |= is_named(index);
        }
    }
    Ok(week)
}

fn day(word: &str) -> Result<usize, Complaint> {
    DAYS.iter().position(|day| *day == word).ok_or_else(|| {
        let lower = word.to_lowercase();
        let meant = DAYS.into_iter().find(|day| lower.starts_with(day));
        let meant = meant.or_else(|| closest(word, DAYS.into_iter().chain([EVERY_DAY])));
        let hint = meant.map(|meant| format!("did you mean `{meant}`? ")).unwrap_or_default();
        Complaint::new(
            format!("{} is no day of the week", Quoted(word)),
            format!("{hint}write {}, a range such as `mon-fri`, or `{EVERY_DAY}`", DAYS.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> String {
        let on = |on: bool| if on { 'x' } else { '.' };
        week(text).unwrap().into_iter().map(on).collect()
    }

    #[test]
    fn days_are_named_singly_in_lists_in_ranges_and_over_the_weeks_end() {
        for (text, expected) in [
            ("mon", "x......"),
            ("sun", "......x"),
            ("mon-fri", "xxxxx.."),
            ("fri-mon", "x...xxx"),
            ("mon,wed", "x.x...."),
            ("sat-sun,wed", "..x..xx"),
            ("tue-mon", "xxxxxxx"),
            ("wed-wed", "..x...."),
            ("daily", "xxxxxxx"),
        ] {
            assert_eq!(days(text), expected, "{text}");
        }
    }

    #[test]
    fn times_are_minutes_of_the_day_and_may_go_past_midnight() {
        for (text, from, to) in [
            ("09:00-17:00", 540, 1020),
            ("mon-fri 22:00-06:00", 1320, 360),
            ("00:00-24:00", 0, 1440),
            ("sat  23:59-00:00", 1439, 0),
        ] {
            let span = span(text).unwrap();
            assert_eq!((span.from, span.to), (from, to), "{text}");
        }
        assert_eq!(span("  sat   10:00-12:00 ").unwrap().text, "sat 10:00-12:00");
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            " ",
            "mon",
            "mon-fri",
            "daily",
            "mon 9-17",
            "9:00-17:00",
            "09:00",
            "09:00-",
            "-09:00",
            "24:00-01:00",
            "09:00-24:01",
            "09:60-10:00",
            "25:00-26:00",
            "09:00-09:00",
            "00:00-00:00",
            "Mon 09:00-17:00",
            "monday 09:00-17:00",
            "mon, wed 09:00-17:00",
            "mon,,wed 09:00-17:00",
            "mon- 09:00-17:00",
            "09:00-17:00 mon",
            "09:00–17:00",
            "٠٩:٠٠-١٧:٠٠",
            "09:00-12:00,13:00-17:00",
            "mon-wed-fri 09:00-17:00",
        ] {
            assert!(span(text).is_err(), "`{text}` was taken for a span");
        }
    }

    #[test]
    fn a_slip_is_traced_to_the_day_or_time() {
        let way_out = |text: &str| span(text).unwrap_err().way_out;
        assert!(way_out("Monday 09:00-17:00").starts_with("did you mean `mon`? "));
        assert!(way_out("dayly 09:00-17:00").starts_with("did you mean `daily`? "));
        assert_eq!(way_out("9:00-17:00"), "write `09:00`");
    }
}
