//! The descriptors that a command inherits: its three standard streams, and nothing else.

use std::os::fd::{AsRawFd as _, RawFd};

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::{Confinement, HardeningError, failed};

/// Puts what the launcher prepared in the place of standard streams that must not be inherited.
pub(super) fn replace_streams(confinement: &mut Confinement) -> Result<(), HardeningError> {
    let [input, output, error] = &confinement.streams;
    let what = || failed::<rustix::io::Errno>("cannot replace a standard stream");
    input.as_ref().map_or(Ok(()), |stream| dup2_stdin(stream).map_err(what()))?;
    output.as_ref().map_or(Ok(()), |stream| dup2_stdout(stream).map_err(what()))?;
    error.as_ref().map_or(Ok(()), |stream| dup2_stderr(stream).map_err(what()))
}

/// Closes all else: a socket or folder from outside would be a way outside.
pub(super) fn close_descriptors(confinement: &mut Confinement) -> Result<(), HardeningError> {
    // They are where they belong by now; closing them here lets nothing be closed twice.
    confinement.streams = [None, None, None];
    let keep = confinement.keep.as_raw_fd();
    close_range(3, keep - 1)?;
    close_range(keep + 1, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), HardeningError> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no pointers are passed. Nothing in this process, which only becomes the command or exits, uses those
    // descriptors any more: the one that is still needed is outside the range.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(failed("cannot close the inherited descriptors")(std::io::Error::last_os_error()))
    }
}
