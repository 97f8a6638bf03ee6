//! `cargo xtask demo`: from a bare machine to a table of who was stopped by what.

use std::path::Path;

use crate::command::run;
use crate::{build_ebpf, setup};

pub(crate) fn demo(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    run(
        root,
        "cargo",
        &["build", "--locked", "--package", "sentinel-agent", "--package", "sentinel-tests", "--bins"],
    )?;
    run(root, "cargo", &["build", "--locked", "--package", "sentinel-sdk", "--examples"])?;
    run(root, "target/debug/demo", &[])
}
