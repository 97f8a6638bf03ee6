//! `cargo xtask mutate`: does without each hook, and without each check, and sees a test fail for it.
//!
//! Invariant: what no test notices is a failure, and so is what proves nothing: a test that fails anyhow, a text that doesn't build, a program that
//! the kernel refuses. Nothing in the checkout is changed but the table of what came of it.

mod guest;
mod hooks;
mod list;
mod ran;
mod sources;
mod table;

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;

use self::list::Mutations;
pub(crate) use self::list::check;
use self::table::{Row, Table};
use crate::reaper::Reaper;
use crate::{build_ebpf, setup, test};

/// The kernel of the guest in which hooks are left out where nobody names another.
pub(crate) const GUEST: &str = "6.12";

/// What can be done by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Hooks, on this machine at tier `kill`.
    Host,
    /// Checks and steps of the launcher, in a copy of the tree.
    Source,
    /// Hooks, and checks in them, in a guest at tier `lsm`.
    Guest,
}

/// Does without what has one of these in its name, or all; writes the table.
///
/// # Errors
/// Names what no test noticed, and what proved nothing.
pub(crate) fn mutate(
    root: &Path,
    names: &[String],
    kernels: &[String],
    part: Option<Part>,
) -> anyhow::Result<()> {
    let mut mutations = Mutations::read(root)?;
    let is_wanted =
        |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str()));
    let mut table = Table::read(root, &mutations)?;
    mutations.hook.retain(|hook| is_wanted(&hook.name));
    mutations.source.retain(|source| is_wanted(&source.name));
    ensure!(
        !mutations.hook.is_empty() || !mutations.source.is_empty(),
        "`{}` names no such thing",
        list::FILE
    );
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    // What its end sweeps with.
    test::build_programs(root)?;
    let reaper = Reaper::start(root)?;
    let does = |which: Part| part.is_none_or(|part| part == which);
    let mut problems = Vec::new();
    let mut told = |row: Row| {
        println!("{row}");
        problems.extend(row.problem());
        table.put(root, row)
    };
    if does(Part::Host) {
        hooks::on_this_machine(root, &mutations.hook, &mut told)?;
    }
    if does(Part::Source) {
        sources::try_all(root, &mutations.source, &mut told)?;
    }
    if does(Part::Guest) {
        for kernel in kernels {
            hooks::in_a_guest(root, kernel, &mutations.hook, &mut told)?;
            sources::in_a_guest(root, kernel, &mutations.source, &mut told)?;
        }
    }
    drop(reaper);
    ensure!(problems.is_empty(), "{} of these prove nothing:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}
