//! Moments as ledger lines write them: ISO 8601, UTC, to the microsecond.

use chrono::{DateTime, SecondsFormat, Utc};

/// Microseconds since 1970 as text. Those beyond the year 262,000 have that of 1970: nothing decides on it.
pub(crate) fn written(micros: u64) -> String {
    let moment =
        i64::try_from(micros).ok().and_then(DateTime::<Utc>::from_timestamp_micros).unwrap_or_default();
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
}
