//! Moments as ledger lines write them: ISO 8601, UTC, to the microsecond.

use chrono::{DateTime, SecondsFormat, Utc};

/// The last microsecond of the year 9999: later years have five digits, which no reader of ISO 8601 takes.
const LATEST: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970 as text; of what a broken clock tells, the latest moment that can be written.
pub(crate) fn written(micros: u64) -> String {
    let micros = i64::try_from(micros).map_or(LATEST, |micros| micros.min(LATEST));
    let moment = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
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
