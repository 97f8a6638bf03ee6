//! `tests/tiers.toml`: which test runs when.
//!
//! Invariant: every test stands in exactly one tier, and no rule is about nothing; so no test is skipped in silence.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// When a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// In `cargo xtask test`.
    Ci,
    /// By hand, for hours.
    Soak,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ci {
    tests: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Soak {
    tests: Vec<String>,
    #[serde(flatten)]
    age: Age,
}

/// When what was soaked has to be soaked again.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Age {
    /// The folders that soaks are about.
    #[serde(default)]
    pub(crate) covers: Vec<String>,
    /// For so many days they may differ from what was soaked.
    #[serde(default)]
    pub(crate) days: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ci: Ci,
    soak: Soak,
}

/// The rules. A rule is `package`, `package/target` or `package/target::the_beginning_of_a_test`; the longest that fits a
/// test decides.
#[derive(Debug)]
pub(crate) struct Tiers {
    rules: BTreeMap<String, Tier>,
    pub(crate) age: Age,
}

impl Tiers {
    /// Reads the file.
    ///
    /// # Errors
    /// It can't be read or parsed, or has a rule in both tiers.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let path = root.join("tests/tiers.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("`{}`", path.display()))?;
        Self::parse(&text).with_context(|| format!("`{}`", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut rules = BTreeMap::new();
        let ci = file.ci.tests.into_iter().map(|rule| (rule, Tier::Ci));
        for (rule, tier) in ci.chain(file.soak.tests.into_iter().map(|rule| (rule, Tier::Soak))) {
            if rules.insert(rule.clone(), tier).is_some() {
                bail!("the rule `{rule}` stands there twice");
            }
        }
        Ok(Self { rules, age: file.soak.age })
    }

    /// Puts each test (`package/target::name`, or `package/target` where the target is one) in its tier.
    ///
    /// # Errors
    /// Names the tests that no rule fits, and the rules that fit no test.
    pub(crate) fn sort(&self, tests: &[String]) -> anyhow::Result<BTreeMap<String, Tier>> {
        let mut sorted = BTreeMap::new();
        let mut problems = Vec::new();
        let mut used = std::collections::BTreeSet::new();
        for test in tests {
            let longest =
                self.rules.iter().filter(|(rule, _)| fits(rule, test)).max_by_key(|(rule, _)| rule.len());
            match longest {
                Some((rule, tier)) => {
                    used.insert(rule);
                    sorted.insert(test.clone(), *tier);
                }
                None => problems.push(format!("  no rule fits the test `{test}`")),
            }
        }
        for rule in self.rules.keys().filter(|rule| !used.contains(rule)) {
            problems.push(format!("  the rule `{rule}` fits no test"));
        }
        if problems.is_empty() {
            Ok(sorted)
        } else {
            bail!("`tests/tiers.toml` doesn't name every test once:\n{}", problems.join("\n"))
        }
    }
}

fn fits(rule: &str, test: &str) -> bool {
    match test.strip_prefix(rule) {
        Some(rest) if rule.contains("::") => rest.is_empty() || !rule.ends_with(':'),
        Some(rest) if rule.contains('/') => rest.is_empty() || rest.starts_with("::"),
        Some(rest) => rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(ci: &str, soak: &str) -> anyhow::Result<Tiers> {
        Tiers::parse(&format!("[ci]\ntests = [{ci}]\n[soak]\ntests = [{soak}]"))
    }

    fn sort(tiers: &Tiers, tests: &[&str]) -> anyhow::Result<BTreeMap<String, Tier>> {
        tiers.sort(&tests.iter().map(|test| (*test).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_longest_rule_decides() {
        let tiers = tiers("'engine'", "'engine/histories::a_million'").unwrap();
        let sorted =
            sort(&tiers, &["engine/histories::a_hundred", "engine/histories::a_million_runs"]).unwrap();
        assert_eq!(sorted.values().copied().collect::<Vec<_>>(), [Tier::Ci, Tier::Soak]);
    }

    #[test]
    fn a_test_that_no_rule_names_fails() {
        let tiers = tiers("'engine'", "").unwrap();
        assert!(sort(&tiers, &["engine/lib::a", "engineering/lib::b"]).is_err());
        assert!(sort(&tiers, &["engine/lib::a"]).is_ok());
    }

    #[test]
    fn a_rule_about_nothing_fails() {
        let tiers = tiers("'engine', 'gone'", "").unwrap();
        assert!(sort(&tiers, &["engine/lib::a"]).is_err());
    }

    #[test]
    fn a_target_that_is_one_test_has_its_own_rule() {
        let tiers = tiers("'fuzz'", "'fuzz/policy'").unwrap();
        let sorted = sort(&tiers, &["fuzz/policies", "fuzz/policy"]).unwrap();
        assert_eq!(sorted.values().copied().collect::<Vec<_>>(), [Tier::Ci, Tier::Soak]);
    }

    #[test]
    fn a_rule_in_both_tiers_fails() {
        assert!(tiers("'engine'", "'engine'").is_err());
    }
}
