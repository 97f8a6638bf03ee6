//! Runs other programs, and says which one failed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Runs a program whose output is the user's to see.
///
/// # Errors
/// It can't be started, or doesn't exit with 0.
pub(crate) fn run(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("`{program}` can't be started"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a program and takes what it prints on standard output; its standard error is the user's to see.
///
/// # Errors
/// It can't be started, doesn't exit with 0, or prints what is no UTF-8.
pub(crate) fn output(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    output_of(command, &format!("{program} {}", arguments.join(" ")))
}

/// As [`output`], of a program that needs more than arguments; `name` is what a failure calls it.
///
/// # Errors
/// As those of [`output`].
pub(crate) fn output_of(mut command: Command, name: &str) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{name}` can't be started"))?;
    if !output.status.success() {
        bail!("`{name}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{name}` printed what is no UTF-8"))
}
