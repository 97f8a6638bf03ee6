//! Moments as ledger lines write them: ISO 8601, UTC, to the microsecond.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

/// The last microsecond of the year 9999: later years have five digits, which no reader of ISO 8601 takes.
const LATEST: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970 as text; of what a broken clock tells, the latest moment that can be written.
pub(crate) fn written(micros: u64) -> String {
    let micros = i64::try_from(micros).map_or(LATEST, |micros| micros.min(LATEST));
    let moment = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default().naive_utc();
    let mut text = String::with_capacity("2025-01-15T10:30:00.123456Z".len());
    // By hand: chrono's own way takes as long as the rest of a line.
    let parts = [
        (u32::try_from(moment.year()).unwrap_or(0), 4, '-'),
        (moment.month(), 2, '-'),
        (moment.day(), 2, 'T'),
        (moment.hour(), 2, ':'),
        (moment.minute(), 2, ':'),
        (moment.second(), 2, '.'),
        (moment.nanosecond() / 1_000, 6, 'Z'),
    ];
    for (number, digits, behind) in parts {
        write_digits(&mut text, number, digits);
        text.push(behind);
    }
    text
}

/// A number of at most so many digits, with zeros before it.
fn write_digits(text: &mut String, number: u32, digits: u32) {
    for place in (0..digits).rev() {
        let digit = 10_u32.checked_pow(place).and_then(|power| number.checked_div(power)).unwrap_or(0) % 10;
        text.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

/// Microseconds since 1970 of a text; none where it is no moment since then.
pub(crate) fn read(text: &str) -> Option<u64> {
    let moment = DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(moment.timestamp_micros()).ok()
}

#[cfg(test)]
mod tests {
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
        for micros in [0, 1, 253_402_300_799_999_999] {
            assert_eq!(read(&written(micros)), Some(micros));
        }
    }
}
