//! `cargo xtask soak`: the tests that take hours, and the record of when they last passed.
//!
//! Invariant: a record names the commit whose tree ran, so nothing is recorded of a tree with changes. `cargo xtask test` fails on a test that
//! was never recorded, and on one whose subject has been different for longer than `days` since. A stage, which runs other tasks as a whole, fails
//! it in the second way alone; of one that was never recorded it says so in its last lines, each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command::output;
use crate::leftovers::Snapshot;
use crate::mutate::{self, Part};
use crate::reaper::Reaper;
use crate::tiers::{Age, Tier, Tiers};
use crate::{build_ebpf, fuzz, python, setup, test, vm};

const RECORDS: &str = "tests/soak.toml";
const SECONDS_A_DAY: i64 = 24 * 60 * 60;

/// When a test last passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What ran, in full.
    commit: String,
    /// What it said of itself.
    figures: String,
}

/// What runs by other tasks, with its name among the records.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Every escape on every kernel.
    Vm,
    /// Every hook left out, on this machine or in the guest.
    Mutate(Part),
}

const STAGES: [(&str, Stage); 3] = [
    ("stage/vm", Stage::Vm),
    ("stage/mutate-host", Stage::Mutate(Part::Host)),
    ("stage/mutate-guest", Stage::Mutate(Part::Guest)),
];

impl Stage {
    fn run(self, root: &Path) -> anyhow::Result<String> {
        let start = Instant::now();
        let told = match self {
            Self::Vm => vm::all(root)?,
            Self::Mutate(part) => {
                mutate::mutate(root, &[], &[mutate::GUEST.to_owned()], Some(part))?;
                "each noticed".to_owned()
            }
        };
        Ok(format!("{told}, {} s", start.elapsed().as_secs()))
    }
}

/// Runs every test of tier soak, or those with this in their name, and each fuzz target for so many seconds; records those that pass.
///
/// # Errors
/// Names those that failed.
pub(crate) fn soak(root: &Path, filter: Option<&str>, fuzz_seconds: u32) -> anyhow::Result<()> {
    let commit = clean_commit(root)?;
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    let targets = test::build(root)?;
    let fuzz_targets = fuzz::build(root)?;
    let mut tests = test::list(root, &targets)?;
    tests.extend(fuzz_targets.iter().map(fuzz::Target::test));
    tests.extend(python::build(root)?.tests()?);
    tests.extend(vm::tests(root)?);
    let tiers = Tiers::read(root)?.sort(&tests)?;
    let is_wanted = |test: &str| filter.is_none_or(|filter| test.contains(filter));

    let before = Snapshot::take(root)?;
    let reaper = Reaper::start(root)?;
    let (mut passed, mut failed) = (0, Vec::new());
    let mut done = |test: &str, figures: anyhow::Result<String>| match figures {
        Ok(figures) => {
            passed += 1;
            println!("{test}: passed, {figures}");
            record(root, test, Record { commit: commit.clone(), figures })
        }
        Err(error) => {
            println!("{test}: {error:#}");
            failed.push(test.to_owned());
            Ok(())
        }
    };
    let soaks = tiers.iter().filter(|(_, tier)| **tier == Tier::Soak).map(|(test, _)| test);
    for test in soaks.filter(|test| is_wanted(test)) {
        let start = Instant::now();
        let told = test::run_one(&targets, test);
        done(test, told.map(|()| format!("{} s", start.elapsed().as_secs())))?;
    }
    // All at once, so that an hour each is an hour in all.
    let wanted: Vec<&fuzz::Target> = fuzz_targets.iter().filter(|target| is_wanted(&target.test())).collect();
    let told: Vec<anyhow::Result<fuzz::Told>> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            wanted.iter().map(|target| scope.spawn(|| target.run(root, fuzz_seconds))).collect();
        let panicked = |_panic| Err(anyhow::anyhow!("its thread panicked"));
        runs.into_iter().map(|run| run.join().unwrap_or_else(panicked)).collect()
    });
    let together = wanted.len();
    for (target, told) in wanted.iter().zip(told) {
        done(&target.test(), told.map(|told| format!("{told}, {together} at once")))?;
    }
    drop(reaper);
    before.compare(root)?;
    for (name, stage) in STAGES.iter().filter(|(name, _)| is_wanted(name)) {
        done(name, stage.run(root))?;
    }
    println!("{passed} passed, {} failed", failed.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    ensure!(passed > 0, "no test ran");
    Ok(())
}

/// The commit that is checked out.
///
/// # Errors
/// Something differs from it.
fn clean_commit(root: &Path) -> anyhow::Result<String> {
    let changed = output(root, "git", &["status", "--porcelain"])?;
    if !changed.trim().is_empty() {
        bail!("a soak is recorded with its commit; commit these first, or stash them:\n{changed}");
    }
    Ok(output(root, "git", &["rev-parse", "HEAD"])?.trim().to_owned())
}

fn read(root: &Path) -> anyhow::Result<BTreeMap<String, Record>> {
    let text = std::fs::read_to_string(root.join(RECORDS)).with_context(|| format!("`{RECORDS}`"))?;
    toml::from_str(&text).with_context(|| format!("`{RECORDS}`"))
}

fn record(root: &Path, test: &str, record: Record) -> anyhow::Result<()> {
    let mut records = read(root)?;
    records.insert(test.to_owned(), record);
    let text = toml::to_string(&records).context("records are text and numbers")?;
    let head = "# When each test of tier soak last passed; written by `cargo xtask soak`.\n\n";
    std::fs::write(root.join(RECORDS), format!("{head}{text}")).with_context(|| format!("`{RECORDS}`"))
}

/// Checks that each of these tests was soaked, and not too long before its subject changed. Prints a line for each.
///
/// # Errors
/// Names those that have to be soaked again.
pub(crate) fn check(root: &Path, tests: &[&str], age: &Age) -> anyhow::Result<()> {
    let records = read(root)?;
    let mut problems = Vec::new();
    let stages = STAGES.map(|(name, _)| name);
    let is_known = |name: &str| tests.contains(&name) || stages.contains(&name);
    for stale in records.keys().filter(|name| !is_known(name)) {
        problems.push(format!("  `{RECORDS}` has a record of `{stale}`, which is no such test"));
    }
    let has_history = root.join(".git").exists();
    for test in tests.iter().chain(&stages) {
        let Some(record) = records.get(*test) else {
            if stages.contains(test) {
                println!(
                    "NEVER RECORDED: {test}; nothing here says that it passes (`cargo xtask soak {test}`)"
                );
            } else {
                problems.push(format!("  `{test}` was never soaked"));
            }
            continue;
        };
        println!("soaked at {:.9}: {test} ({})", record.commit, record.figures);
        let days = if has_history { days_since_change(root, &record.commit, &age.covers)? } else { None };
        if let Some(days) = days.filter(|days| *days > age.days) {
            problems.push(format!(
                "  `{test}` was soaked at {:.9}; what it is about has been different for {days} days",
                record.commit
            ));
        }
    }
    if !has_history {
        println!("no git history here: whether the soaks are too old is NOT checked");
    }
    ensure!(problems.is_empty(), "soak is due (`cargo xtask soak`):\n{}", problems.join("\n"));
    Ok(())
}

/// For how many days, up to the last commit, something of these paths has differed from that commit. None: nothing does.
fn days_since_change(root: &Path, commit: &str, paths: &[String]) -> anyhow::Result<Option<i64>> {
    let range = format!("{commit}..HEAD");
    let mut arguments = vec!["log", "--reverse", "--format=%ct", &range, "--"];
    arguments.extend(paths.iter().map(String::as_str));
    let log = output(root, "git", &arguments)
        .with_context(|| format!("`{RECORDS}` names the commit {commit}; is the history whole?"))?;
    let Some(first) = log.lines().next() else { return Ok(None) };
    let head = output(root, "git", &["log", "-1", "--format=%ct"])?;
    let seconds = head.trim().parse::<i64>()?.saturating_sub(first.trim().parse()?);
    Ok(Some(seconds.div_euclid(SECONDS_A_DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_recorded_fails_if_it_is_a_test_and_not_if_it_is_a_stage_and_what_is_neither_fails() {
        let root = std::env::temp_dir().join(format!("sentinel-soak-{}", std::process::id()));
        std::fs::create_dir_all(root.join("tests")).unwrap();
        let due = |records: &[&str]| {
            let lines =
                records.iter().map(|name| format!("[\"{name}\"]\ncommit = \"c\"\nfigures = \"1 s\"\n"));
            std::fs::write(root.join(RECORDS), lines.collect::<String>()).unwrap();
            check(&root, &["a/lib::t"], &Age::default()).map_err(|error| error.to_string())
        };
        assert!(due(&["a/lib::t"]).is_ok() && due(&["a/lib::t", "stage/vm"]).is_ok());
        assert!(due(&["stage/vm"]).unwrap_err().contains("`a/lib::t` was never soaked"));
        assert!(due(&["a/lib::t", "stage/none"]).unwrap_err().contains("which is no such test"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
