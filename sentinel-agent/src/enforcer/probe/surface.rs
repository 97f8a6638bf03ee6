//! One thing of each family that tier `lsm` holds beyond network and exec.
//!
//! Invariant: nothing here changes anything on the host, also where it isn't refused.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::io::Errno;
use sentinel_proto::examination::{Hold, Proof, Row};

use super::untried;
use crate::enforcer::puppet::Argument::{Bytes, Number, Place};
use crate::enforcer::puppet::{Argument, Deed, Puppet};
use crate::enforcer::{EnforcerError, Places};

/// `AT_FDCWD`, as a system call takes it.
const AT_FDCWD: i64 = -100;
const PROG_GET_NEXT_ID: i64 = 11;
const SIGCONT: i64 = 18;
const AF_UNIX: u8 = 1;
const AF_NETLINK: i64 = 16;
const SOCK_STREAM: i64 = 1;
const SOCK_RAW: i64 = 3;
const NETLINK_GENERIC: i64 = 16;
const PAGE: i64 = 4_096;
const PROT_READ_AND_EXEC: i64 = 1 | 4;
const MAP_PRIVATE: i64 = 2;

/// A call's answer: what came back, or the error's number below 0.
pub(super) type Attempts = Vec<(&'static str, i32)>;

/// A listener whose name nobody else has.
pub(super) fn abstract_listener() -> io::Result<UnixListener> {
    let name = format!("sentinel-{}", uuid::Uuid::new_v4());
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Tries all.
pub(super) fn attempts(
    puppet: &Puppet,
    places: &Places,
    listener: &UnixListener,
) -> Result<Attempts, EnforcerError> {
    let attempt = |what, number: libc::c_long, arguments: &[Argument<'_>]| {
        let came = puppet.order(Deed::Call(number, arguments));
        came.map(|came| (what, came)).map_err(|cause| untried(what, cause))
    };
    let procs = places.cgroup.join("cgroup.procs");
    let procs = [procs.as_os_str().as_bytes(), b"\0"].concat();
    let signal = [Number(std::process::id().into()), Number(SIGCONT)];
    let generic = [Number(AF_NETLINK), Number(SOCK_RAW), Number(NETLINK_GENERIC)];
    let mut attempts = vec![
        attempt("a signal to a process outside", libc::SYS_kill, &signal)?,
        attempt("bpf(2)", libc::SYS_bpf, &[Number(PROG_GET_NEXT_ID), Bytes(&[0; 128])])?,
        attempt("a netlink socket other than for routes", libc::SYS_socket, &generic)?,
        attempt(
            "moving a process to another cgroup",
            libc::SYS_openat,
            &[Number(AT_FDCWD), Place(&procs), Number(1)],
        )?,
        // Without a type of file system it is an error outside too, though another one.
        attempt("a mount", libc::SYS_mount, &[Number(0), Place(b"/\0"), Number(0), Number(0), Number(0)])?,
    ];

    let what = "a unix socket that no rule names";
    let (_, socket) =
        attempt(what, libc::SYS_socket, &[Number(AF_UNIX.into()), Number(SOCK_STREAM), Number(0)])?;
    let name = listener.local_addr().ok();
    let name = name.as_ref().and_then(SocketAddr::as_abstract_name).unwrap_or_default();
    let address = [&[AF_UNIX, 0, 0][..], name].concat();
    attempts.push(attempt(what, libc::SYS_connect, &[Number(socket.into()), Bytes(&address)])?);

    let what = "code from a file that the process could have written";
    let (_, file) = attempt(what, libc::SYS_memfd_create, &[Place(b"sentinel\0"), Number(0)])?;
    let place = [Number(0), Number(PAGE), Number(PROT_READ_AND_EXEC), Number(MAP_PRIVATE)];
    let map = [&place[..], &[Number(file.into()), Number(0)]].concat();
    attempts.push(attempt(what, libc::SYS_mmap, &map)?);
    Ok(attempts)
}

/// A row for each: it was refused inside, and the same is not to a process outside.
pub(super) fn rows(inside: Attempts, outside: Attempts) -> impl Iterator<Item = Row> {
    let refused = Errno::PERM.raw_os_error().saturating_neg();
    inside.into_iter().zip(outside).map(move |((what, inside), (_, outside))| {
        let proof = if inside != refused {
            Proof::Failed(format!("{inside} instead of {refused} (EPERM) in a session"))
        } else if outside == refused {
            Proof::Failed("it is refused to a process outside as well".to_owned())
        } else {
            Proof::Tried
        };
        Row { what: what.to_owned(), hold: Hold::DeniedBeforeExecution, proof }
    })
}
