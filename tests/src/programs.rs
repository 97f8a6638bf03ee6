//! Where the programs under test are: beside the test programs, as cargo built them.

use std::path::PathBuf;

/// A program of this workspace that `cargo xtask test` has built.
///
/// # Panics
/// If it isn't there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own path");
    // target/PROFILE/deps/test-HASH, target/PROFILE/examples/x or target/PROFILE/x
    let candidates = own
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|folder| [folder.join(name), folder.join("examples").join(name)]);
    candidates.into_iter().find(|path| path.is_file()).expect(
        "the programs under test are built by `cargo xtask test`; run that instead of `cargo test` alone",
    )
}
