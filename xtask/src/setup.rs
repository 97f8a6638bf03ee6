//! `cargo xtask setup`: installs what building and testing need, and says what and why. What is there is left alone.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::command::{output, run};
use crate::toolchain::{self, BPF_LINKER_VERSION, DEBIAN_COMPILER, DEBIAN_LLVM, LLVM_PREFIX};
use crate::vm;

/// A program that tests or builds call, the package that has it, and what for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("cc", "gcc", "links Rust programs"),
    ("c++", "g++", "compiles the fuzzer's engine"),
    ("curl", "curl", "the demo's unmodified program"),
    ("bpftool", "bpftool", "tells what a test run leaves in the kernel"),
    ("musl-gcc", "musl-tools", "compiles a test's program against another C library, with another resolver"),
    ("node", "nodejs", "a test's unmodified program with a resolver of its own"),
    ("gron", "gron", "a test's unmodified program with Go's resolver"),
    ("setsid", "util-linux", "keeps the clean-up after a killed test run alive"),
    ("cpio", "cpio", "reads what the virtual machines' file systems are packed in"),
    ("depmod", "kmod", "tells which kernel module needs which others"),
    ("xz", "xz-utils", "unpacks kernel modules"),
];

/// The package with the emulator, and what for.
const EMULATOR: (&str, &str) = ("qemu-system-x86", "boots the kernels on which `cargo xtask vm` runs tests");

/// What cargo is asked to install; behind it goes the folder.
const INSTALL_LINKER: &[&str] = &[
    "install",
    "bpf-linker",
    "--version",
    BPF_LINKER_VERSION,
    "--locked",
    "--force",
    "--no-default-features",
    "--features",
    "llvm-22",
    "--root",
];

pub(crate) fn setup(root: &Path) -> anyhow::Result<()> {
    let mut packages: Vec<(&str, &str)> = PROGRAMS
        .iter()
        .filter(|(program, _, _)| !is_on_path(program))
        .map(|(_, package, why)| (*package, *why))
        .collect();
    // Debian's own Python for everything: another one on the PATH may be out of a session's reach.
    if !Path::new("/usr/bin/python3").exists() {
        packages.push(("python3", "the demo's rogue script and the ledger's verifier"));
    }
    if !has_module("/usr/bin/python3", "pip") {
        packages.push(("python3-pip", "installs what the Python package is built and checked with"));
    }
    if !has_module("/usr/bin/python3", "ensurepip") {
        packages.push((
            "python3-venv",
            "virtual environments, in which the Python package is tested as users install it",
        ));
    }
    if toolchain::compiler().is_none() {
        packages.extend(DEBIAN_COMPILER.iter().map(|package| (*package, "compiles the eBPF object")));
    }
    let (llvm, library) = DEBIAN_LLVM;
    if toolchain::linker().is_none() && !Path::new(library).exists() {
        packages.push((llvm, "the LLVM that bpf-linker is built against"));
    }
    if !vm::has_busybox() {
        packages.push(("busybox-static", "the system around the tests in a virtual machine"));
    }
    install_packages(root, &packages)?;
    if !vm::has_emulator() {
        install_emulator(root)?;
    }
    if toolchain::linker().is_none() {
        install_linker(root)?;
    }
    println!("setup: everything is there");
    Ok(())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [Path::new("/usr/sbin").to_owned(), Path::new("/sbin").to_owned()];
    std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(program).is_file())
}

/// Whether this interpreter is there and has this module.
fn has_module(interpreter: &str, module: &str) -> bool {
    let mut import = Command::new(interpreter);
    import.args(["-c", &format!("import {module}")]).stdin(Stdio::null()).stderr(Stdio::null());
    import.status().is_ok_and(|status| status.success())
}

fn install_packages(root: &Path, packages: &[(&str, &str)]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = announce(root, packages)?;
    run(root, "apt-get", &["update", "--quiet"])?;
    install(Command::new("apt-get"), &names)
}

/// The emulator, from this release or from its backports: where some of QEMU is from there, its parts fit no others.
fn install_emulator(root: &Path) -> anyhow::Result<()> {
    let names = announce(root, &[EMULATOR])?;
    run(root, "apt-get", &["update", "--quiet"])?;
    let mut simulated = Command::new("apt-get");
    simulated.args(INSTALL).arg("--simulate").args(&names).stdin(Stdio::null()).stdout(Stdio::null());
    if simulated.stderr(Stdio::null()).status().context("`apt-get` can't be started")?.success() {
        return install(Command::new("apt-get"), &names);
    }
    println!(
        "setup: this release's `{}` doesn't go with what is installed; takes that of its backports",
        names.join(" ")
    );
    install(vm::backports_installer()?, &names)
}

/// Says what is missing, and what for; gives the names.
///
/// # Errors
/// This task can't install it.
fn announce<'a>(root: &Path, packages: &[(&'a str, &str)]) -> anyhow::Result<Vec<&'a str>> {
    for (package, why) in packages {
        println!("setup: needs Debian's package `{package}`: {why}");
    }
    let names: Vec<&str> = packages.iter().map(|(package, _)| *package).collect();
    let as_root = output(root, "id", &["-u"])?.trim() == "0";
    if !is_on_path("apt-get") || !as_root {
        bail!(
            "these have to be installed first, which this task does only as root on Debian:\n  apt-get install {}\n\
             elsewhere: the same programs from your distribution, LLVM 22 with its headers, a nightly Rust with rust-src whose \
             `rustc -vV` says LLVM 22 or older, then\n  LLVM_PREFIX=<folder of LLVM 22> cargo {} {}",
            names.join(" "),
            INSTALL_LINKER.join(" "),
            toolchain::linker_root().display()
        );
    }
    Ok(names)
}

/// What `apt-get` is asked to do. Debian's `rustc-web` replaces its `rustc`: what is installed here is not ours to remove.
const INSTALL: &[&str] = &["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"];

fn install(mut apt: Command, names: &[&str]) -> anyhow::Result<()> {
    let status = apt
        .args(INSTALL)
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("`apt-get` can't be started")?;
    if !status.success() {
        bail!("`apt-get install {}` failed: {status}", names.join(" "));
    }
    Ok(())
}

fn install_linker(root: &Path) -> anyhow::Result<()> {
    let to = toolchain::linker_root();
    println!(
        "setup: builds bpf-linker {BPF_LINKER_VERSION} into `{}`, once (about two minutes)",
        to.display()
    );
    let status = Command::new("cargo")
        .args(INSTALL_LINKER)
        .arg(&to)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .context("`cargo` can't be started")?;
    if !status.success() || toolchain::linker().is_none() {
        bail!("bpf-linker could not be built; what cargo says above is the cause");
    }
    Ok(())
}
