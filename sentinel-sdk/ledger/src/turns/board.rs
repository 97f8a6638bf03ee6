//! The board: a page of memory that the processes which share a ledger have in common. Who has the turn stands there, and who had it last.
//!
//! Taking a turn that nobody has is one instruction, where a lock of the kernel's takes two calls of some 0.7 µs. It is written into the file with the
//! locks, so all who see that file see the same board.
//!
//! Invariant: at most one member has the turn. The board alone gives it; that whoever has it lives, the kernel alone says: a member that died is no
//! longer there, whatever the board says of it. So nothing on the board has to be trusted after a crash or a reboot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;
use rustix::time::Timespec;

use super::Member;

/// What a board begins with. Another layout gets another name.
const NAME: u64 = u64::from_le_bytes(*b"turns/01");
/// A page, so that nothing else of the file can be in it.
const BYTES: usize = 4096;
/// Nobody has the turn.
const NOBODY: u64 = 0;
/// So often whoever waits gives the CPU to others before it sleeps: mostly the turn is over by then.
const YIELDS: usize = 20;
/// So long whoever waits sleeps before it looks whether the one who has the turn still lives.
const SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What stands on it.
#[repr(C)]
struct Words {
    name: AtomicU64,
    /// The number of the member that has the turn.
    has_turn: AtomicU64,
    /// The number of the member that had it last, or has it.
    had_turn: AtomicU64,
    /// Changes when somebody who sleeps is to look again.
    bell: AtomicU32,
    /// Not 0: somebody may be asleep.
    is_awaited: AtomicU32,
}

/// The board of one ledger, as this process sees it.
#[derive(Debug)]
pub(super) struct Board {
    words: NonNull<Words>,
}

// SAFETY: all that can be reached through it are atomics, in memory that stays mapped until it is dropped.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// Who had the turn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// The same member.
    Same,
    /// Another, or nobody knows.
    Another,
}

/// Whether a file can be a board: its file system keeps one page of it for all, and has room for that page once it was written. One that copies what
/// is written over may have none left when the disk is full, which would end the process.
pub(super) fn can_be(file: &File) -> io::Result<bool> {
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const TMPFS: i64 = 0x0102_1994;
    Ok(matches!(rustix::fs::fstatfs(file)?.f_type, EXT | XFS | TMPFS))
}

impl Board {
    /// The board in this file. Made anew where the caller knows that nobody uses it.
    ///
    /// # Errors
    /// The system's, or others use something that is no board.
    pub(super) fn open(file: &File, is_unused: bool) -> io::Result<Self> {
        if is_unused {
            // Written, not just made longer: so there is room for it.
            let mut page = [0; BYTES];
            if let Some(name) = page.first_chunk_mut() {
                *name = NAME.to_ne_bytes();
            }
            file.write_all_at(&page, 0)?;
        }
        let length = file.metadata()?.len();
        // SAFETY: a new mapping, of a file that is long enough. What others do to it is seen through atomics alone. Whoever makes the file shorter
        // ends all who use it.
        let mapped = unsafe {
            mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        };
        let words = NonNull::new(mapped?.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let board = Self { words };
        let is_whole = usize::try_from(length).is_ok_and(|length| length >= BYTES);
        if !is_whole || board.words().name.load(Ordering::Relaxed) != NAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "others use it, but it is no board of this version; end them",
            ));
        }
        Ok(board)
    }

    fn words(&self) -> &Words {
        // SAFETY: mapped as long as `self` lives, aligned as a page is, and made of nothing but atomics, for which any bytes are valid.
        unsafe { self.words.as_ref() }
    }

    /// Takes the turn if nobody has it.
    pub(super) fn try_take(&self, member: Member) -> Option<Before> {
        let free = self.words().has_turn.compare_exchange(
            NOBODY,
            member.number(),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        free.ok().map(|_nobody| self.note(member))
    }

    /// Waits for the turn, for ever or until then; none: it was waited for in vain. `is_alive` tells whether another member lives: the turn of one that
    /// died is taken from it.
    ///
    /// # Errors
    /// Those of `is_alive`.
    pub(super) fn take(
        &self,
        member: Member,
        until: Option<Instant>,
        is_alive: impl Fn(Member) -> io::Result<bool>,
    ) -> io::Result<Option<Before>> {
        for _ in 0..YIELDS {
            if let Some(before) = self.try_take(member) {
                return Ok(Some(before));
            }
            rustix::thread::sched_yield();
        }
        let words = self.words();
        loop {
            let bell = words.bell.load(Ordering::SeqCst);
            words.is_awaited.store(1, Ordering::SeqCst);
            let has_turn = words.has_turn.load(Ordering::SeqCst);
            if has_turn == NOBODY {
                if let Some(before) = self.try_take(member) {
                    // Others may sleep too: this turn's end wakes the next.
                    return Ok(Some(before));
                }
                continue;
            }
            let slept = futex::wait(&words.bell, futex::Flags::empty(), bell, Some(&SLEEP));
            // Where nobody rang it may have died. A turn of this very member's is one that was never given back.
            if slept == Err(rustix::io::Errno::TIMEDOUT)
                && (has_turn == member.number() || !is_alive(Member::new(has_turn))?)
                && self.take_from(has_turn, member)
            {
                return Ok(Some(Before::Another));
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(None);
            }
        }
    }

    /// Takes the turn from a member that is no more, unless somebody else just has.
    fn take_from(&self, gone: u64, member: Member) -> bool {
        let has_turn = &self.words().has_turn;
        let taken = has_turn.compare_exchange(gone, member.number(), Ordering::SeqCst, Ordering::Relaxed);
        taken.map(|_gone| self.note(member)).is_ok()
    }

    /// Gives the turn back.
    pub(super) fn give_back(&self) {
        let words = self.words();
        words.has_turn.store(NOBODY, Ordering::SeqCst);
        if words.is_awaited.load(Ordering::SeqCst) != 0 {
            words.is_awaited.store(0, Ordering::SeqCst);
            words.bell.fetch_add(1, Ordering::SeqCst);
            // Whoever isn't woken wakes by itself.
            let _woken = futex::wake(&words.bell, futex::Flags::empty(), 1);
        }
    }

    fn note(&self, member: Member) -> Before {
        // Stored only where it changes: the page stays clean while one process is alone.
        if self.words().had_turn.load(Ordering::Relaxed) == member.number() {
            return Before::Same;
        }
        self.words().had_turn.store(member.number(), Ordering::Relaxed);
        Before::Another
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length, and nobody holds a reference into it any more.
        let _unmapped = unsafe { munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;

    struct Place(PathBuf, File);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sentinel-board-{name}-{}", std::process::id()));
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
            Self(path, file.unwrap())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    const ONE: Member = Member::new(1);
    const TWO: Member = Member::new(2);

    fn lives(_member: Member) -> io::Result<bool> {
        Ok(true)
    }

    #[test]
    fn a_turn_that_another_has_is_not_had_and_one_that_was_given_back_is() {
        let place = Place::new("given-back");
        let (one, two) = (Board::open(&place.1, true).unwrap(), Board::open(&place.1, false).unwrap());
        assert_eq!(one.try_take(ONE), Some(Before::Another));
        assert_eq!(two.try_take(TWO), None);
        one.give_back();
        assert_eq!(two.try_take(TWO), Some(Before::Another));
    }

    #[test]
    fn who_had_the_last_turn_knows_it_and_who_had_not_knows_that() {
        let place = Place::new("last");
        let board = Board::open(&place.1, true).unwrap();
        let turn = |member| {
            let before = board.take(member, None, lives).unwrap();
            board.give_back();
            before
        };
        turn(ONE);
        assert_eq!(turn(ONE), Some(Before::Same));
        assert_eq!(turn(TWO), Some(Before::Another));
        assert_eq!(turn(ONE), Some(Before::Another));
    }

    #[test]
    fn the_turn_of_a_member_that_died_goes_to_who_waits_and_is_not_taken_for_its_own() {
        let place = Place::new("died");
        let board = Board::open(&place.1, true).unwrap();
        assert!(board.try_take(TWO).is_some());
        board.give_back();
        assert!(board.try_take(ONE).is_some());
        assert_eq!(board.take(TWO, None, |member| Ok(member != ONE)).unwrap(), Some(Before::Another));
        // The same of a turn that was never given back.
        assert_eq!(board.take(TWO, None, lives).unwrap(), Some(Before::Another));
    }

    #[test]
    fn the_turn_of_a_member_that_lives_stays_its_own() {
        let place = Place::new("lives");
        let board = Board::open(&place.1, true).unwrap();
        assert!(board.try_take(ONE).is_some());
        let refused = board.take(TWO, None, |_| Err(io::ErrorKind::Other.into()));
        assert!(refused.is_err(), "whether it lives isn't known");
        assert_eq!(board.try_take(TWO), None);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| board.take(TWO, None, lives).map(|_| Instant::now()));
            std::thread::sleep(Duration::from_millis(50));
            let given_back = Instant::now();
            board.give_back();
            assert!(waits.join().unwrap().unwrap() >= given_back);
        });
    }

    #[test]
    fn a_turn_that_is_not_given_back_is_waited_for_as_long_as_that_was_to_be() {
        let place = Place::new("patience");
        let board = Board::open(&place.1, true).unwrap();
        let wait =
            |member| board.take(member, Some(Instant::now() + Duration::from_millis(20)), lives).unwrap();
        assert!(wait(ONE).is_some());
        assert_eq!(wait(TWO), None);
        board.give_back();
        assert!(wait(TWO).is_some());
    }

    #[test]
    fn of_eight_members_one_at_a_time_has_the_turn() {
        let place = Place::new("eight");
        let board = Board::open(&place.1, true).unwrap();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for number in 1..9 {
                let (board, inside) = (&board, &inside);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        board.take(Member::new(number), None, lives).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        board.give_back();
                    }
                });
            }
        });
    }

    #[test]
    fn what_others_use_and_is_no_board_is_refused() {
        let place = Place::new("no-board");
        assert!(Board::open(&place.1, false).is_err(), "it is empty");
        place.1.write_all_at(&[7; BYTES], 0).unwrap();
        assert!(Board::open(&place.1, false).is_err());
        assert!(Board::open(&place.1, true).is_ok(), "nobody uses it");
        assert!(Board::open(&place.1, false).is_ok());
    }
}
