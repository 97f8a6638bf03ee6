//! What a run of a machine comes to.
//!
//! Invariant: only a run that was seen to begin and end each program with status 0, and to say that it is done, on a kernel that reported no
//! fault, passes.

use std::fmt;

use anyhow::{Context as _, bail};

use super::machine::{End, Seen};
use crate::test::number_before;

/// Before a program's name, when it starts.
pub(crate) const START: &str = "vm: starts ";
/// Before a program's name and exit status, when it has ended.
pub(crate) const EXIT: &str = "vm: ended ";
/// When all have.
pub(crate) const DONE: &str = "vm: done";

/// What a kernel prints where something in it is broken.
const FAULTS: &[&str] =
    &["Kernel panic", "Oops:", "BUG:", "kernel BUG at", "WARNING: CPU:", "general protection fault", "INFO: task "];

/// How many of the console's last lines a failure shows.
const LAST_LINES: usize = 60;

/// A run that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) passed: usize,
    pub(crate) seconds: u64,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, 0 failed ({} s)", self.passed, self.seconds)
    }
}

/// Judges what was seen of a run of so many programs.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn judge(seen: &Seen, programs: usize) -> anyhow::Result<Passed> {
    let fault = seen.console.lines().find(|line| FAULTS.iter().any(|fault| line.contains(fault)));
    if let Some(fault) = fault {
        bail!("the kernel reports a fault: {}\n{}", fault.trim(), last_lines(seen));
    }
    match &seen.end {
        End::Off => {}
        End::Ended(why) => bail!("{why}\n{}", last_lines(seen)),
        End::Failed(status) => bail!("QEMU failed: {status}\n{}", last_lines(seen)),
    }
    let lines: Vec<&str> = seen.output.lines().collect();
    let mut count = Passed { passed: 0, seconds: 0 };
    let mut failed = Vec::new();
    for line in &lines {
        if let Some(ended) = line.strip_prefix(EXIT) {
            let (name, status) = ended.rsplit_once(' ').context("a program's end has its status")?;
            if status != "0" {
                failed.push(format!("{name} ended with status {status}"));
            }
        } else if let Some(result) = line.strip_prefix("test result: ") {
            count.passed += number_before(result, " passed")?;
            let failures = number_before(result, " failed")?;
            if failures > 0 {
                failed.push(format!("{failures} tests failed"));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    let times = |mark: &str| lines.iter().filter(|line| line.starts_with(mark)).count();
    if times(DONE) != 1 || times(START) != programs || times(EXIT) != programs || times("test result: ") != programs {
        bail!(
            "it was switched off before it was done: of {programs} programs {} started, {} ended, {} told their result\n{}",
            times(START),
            times(EXIT),
            times("test result: "),
            last_lines(seen)
        );
    }
    Ok(count)
}

fn last_lines(seen: &Seen) -> String {
    let last = |text: &str| {
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    };
    format!("the console's last lines:\n{}\nthe output's last lines:\n{}", last(&seen.console), last(&seen.output))
}
