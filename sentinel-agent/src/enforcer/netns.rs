//! Network namespaces: the agent's, by the number that the kernel side knows it by, and those of sessions' processes.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Which one it is, for as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NetworkNamespace {
    device: u64,
    inode: u64,
}

impl NetworkNamespace {
    /// That of a process, and what holds it.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn of(pid: u32) -> io::Result<(Self, File)> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        let metadata = file.metadata()?;
        Ok((Self { device: metadata.dev(), inode: metadata.ino() }, file))
    }
}

/// Does the work in a network namespace: sockets that it makes are of that, and stay so. The work runs in a thread of its own, which ends with it.
///
/// # Errors
/// No thread can be made (a session may have left none), the namespace can't be entered, or the work's.
pub(super) fn inside<T: Send>(
    namespace: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let in_thread = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, in_thread)?;
        thread.join().unwrap_or_else(|_panicked| Err(io::Error::other("the thread in it has panicked")))
    })
}

/// The kernel's own number of this thread's network namespace, which no other one ever has.
///
/// # Errors
/// No socket could be made, or the kernel has no such numbers: those before 5.14.
pub(super) fn own() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut number = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&number)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of `number`; the kernel writes no more than that, and any bytes are an integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut number).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
}
