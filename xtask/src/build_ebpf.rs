//! `cargo xtask build-ebpf`: the kernel side's object, and the hash of the sources that it was built from.
//!
//! The agent's build script embeds the object, and refuses one whose hash is not that of the sources: see `sources.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::object;
use crate::toolchain::{self, Compiler};

include!("sources.rs");

/// What would make the inner build use the pinned toolchain, or put its result elsewhere.
const FOR_THE_OUTER_CARGO: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// Where the object is.
pub(crate) fn object(root: &Path) -> PathBuf {
    root.join("target/sentinel-ebpf").join(OBJECT)
}

/// Builds the object where it is missing or stale.
///
/// # Errors
/// No compiler or linker is installed, or the build fails.
pub(crate) fn build_ebpf(root: &Path) -> anyhow::Result<()> {
    let hash = hash_of_sources(&root.join("sentinel-ebpf")).context("the eBPF sources can't be read")?;
    let folder = root.join("target/sentinel-ebpf");
    let (built, stamp) = (folder.join(OBJECT), folder.join(STAMP));
    if built.exists() && std::fs::read_to_string(&stamp).is_ok_and(|stamp| stamp.trim() == hash) {
        println!("build-ebpf: `{}` is up to date", built.display());
        return Ok(());
    }
    let (Some(compiler), Some(linker)) = (toolchain::compiler(), toolchain::linker()) else {
        bail!("nothing here can build the eBPF object; `cargo xtask setup` installs what can");
    };
    let target = root.join("target/ebpf-build");
    let mut command = match compiler {
        Compiler::Nightly => {
            let mut command = Command::new("cargo");
            command.arg("+nightly").env_remove("RUSTC");
            command
        }
        Compiler::Debian => {
            let mut command = Command::new("/usr/bin/cargo");
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            command
        }
    };
    // What the outer cargo sets for the pinned toolchain is not for this one.
    for variable in FOR_THE_OUTER_CARGO {
        command.env_remove(variable);
    }
    let flags =
        [&format!("-Clinker={}", linker.display()), "-Clink-arg=--btf", "-Cdebuginfo=2"].join("\u{1f}");
    let status = command
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("LD_LIBRARY_PATH", format!("{}/lib", toolchain::LLVM_PREFIX))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "-Zbuild-std=core",
            "--target",
            "bpfel-unknown-none",
            "--target-dir",
        ])
        .arg(&target)
        .current_dir(root.join("sentinel-ebpf"))
        .stdin(Stdio::null())
        .status()
        .context("cargo can't be started for the eBPF object")?;
    if !status.success() {
        bail!("the eBPF object could not be built: {status}");
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(target.join("bpfel-unknown-none/release/sentinel"), &built)?;
    std::fs::write(&stamp, format!("{hash}\n"))?;
    println!("build-ebpf: `{}`", built.display());
    print!("{}", object::describe(&std::fs::read(&built)?)?);
    Ok(())
}
