//! Hooks that are not attached: the agent's test program leaves out the one that `SENTINEL_LEAVE_OUT` names.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::list::{AGENT, Hook, Tier};
use super::ran::{self, Ended};
use super::table::Row;
use crate::command::output;
use crate::test::{self, Target};
use crate::vm::{EXIT, START, Selection, Vm};

const LEAVE_OUT: &str = "SENTINEL_LEAVE_OUT";
/// Where this machine tries them.
pub(super) const HERE: &str = "this machine";

/// Does without each on this machine.
///
/// # Errors
/// A test fails with every hook in its place, or what is needed can't be built or started.
pub(super) fn on_this_machine(
    root: &Path,
    hooks: &[Hook],
    told: &mut impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let hooks: Vec<&Hook> = hooks.iter().filter(|hook| hook.tier != Tier::Lsm).collect();
    if hooks.is_empty() {
        return Ok(());
    }
    let arguments = ["test", "--no-run", "--locked", "--package", "sentinel-agent", "--lib"];
    let messages = [&arguments[..], &["--message-format=json-render-diagnostics"]].concat();
    let built = test::executables(&output(root, "cargo", &messages)?)?;
    let target = built.iter().find(|target| target.is_test).context("cargo built no test of the agent")?;
    let run = |test: &str, left_out: Option<&str>| run_here(root, target, test, left_out);
    for test in distinct(&hooks) {
        let ended = run(test, None)?;
        ensure!(ended == Ended::Passed, "`{test}` doesn't pass with every hook in its place: {ended:?}");
    }
    for hook in hooks {
        told(Row::of_hook(&hook.name, HERE, &hook.test, run(&hook.test, Some(&hook.name))?))?;
    }
    Ok(())
}

fn run_here(root: &Path, target: &Target, test: &str, left_out: Option<&str>) -> anyhow::Result<Ended> {
    let mut command = target.command();
    command.args(["--exact", test]);
    if let Some(name) = left_out {
        command.env(LEAVE_OUT, name);
    }
    let folder = root.join("target/mutate");
    std::fs::create_dir_all(&folder)?;
    ran::run(command, &folder.join("log"))
}

/// Does without each in one guest.
///
/// # Errors
/// The guest doesn't come to its end, or a test fails in it with every hook in its place.
pub(super) fn in_a_guest(
    root: &Path,
    kernel: &str,
    hooks: &[Hook],
    told: &mut impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let hooks: Vec<&Hook> = hooks.iter().filter(|hook| hook.tier != Tier::Kill).collect();
    if hooks.is_empty() {
        return Ok(());
    }
    let vm = Vm::prepare(root, Selection::Of(AGENT.to_owned(), String::new()))?;
    let place = vm.place(AGENT)?;
    let whole = distinct(&hooks).into_iter().map(|test| (format!("{test} with all"), String::new(), test));
    let without = hooks.iter().map(|hook| {
        (
            format!("{} without {}", hook.test, hook.name),
            format!("{LEAVE_OUT}={}", hook.name),
            hook.test.as_str(),
        )
    });
    let runs: Vec<(String, String, &str)> = whole.chain(without).collect();
    // Names are words, and tests of Rust.
    let line = |(name, variable, test): &(String, String, &str)| {
        format!("run '{name}' env {variable} /{place} --quiet --exact {test}\n")
    };
    let seen = vm.boot(kernel, &runs.iter().map(line).collect::<String>())?;
    let place = format!("Linux {kernel}");
    for (name, variable, test) in &runs {
        let ended = told_of(&seen.output, name)?;
        if variable.is_empty() {
            ensure!(ended == Ended::Passed, "vm/{kernel}: `{name}` doesn't pass: {ended:?}");
        }
        if let Some(hook) = variable.strip_prefix(&format!("{LEAVE_OUT}=")) {
            told(Row::of_hook(hook, &place, test, ended))?;
        }
    }
    Ok(())
}

fn distinct<'a>(hooks: &[&'a Hook]) -> BTreeSet<&'a str> {
    hooks.iter().map(|hook| hook.test.as_str()).collect()
}

/// How a run in the guest ended, by what the guest printed between its start and its end.
fn told_of(output: &str, name: &str) -> anyhow::Result<Ended> {
    let mut lines = output.lines().skip_while(|line| line.strip_prefix(START) != Some(name)).skip(1);
    let mut words = String::new();
    for line in lines.by_ref() {
        if let Some((of, status)) = line.strip_prefix(EXIT).and_then(|line| line.rsplit_once(' ')) {
            ensure!(of == name, "`{name}` was followed by the end of `{of}`");
            return Ok(ran::ended(status == "0", &words));
        }
        words.push_str(line);
        words.push('\n');
    }
    bail!("`{name}` was not seen to run and end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_of_a_guest_is_told_by_what_was_printed_between_its_start_and_its_end() {
        let output = "vm: starts a::t with all\ntest result: ok. 1 passed; 0 failed;\nvm: ended a::t with all 0\n\
                      vm: starts a::t without h\nit could not be proven at that tier\nvm: ended a::t without h 101\n\
                      vm: starts a::t without i\ntest result: FAILED. 0 passed; 1 failed;\nvm: ended a::t without i 101\n\
                      vm: starts a::t without j\n";
        assert_eq!(told_of(output, "a::t with all").unwrap(), Ended::Passed);
        assert_eq!(told_of(output, "a::t without h").unwrap(), Ended::FailedAtTheProof);
        assert_eq!(told_of(output, "a::t without i").unwrap(), Ended::Failed);
        assert!(told_of(output, "a::t without j").is_err() && told_of(output, "a::t without k").is_err());
    }
}
