//! Policy text: any bytes.
//!
//! Invariant: no bytes panic the parser; what it prints about them is safe on a terminal; what it takes, it takes as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sentinel_policy::{parse, parse_bytes};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    match parse_bytes(bytes) {
        Ok(parsed) => {
            assert_eq!(parse(&text).as_ref(), Ok(&parsed), "the same text is another policy now");
            is_safe(&parsed.warnings.render(&text, &text));
        }
        Err(problems) => {
            assert!(!problems.as_slice().is_empty(), "it is refused, and nobody says why");
            // The file's name is the user's too.
            is_safe(&problems.render(&text, &text));
            is_safe(&problems.to_string());
        }
    }
});

fn is_safe(report: &str) {
    let obeyed = report.chars().find(|character| character.is_control() && *character != '\n');
    assert_eq!(obeyed, None, "a terminal would obey it: {report:?}");
}
