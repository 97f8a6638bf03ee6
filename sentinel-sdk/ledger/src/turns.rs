//! How processes that share a ledger take turns, and how each knows which of the others live.
//!
//! Invariant: the kernel keeps these locks, not a file's contents: a process that dies in the middle of its turn gives it back, and is known to be
//! dead. They belong to a process, so a forked child has none of its parent's. (Whoever closes any descriptor of the file loses all that it
//! has; so a process opens it once: <https://man7.org/linux/man-pages/man2/fcntl_locking.2.html>.)

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_short, flock};

/// The byte that whoever has the turn has locked. Behind it, each process has one of its own.
const TURN: i64 = 0;

/// The file with the locks.
#[derive(Debug)]
pub struct Turns {
    file: File,
}

/// The turn: nobody else has it until this is dropped.
#[derive(Debug)]
pub struct Turn<'turns>(&'turns Turns);

/// What tells a process from the others that share the ledger, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(u64);

impl Member {
    /// As many as a file has bytes; 0 is the turn.
    const MOST: u64 = (1 << 62) - 1;

    /// One of this number, from 1 to 2^62.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(if number.is_multiple_of(Self::MOST) { 1 } else { number % Self::MOST })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    fn byte(self) -> i64 {
        i64::try_from(self.0).unwrap_or(1)
    }
}

impl Turns {
    /// Opens the file with the locks, or makes it and its folder, for their owner alone.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::CLOEXEC).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        Ok(Self { file: options.open(path)? })
    }

    /// Waits for the turn. Threads of one process don't wait for each other: they need a lock of their own around it.
    ///
    /// # Errors
    /// The system's: there is no turn.
    pub fn take(&self) -> io::Result<Turn<'_>> {
        loop {
            match fcntl(self.file.as_fd(), FcntlArg::F_SETLKW(&of(TURN, libc::F_WRLCK))) {
                Ok(_) => return Ok(Turn(self)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says that this process is that member, until it ends.
    ///
    /// # Errors
    /// Another process is, or the system says no.
    pub fn join(&self, member: Member) -> io::Result<()> {
        fcntl(self.file.as_fd(), FcntlArg::F_SETLK(&of(member.byte(), libc::F_WRLCK)))?;
        Ok(())
    }

    /// Whether no other process is a member and lives.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alone(&self) -> io::Result<bool> {
        // From the first member's byte to the last.
        let mut lock = flock { l_len: 0, ..of(TURN + 1, libc::F_WRLCK) };
        fcntl(self.file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) == libc::F_UNLCK)
    }

    /// Whether another process is that member and lives.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alive(&self, member: Member) -> io::Result<bool> {
        let mut lock = of(member.byte(), libc::F_WRLCK);
        fcntl(self.file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Nothing but a bad descriptor keeps a lock from being given back.
        let _given_back = fcntl(self.0.file.as_fd(), FcntlArg::F_SETLK(&of(TURN, libc::F_UNLCK)));
    }
}

fn of(byte: i64, kind: i32) -> flock {
    flock {
        l_type: c_short::try_from(kind).unwrap_or(c_short::MAX),
        l_whence: c_short::try_from(libc::SEEK_SET).unwrap_or(0),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_a_byte_of_its_own_that_is_not_the_turn() {
        assert_eq!(Member::new(0).byte(), 1);
        assert_eq!(Member::new(u64::MAX).byte(), Member::new(u64::MAX % Member::MOST).byte());
        assert!(Member::new(u64::MAX).byte() > 0);
    }

    #[test]
    fn what_nobody_has_locked_is_nobody() {
        let path = std::env::temp_dir().join(format!("sentinel-turns-{}", std::process::id()));
        let turns = Turns::open(&path).unwrap();
        assert!(!turns.is_alive(Member::new(7)).unwrap());
        turns.join(Member::new(7)).unwrap();
        drop(turns.take().unwrap());
        drop(turns.take().unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
