//! Moments as ledger lines write them: ISO 8601, UTC, to the microsecond.
//!
//! Written by hand, as each line has one and a general formatter takes a fifth of a line's time.

use chrono::DateTime;

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// The last microsecond of the year 9999: later years have five digits, which no reader of ISO 8601 takes.
const LATEST: u64 = 253_402_300_799_999_999;

/// Microseconds since 1970 as text; of what a broken clock tells, the latest moment that can be written.
pub(crate) fn written(micros: u64) -> String {
    let micros = micros.min(LATEST);
    let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    let mut text = String::with_capacity("2025-01-15T10:30:00.123456Z".len());
    push(&mut text, year, 4, '-');
    push(&mut text, month, 2, '-');
    push(&mut text, day, 2, 'T');
    push(&mut text, second / 3600, 2, ':');
    push(&mut text, second / 60 % 60, 2, ':');
    push(&mut text, second % 60, 2, '.');
    push(&mut text, fraction, 6, 'Z');
    text
}

/// Year, month and day of the Gregorian calendar, of days since 1970. By eras of 400 years that begin on the first of March, so that the day
/// that a leap year has more is the last of its year.
#[expect(clippy::arithmetic_side_effects, reason = "at most three million days")]
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    const FROM_YEAR_0_TO_1970: u64 = 719_468;
    let days = days + FROM_YEAR_0_TO_1970;
    let (era, of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Counted from March: five months have 153 days, twice a year.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

/// The number with so many digits, and what comes after it.
fn push(text: &mut String, number: u64, digits: u32, then: char) {
    for place in (0..digits).rev() {
        let digit = number.checked_div(10_u64.saturating_pow(place)).unwrap_or(0).checked_rem(10).unwrap_or(0);
        text.push(u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 10)).unwrap_or('0'));
    }
    text.push(then);
}

/// Microseconds since 1970 of a text; none where it is no moment since then.
pub(crate) fn read(text: &str) -> Option<u64> {
    let moment = DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(moment.timestamp_micros()).ok()
}

#[cfg(test)]
mod tests {
    use chrono::{SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_written_as_the_seed_documents_it_and_read_again() {
        let micros = 1_736_937_000_123_456;
        assert_eq!(written(micros), "2025-01-15T10:30:00.123456Z");
        assert_eq!(read("2025-01-15T10:30:00.123456Z"), Some(micros));
        assert_eq!(read("yesterday"), None);
    }

    #[test]
    fn whatever_the_clock_tells_can_be_read_again() {
        assert_eq!(written(u64::MAX), "9999-12-31T23:59:59.999999Z");
        for micros in [0, 1, LATEST] {
            assert_eq!(read(&written(micros)), Some(micros));
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_is_the_calendars() {
        for day in 0..366_000 {
            let moment = DateTime::<Utc>::from_timestamp_secs(day * 86_400).unwrap();
            let micros = u64::try_from(moment.timestamp_micros()).unwrap();
            assert_eq!(written(micros), moment.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_written_as_chrono_writes_it(micros in 0..=LATEST) {
            let moment = DateTime::<Utc>::from_timestamp_micros(i64::try_from(micros).unwrap()).unwrap();
            prop_assert_eq!(written(micros), moment.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
    }
}
