//! How processes that share a ledger take turns, and how each knows which of the others live.
//!
//! Whose turn it is stands on a [board] in the file with the locks, or is a lock of the kernel's where the file system can't have a board. All who
//! share a ledger do it the same way.
//!
//! Invariant: which member lives the kernel alone says, by locks that end with their process: a process that dies in the middle of its turn loses it,
//! and is known to be dead. Locks belong to a process, so a forked child has none of its parent's. (Whoever closes any descriptor of the file loses
//! all that it has; so a process opens it once: <https://man7.org/linux/man-pages/man2/fcntl_locking.2.html>.)

#[expect(unsafe_code, reason = "memory that processes share can't be had without")]
mod board;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_short, flock};

use board::{Before, Board};

/// The byte that whoever has the turn has locked, where there is no board. Behind it, each process has one of its own.
const TURN: i64 = 0;
/// Behind those of all members: whoever joins has locked it.
const JOINING: i64 = 1 << 62;
/// All who take turns by the board share it.
const BY_BOARD: i64 = JOINING + 1;
/// All who take turns by a lock share it.
const BY_LOCK: i64 = JOINING + 2;
/// From here on those who only visit have theirs.
const FIRST_VISITOR: i64 = JOINING + 3;
/// So many numbers they have.
const VISITORS: u64 = 1 << 32;

/// Who waits for a lock for a while looks so often whether it can be had.
const LOCKED_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// As a number of bytes.
const TO_THE_END: i64 = 0;

/// The file with the locks, and this process's place among those who take turns.
#[derive(Debug)]
pub struct Turns {
    file: File,
    member: Member,
    board: Option<Board>,
}

/// The turn: nobody else has it until this is dropped.
#[derive(Debug)]
pub struct Turn<'turns> {
    turns: &'turns Turns,
    is_next: bool,
}

/// A turn that was taken, for later.
#[derive(Debug)]
#[must_use = "nobody else has the turn until it is resumed and dropped"]
pub struct Reserved {
    is_next: bool,
}

/// What tells a process from the others that share the ledger, for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member(u64);

impl Member {
    /// As many as there are bytes before [`JOINING`]; 0 is the turn.
    const MOST: u64 = (1 << 62) - 1;

    /// One of this number, from 1 to 2^62.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(if number.is_multiple_of(Self::MOST) { 1 } else { number % Self::MOST })
    }

    /// Somebody who takes turns like a member and is none: a run doesn't go on because of it.
    #[must_use]
    pub const fn visitor(number: u64) -> Self {
        Self(FIRST_VISITOR.cast_unsigned().wrapping_add(number % VISITORS))
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
    /// Opens the file with the locks, or makes it and its folder, for their owner alone; and says that this process is that member, until it ends.
    ///
    /// # Errors
    /// Another process is, those that share it take turns in another way, or the system says no.
    pub fn join(path: &Path, member: Member) -> io::Result<Self> {
        let file = open(path)?;
        let by_board = board::can_be(&file)?;
        Self::join_by(file, member, by_board)
    }

    fn join_by(file: File, member: Member, by_board: bool) -> io::Result<Self> {
        let mut turns = Self { file, member, board: None };
        turns.wait_for(JOINING)?;
        let (own, other) = if by_board { (BY_BOARD, BY_LOCK) } else { (BY_LOCK, BY_BOARD) };
        if turns.is_locked(other, 1)? {
            return Err(io::Error::other(
                "those that share it see it on a file system of another kind; run them all where they see the same",
            ));
        }
        if by_board {
            let is_unused = turns.is_alone()? && !turns.is_locked(FIRST_VISITOR, TO_THE_END)?;
            turns.board = Some(Board::open(&turns.file, is_unused)?);
        }
        turns.lock(own, libc::F_RDLCK)?;
        turns.lock(member.byte(), libc::F_WRLCK)?;
        turns.lock(JOINING, libc::F_UNLCK)?;
        Ok(turns)
    }

    /// Waits for the turn. Threads of one process don't wait for each other: they need a lock of their own around it.
    ///
    /// # Errors
    /// The system's: there is no turn.
    pub fn take(&self) -> io::Result<Turn<'_>> {
        let before = match &self.board {
            Some(board) => board.take(self.member, None, |member| self.is_alive(member))?,
            None => {
                self.wait_for(TURN)?;
                None
            }
        };
        Ok(self.turn(before.unwrap_or(Before::Another)))
    }

    /// The same, for so long; none: it was waited for in vain.
    ///
    /// # Errors
    /// As [`Turns::take`].
    pub fn take_within(&self, patience: Duration) -> io::Result<Option<Turn<'_>>> {
        let until = Instant::now().checked_add(patience);
        if let Some(board) = &self.board {
            let before = board.take(self.member, until, |member| self.is_alive(member))?;
            return Ok(before.map(|before| self.turn(before)));
        }
        loop {
            if let Some(turn) = self.try_take()? {
                return Ok(Some(turn));
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
            std::thread::sleep(LOCKED_AGAIN_AFTER);
        }
    }

    /// Takes the turn if nobody else has it now.
    ///
    /// # Errors
    /// The system's: there is no turn.
    pub fn try_take(&self) -> io::Result<Option<Turn<'_>>> {
        let before = match &self.board {
            Some(board) => board.try_take(self.member),
            None => match self.lock(TURN, libc::F_WRLCK) {
                Ok(()) => Some(Before::Another),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => None,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(before.map(|before| self.turn(before)))
    }

    /// The turn that was reserved.
    pub fn resume(&self, reserved: Reserved) -> Turn<'_> {
        Turn { turns: self, is_next: reserved.is_next }
    }

    fn turn(&self, before: Before) -> Turn<'_> {
        Turn { turns: self, is_next: before == Before::Same }
    }

    /// This member.
    #[must_use]
    pub const fn member(&self) -> Member {
        self.member
    }

    /// Whether the file with the locks is still the one at this path. Who comes later takes turns by another, where it was removed or replaced.
    ///
    /// # Errors
    /// The system's.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether no other process is a member and lives.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alone(&self) -> io::Result<bool> {
        self.is_locked(TURN + 1, JOINING - 1).map(|are_there| !are_there)
    }

    /// Whether another process is that member and lives.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alive(&self, member: Member) -> io::Result<bool> {
        self.is_locked(member.byte(), 1)
    }

    /// Whether another process has a lock on any of these bytes.
    fn is_locked(&self, from: i64, bytes: i64) -> io::Result<bool> {
        let mut lock = flock { l_len: bytes, ..of(from, libc::F_WRLCK) };
        fcntl(self.file.as_fd(), FcntlArg::F_GETLK(&mut lock))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    fn lock(&self, byte: i64, kind: i32) -> nix::Result<()> {
        fcntl(self.file.as_fd(), FcntlArg::F_SETLK(&of(byte, kind))).map(drop)
    }

    fn wait_for(&self, byte: i64) -> nix::Result<()> {
        loop {
            match fcntl(self.file.as_fd(), FcntlArg::F_SETLKW(&of(byte, libc::F_WRLCK))) {
                Err(nix::errno::Errno::EINTR) => {}
                locked => return locked.map(drop),
            }
        }
    }
}

impl Turn<'_> {
    /// Keeps the turn, to be resumed.
    pub fn reserve(self) -> Reserved {
        let is_next = self.is_next;
        std::mem::forget(self);
        Reserved { is_next }
    }

    /// Whether nobody else has had a turn since this member's last one.
    #[must_use]
    pub const fn is_next(&self) -> bool {
        self.is_next
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        match &self.turns.board {
            Some(board) => board.give_back(),
            // Nothing but a bad descriptor keeps a lock from being given back.
            None => drop(self.turns.lock(TURN, libc::F_UNLCK)),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::CLOEXEC).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    options.open(path)
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
    fn a_member_has_a_byte_of_its_own_that_is_no_other_lock() {
        assert_eq!(Member::new(0).byte(), 1);
        assert_eq!(Member::new(u64::MAX).byte(), Member::new(u64::MAX % Member::MOST).byte());
        assert!(Member::new(u64::MAX).byte() > TURN);
        assert!(Member::new(Member::MOST - 1).byte() < JOINING);
        assert_eq!(Member::visitor(0).byte(), FIRST_VISITOR);
        assert!(Member::visitor(u64::MAX).byte() > BY_LOCK);
    }

    #[test]
    fn a_turn_can_be_had_again_by_the_board_and_by_the_lock() {
        for by_board in [true, false] {
            let name = format!("sentinel-turns-{by_board}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let turns = Turns::join_by(open(&path).unwrap(), Member::new(7), by_board).unwrap();
            assert!(!turns.is_alive(Member::new(8)).unwrap());
            drop(turns.take().unwrap());
            let again = turns.try_take().unwrap().unwrap();
            assert_eq!(again.is_next(), by_board, "a lock doesn't tell who had it");
            drop(again);
            drop(turns.take_within(Duration::ZERO).unwrap().unwrap());
            std::fs::remove_file(path).unwrap();
        }
    }
}
