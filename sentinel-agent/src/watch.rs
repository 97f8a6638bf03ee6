//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for both directions. To be called inside the runtime.
///
/// # Errors
/// The kernel can't watch it.
pub fn both_ways(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(descriptor, Interest::READABLE | Interest::WRITABLE)
}

/// Watches a descriptor for something to read; of a pidfd, for the end of its process.
///
/// # Errors
/// The kernel can't watch it.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(descriptor, Interest::READABLE)
}

fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is always the same descriptor, and stays so until the `AsyncFd` that owns it from
    // here on is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
