//! `cargo xtask test`: everything that CI runs, from a clone with nothing built.
//!
//! Invariant: a test that didn't run is a failure or is named in the last lines; what a test leaves behind on the machine is a
//! failure too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::command::{output, run};
use crate::leftovers::Snapshot;
use crate::python::Python;
use crate::reaper::Reaper;
use crate::tiers::{Tier, Tiers};
use crate::vm::{self, Selection, Vm};
use crate::{build_ebpf, fuzz, mutate, python, setup, soak};

/// How long each fuzz target runs: long enough to reach what it reached before, and a little more.
const FUZZ_SECONDS: u32 = 20;

/// One program, mostly a test.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) package: String,
    /// `lib` for a library's tests.
    pub(crate) name: String,
    pub(crate) executable: String,
    /// The package's folder, in which cargo runs its tests.
    folder: PathBuf,
    pub(crate) is_test: bool,
}

#[derive(Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
}

pub(crate) fn test(root: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    let targets = build(root)?;
    let fuzz_targets = fuzz::build(root)?;
    let python = python::build(root)?;
    let mut tests = list(root, &targets)?;
    tests.extend(fuzz_targets.iter().map(fuzz::Target::test));
    let python_tests = python.tests()?;
    tests.extend_from_slice(&python_tests);
    let kernels = vm::tests(root)?;
    tests.extend_from_slice(&kernels);
    let rules = Tiers::read(root)?;
    let tiers = rules.sort(&tests)?;
    mutate::check(root, &tests)?;

    let before = Snapshot::take(root)?;
    let reaper = Reaper::start(root)?;
    let mut count = Count::default();
    let mut failed_targets = Vec::new();
    for target in &targets {
        let prefix = format!("{}/{}::", target.package, target.name);
        let soak: Vec<&str> = tiers
            .iter()
            .filter(|(_, tier)| **tier == Tier::Soak)
            .filter_map(|(test, _)| test.strip_prefix(&prefix))
            .collect();
        if !run_target(target, &python, filter, &soak, &mut count)? {
            failed_targets.push(format!("{}/{}", target.package, target.name));
        }
    }
    for target in &fuzz_targets {
        let test = target.test();
        if tiers.get(&test) != Some(&Tier::Ci) || filter.is_some_and(|filter| !test.contains(filter)) {
            continue;
        }
        match target.run(root, FUZZ_SECONDS) {
            Ok(told) => {
                println!("{test}: {told}");
                count.passed += 1;
            }
            Err(finding) => {
                println!("{finding:#}");
                count.failed += 1;
                failed_targets.push(test);
            }
        }
    }
    for test in &python_tests {
        if tiers.get(test) != Some(&Tier::Ci) || filter.is_some_and(|filter| !test.contains(filter)) {
            continue;
        }
        match python.run(test) {
            Ok(ran) => {
                println!("{test}: {ran} passed, 0 failed");
                count.passed += ran;
            }
            Err(failure) => {
                println!("{failure:#}");
                count.failed += 1;
                failed_targets.push(test.clone());
            }
        }
    }
    let kernels = kernels.into_iter().filter(|test| {
        tiers.get(test) == Some(&Tier::Ci) && filter.is_none_or(|filter| test.contains(filter))
    });
    run_kernels(root, &kernels.collect::<Vec<_>>(), &mut count, &mut failed_targets)?;
    if filter.is_none() {
        run_doc_tests(root, &mut count, &mut failed_targets)?;
    }
    drop(reaper);
    let left = before.compare(root);

    let soak = tiers.iter().filter(|(_, tier)| **tier == Tier::Soak).map(|(test, _)| test.clone());
    let soak: Vec<String> = soak.chain(fuzz_targets.iter().map(fuzz::Target::test)).collect();
    let soak: Vec<&str> = soak.iter().map(String::as_str).collect();
    println!("\ntier ci: {} ran; tier soak: {} not run here", count.passed + count.failed, soak.len());
    if let Err(due) = soak::check(root, &soak, &rules.age) {
        println!("{due:#}");
        count.failed += 1;
    }
    if let Err(left) = &left {
        println!("{left:#}");
        count.failed += 1;
    }
    if !failed_targets.is_empty() {
        println!("failed in: {}", failed_targets.join(", "));
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 || !failed_targets.is_empty() {
        bail!("the tests failed");
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

impl Target {
    /// Runs it as cargo would, but without cargo: asked for one package at a time it builds anew what it built for all.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder).arg("--quiet");
        command
    }
}

/// Builds every test program, and the programs that end-to-end tests start themselves.
///
/// # Errors
/// Cargo's.
pub(crate) fn build(root: &Path) -> anyhow::Result<Vec<Target>> {
    build_programs(root)?;
    let messages = output(
        root,
        "cargo",
        &["test", "--workspace", "--no-run", "--locked", "--message-format=json-render-diagnostics"],
    )?;
    Ok(executables(&messages)?.into_iter().filter(|target| target.is_test).collect())
}

/// Builds every program that isn't a test. Always of the whole workspace: what is asked for by package has its
/// dependencies built anew with that package's features.
///
/// # Errors
/// Cargo's.
pub(crate) fn build_programs(root: &Path) -> anyhow::Result<()> {
    run(root, "cargo", &["build", "--workspace", "--bins", "--examples", "--locked"])
}

/// The programs that cargo tells of in its messages.
///
/// # Errors
/// They aren't as cargo writes them.
pub(crate) fn executables(messages: &str) -> anyhow::Result<Vec<Target>> {
    let mut targets = BTreeMap::new();
    for message in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(message).context("cargo printed what is no JSON")?;
        let (Some(executable), Some(is_test)) =
            (message["executable"].as_str(), message["profile"]["test"].as_bool())
        else {
            continue;
        };
        let name = message["target"]["name"].as_str().context("a target without a name")?.to_owned();
        let package = package_name(message["package_id"].as_str().context("a target without a package")?)?;
        // A program and a library of one name are two targets.
        let is_library = matches!(message["target"]["kind"][0].as_str(), Some("lib" | "proc-macro"));
        let name = if is_library { "lib".to_owned() } else { name };
        let manifest = Path::new(message["manifest_path"].as_str().context("a target without a manifest")?);
        let folder = manifest.parent().context("a manifest without a folder")?.to_owned();
        let target = Target { package, name, executable: executable.to_owned(), folder, is_test };
        targets.insert((target.package.clone(), target.name.clone(), is_test), target);
    }
    Ok(targets.into_values().collect())
}

/// `path+file:///folder#name@0.1.0`, or `path+file:///folder/name#0.1.0`.
fn package_name(id: &str) -> anyhow::Result<String> {
    let (path, version) = id.rsplit_once('#').with_context(|| format!("package id `{id}`"))?;
    let name = match version.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    };
    Ok(name.to_owned())
}

/// Runs one test, by its whole name, `package/target::test`.
///
/// # Errors
/// It fails.
pub(crate) fn run_one(targets: &[Target], test: &str) -> anyhow::Result<()> {
    for target in targets {
        if let Some(name) = test.strip_prefix(&format!("{}/{}::", target.package, target.name)) {
            let mut command = target.command();
            command.args(["--exact", name]);
            let mut count = Count::default();
            run_counted(command, test, &mut count)?;
            anyhow::ensure!(count.passed == 1 && count.failed == 0, "it failed");
            return Ok(());
        }
    }
    bail!("no target has it")
}

/// The names of all tests of these programs.
///
/// # Errors
/// One can't be run.
pub(crate) fn list(root: &Path, targets: &[Target]) -> anyhow::Result<Vec<String>> {
    let mut tests = Vec::new();
    for target in targets {
        for line in output(root, &target.executable, &["--list", "--format", "terse"])?.lines() {
            if let Some(test) = line.strip_suffix(": test") {
                tests.push(format!("{}/{}::{test}", target.package, target.name));
            }
        }
    }
    Ok(tests)
}

/// Runs a test program, without those of its tests that are in tier soak.
fn run_target(
    target: &Target,
    python: &Python,
    filter: Option<&str>,
    soak: &[&str],
    count: &mut Count,
) -> anyhow::Result<bool> {
    let mut command = target.command();
    command
        .args(filter)
        .env("SENTINEL_PYTHON_SITE", &python.site)
        .env("SENTINEL_PYTHON_WHEELS", &python.wheels)
        .env("SENTINEL_PYTHON_PACKAGES", &python.packages)
        .env("SENTINEL_OPENAI_PACKAGES", &python.openai);
    if !soak.is_empty() {
        // A filter is a part of a name, what is skipped a whole one.
        if filter.is_none() {
            command.arg("--exact");
        }
        for test in soak {
            command.args(["--skip", test]);
        }
    }
    run_counted(command, &format!("{}/{}", target.package, target.name), count)
}

/// Runs what `tests/kernels.toml` lists on each of these kernels.
fn run_kernels(
    root: &Path,
    kernels: &[String],
    count: &mut Count,
    failed: &mut Vec<String>,
) -> anyhow::Result<()> {
    if kernels.is_empty() {
        return Ok(());
    }
    let vm = Vm::prepare(root, Selection::Listed)?;
    for (test, told) in vm.run_each(kernels) {
        match told {
            Ok(told) => {
                println!("{test}: {told}");
                count.passed += told.passed;
            }
            Err(failure) => {
                println!("{test}: {failure:#}");
                count.failed += 1;
                failed.push(test.to_owned());
            }
        }
    }
    Ok(())
}

fn run_doc_tests(root: &Path, count: &mut Count, failed: &mut Vec<String>) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["test", "--quiet", "--locked", "--workspace", "--doc"]);
    if !run_counted(command, "documentation", count)? {
        failed.push("documentation".to_owned());
    }
    Ok(())
}

/// Runs tests, and adds up what their runner says.
fn run_counted(mut command: Command, name: &str, count: &mut Count) -> anyhow::Result<bool> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{name}: can't be started"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut here = Count::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        here.passed += number_before(line, " passed")?;
        here.failed += number_before(line, " failed")?;
        let ignored = number_before(line, " ignored")?;
        if ignored > 0 {
            // Doc examples that need an agent are marked `no_run`, not `ignore`; nothing else may be left out.
            bail!("{name}: {ignored} tests are marked #[ignore]; put them in a tier instead");
        }
    }
    if !output.status.success() {
        println!("{text}");
        here.failed = here.failed.max(1);
    }
    if here.passed + here.failed > 0 {
        println!("{name}: {} passed, {} failed", here.passed, here.failed);
    }
    count.passed += here.passed;
    count.failed += here.failed;
    Ok(output.status.success())
}

/// The number before a word in a test runner's line.
///
/// # Errors
/// There is none.
pub(crate) fn number_before(line: &str, word: &str) -> anyhow::Result<usize> {
    let (before, _) =
        line.split_once(word).with_context(|| format!("a test runner's line without `{word}`: {line}"))?;
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().with_context(|| format!("a test runner's line without a number before `{word}`: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_package_id_give_its_name() {
        assert_eq!(
            package_name("path+file:///w/sentinel-sdk/engine#sentinel-engine@0.1.0").unwrap(),
            "sentinel-engine"
        );
        assert_eq!(package_name("path+file:///w/xtask#0.1.0").unwrap(), "xtask");
    }

    #[test]
    fn the_runners_line_is_added_up() {
        let line = "ok. 12 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.1s";
        assert_eq!(number_before(line, " passed").unwrap(), 12);
        assert_eq!(number_before(line, " failed").unwrap(), 3);
    }
}
