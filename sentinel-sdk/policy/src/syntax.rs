//! What YAML could do and a policy may not, and the YAML parser's own complaints in words that help.

use saphyr_parser::ScanError;

use crate::problem::{Complaint, Findings, Place};
use crate::quoted::Quoted;

pub(crate) fn alias() -> Complaint {
    Complaint::new(
        "`*` begins an alias, and a policy has none",
        "write the value out; put a text that begins with `*` in quotes",
    )
}

pub(crate) fn anchor() -> Complaint {
    Complaint::new(
        "`&` begins an anchor, and a policy has none",
        "remove it; put a text that begins with `&` in quotes",
    )
}

pub(crate) fn tag() -> Complaint {
    Complaint::new(
        "`!` begins a tag, and a policy has none",
        "remove it; put a text that begins with `!` in quotes",
    )
}

pub(crate) fn several_lines(text: &str) -> Complaint {
    Complaint::new(
        format!("the value {} runs over several lines", Quoted(text)),
        "write it on one line; begin every entry of a list with `- `, and every `key: value` with the indentation of its neighbours",
    )
}

/// Reports where the parser gave up. `open` is the innermost bracket that isn't closed yet.
pub(crate) fn report(error: &ScanError, text: &str, open: Option<(Place, char)>, found: &mut Findings) {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let marker = error.marker();
    let mut place =
        Place { line: number(marker.line()), column: number(marker.col()).saturating_add(1), width: 1 };
    if error.info().contains("tab") {
        place = first_tab_from(marker.line(), text).unwrap_or(place);
    }
    let mut complaint = translated(error.info());
    if let Some((opened, bracket)) = open {
        let closing = if bracket == '[' { ']' } else { '}' };
        let Place { line, column, .. } = opened;
        let unclosed = format!(
            "; the `{bracket}` of line {line}, column {column} is still open here, is its `{closing}` missing?"
        );
        complaint.way_out.push_str(&unclosed);
    }
    found.problem(place, "", complaint);
}

/// Where the tab is: the parser marks the value before it, or the character behind.
fn first_tab_from(line: usize, text: &str) -> Option<Place> {
    let lines = text.split('\n').zip(1_u32..).skip(line.saturating_sub(1));
    let mut tabs = lines.filter_map(|(content, line)| {
        let column = content.chars().zip(1_u32..).find(|(character, _)| *character == '\t')?.1;
        Some(Place { line, column, width: 1 })
    });
    tabs.next()
}

/// The parser's message in our words, with the way out; its own words where no others are known.
fn translated(info: &str) -> Complaint {
    let known = [
        ("unknown anchor", alias()),
        (
            "tab",
            Complaint::new(
                "a tab stands where YAML wants spaces",
                "indent with spaces, and write spaces before values",
            ),
        ),
        (
            "mapping values are not allowed",
            Complaint::new(
                "a `:` stands where no key can be",
                "put a text with `: ` in it in quotes, and check the indentation of this line and the one above",
            ),
        ),
        (
            "did not find expected key",
            Complaint::new(
                "the indentation of this line fits no mapping above",
                "indent it exactly as the keys that it belongs to",
            ),
        ),
        (
            "did not find expected '-' indicator",
            Complaint::new(
                "this belongs to no entry of the list above",
                "begin each entry with `- ` at the same indentation; put an entry that begins with `[` or `{` in quotes",
            ),
        ),
        (
            "':' indicator",
            Complaint::new("a `:` stands where no key can be", "write `key: value`, and close every bracket"),
        ),
        (
            "misplaced bracket",
            Complaint::new("this bracket closes nothing", "remove it, or add the one that opens"),
        ),
        (
            "expected node content",
            Complaint::new("a value is missing here", "write one, or remove the comma or bracket"),
        ),
        (
            "unexpected character",
            Complaint::new("a value can't begin with this character", "put the value in quotes"),
        ),
        (
            "unknown escape character",
            Complaint::new(
                "an escape sequence in this text is unknown",
                "use single quotes, where `\\` is just itself",
            ),
        ),
        (
            "quoted scalar",
            Complaint::new(
                "this quoted text is not closed properly",
                "close it with the same quote on the same line",
            ),
        ),
        (
            "quoted scalar, found unexpected end",
            Complaint::new(
                "this quoted text is never closed",
                "close it with the same quote on the same line",
            ),
        ),
        (
            "expected ',' or",
            Complaint::new(
                "a comma or the closing bracket is missing before this",
                "separate entries with `, `",
            ),
        ),
        (
            "simple key expect",
            Complaint::new(
                "a `key: value` is not complete here",
                "write a space behind each colon that ends a key",
            ),
        ),
        (
            "recursion limit",
            Complaint::new("brackets are nested too deep", "no key of a policy needs more than a few levels"),
        ),
        (
            "unprintable",
            Complaint::new(
                "a character has no place in YAML",
                "remove it, or check that this is a text file",
            ),
        ),
    ];
    let own_words =
        || Complaint::new(format!("this is not YAML: {}", crate::quoted::shown(info)), "correct the syntax");
    known.into_iter().find(|(part, _)| info.contains(part)).map_or_else(own_words, |(_, complaint)| complaint)
}
