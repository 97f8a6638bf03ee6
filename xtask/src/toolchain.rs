//! What can build the eBPF object: a compiler that builds `core` for the kernel's target, and bpf-linker against the same LLVM.
//!
//! Two ways: a rustup nightly with `rust-src`, or Debian's own Rust for the web (`rustc-web`), whose source package has `core`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of bpf-linker that is known to work, as cargo takes it.
pub(crate) const BPF_LINKER_VERSION: &str = "^0.13";

/// The LLVM that bpf-linker is built against. A compiler of a newer one writes what the linker can't read.
const LLVM_MAJOR: u32 = 22;

/// Debian's packages of the compiler of the second way.
pub(crate) const DEBIAN_COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Debian's package with the LLVM that bpf-linker is built against, and a file that only this package has. It takes no C++ compiler and none of
/// LLVM's own dependencies, for it is linked with the shared library.
pub(crate) const DEBIAN_LLVM: (&str, &str) = ("llvm-22-dev", "/usr/lib/llvm-22/lib/libLLVM.so");

/// Where Debian's LLVM is.
pub(crate) const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A compiler.
#[derive(Debug)]
pub(crate) enum Compiler {
    /// rustup's nightly, which has `rust-src` and is of the linker's LLVM.
    Nightly,
    /// Debian's /usr/bin/rustc and /usr/bin/cargo.
    Debian,
}

/// The compiler that is installed; none where neither is.
pub(crate) fn compiler() -> Option<Compiler> {
    if nightly_can_build() {
        return Some(Compiler::Nightly);
    }
    let source = Path::new("/usr/lib/rustlib/src/rust/library/core/src/lib.rs");
    let debian =
        Path::new("/usr/bin/rustc").exists() && Path::new("/usr/bin/cargo").exists() && source.exists();
    debian.then_some(Compiler::Debian)
}

fn nightly_can_build() -> bool {
    let told = |arguments: &[&str]| {
        // Asking must not install it.
        let asked = Command::new("rustc")
            .arg("+nightly")
            .args(arguments)
            .env("RUSTUP_AUTO_INSTALL", "0")
            .stderr(Stdio::null())
            .output()
            .ok()?;
        asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
    };
    let (Some(sysroot), Some(version)) = (told(&["--print", "sysroot"]), told(&["-vV"])) else {
        return false;
    };
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
        && llvm_major(&version).is_some_and(|major| major <= LLVM_MAJOR)
}

/// The LLVM of a compiler, from what `rustc -vV` prints.
fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

/// Where we keep what takes long to get: outside the target folder, so that a clean build finds it again.
pub(crate) fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    // An empty or relative one counts as unset: so its specification.
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|cache| cache.is_absolute());
    let cache = cache.unwrap_or_else(|| home.join(".cache"));
    cache.join("sentinel")
}

/// Where we keep a bpf-linker of our own.
pub(crate) fn linker_root() -> PathBuf {
    cache().join("bpf-linker")
}

/// The linker that is installed; none where there is none that runs.
pub(crate) fn linker() -> Option<PathBuf> {
    let own = linker_root().join("bin/bpf-linker");
    let runs = Command::new(&own).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    runs.is_ok_and(|status| status.success()).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_which_llvm_it_has() {
        assert_eq!(
            llvm_major("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"),
            Some(22)
        );
        assert_eq!(llvm_major("rustc 1.97.0-nightly\n"), None);
    }
}
