//! The text before it is YAML: its size, its encoding and its characters.
//!
//! Invariant: what passes holds no control characters but tab and line ends, so no parser behind can be stopped
//! or misled by one.

use crate::MAX_BYTES;
use crate::problem::{Complaint, Findings, Place, Problem};
use sentinel_proto::is_visible;

/// After so many bad characters the file is of another kind altogether.
const MAX_BAD_CHARACTERS: usize = 20;

/// The bytes as text.
pub(crate) fn decoded(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let complaint = Complaint::new("the file is in UTF-16", "save it as UTF-8");
        return Err(Problem::new(Place::START, "", complaint));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let bad = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        let message = format!("the byte 0x{bad:02x} is not UTF-8");
        Problem::new(
            end_of(&String::from_utf8_lossy(valid)),
            "",
            Complaint::new(message, "save the file as UTF-8"),
        )
    })
}

/// The text without its byte order mark, if a YAML parser may have it.
pub(crate) fn checked<'t>(text: &'t str, found: &mut Findings) -> Option<&'t str> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; a policy has at most {MAX_BYTES}", text.len());
        found.problem(
            Place::START,
            "",
            Complaint::new(message, "check that this is the file that you meant"),
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut fatal = false;
    let mut bad_count = 0_usize;
    let mut place = Place::START;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let ends_line = character == '\r' && characters.peek() == Some(&'\n');
        if character == '\n' {
            place = Place { line: place.line.saturating_add(1), column: 1, width: 1 };
            continue;
        }
        if !is_visible(character) && character != '\t' && !ends_line {
            fatal |= character.is_control();
            bad_count = bad_count.saturating_add(1);
            if bad_count <= MAX_BAD_CHARACTERS {
                found.problem(place, "", about(character));
            }
        }
        place.column = place.column.saturating_add(1);
    }
    (!fatal).then_some(text)
}

fn about(character: char) -> Complaint {
    let code = u32::from(character);
    if character == '\r' {
        return Complaint::new("a carriage return stands alone", "end lines with a line feed");
    }
    if character.is_control() {
        return Complaint::new(
            format!("the control character U+{code:04X} has no place in a policy"),
            "remove it, or check that this is a text file",
        );
    }
    Complaint::new(
        format!("the invisible character U+{code:04X} can make the text look like another one"),
        "remove it",
    )
}

/// The place behind a text.
fn end_of(text: &str) -> Place {
    let before = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line_count = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    Place { line: number(line_count), column: number(column), width: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, parse_bytes};

    fn only(text: &[u8]) -> Problem {
        let problems = parse_bytes(text).unwrap_err();
        assert_eq!(problems.as_slice().len(), 1, "{problems}");
        problems.as_slice()[0].clone()
    }

    #[test]
    fn a_byte_that_is_no_utf8_is_reported_at_its_place() {
        let problem = only(b"budgets:\n  run: \xff1\n");
        assert_eq!((problem.line, problem.column), (2, 8));
        assert!(problem.message.contains("0xff"), "{problem}");
    }

    #[test]
    fn utf16_is_named() {
        assert!(only(b"\xff\xfeb\0u\0").message.contains("UTF-16"));
    }

    #[test]
    fn a_text_above_the_cap_is_refused_unread() {
        let text = "#".repeat(MAX_BYTES + 1);
        assert!(parse(&text).unwrap_err().to_string().contains("at most 1048576"));
        let policy = "budgets: {run: 1}\n";
        let padded = format!("{policy}{}", "#".repeat(MAX_BYTES - policy.len()));
        assert!(parse(&padded).is_ok());
    }

    #[test]
    fn a_control_character_is_reported_at_its_place_and_its_escape_sequence_is_not_shown() {
        let text = "budgets: {run: 1} # \u{1b}[2J\n";
        let problems = parse(text).unwrap_err();
        assert_eq!((problems.as_slice()[0].line, problems.as_slice()[0].column), (1, 21));
        assert!(!problems.render("p", text).contains('\u{1b}'));
    }

    #[test]
    fn nul_does_not_end_the_policy_early() {
        assert!(parse("budgets: {run: 1}\n\0denied_actions: [a]\n").is_err());
    }

    #[test]
    fn a_character_that_reorders_text_is_refused_also_in_a_comment() {
        assert_eq!(only("denied_actions: [a] # \u{202e}\n".as_bytes()).column, 23);
    }

    #[test]
    fn byte_order_mark_and_windows_line_ends_change_no_place() {
        let problem = only("\u{feff}budgets: {}\r\nbudget: {}\r\n".as_bytes());
        assert_eq!((problem.line, problem.column), (2, 1));
        assert!(parse("\u{feff}budgets: {run: 1}\r\n").is_ok());
    }

    #[test]
    fn a_binary_file_is_not_reported_character_by_character() {
        let problems = parse(&"\u{1}".repeat(10_000)).unwrap_err();
        assert_eq!(problems.as_slice().len(), MAX_BAD_CHARACTERS);
    }
}
