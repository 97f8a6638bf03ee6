//! Moments that an operator names: RFC 3339, or how long ago.

use chrono::{DateTime, TimeDelta, Utc};

/// The moment that a text names.
///
/// # Errors
/// It names none.
pub(super) fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    before(Utc::now(), text)
}

fn before(now: DateTime<Utc>, text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.to_utc());
    }
    ago(text).and_then(|ago| now.checked_sub_signed(ago)).ok_or_else(|| {
        format!("`{text}` is no time; write one like `2025-01-15T10:30:00Z`, or `30m`, `2h` or `7d` for so long ago")
    })
}

fn ago(text: &str) -> Option<TimeDelta> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    match unit {
        's' => TimeDelta::try_seconds(number),
        'm' => TimeDelta::try_minutes(number),
        'h' => TimeDelta::try_hours(number),
        'd' => TimeDelta::try_days(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<String, String> {
        let now = DateTime::parse_from_rfc3339("2025-01-15T10:30:00Z").unwrap().to_utc();
        before(now, text).map(|moment| moment.to_rfc3339())
    }

    #[test]
    fn a_moment_is_written_whole_or_as_how_long_ago_it_was() {
        for (text, expected) in [
            ("2025-01-15T10:30:00Z", "2025-01-15T10:30:00+00:00"),
            ("2025-01-15T10:30:00.5+02:00", "2025-01-15T08:30:00.500+00:00"),
            ("0s", "2025-01-15T10:30:00+00:00"),
            ("90s", "2025-01-15T10:28:30+00:00"),
            ("30m", "2025-01-15T10:00:00+00:00"),
            ("2h", "2025-01-15T08:30:00+00:00"),
            ("7d", "2025-01-08T10:30:00+00:00"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error_that_tells_what_to_write() {
        for text in [
            "",
            "m",
            "5",
            "-5m",
            "+5m",
            "5 m",
            "5y",
            "5µ",
            "yesterday",
            "2025-01-15",
            "99999999999999d",
            "9999999999d",
        ] {
            assert!(told(text).unwrap_err().contains("`30m`"), "{text}");
        }
    }
}
