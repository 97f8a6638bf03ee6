//! Problems as a report that shows the source, in the manner of a compiler.
//!
//! Invariant: no character of the text or of the file's name reaches the report unless it is visible.

use std::fmt::Write as _;

use crate::problem::Problem;
use crate::quoted::{push_shown, shown};

/// How much of a source line is shown.
const MAX_WIDTH: usize = 100;
/// How much of a long line is shown before the place in question.
const LEAD: usize = 40;
/// How many problems are shown; a text with more is no policy gone wrong, but another file.
const MAX_SHOWN: usize = 1_000;

pub(crate) fn report(
    severity: &str,
    noun: &str,
    problems: &[Problem],
    file_name: &str,
    text: &str,
) -> String {
    let lines = Lines::of(text);
    let mut report: String = problems
        .iter()
        .take(MAX_SHOWN)
        .map(|problem| block(severity, problem, file_name, lines.get(problem.line)))
        .collect();
    if !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        let rest = if problems.len() > MAX_SHOWN {
            format!(", of which the first {MAX_SHOWN} are shown")
        } else {
            String::new()
        };
        let file_name = shown(file_name);
        let _infallible = writeln!(report, "{file_name}: {} {noun}{plural}{rest}", problems.len());
    }
    report
}

/// A single one, without a count below.
pub(crate) fn single(severity: &str, problem: &Problem, file_name: &str, text: &str) -> String {
    block(severity, problem, file_name, Lines::of(text).get(problem.line))
}

/// Column and width of the first of these words that stands on a line by itself, upper and lower case alike; or else of all
/// that the line says.
pub(crate) fn position(text: &str, line: u32, words: &[&str]) -> (u32, u32) {
    let line: Vec<char> = Lines::of(text).get(line).chars().collect();
    let is_part = |at: Option<usize>| {
        let character = at.and_then(|at| line.get(at));
        character.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    let stands_at = |word: &[char], start: usize| {
        let end = start.saturating_add(word.len());
        line.get(start..end).is_some_and(|part| {
            part.iter().zip(word).all(|(one, other)| one.eq_ignore_ascii_case(other))
                && !is_part(start.checked_sub(1))
                && !is_part(Some(end))
        })
    };
    let of_word = words.iter().filter(|word| !word.is_empty()).find_map(|word| {
        let word: Vec<char> = word.chars().collect();
        (0..line.len()).find(|start| stands_at(&word, *start)).map(|start| (start, word.len()))
    });
    let (start, width) = of_word.unwrap_or_else(|| {
        let blank = line.iter().take_while(|c| c.is_whitespace()).count();
        let end = line.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last.saturating_add(1));
        (blank, end.saturating_sub(blank))
    });
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (number(start).saturating_add(1), number(width).max(1))
}

struct Lines<'t>(Vec<&'t str>);

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect())
    }

    fn get(&self, number: u32) -> &'t str {
        let index = usize::try_from(number.saturating_sub(1)).ok();
        index.and_then(|index| self.0.get(index)).copied().unwrap_or("")
    }
}

fn block(severity: &str, problem: &Problem, file_name: &str, line: &str) -> String {
    let Problem { line: number, column, width, path, message, way_out } = problem;
    let number = number.to_string();
    let margin = " ".repeat(number.len());
    let excerpt = Excerpt::new(line, to_usize(*column).saturating_sub(1), to_usize(*width));
    let about = if path.is_empty() { String::new() } else { format!(" {path}") };
    format!(
        "{severity}: {message}\n \
         {margin}--> {file_name}:{number}:{column}\n \
         {margin} |\n \
         {number} | {source}\n \
         {margin} | {indent}{carets}{about}\n \
         {margin} = {way_out}\n\n",
        file_name = shown(file_name),
        source = excerpt.source,
        indent = " ".repeat(excerpt.indent),
        carets = "^".repeat(excerpt.carets),
    )
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A part of a line, escaped, and where in it the carets go.
struct Excerpt {
    source: String,
    indent: usize,
    carets: usize,
}

impl Excerpt {
    fn new(line: &str, start: usize, width: usize) -> Self {
        let is_long = line.chars().nth(MAX_WIDTH).is_some();
        let skipped = if is_long { start.saturating_sub(LEAD) } else { 0 };
        let mut source = String::new();
        if skipped > 0 {
            source.push('…');
        }
        let (mut indent, mut carets) = (None, 0_usize);
        let mut length = source.chars().count();
        let end = start.saturating_add(width);
        let mut characters = line.chars().enumerate().skip(skipped);
        for (position, character) in characters.by_ref() {
            if length >= MAX_WIDTH {
                source.push('…');
                break;
            }
            if position == start {
                indent = Some(length);
            }
            let mut piece = String::new();
            // One cell, so that the carets stand where the eye expects them.
            push_shown(if character == '\t' { ' ' } else { character }, &mut piece);
            let cells = piece.chars().count();
            if (start..end).contains(&position) {
                carets = carets.saturating_add(cells);
            }
            length = length.saturating_add(cells);
            source.push_str(&piece);
        }
        Self { indent: indent.unwrap_or(length), carets: carets.max(1), source: source.trim_end().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, column: u32, width: u32) -> Problem {
        Problem {
            line,
            column,
            width,
            path: "budgets.run".to_owned(),
            message: "`'1.0'` is in quotes".to_owned(),
            way_out: "write `run: 1.0`".to_owned(),
        }
    }

    #[test]
    fn the_caret_stands_under_the_value() {
        let text = "budgets:\r\n  run: '1.0'\r\n";
        let expected = "error: `'1.0'` is in quotes\n  --> p.yaml:2:8\n   |\n 2 |   run: '1.0'\n   |        ^^^^^ budgets.run\n   = write `run: 1.0`\n\np.yaml: 1 problem\n";
        assert_eq!(report("error", "problem", &[problem(2, 8, 5)], "p.yaml", text), expected);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_passed_on() {
        let rendered = report("error", "problem", &[problem(1, 4, 1)], "\u{1b}[2J", "a\t\u{1b}[31mx\u{202e}");
        assert!(!rendered.contains(['\u{1b}', '\u{202e}', '\t']), "{rendered:?}");
        assert!(rendered.contains(r"a \u{1b}[31mx\u{202e}"), "{rendered}");
    }

    #[test]
    fn a_very_long_line_is_shown_around_the_place() {
        let line = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let excerpt = Excerpt::new(&line, 5_000, 1);
        assert!(excerpt.source.chars().count() <= MAX_WIDTH + 1);
        assert_eq!(excerpt.source.chars().nth(excerpt.indent), Some('X'));
    }

    #[test]
    fn a_word_is_found_where_it_stands_by_itself() {
        let text = "\u{feff}a: 1\n  send_money: [send, é, Send]  \n\n";
        assert_eq!(position(text, 1, &["a"]), (1, 1));
        assert_eq!(position(text, 2, &["send"]), (16, 4));
        assert_eq!(position(text, 2, &["pay", "SEND_MONEY"]), (3, 10));
        assert_eq!(position(text, 2, &["pay", "", "send_"]), (3, 27));
        assert_eq!((position(text, 3, &["a"]), position(text, 9, &[])), ((1, 1), (1, 1)));
    }

    #[test]
    fn a_place_behind_the_text_is_shown_at_its_end() {
        let rendered = report("error", "problem", &[problem(9, 1, 1)], "p.yaml", "a: 1\n");
        assert!(rendered.contains(" 9 | \n   | ^ "), "{rendered}");
    }
}
