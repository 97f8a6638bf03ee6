//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for something to read; of a pidfd, for the end of its process.
///
/// # Errors
/// The kernel can't watch it.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(descriptor, Interest::READABLE)
}

/// Waits until a descriptor that is watched for something to read can be written. Watched for both, it would wake the loop with every answer that a
/// peer takes.
///
/// # Errors
/// The kernel can't watch it.
pub async fn writable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // The runtime knows each descriptor once.
    let other = watch(descriptor.try_clone_to_owned()?, Interest::WRITABLE)?;
    other.writable().await.map(|mut guard| guard.retain_ready())
}

fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is always the same descriptor, and stays so until the `AsyncFd` that owns it from
    // here on is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
