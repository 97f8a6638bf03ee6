//! Gives work a tracefs, without which a classic tracepoint can't be named, also on hosts that have none mounted.
//!
//! Invariant: the host's own mounts are as before. The work runs in a thread with a mount namespace of its own, which
//! goes with it.

use std::path::Path;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::EnforcerError;

/// Where the kernel has a folder for it, and where aya looks for it.
const TRACEFS: &str = "/sys/kernel/tracing";

/// Does the work where a tracefs is mounted.
pub(super) fn with_tracefs<T: Send>(
    work: impl FnOnce() -> Result<T, EnforcerError> + Send,
) -> Result<T, EnforcerError> {
    in_own_namespace(|| {
        mount_tracefs().map_err(|cause| EnforcerError::Unavailable {
            what: format!("cannot mount a tracefs at `{TRACEFS}`"),
            cause: cause.to_string(),
            way_out: "boot a kernel with CONFIG_FTRACE, and run the agent with CAP_SYS_ADMIN".to_owned(),
        })?;
        work()
    })
}

/// Does the work where what it mounts is seen by nobody else.
pub(super) fn in_own_namespace<T: Send>(
    work: impl FnOnce() -> Result<T, EnforcerError> + Send,
) -> Result<T, EnforcerError> {
    let in_thread = || {
        enter().map_err(|cause| EnforcerError::Unavailable {
            what: "cannot have a mount namespace of its own".to_owned(),
            cause: cause.to_string(),
            way_out: "run the agent with CAP_SYS_ADMIN".to_owned(),
        })?;
        work()
    };
    thread::scope(|scope| scope.spawn(in_thread).join()).unwrap_or_else(|_panicked| {
        Err(EnforcerError::Missing("the thread with the mount namespace has panicked".to_owned()))
    })
}

fn enter() -> rustix::io::Result<()> {
    // SAFETY: only the flag for the table of descriptors could harm other threads, and it isn't given.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // What is mounted here must not show up in the host's namespace.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

fn mount_tracefs() -> rustix::io::Result<()> {
    if !Path::new(TRACEFS).join("events").exists() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tracefs", TRACEFS, "tracefs", flags, None)?;
    }
    Ok(())
}
