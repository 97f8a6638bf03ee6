//! Single tests in one guest, each with a variable of its own.
//!
//! Invariant: a test that doesn't pass without its variable proves nothing by failing with it.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};

use super::list::AGENT;
use super::ran::{self, Ended};
use crate::vm::{EXIT, File, START, Vm};

/// A test of the agent's library, with a variable of its environment.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What it does without.
    pub(super) name: String,
    pub(super) variable: String,
    pub(super) test: String,
}

/// Runs all in one guest, and before them their tests with no variable.
///
/// # Errors
/// The guest doesn't come to its end, or a test fails without its variable.
pub(super) fn run_all(vm: &Vm, kernel: &str, runs: &[Run], files: &[File]) -> anyhow::Result<Vec<Ended>> {
    let place = vm.place(AGENT)?;
    let tests: BTreeSet<&str> = runs.iter().map(|run| run.test.as_str()).collect();
    let with_all = |test: &str| format!("{test} with all");
    let without = |run: &Run| format!("{} without {}", run.test, run.name);
    // Names are words, and tests of Rust.
    let line = |name: &str, variable: &str, test: &str| {
        format!("run '{name}' env {variable} /{place} --quiet --exact {test}\n")
    };
    let mut lines: String = tests.iter().map(|test| line(&with_all(test), "", test)).collect();
    lines.extend(runs.iter().map(|run| line(&without(run), &run.variable, &run.test)));
    let seen = vm.boot(kernel, &lines, files)?;
    for test in tests {
        let ended = told_of(&seen.output, &with_all(test))?;
        ensure!(ended == Ended::Passed, "vm/{kernel}: `{test}` doesn't pass with all: {ended:?}");
    }
    runs.iter().map(|run| told_of(&seen.output, &without(run))).collect()
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
