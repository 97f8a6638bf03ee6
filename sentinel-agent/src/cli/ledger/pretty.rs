//! JSON text on many lines, for a person.
//!
//! Invariant: it is the same JSON, but for the spaces between its tokens and what a terminal would obey; for it may hold what readers of values
//! refuse.

use crate::cli::terminal::visible;

/// The text of well-formed JSON, a key or an element a line.
pub(super) fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len().saturating_mul(2));
    let mut depth: usize = 0;
    let mut rest = json.trim_ascii();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' { string(rest) } else { first.len_utf8() };
        let (token, behind) = rest.split_at_checked(length).unwrap_or((rest, ""));
        rest = behind;
        match first {
            '{' | '[' => {
                text.push(first);
                rest = rest.trim_ascii_start();
                if rest.starts_with(['}', ']']) {
                    continue;
                }
                depth = depth.saturating_add(1);
                new_line(&mut text, depth);
            }
            '}' | ']' => {
                if !text.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    new_line(&mut text, depth);
                }
                text.push(first);
            }
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            ' ' | '\t' | '\r' | '\n' => {}
            _ => text.push_str(&visible(token)),
        }
    }
    text.push('\n');
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    for _ in 0..depth {
        text.push_str("  ");
    }
}

/// The length of the string that a text begins with, with its quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at.saturating_add(1),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_element_has_a_line_and_every_value_is_what_it_was() {
        let json = r#"{"a":1e999,"b" : [ ],"c":[{"d":"x\"{,\ud800"},"é"], "e":{}}"#;
        let expected = [
            "{",
            "  \"a\": 1e999,",
            "  \"b\": [],",
            "  \"c\": [",
            "    {",
            r#"      "d": "x\"{,\ud800""#,
            "    },",
            "    \"é\"",
            "  ],",
            "  \"e\": {}",
            "}\n",
        ];
        assert_eq!(pretty(json), expected.join("\n"));
        assert_eq!(pretty(" [[]] "), "[\n  []\n]\n");
    }

    #[test]
    fn nothing_in_it_is_obeyed_by_a_terminal() {
        assert_eq!(pretty("[\"\u{9b}2J\u{202e}\"]"), "[\n  \"\\u{9b}2J\\u{202e}\"\n]\n");
    }
}
