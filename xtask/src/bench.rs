//! `cargo xtask bench`: builds the release profile and prints the figures.

use std::path::Path;

use crate::command::run;
use crate::{build_ebpf, setup};

pub(crate) fn bench(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    run(
        root,
        "cargo",
        &[
            "build",
            "--release",
            "--locked",
            "--package",
            "sentinel-agent",
            "--package",
            "sentinel-tests",
            "--bins",
        ],
    )?;
    run(root, "target/release/bench", &[])
}
