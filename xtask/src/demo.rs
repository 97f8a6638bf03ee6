//! `cargo xtask demo`: from a bare machine to a table of who was stopped by what.

use std::path::Path;

use crate::command::run;
use crate::{build_ebpf, setup, test};

pub(crate) fn demo(root: &Path) -> anyhow::Result<()> {
    setup::setup(root)?;
    build_ebpf::build_ebpf(root)?;
    test::build_programs(root)?;
    run(root, "target/debug/demo", &[])
}
