//! Problems and warnings, and where they are.
//!
//! Invariant: message and way out hold no control characters; the user's text in them went through `quoted`.

use std::fmt;

use sentinel_proto::RulePlace;

use crate::render;

/// A stretch of one line of the text; lines and columns from 1, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) width: u32,
}

impl Place {
    /// Where there is nothing else to point at.
    pub(crate) const START: Self = Self { line: 1, column: 1, width: 1 };
}

/// What is wrong with a value, before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) way_out: String,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { message: message.into(), way_out: way_out.into() }
    }
}

/// Something wrong in a policy, or something doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters of the line it concerns, at least 1.
    pub width: u32,
    /// Which value, such as `rate_limits.search_web.max_count`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub way_out: String,
}

impl Problem {
    /// A remark on a rule of a text, for [`Problem::render`]: at the first of these words that stands on the rule's line, or at
    /// all of the line.
    #[must_use]
    pub fn remark(text: &str, rule: &RulePlace, words: &[&str], message: String, way_out: String) -> Self {
        let RulePlace { rule: path, line } = rule;
        let (column, width) = render::position(text, *line, words);
        Self { line: *line, column, width, path: path.clone(), message, way_out }
    }

    /// This alone, as in [`Problems::render`]; `severity` stands before the message.
    #[must_use]
    pub fn render(&self, severity: &str, file_name: &str, text: &str) -> String {
        render::single(severity, self, file_name, text)
    }

    pub(crate) fn new(place: Place, path: &str, complaint: Complaint) -> Self {
        let Complaint { message, way_out } = complaint;
        let Place { line, column, width } = place;
        Self { line, column, width, path: path.to_owned(), message, way_out }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.message, self.way_out)
    }
}

/// Everything wrong in a text that is no policy: at least one problem, sorted by place.
///
/// As text, one line a problem; [`Problems::render`] shows the source lines too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", one_a_line(.0))]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// The problems, sorted by place.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// The report for a person: each problem with its source line, and a caret under what it is about. Safe on a
    /// terminal whatever is in the text or the file's name.
    #[must_use]
    pub fn render(&self, file_name: &str, text: &str) -> String {
        render::report("error", "problem", &self.0, file_name, text)
    }
}

/// What is legal in a policy but probably not meant, sorted by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<Problem>);

impl Warnings {
    /// The warnings, sorted by place.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`Problems::render`]; empty if there is none.
    #[must_use]
    pub fn render(&self, file_name: &str, text: &str) -> String {
        render::report("warning", "warning", &self.0, file_name, text)
    }
}

fn one_a_line(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What was found on the way from text to policy.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Findings {
    pub(crate) fn problem(&mut self, place: Place, path: &str, complaint: Complaint) {
        self.problems.push(Problem::new(place, path, complaint));
    }

    pub(crate) fn warning(&mut self, place: Place, path: &str, complaint: Complaint) {
        self.warnings.push(Problem::new(place, path, complaint));
    }

    /// How many problems there are so far: unchanged over a piece of work, that piece was without any.
    pub(crate) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// What was read, if there is no problem.
    pub(crate) fn conclude<T>(mut self, read: Option<T>) -> Result<(T, Warnings), Problems> {
        let by_place = |problem: &Problem| (problem.line, problem.column);
        self.problems.sort_by_key(by_place);
        self.warnings.sort_by_key(by_place);
        match read {
            Some(read) if self.problems.is_empty() => Ok((read, Warnings(self.warnings))),
            // Where nothing was read there is a problem already; should there ever be none, this still is nothing.
            None if self.problems.is_empty() => Err(Problems::one(Problem::new(
                Place::START,
                "",
                Complaint::new("the text could not be read", "check it against the documentation"),
            ))),
            Some(_) | None => Err(Problems(self.problems)),
        }
    }
}
