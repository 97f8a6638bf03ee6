//! The network namespace that the agent is in, by the number that the kernel side knows it by.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;

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
