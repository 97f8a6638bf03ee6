//! Network namespaces: the agent's, by the number that the kernel side knows it by, and those of sessions' processes.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Which one it is, for as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NetworkNamespace {
    device: u64,
    inode: u64,
}

impl NetworkNamespace {
    /// That of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let file = fs::metadata(path_of(pid))?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }
}

fn path_of(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// Does the work in a process's network namespace: sockets that it makes are of that, and stay so. The work runs in a thread of its own, which
/// ends with it.
///
/// # Errors
/// The process is gone, the namespace can't be entered, or the work's.
pub(super) fn inside<T: Send>(pid: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path_of(pid))?;
    let in_thread = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| scope.spawn(in_thread).join())
        .unwrap_or_else(|_panicked| Err(io::Error::other("the thread in the network namespace has panicked")))
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
