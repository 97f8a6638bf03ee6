//! Standard streams that a command must not inherit, and what carries their bytes instead.
//!
//! A socket from outside would be a way outside that no hook judges, and a folder one around the mount namespace. A
//! socket is replaced by a pipe that the launcher pumps, anything else of that kind by `/dev/null`.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{stderr, stdin, stdout};

/// Carries bytes from one descriptor to another until the first ends.
#[derive(Debug)]
pub(super) struct Pump {
    from: fs::File,
    to: fs::File,
    is_output: bool,
}

/// What the command gets instead of its three streams (none: it keeps the launcher's), and the pumps for it.
pub(super) fn replacements() -> io::Result<([Option<OwnedFd>; 3], Vec<Pump>)> {
    let mut streams = [None, None, None];
    let mut pumps = Vec::new();
    for ((inherited, is_output), stream) in
        [(stdin(), false), (stdout(), true), (stderr(), true)].into_iter().zip(&mut streams)
    {
        *stream = match kind(inherited) {
            Some(
                FileType::RegularFile | FileType::CharacterDevice | FileType::Fifo | FileType::BlockDevice,
            ) => None,
            Some(FileType::Socket) => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                let outside = inherited.try_clone_to_owned()?;
                let (from, to, inside) =
                    if is_output { (read, outside, write) } else { (outside, write, read) };
                pumps.push(Pump { from: from.into(), to: to.into(), is_output });
                Some(inside)
            }
            _ => Some(fs::File::options().read(true).write(true).open("/dev/null")?.into()),
        };
    }
    Ok((streams, pumps))
}

fn kind(stream: BorrowedFd<'_>) -> Option<FileType> {
    fstat(stream).ok().map(|found| FileType::from_raw_mode(found.st_mode))
}

impl Pump {
    /// Runs it in a thread; the handle is of one that carries output, whose end can be waited for.
    pub(super) fn start(self) -> Option<JoinHandle<()>> {
        let is_output = self.is_output;
        let thread = thread::spawn(move || self.carry());
        is_output.then_some(thread)
    }

    fn carry(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match self.from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if may_retry(&error, self.from.as_fd(), PollFlags::IN) => continue,
                Err(_broken) => return,
            };
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                match self.to.write(rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(error) if may_retry(&error, self.to.as_fd(), PollFlags::OUT) => {}
                    // Nobody reads any more: the command learns it when its own pipe breaks.
                    Err(_broken) => return,
                }
            }
        }
    }
}

/// Waits where a non-blocking descriptor isn't ready. False: it is broken.
fn may_retry(error: &io::Error, descriptor: BorrowedFd<'_>, ready: PollFlags) -> bool {
    match error.kind() {
        ErrorKind::Interrupted => true,
        ErrorKind::WouldBlock => poll(&mut [PollFd::from_borrowed_fd(descriptor, ready)], None).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pump_carries_all_bytes_even_to_a_slow_reader_that_does_not_block() {
        let (mut source, from) = UnixStream::pair().unwrap();
        let (to, mut sink) = UnixStream::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        to.set_nonblocking(true).unwrap();
        let pump = Pump { from: OwnedFd::from(from).into(), to: OwnedFd::from(to).into(), is_output: true };
        let thread = pump.start().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let writer = thread::spawn({
            let sent = sent.clone();
            move || source.write_all(&sent).unwrap()
        });
        let mut received = Vec::new();
        sink.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        thread.join().unwrap();
        assert!(received == sent);
    }
}
