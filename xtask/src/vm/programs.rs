//! The test programs, built so that they run on a system with nothing else on it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::Selection;
use super::kernels::{Kernel, Listed};
use crate::command::output_of;

/// The target's name has to be given, or the flags for a static program would hold for build scripts and macros as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A test program, built.
#[derive(Debug)]
pub(crate) struct Program {
    listed: Listed,
    pub(crate) executable: PathBuf,
}

/// Builds these.
///
/// # Errors
/// Cargo's, or one that isn't built by it.
pub(crate) fn build(root: &Path, listed: &[Listed]) -> anyhow::Result<Vec<Program>> {
    let mut programs = Vec::new();
    for listed in listed {
        let mut command = cargo(root, "test");
        command.args(["--no-run", "--package", &listed.package]);
        match listed.target.as_str() {
            "lib" => command.arg("--lib"),
            test => command.args(["--test", test]),
        };
        let told = output_of(command, &format!("cargo test --no-run --package {}", listed.package))?;
        let executables = executables(&told)?;
        ensure!(
            executables.len() == 1,
            "`{}/{}` is {} programs, not one",
            listed.package,
            listed.target,
            executables.len()
        );
        programs
            .extend(executables.into_iter().map(|executable| Program { listed: listed.clone(), executable }));
    }
    Ok(programs)
}

/// A cargo that builds for the guest, in a target folder of its own: the flags are others than the host's.
fn cargo(root: &Path, task: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args([task, "--locked", "--target", TARGET, "--target-dir"])
        .arg(root.join("target/vm"))
        .arg("--message-format=json-render-diagnostics")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command
}

/// The test programs that cargo tells of.
fn executables(messages: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for message in messages.lines() {
        let message: serde_json::Value =
            serde_json::from_str(message).context("cargo printed what is no JSON")?;
        if let (Some(executable), Some(true)) =
            (message["executable"].as_str(), message["profile"]["test"].as_bool())
        {
            found.push(PathBuf::from(executable));
        }
    }
    Ok(found)
}

impl Program {
    /// `package/target`.
    fn name(&self) -> String {
        format!("{}/{}", self.listed.package, self.listed.target)
    }

    /// Where it is in the guest: as in a target folder, for programs look for each other there.
    pub(crate) fn place(&self) -> String {
        format!("target/debug/deps/{}-{}", self.listed.package, self.listed.target)
    }

    /// What the guest's init calls to run it; none where it has no test that is selected.
    pub(crate) fn run(&self, kernel: &Kernel, selection: Selection<'_>) -> Option<String> {
        let mut arguments = Vec::new();
        match selection {
            Selection::Listed => {
                let tests = if kernel.tests.is_empty() { &self.listed.tests } else { &kernel.tests };
                if self.listed.tests.is_empty() {
                    return None;
                }
                arguments.extend(tests.iter().map(|test| quoted(test)));
                arguments.extend(self.listed.skip.iter().map(|test| format!("--skip {}", quoted(test))));
            }
            Selection::Having(part) => arguments.push(quoted(part)),
        }
        Some(format!("run {} /{} {}\n", quoted(&self.name()), self.place(), arguments.join(" ")))
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
