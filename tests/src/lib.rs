//! The end-to-end harness: a real agent, a real kernel, real sockets and processes.
//!
//! Invariant: whatever a test starts ends with it, also when the test panics or is killed: agents watch their standard input, which
//! closes with the test's process, and then kill their sessions and remove what they made.

#![expect(clippy::expect_used, reason = "a harness fails by panicking")]

pub mod dns;
mod host;
mod laptop;
mod programs;
mod python;
mod server;
mod writer;

pub use host::{Finished, Host, HostBuilder, Running, is_empty};
pub use laptop::{Laptop, NOBODY};
pub use programs::program;
pub use python::{INTERPRETER, Python, copy_folder, make_writable};
pub use server::{PAGE, Server};
pub use writer::first_syscall_writer;

use std::time::{Duration, Instant};

/// What the probe says of an exec that was denied: by this machine's tier, or by that of the kernel that `cargo xtask vm` has booted.
#[must_use]
pub fn denied_exec() -> &'static str {
    if std::env::var_os("SENTINEL_VM_TIER").is_some_and(|tier| tier == "lsm") {
        "EPERM"
    } else {
        "signal: 9 (SIGKILL)"
    }
}

/// Asks again and again until it is so.
///
/// # Panics
/// If it isn't within `patience`.
pub fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
