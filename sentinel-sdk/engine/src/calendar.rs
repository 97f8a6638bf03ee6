//! Days and hours as people count them, in a place's own time.
//!
//! Invariant: what can't be told (a moment beyond all calendars) is no hour at which anything is allowed.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Timelike as _};
use chrono_tz::Tz;

use crate::Now;

/// A place's time, by its name in the tz database, such as `Europe/Berlin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeZone(Tz);

impl TimeZone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The date there.
    pub(crate) fn day(self, now: Now) -> Option<NaiveDate> {
        Some(self.local(now)?.date_naive())
    }

    fn local(self, now: Now) -> Option<DateTime<Tz>> {
        let micros = i64::try_from(now.wall_micros).ok()?;
        Some(DateTime::from_timestamp_micros(micros)?.with_timezone(&self.0))
    }
}

impl FromStr for TimeZone {
    type Err = UnknownTimeZone;

    fn from_str(name: &str) -> Result<Self, UnknownTimeZone> {
        name.parse().map(Self).map_err(|_unknown| UnknownTimeZone)
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// No time zone has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTimeZone;

impl fmt::Display for UnknownTimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no time zone has this name; write one such as `Europe/Berlin` or `UTC`")
    }
}

impl std::error::Error for UnknownTimeZone {}

/// Hours of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Whose time it is.
    pub timezone: TimeZone,
    /// Any of these. Empty: never.
    pub spans: Vec<Span>,
    /// The policy's line, from 1.
    pub line: u32,
}

/// A span of each of some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// On which days it begins, Monday first.
    pub days: [bool; 7],
    /// The minute of the day at which it begins.
    pub from: u16,
    /// The minute of the day before which it ends, up to 1440; on the next day where it isn't behind `from`.
    pub to: u16,
    /// As the policy writes it.
    pub text: String,
}

impl Hours {
    /// Whether this moment is within.
    #[must_use]
    pub fn contain(&self, now: Now) -> bool {
        let Some(local) = self.timezone.local(now) else { return false };
        let Some(yesterday) = local.date_naive().checked_sub_signed(TimeDelta::days(1)) else { return false };
        let minute = local.hour().saturating_mul(60).saturating_add(local.minute());
        let on = |span: &Span, date: NaiveDate| {
            usize::try_from(date.weekday().num_days_from_monday())
                .ok()
                .and_then(|day| span.days.get(day).copied())
                .unwrap_or(false)
        };
        self.spans.iter().any(|span| {
            let (from, to) = (u32::from(span.from), u32::from(span.to));
            let today = on(span, local.date_naive());
            if from < to {
                return today && (from..to).contains(&minute);
            }
            (today && minute >= from) || (on(span, yesterday) && minute < to)
        })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spans.is_empty() {
            return f.write_str("never");
        }
        let spans: Vec<&str> = self.spans.iter().map(|span| span.text.as_str()).collect();
        write!(f, "{} ({})", spans.join(", "), self.timezone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Now {
        let micros = DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        Now { wall_micros: u64::try_from(micros).unwrap(), elapsed: Duration::ZERO }
    }

    fn hours(timezone: &str, days: [bool; 7], from: u16, to: u16) -> Hours {
        let span = Span { days, from, to, text: String::new() };
        Hours { timezone: timezone.parse().unwrap(), spans: vec![span], line: 1 }
    }

    const WORKDAYS: [bool; 7] = [true, true, true, true, true, false, false];

    #[test]
    fn office_hours_are_those_of_the_place() {
        let office = hours("Europe/Berlin", WORKDAYS, 9 * 60, 17 * 60);
        assert!(!office.contain(at("2026-11-23T07:59:59Z")), "8:59 in Berlin");
        assert!(office.contain(at("2026-11-23T08:00:00Z")));
        assert!(office.contain(at("2026-11-23T15:59:59Z")));
        assert!(!office.contain(at("2026-11-23T16:00:00Z")));
        assert!(!office.contain(at("2026-11-22T10:00:00Z")), "a Sunday");
        assert!(office.contain(at("2026-07-20T07:00:00Z")), "summer time");
    }

    #[test]
    fn a_span_past_midnight_belongs_to_the_day_on_which_it_begins() {
        let friday_night = hours("UTC", [false, false, false, false, true, false, false], 22 * 60, 6 * 60);
        assert!(friday_night.contain(at("2026-11-27T23:00:00Z")));
        assert!(friday_night.contain(at("2026-11-28T05:59:00Z")), "Saturday morning");
        assert!(!friday_night.contain(at("2026-11-27T05:00:00Z")), "Friday morning");
        assert!(!friday_night.contain(at("2026-11-28T06:00:00Z")));
    }

    #[test]
    fn a_whole_day_is_a_span_from_midnight_to_midnight() {
        let day = hours("UTC", [true; 7], 0, 24 * 60);
        assert!(day.contain(at("2026-11-23T00:00:00Z")) && day.contain(at("2026-11-23T23:59:59Z")));
    }

    #[test]
    fn a_moment_beyond_all_calendars_is_at_no_hour() {
        let day = hours("UTC", [true; 7], 0, 24 * 60);
        assert!(!day.contain(Now { wall_micros: u64::MAX, elapsed: Duration::ZERO }));
    }

    #[test]
    fn the_day_begins_when_it_does_in_the_place() {
        let tokyo: TimeZone = "Asia/Tokyo".parse().unwrap();
        assert_eq!(tokyo.day(at("2026-11-23T14:59:59Z")), NaiveDate::from_ymd_opt(2026, 11, 23));
        assert_eq!(tokyo.day(at("2026-11-23T15:00:00Z")), NaiveDate::from_ymd_opt(2026, 11, 24));
        assert!("Europe/Atlantis".parse::<TimeZone>().is_err());
    }
}
