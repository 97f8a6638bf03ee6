//! `tests/MUTATIONS.md`: what came of doing without each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context as _;

use super::list::{Mutations, Source, Tier};
use super::ran::Ended;
use crate::command::output;

const FILE: &str = "tests/MUTATIONS.md";

/// What came of one.
#[derive(Debug)]
pub(super) struct Row {
    name: String,
    /// On what it was tried.
    place: String,
    /// What was there instead; empty for a hook.
    change: String,
    test: String,
    ended: Ended,
    survives: Option<String>,
}

impl Row {
    pub(super) fn of_hook(name: &str, place: &str, test: &str, ended: Ended) -> Self {
        let [name, place, test] = [name, place, test].map(str::to_owned);
        Self { name, place, change: String::new(), test, ended, survives: None }
    }

    pub(super) fn of_source(source: &Source, place: &str, ended: Ended) -> Self {
        let code = |text: &str| {
            format!("`{}`", text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
        };
        let to = if source.to.trim().is_empty() { "nothing".to_owned() } else { code(&source.to) };
        Self {
            name: source.name.clone(),
            place: place.to_owned(),
            change: format!("{}: {} → {to}", source.file, code(&source.from)),
            test: source.test.clone(),
            ended,
            survives: source.survives.clone(),
        }
    }

    /// What is wrong with it; nothing where the test failed, or was expected not to.
    pub(super) fn problem(&self) -> Option<String> {
        let problem = match (&self.ended, &self.survives) {
            (Ended::Void(why), _) => why.clone(),
            (Ended::Passed, None) => format!("`{}` passes", self.test),
            (Ended::Failed | Ended::FailedAtTheProof, Some(_)) => {
                format!("`{}` fails, and the list says that no test can", self.test)
            }
            _ => return None,
        };
        Some(format!("  without `{}` ({}): {problem}", self.name, self.place))
    }

    fn came(&self) -> String {
        match (&self.ended, &self.survives) {
            (Ended::Passed, Some(reason)) => format!("passes: {reason}"),
            (Ended::Passed, None) => "**passes**".to_owned(),
            (Ended::Failed, _) => "fails".to_owned(),
            (Ended::FailedAtTheProof, _) => "fails at the start's proof".to_owned(),
            (Ended::Void(why), _) => format!("**void: {why}**"),
        }
    }

    fn line(&self, commit: &str) -> String {
        let Self { name, place, change, test, .. } = self;
        let change = if change.is_empty() { String::new() } else { format!(" {change} |") };
        format!("| `{name}` | {place} |{change} `{test}` | {} | {commit} |", self.came())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "without `{}` ({}): `{}` {}", self.name, self.place, self.test, self.came())
    }
}

/// The table: a line for each thing and each place where it was tried.
#[derive(Debug)]
pub(super) struct Table {
    lines: BTreeMap<(String, String), String>,
    hooks: Vec<(String, Tier)>,
    sources: Vec<String>,
    commit: String,
}

impl Table {
    /// Reads what earlier runs came to, as far as the list still has it.
    ///
    /// # Errors
    /// It can't be read, or git doesn't tell the commit.
    pub(super) fn read(root: &Path, mutations: &Mutations) -> anyhow::Result<Self> {
        let commit =
            output(root, "git", &["describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=9"])?;
        Ok(Self {
            lines: lines(&written(root)?),
            hooks: mutations.hook.iter().map(|hook| (hook.name.clone(), hook.tier)).collect(),
            sources: mutations.source.iter().map(|source| source.name.clone()).collect(),
            commit: commit.trim().to_owned(),
        })
    }

    /// Writes a line of it: as it comes, so that a run that is ended early has shown what it has shown.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn put(&mut self, root: &Path, row: Row) -> anyhow::Result<()> {
        // Another part may run meanwhile.
        self.lines = lines(&written(root)?);
        let line = row.line(&self.commit);
        self.lines.insert((row.name, row.place), line);
        std::fs::write(root.join(FILE), self.text()).with_context(|| format!("`{FILE}`"))
    }

    fn text(&self) -> String {
        let mut text = "# What each hook and each check is for\n\n\
            Written by `cargo xtask mutate` from `tests/mutations.toml`: each line did without one thing, and the test that is named failed, unless the line says \
            otherwise. A test that fails *at the start's proof* was not reached: what the agent tries out at each start came out wrong before. The last column is \
            the commit, with a + where the tree had changes.\n\n## Hooks\n\n| not attached | where | test | comes to | at |\n|---|---|---|---|---|\n"
            .to_owned();
        let mut missing = Vec::new();
        let mut add = |text: &mut String, name: &String| {
            let found = self.lines.iter().filter(|((of, _), _)| of == name);
            let before = text.len();
            found.for_each(|(_, line)| *text = format!("{text}{line}\n"));
            if text.len() == before {
                missing.push(format!("`{name}`"));
            }
        };
        for (name, _) in &self.hooks {
            add(&mut text, name);
        }
        text.push_str(
            "\n## Checks and steps\n\n| name | where | instead | test | comes to | at |\n|---|---|---|---|---|---|\n",
        );
        for name in &self.sources {
            add(&mut text, name);
        }
        if !missing.is_empty() {
            text = format!("{text}\nNot tried yet: {}.\n", missing.join(", "));
        }
        text
    }
}

fn written(root: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(root.join(FILE)) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("`{FILE}`")),
    }
}

fn lines(text: &str) -> BTreeMap<(String, String), String> {
    let entry = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        Some(((name, cells.next()?.to_owned()), line.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ended: Ended, survives: Option<&str>) -> Row {
        Row { survives: survives.map(str::to_owned), ..Row::of_hook("hook", "Linux 9", "a::b", ended) }
    }

    #[test]
    fn what_no_test_notices_is_a_problem_unless_the_list_says_why() {
        assert!(row(Ended::Failed, None).problem().is_none());
        assert!(row(Ended::FailedAtTheProof, None).problem().is_none());
        assert!(row(Ended::Passed, Some("because")).problem().is_none());
        assert!(row(Ended::Passed, None).problem().unwrap().contains("`a::b` passes"));
        assert!(row(Ended::Failed, Some("because")).problem().unwrap().contains("no test can"));
        assert!(row(Ended::Void("why".to_owned()), None).problem().unwrap().contains("why"));
    }

    #[test]
    fn what_an_earlier_run_has_written_is_found_again() {
        let line = row(Ended::Failed, None).line("abc");
        let found = lines(&format!("# Title\n\n| a | b |\n|---|---|\n{line}\n"));
        assert_eq!(found.get(&("hook".to_owned(), "Linux 9".to_owned())), Some(&line));
        assert_eq!(found.len(), 1);
    }
}
