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

/// What a kernel prints where something in it is broken. The scissors stand above each warning that it gives with a trace.
const FAULTS: &[&str] =
    &["Kernel panic", "Oops:", "BUG:", "kernel BUG at", SCISSORS, "general protection fault", "INFO: task "];
const SCISSORS: &str = "[ cut here ]";

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

/// Sees to it that the kernel reported no fault and the machine switched itself off.
///
/// # Errors
/// Says what is wrong with it.
fn has_no_fault(seen: &Seen) -> anyhow::Result<()> {
    let console: Vec<&str> = seen.console.lines().collect();
    if let Some(at) = console.iter().position(|line| FAULTS.iter().any(|fault| line.contains(fault))) {
        let at = if console[at].contains(SCISSORS) { at + 1 } else { at };
        let fault = console.get(at).unwrap_or(&"and says no more").trim();
        bail!("the kernel reports a fault: {fault}\n{}", last_lines(seen));
    }
    match &seen.end {
        End::Off => {}
        End::Ended(why) => bail!("{why}\n{}", last_lines(seen)),
        End::Failed(status) => bail!("QEMU failed: {status}\n{}", last_lines(seen)),
    }
    Ok(())
}

/// Sees to it that all that was to run has run, however it ended.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn is_whole(seen: &Seen) -> anyhow::Result<()> {
    has_no_fault(seen)?;
    if !seen.output.lines().any(|line| line == DONE) {
        bail!("it was switched off before it was done\n{}", last_lines(seen));
    }
    Ok(())
}

/// Judges what was seen of a run of so many programs.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn judge(seen: &Seen, programs: usize) -> anyhow::Result<Passed> {
    has_no_fault(seen)?;
    let lines: Vec<&str> = seen.output.lines().collect();
    let mut count = Passed { passed: 0, seconds: 0 };
    let mut failed = Vec::new();
    let mut running = "";
    for line in &lines {
        if let Some(name) = line.strip_prefix(START) {
            running = name;
        } else if let Some(ended) = line.strip_prefix(EXIT) {
            let (name, status) = ended.rsplit_once(' ').context("a program's end has its status")?;
            if status != "0" {
                failed.push(format!("{name} ended with status {status}"));
            }
        } else if let Some(result) = line.strip_prefix("test result: ") {
            count.passed += number_before(result, " passed")?;
            let failures = number_before(result, " failed")?;
            if failures > 0 {
                failed.push(format!("{failures} of {running}'s tests failed"));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    let times = |mark: &str| lines.iter().filter(|line| line.starts_with(mark)).count();
    if times(DONE) != 1
        || times(START) != programs
        || times(EXIT) != programs
        || times("test result: ") != programs
    {
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
    format!(
        "the console's last lines:\n{}\nthe output's last lines:\n{}",
        last(&seen.console),
        last(&seen.output)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "vm: starts a/lib\ntest result: ok. 3 passed; 0 failed; 0 ignored; finished in 1s\nvm: ended a/lib 0\n\
                        vm: starts b/lib\ntest result: ok. 4 passed; 0 failed; 0 ignored; finished in 1s\nvm: ended b/lib 0\nvm: done\n";

    fn seen(output: &str, console: &str, end: End) -> Seen {
        Seen { output: output.to_owned(), console: console.to_owned(), end }
    }

    fn failure(output: &str, console: &str, end: End) -> String {
        format!("{:#}", judge(&seen(output, console, end), 2).unwrap_err())
    }

    #[test]
    fn a_run_that_was_seen_whole_passes_with_the_sum() {
        let passed = judge(&seen(GOOD, "[ 1.0] Linux version 9\n", End::Off), 2).unwrap();
        assert_eq!(passed.passed, 7);
    }

    #[test]
    fn a_fault_of_the_kernel_fails_though_every_test_passed() {
        for fault in [
            "[    5.1] BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "[    5.1] Kernel panic - not syncing: Attempted to kill init!",
            "[    5.1] Oops: 0002 [#1] PREEMPT SMP NOPTI",
            "[    5.1] ------------[ cut here ]------------\n[    5.1] WARNING: CPU: 1 PID: 9 at kernel/bpf/verifier.c:1",
            "[    5.1] ------------[ cut here ]------------\n[    5.1] WARNING: kernel/bpf/verifier.c:1 at check+0x1, CPU#1: a/9",
            "[    5.1] INFO: task a:9 blocked for more than 120 seconds.",
        ] {
            let told = failure(GOOD, &format!("[ 1.0] booted\n{fault}\n[ 5.2] after it\n"), End::Off);
            let said = fault.lines().last().unwrap().trim();
            assert!(told.starts_with(&format!("the kernel reports a fault: {said}\n")), "{told}");
            assert!(told.contains("after it"), "{told}");
        }
    }

    #[test]
    fn a_processors_known_weakness_is_no_fault() {
        let console = "[ 0.0] Speculative Return Stack Overflow: WARNING: See https://kernel.org for mitigation options.\n";
        assert!(judge(&seen(GOOD, console, End::Off), 2).is_ok());
    }

    #[test]
    fn a_run_without_its_end_fails_with_the_last_lines() {
        let cut = GOOD.replace("vm: done\n", "");
        assert!(failure(&cut, "last words\n", End::Off).contains("switched off before it was done"));
        let begun = "vm: starts a/lib\ntest x ... ok\n";
        let told = failure(begun, "last words\n", End::Off);
        assert!(told.contains("1 started, 0 ended") && told.contains("last words"), "{told}");
        assert!(failure("", "", End::Off).contains("0 started"));
    }

    #[test]
    fn what_has_ended_in_whatever_way_is_whole_and_what_was_cut_off_is_not() {
        let failed = GOOD.replace("b/lib 0", "b/lib 101");
        assert!(is_whole(&seen(&failed, "", End::Off)).is_ok());
        assert!(is_whole(&seen(&failed.replace("vm: done\n", ""), "", End::Off)).is_err());
        assert!(is_whole(&seen(&failed, "[ 1.0] BUG: it broke\n", End::Off)).is_err());
    }

    #[test]
    fn a_hang_and_a_failed_emulator_fail_though_everything_passed() {
        let hang = End::Ended("it hangs: nothing was printed for 240 s".to_owned());
        assert!(failure(GOOD, "last words\n", hang).contains("it hangs"));
        assert!(
            failure(GOOD, "", End::Failed("exit status: 1".to_owned()))
                .contains("QEMU failed: exit status: 1")
        );
    }

    #[test]
    fn a_failed_test_and_a_bad_status_fail_and_are_named() {
        let failed = GOOD
            .replace("ok. 4 passed; 0 failed", "FAILED. 3 passed; 1 failed")
            .replace("b/lib 0", "b/lib 101");
        let told = failure(&failed, "", End::Off);
        assert!(
            told.contains("1 of b/lib's tests failed") && told.contains("b/lib ended with status 101"),
            "{told}"
        );
        assert!(failure(&GOOD.replace("b/lib 0", "b/lib 137"), "", End::Off).contains("status 137"));
    }

    #[test]
    fn a_program_that_ends_well_without_a_result_fails() {
        let silent = GOOD.replace("test result: ok. 4 passed; 0 failed; 0 ignored; finished in 1s\n", "");
        assert!(failure(&silent, "", End::Off).contains("1 told their result"));
    }

    #[test]
    fn a_start_that_fails_says_at_what() {
        let told = failure("vm: ended the guest's start: cgroup2 1\nvm: done\n", "", End::Off);
        assert!(told.contains("the guest's start: cgroup2 ended with status 1"), "{told}");
    }
}
