//! `cargo xtask lint`: the house rules. Format, clippy without a warning, licences, sizes of files.

use std::path::Path;

use anyhow::bail;

use crate::command::{output, run};
use crate::{build_ebpf, fuzz, licences};

/// A file past this has two subjects.
const MOST_LINES: usize = 600;

pub(crate) fn lint(root: &Path) -> anyhow::Result<()> {
    // Clippy compiles the agent, whose build script embeds the object.
    build_ebpf::build_ebpf(root)?;
    run(root, "cargo", &["fmt", "--all", "--check"])?;
    for folder in ["sentinel-ebpf", "tests/fuzz"] {
        run(&root.join(folder), "cargo", &["fmt", "--check"])?;
    }
    run(
        root,
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    )?;
    fuzz::lint(root)?;
    licences::check(root)?;
    check_sizes(root)?;
    println!("lint: passed");
    Ok(())
}

fn check_sizes(root: &Path) -> anyhow::Result<()> {
    let mut too_long = Vec::new();
    for file in output(root, "git", &["ls-files", "*.rs", "*.py"])?.lines() {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        let lines = text.lines().count();
        if lines > MOST_LINES {
            too_long.push(format!("  {file}: {lines}"));
        }
    }
    if !too_long.is_empty() {
        bail!("files past {MOST_LINES} lines have two subjects; split them:\n{}", too_long.join("\n"));
    }
    Ok(())
}
