//! What of bpf(2) the library keeps to itself.
//!
//! Invariant: each call hands the kernel as many bytes as its own structure has; what lies behind them the kernel takes for zero.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commands, and what they take: `union bpf_attr` in `include/uapi/linux/bpf.h`.
const OBJ_GET: libc::c_int = 7;
const MAP_FREEZE: libc::c_int = 22;
const LINK_UPDATE: libc::c_int = 29;

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct MapFreeze {
    map_fd: RawFd,
}

#[repr(C)]
struct LinkUpdate {
    link_fd: RawFd,
    new_prog_fd: RawFd,
    flags: u32,
    old_prog_fd: u32,
}

/// What is pinned at a path.
///
/// # Errors
/// Nothing is, or it can't be opened.
pub(super) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let argument = ObjGet { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
    let descriptor = bpf(OBJ_GET, &argument)?;
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts another program behind a link, at once: no packet and no call finds none. Only links on cgroups let that be done.
///
/// # Errors
/// The kernel refused; the program behind it is the one that was.
pub(super) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let argument = LinkUpdate {
        link_fd: link.as_fd().as_raw_fd(),
        new_prog_fd: program.as_fd().as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &argument).map(drop)
}

/// From now on no process writes the map, whoever it is.
///
/// # Errors
/// The kernel refused; it does so where the map is frozen already.
pub(super) fn freeze_map(map: impl AsFd) -> io::Result<()> {
    bpf(MAP_FREEZE, &MapFreeze { map_fd: map.as_fd().as_raw_fd() }).map(drop)
}

fn bpf<A>(command: libc::c_int, argument: &A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads that many bytes of the argument, which outlives the call, and writes none.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(argument), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
