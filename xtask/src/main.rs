//! Sentinel's automation: what cargo can't do alone. One file a task.

#![expect(clippy::print_stdout, reason = "a task tells what it does")]

mod bench;
mod bench_python;
mod build_ebpf;
mod command;
mod demo;
mod fuzz;
mod leftovers;
mod licences;
mod lint;
mod mutate;
mod object;
mod python;
mod reaper;
mod setup;
mod soak;
mod test;
mod tiers;
mod toolchain;
mod vm;

use std::path::Path;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Builds, tests and measures Sentinel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Installs what building and testing need, and says what and why.
    Setup,
    /// Builds the kernel side's object where it is missing or stale, and tells what is in it.
    BuildEbpf,
    /// Builds the Python package's wheel as users install it, and prints its path.
    BuildWheel,
    /// Runs a research agent and a rogue under a policy, and prints who was stopped by what.
    Demo,
    /// Runs every test of tier ci, and checks that nothing is left behind.
    Test {
        /// Only tests whose name has this in it.
        filter: Option<String>,
    },
    /// Throws bytes at everything that reads what others wrote, and keeps those that break it.
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 20)]
        seconds: u32,
        /// Only this target.
        #[arg(long)]
        target: Option<String>,
    },
    /// Runs the tests that take hours, fuzzes each target for an hour, tries every escape on every kernel, does without each hook, and records what
    /// passed in `tests/soak.toml`.
    Soak {
        /// Only those whose name has this in it.
        filter: Option<String>,
        /// How long each fuzz target runs.
        #[arg(long, default_value_t = 3600)]
        fuzz_seconds: u32,
    },
    /// Boots the kernels of `tests/kernels.toml` and runs tests on them.
    Vm {
        /// Only this kernel.
        #[arg(long)]
        kernel: Option<String>,
        /// Tests whose name has this in it, instead of those that the file names. With `package/target::` before it, of that program alone.
        #[arg(long)]
        test: Option<String>,
    },
    /// Does without each hook, check and step of the launcher, sees a test fail for it, and writes `tests/MUTATIONS.md`.
    Mutate {
        /// Only what has one of these in its name.
        names: Vec<String>,
        /// In which guests the hooks of tier `lsm` are left out.
        #[arg(long, default_value = mutate::GUEST)]
        kernel: Vec<String>,
        /// Only this part.
        #[arg(long)]
        part: Option<mutate::Part>,
    },
    /// Checks the house rules: format, lints, licences.
    Lint,
    /// Prints what a guarded action, a connect and an exec cost.
    Bench,
    /// Prints what a guarded call from Python costs, against AgentSentinel's own packages.
    BenchPython,
}

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a folder around it")?;
    match Arguments::parse().task {
        Task::Setup => setup::setup(root),
        Task::BuildEbpf => build_ebpf::build_ebpf(root),
        Task::BuildWheel => python::build_wheel(root),
        Task::Demo => demo::demo(root),
        Task::Test { filter } => test::test(root, filter.as_deref()),
        Task::Fuzz { seconds, target } => fuzz::fuzz(root, seconds, target.as_deref()),
        Task::Soak { filter, fuzz_seconds } => soak::soak(root, filter.as_deref(), fuzz_seconds),
        Task::Vm { kernel, test } => vm::vm(root, kernel.as_deref(), test.as_deref()),
        Task::Mutate { names, kernel, part } => mutate::mutate(root, &names, &kernel, part),
        Task::Lint => lint::lint(root),
        Task::Bench => bench::bench(root),
        Task::BenchPython => bench_python::bench_python(root),
    }
}
