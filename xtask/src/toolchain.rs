//! What can build the eBPF object: a compiler that builds `core` for the kernel's target, and bpf-linker against the same LLVM.
//!
//! Two ways: a rustup nightly with `rust-src`, or Debian's own Rust for the web (`rustc-web`), whose source package has `core`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of bpf-linker that is known to work, as cargo takes it.
pub(crate) const BPF_LINKER_VERSION: &str = "^0.13";

/// Debian's packages for the second way.
pub(crate) const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev"];

/// Where Debian's LLVM is.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A compiler.
#[derive(Debug)]
pub(crate) enum Compiler {
    /// rustup's nightly, which has `rust-src`.
    Nightly,
    /// Debian's /usr/bin/rustc and /usr/bin/cargo.
    Debian,
}

/// The compiler that is installed; none where neither is.
pub(crate) fn compiler() -> Option<Compiler> {
    if nightly_has_source() {
        return Some(Compiler::Nightly);
    }
    let source = Path::new("/usr/lib/rustlib/src/rust/library/core/src/lib.rs");
    let debian =
        Path::new("/usr/bin/rustc").exists() && Path::new("/usr/bin/cargo").exists() && source.exists();
    debian.then_some(Compiler::Debian)
}

fn nightly_has_source() -> bool {
    let sysroot =
        Command::new("rustc").args(["+nightly", "--print", "sysroot"]).stderr(Stdio::null()).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success()
            && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    })
}

/// Where we keep a bpf-linker of our own: outside the target folder, so that a clean build finds it again.
pub(crate) fn linker_root() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    cache.join("sentinel/bpf-linker")
}

/// The linker that is installed; none where there is none that runs.
pub(crate) fn linker() -> Option<PathBuf> {
    let own = linker_root().join("bin/bpf-linker");
    let runs = Command::new(&own).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    runs.is_ok_and(|status| status.success()).then_some(own)
}
