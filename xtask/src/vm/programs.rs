//! The test programs, built so that they run on a system with nothing else on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::Selection;
use super::kernels::{Kernel, Listed, Tier};
use crate::command::output_of;
use crate::test::{Target, executables};

/// The target's name has to be given, or the flags for a static program would hold for build scripts and macros as well.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A test program, built.
#[derive(Debug)]
pub(crate) struct Program {
    listed: Listed,
    pub(crate) executable: PathBuf,
}

/// A program that tests start.
#[derive(Debug)]
pub(crate) struct Started {
    /// Where it is in the guest.
    pub(crate) place: String,
    pub(crate) executable: PathBuf,
}

/// Builds the test programs.
///
/// # Errors
/// Cargo's, or one that isn't built by it.
pub(crate) fn build(root: &Path, listed: &[Listed]) -> anyhow::Result<Vec<Program>> {
    let mut command = cargo(root, "test");
    command.arg("--no-run");
    for package in listed.iter().map(|listed| &listed.package).collect::<BTreeSet<_>>() {
        command.args(["--package", package]);
    }
    for target in listed.iter().map(|listed| listed.target.as_str()).collect::<BTreeSet<_>>() {
        match target {
            "lib" => command.arg("--lib"),
            test => command.args(["--test", test]),
        };
    }
    let built = executables(&output_of(command, "cargo test --no-run")?)?;
    let find = |listed: &Listed| {
        let is_it = |target: &&Target| {
            target.is_test && target.package == listed.package && target.name == listed.target
        };
        let found = built.iter().find(is_it);
        let found =
            found.with_context(|| format!("cargo built no `{}/{}`", listed.package, listed.target))?;
        Ok(Program { listed: listed.clone(), executable: found.executable.clone().into() })
    };
    listed.iter().map(find).collect()
}

/// Builds the programs that these start.
///
/// # Errors
/// Cargo's, or one that isn't built by it.
pub(crate) fn build_started(root: &Path, listed: &[Listed]) -> anyhow::Result<Vec<Started>> {
    let names = listed.iter().flat_map(|listed| &listed.starts).filter_map(|name| name.split_once('/'));
    let names: BTreeSet<(&str, &str)> = names.collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = cargo(root, "build");
    for package in names.iter().map(|(package, _)| *package).collect::<BTreeSet<_>>() {
        command.args(["--package", package]);
    }
    for (_, program) in &names {
        command.args(["--bin", program]);
    }
    let built = executables(&output_of(command, "cargo build")?)?;
    let find = |(package, program): &(&str, &str)| {
        let found = built.iter().find(|target| target.package == *package && target.name == *program);
        let found = found.with_context(|| format!("cargo built no `{package}/{program}`"))?;
        Ok(Started { place: format!("target/debug/{program}"), executable: found.executable.clone().into() })
    };
    names.iter().map(find).collect()
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

impl Program {
    /// `package/target`.
    pub(crate) fn name(&self) -> String {
        self.listed.name()
    }

    /// Where it is in the guest: as in a target folder, for programs look for each other there.
    pub(crate) fn place(&self) -> String {
        format!("target/debug/deps/{}-{}", self.listed.package, self.listed.target)
    }

    /// What the guest's init calls to run it.
    pub(crate) fn run(&self, kernel: &Kernel, selection: &Selection) -> String {
        let mut arguments = Vec::new();
        match selection {
            Selection::Listed | Selection::All => {
                let has_own = !kernel.tests.is_empty();
                let takes_both = *selection == Selection::All && kernel.tier != Tier::None;
                let common = if has_own && !takes_both { &[][..] } else { &self.listed.tests };
                arguments.extend(common.iter().chain(&kernel.tests).map(|test| quoted(test)));
                arguments.extend(self.listed.skip.iter().map(|test| format!("--skip {}", quoted(test))));
            }
            Selection::Having(part) | Selection::Of(_, part) => arguments.push(quoted(part)),
        }
        format!("run {} /{} {}\n", quoted(&self.name()), self.place(), arguments.join(" "))
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Kernels;
    use super::*;

    #[test]
    fn a_kernels_own_list_stands_for_the_programs_but_where_all_is_wanted_and_sentinel_starts() {
        let kernels: Kernels = toml::from_str(
            "[[kernel]]\nname = 'own'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'lsm'\ntests = ['few']\n\
             [[kernel]]\nname = 'none'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'none'\ntests = ['few']\n\
             [[kernel]]\nname = 'plain'\nsuites = []\npackage = ''\nprocessor = ''\ntier = 'kill'\n\
             [[program]]\npackage = 'p'\ntarget = 'lib'\ntests = ['many']\n",
        )
        .unwrap();
        let program = Program { listed: kernels.program[0].clone(), executable: PathBuf::new() };
        let arguments = |kernel: &str, selection: &Selection| {
            let line = program.run(kernels.find(kernel).unwrap(), selection);
            line.trim_end().rsplit_once("p-lib ").unwrap().1.to_owned()
        };
        for (kernel, listed, all) in
            [("own", "'few'", "'many' 'few'"), ("none", "'few'", "'few'"), ("plain", "'many'", "'many'")]
        {
            assert_eq!(arguments(kernel, &Selection::Listed), listed);
            assert_eq!(arguments(kernel, &Selection::All), all);
        }
    }
}
