//! Hooks that are not attached: the agent's test program leaves out the one that `SENTINEL_LEAVE_OUT` names.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::guest::{self, Run};
use super::list::{AGENT, Hook, Tier};
use super::ran::{self, Ended};
use super::table::Row;
use crate::test::{self, Target};
use crate::vm::{Selection, Vm};

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
    let built = test::build(root)?;
    let is_agents = |target: &&Target| target.package == "sentinel-agent" && target.name == "lib";
    let target = built.iter().find(is_agents).context("cargo built no test of the agent")?;
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
    let runs: Vec<Run> = hooks
        .iter()
        .map(|hook| Run {
            name: hook.name.clone(),
            variable: format!("{LEAVE_OUT}={}", hook.name),
            test: hook.test.clone(),
        })
        .collect();
    let place = format!("Linux {kernel}");
    for (run, ended) in runs.iter().zip(guest::run_all(&vm, kernel, &runs, &[])?) {
        told(Row::of_hook(&run.name, &place, &run.test, ended))?;
    }
    Ok(())
}

fn distinct<'a>(hooks: &[&'a Hook]) -> BTreeSet<&'a str> {
    hooks.iter().map(|hook| hook.test.as_str()).collect()
}
