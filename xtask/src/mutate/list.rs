//! `tests/mutations.toml`: what is done without, and which test has to fail.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

pub(super) const FILE: &str = "tests/mutations.toml";
/// Whose hooks' tests they are.
pub(super) const AGENT: &str = "sentinel-agent/lib";

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mutations {
    pub(super) hook: Vec<Hook>,
    #[serde(default)]
    pub(super) source: Vec<Source>,
}

/// A program of the kernel side that is not attached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) tier: Tier,
    pub(super) test: String,
}

/// Where a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tier {
    Lsm,
    Kill,
    Both,
}

/// Where another text is tried, if not on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    /// In a guest at tier `lsm`: it is the kernel side's, and the test the agent's.
    Guest,
}

/// Another text in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) test: String,
    /// Where it is tried; without it, on this machine.
    pub(super) place: Option<Place>,
    /// Why no test can notice.
    pub(super) survives: Option<String>,
}

impl Source {
    /// The file's text with the other text in it.
    ///
    /// # Errors
    /// What it stands for isn't there, or more than once.
    pub(super) fn mutated(&self, text: &str) -> anyhow::Result<String> {
        let times = text.matches(&self.from).count();
        ensure!(times == 1, "`{}`: its `from` stands {times} times in `{}`", self.name, self.file);
        Ok(text.replacen(&self.from, &self.to, 1))
    }

    /// The test's name in the agent's library, of what is tried in a guest.
    ///
    /// # Errors
    /// What is to be tried there can't be.
    pub(super) fn test_in_guest(&self) -> anyhow::Result<&str> {
        let (program, test) = self.target_and_test()?;
        ensure!(
            program == AGENT && self.file.starts_with("sentinel-ebpf/"),
            "`{}`: only `sentinel-ebpf` is tried in a guest, by tests of `{AGENT}`",
            self.name
        );
        Ok(test)
    }

    /// The program and the test's name in it.
    pub(super) fn target_and_test(&self) -> anyhow::Result<(&str, &str)> {
        let parts = self.test.split_once("::");
        parts.with_context(|| format!("`{}`: `{}` is no `package/target::test`", self.name, self.test))
    }
}

impl Mutations {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read or parsed, or two have one name.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).with_context(|| format!("`{FILE}`"))?;
        let all: Self = toml::from_str(&text).with_context(|| format!("`{FILE}`"))?;
        let names =
            all.hook.iter().map(|hook| &hook.name).chain(all.source.iter().map(|source| &source.name));
        let mut known = BTreeSet::new();
        for name in names {
            ensure!(known.insert(name), "`{FILE}`: two are named `{name}`");
        }
        Ok(all)
    }
}

/// Checks that what the list speaks of is there: the texts, and among these tests those that have to fail.
///
/// # Errors
/// Names what isn't.
pub(crate) fn check(root: &Path, tests: &[String]) -> anyhow::Result<()> {
    let all = Mutations::read(root)?;
    let mut problems = Vec::new();
    for source in &all.source {
        let text = std::fs::read_to_string(root.join(&source.file)).with_context(|| source.file.clone())?;
        problems.extend(source.mutated(&text).err().map(|error| error.to_string()));
    }
    let of_hooks = all.hook.iter().map(|hook| (&hook.name, format!("{AGENT}::{}", hook.test)));
    let of_sources = all.source.iter().map(|source| (&source.name, source.test.clone()));
    for (name, test) in of_hooks.chain(of_sources) {
        if !tests.contains(&test) {
            problems.push(format!("`{name}`: there is no test `{test}`"));
        }
    }
    ensure!(problems.is_empty(), "`{FILE}` is out of date:\n  {}", problems.join("\n  "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(from: &str) -> Source {
        let text = format!("name = 'n'\nfile = 'f'\nfrom = '{from}'\nto = 'z'\ntest = 'a/lib::t'\n");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_text_is_replaced_where_it_stands_once_and_nowhere_else() {
        assert_eq!(source("b").mutated("a b c").unwrap(), "a z c");
        assert!(source("b").mutated("a b b").unwrap_err().to_string().contains("2 times"));
        assert!(source("b").mutated("a c").unwrap_err().to_string().contains("0 times"));
    }

    #[test]
    fn a_test_is_named_with_its_program() {
        assert_eq!(source("b").target_and_test().unwrap(), ("a/lib", "t"));
    }

    #[test]
    fn the_projects_own_list_is_valid_and_its_texts_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for source in Mutations::read(root).unwrap().source {
            let text = std::fs::read_to_string(root.join(&source.file)).unwrap();
            source.mutated(&text).unwrap();
            source.target_and_test().unwrap();
            if source.place.is_some() {
                source.test_in_guest().unwrap();
            }
        }
    }
}
