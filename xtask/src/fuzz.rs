//! `cargo xtask fuzz`: throws bytes at everything that reads what others wrote, guided by which code they reach.
//!
//! Invariant: a target that stops early is a failure that names the bytes; a run changes nothing in the tree. What it learns goes to
//! `target/fuzz`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::command::output_of;

const FOLDER: &str = "tests/fuzz";

/// Counters in the code for the fuzzer to see, and each check that a debug build has.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Cdebug-assertions=on",
];

/// One target that was built.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    executable: PathBuf,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    runs: u64,
    coverage: u64,
    seconds: u64,
}

/// Runs all targets, or one, for so many seconds each.
///
/// # Errors
/// Names the targets that found something, and the bytes that they found.
pub(crate) fn fuzz(root: &Path, seconds: u32, wanted: Option<&str>) -> anyhow::Result<()> {
    let mut targets = build(root)?;
    if let Some(wanted) = wanted {
        let all: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
        targets.retain(|target| target.name == wanted);
        ensure!(!targets.is_empty(), "there is no target `{wanted}`; there are: {}", all.join(", "));
    }
    let mut failed = Vec::new();
    for target in &targets {
        match target.run(root, seconds) {
            Ok(told) => println!("{}: {told}", target.test()),
            Err(finding) => {
                println!("{finding:#}");
                failed.push(target.test());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds all targets, by name.
///
/// # Errors
/// Cargo's, or there is none.
pub(crate) fn build(root: &Path) -> anyhow::Result<Vec<Target>> {
    let build = cargo(root, &["build", "--release", "--bins", "--message-format=json-render-diagnostics"]);
    let mut targets = Vec::new();
    for message in output_of(build, "cargo build of the fuzz targets")?.lines() {
        let message: serde_json::Value =
            serde_json::from_str(message).context("cargo printed what is no JSON")?;
        let Some(executable) = message["executable"].as_str() else { continue };
        let name = message["target"]["name"].as_str().context("a target without a name")?;
        targets.push(Target { name: name.to_owned(), executable: executable.into() });
    }
    ensure!(!targets.is_empty(), "`{FOLDER}` has no targets");
    targets.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(targets)
}

/// Checks the house rules for the targets, with the flags that they are built with: what both compile is compiled once.
///
/// # Errors
/// Cargo's.
pub(crate) fn lint(root: &Path) -> anyhow::Result<()> {
    let mut clippy = cargo(root, &["clippy", "--release", "--bins"]);
    clippy.args(["--", "-D", "warnings"]);
    output_of(clippy, "cargo clippy of the fuzz targets").map(drop)
}

fn cargo(root: &Path, task: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root.join(FOLDER))
        .args(task)
        // With a target named, build scripts and macros go without the counters: they aren't linked to the fuzzer.
        .args(["--locked", "--quiet", "--target", "host-tuple", "--target-dir"])
        .arg(root.join("target/fuzz-build"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    command
}

impl Target {
    /// As a test: what `tests/tiers.toml` and a filter know it by.
    pub(crate) fn test(&self) -> String {
        format!("sentinel-fuzz/{}", self.name)
    }

    /// Runs it.
    ///
    /// # Errors
    /// It found something, or didn't run to its end.
    pub(crate) fn run(&self, root: &Path, seconds: u32) -> anyhow::Result<Told> {
        let folder = root.join("target/fuzz");
        let (grown, findings) = (folder.join("corpus").join(&self.name), folder.join("findings"));
        std::fs::create_dir_all(&grown)?;
        std::fs::create_dir_all(&findings)?;
        let log = folder.join(format!("{}.log", self.name));
        let status = Command::new(&self.executable)
            .args(["-rss_limit_mb=1024", "-timeout=5"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/{}-", findings.display(), self.name))
            // What is new goes into the first.
            .args([grown, root.join(FOLDER).join("corpus").join(&self.name)])
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).with_context(|| format!("`{}`", log.display()))?)
            .status()
            .with_context(|| format!("`{}` can't be started", self.executable.display()))?;
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        let told = told(&text).filter(|_| status.success());
        let Some(told) = told else {
            let found = artifact(&text).map_or_else(
                || "it kept no bytes".to_owned(),
                |artifact| format!("its bytes are in `{artifact}`"),
            );
            bail!(
                "{}: {status}; {found}, all that it said in `{}`\n{}",
                self.test(),
                log.display(),
                cause(&text)
            );
        };
        Ok(told)
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} runs, coverage {}, {} s", self.runs, self.coverage, self.seconds)
    }
}

/// How a run ended, in libFuzzer's words: `#9 DONE cov: 3 ft: 3 …` and `Done 9 runs in 1 second(s)`.
fn told(log: &str) -> Option<Told> {
    let (runs, seconds) =
        log.lines().rev().find_map(|line| line.strip_prefix("Done ")?.split_once(" runs in "))?;
    let coverage = log.lines().rev().find_map(|line| line.split_once(" cov: "))?.1;
    let number = |text: &str| text.split(' ').next()?.parse().ok();
    Some(Told { runs: number(runs)?, coverage: number(coverage)?, seconds: number(seconds)? })
}

fn artifact(log: &str) -> Option<&str> {
    log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path)
}

/// From the panic on, if it was one; else the last lines.
fn cause(log: &str) -> String {
    const MOST: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let start = panic.unwrap_or_else(|| lines.len().saturating_sub(MOST));
    lines.iter().skip(start).take(MOST).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_last_words_are_read() {
        let log = "#2\tINITED cov: 90 ft: 91 corp: 1/1b\n#262144\tDONE   cov: 1234 ft: 5 corp: 9/1Kb lim: 4096\n\
                   ###### Recommended dictionary. ######\nDone 262144 runs in 21 second(s)\n";
        assert_eq!(told(log), Some(Told { runs: 262_144, coverage: 1_234, seconds: 21 }));
        assert_eq!(told("#2\tINITED cov: 90 ft: 91\n"), None, "it was cut off");
        assert_eq!(
            told("#9\tDONE   corp: 1/1b lim: 4\nDone 9 runs in 1 second(s)\n"),
            None,
            "it was built without counters"
        );
    }

    #[test]
    fn a_finding_is_named_with_its_cause() {
        let log = "#7\tNEW    cov: 90\n\nthread '<unnamed>' panicked at src/a.rs:3:5:\nboo\n==1== ERROR: libFuzzer: deadly signal\n\
                   artifact_prefix='/t/policy-'; Test unit written to /t/policy-crash-0a\n";
        assert_eq!(artifact(log), Some("/t/policy-crash-0a"));
        assert!(cause(log).starts_with("  thread '<unnamed>' panicked at src/a.rs:3:5:\n  boo\n"));
        assert!(cause("#1\n==1== ERROR: libFuzzer: timeout").contains("timeout"));
    }
}
