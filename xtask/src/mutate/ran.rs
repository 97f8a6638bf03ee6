//! How a single test ended.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// What the enforcer says where its start's own proof came out wrong, and a test where the proof let it fall back to the other tier.
const PROOF: &[&str] = &[
    "this host does not enforce what it is told",
    "enforcement could not be tried out",
    "it could not be proven at that tier",
];
/// What it says where the kernel takes a program not at all.
const REFUSED: &str = "cannot attach `";

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Passed,
    Failed,
    /// It failed before it began: what every start tries out came out wrong.
    FailedAtTheProof,
    /// Nothing can be told by it; why.
    Void(String),
}

/// From a test runner's exit and words.
pub(super) fn ended(is_success: bool, output: &str) -> Ended {
    let ran =
        |word: &str| output.lines().any(|line| line.starts_with("test result: ") && line.contains(word));
    if is_success {
        return if ran(" 1 passed") { Ended::Passed } else { Ended::Void("no such test ran".to_owned()) };
    }
    if output.contains(REFUSED) {
        return Ended::Void("the kernel refuses the program".to_owned());
    }
    if PROOF.iter().any(|words| output.contains(words)) { Ended::FailedAtTheProof } else { Ended::Failed }
}

/// Runs a test program for one of its tests; one that takes too long has failed.
///
/// # Errors
/// It can't be started.
pub(super) fn run(mut command: Command, log: &Path) -> anyhow::Result<Ended> {
    let file = File::create(log).with_context(|| format!("`{}`", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let output = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    Ok(status.map_or(Ended::Failed, |status| ended(status.success(), &output)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_test_that_ran_has_passed() {
        assert_eq!(ended(true, "test result: ok. 1 passed; 0 failed;\n"), Ended::Passed);
        assert!(matches!(ended(true, "test result: ok. 0 passed; 0 failed;\n"), Ended::Void(_)));
    }

    #[test]
    fn a_failure_is_told_from_one_at_the_start_and_from_one_that_says_nothing() {
        assert_eq!(ended(false, "test result: FAILED. 0 passed; 1 failed;\n"), Ended::Failed);
        let proof = "this host does not enforce what it is told: a UDP connect\n";
        assert_eq!(ended(false, proof), Ended::FailedAtTheProof);
        assert!(matches!(ended(false, "cannot attach `egress` (Cgroup)\n"), Ended::Void(_)));
    }
}
