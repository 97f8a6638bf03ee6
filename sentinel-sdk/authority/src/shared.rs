//! An authority that processes share: each has its own, and all write one ledger.
//!
//! Invariant: whoever has the turn has folded every line that anybody has written, and nobody else writes before it gives the turn back. So what one
//! process was let start counts for all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sentinel_engine::{Event, Now};
use sentinel_ledger::{CaughtUp, LedgerError, Limits, Log as _, Member, Reserved, Turn, Turns};

use crate::{AppendError, Authority, FileLedger, OpenedLedger};

/// A process looks so often whether the locks are still where others find them, and the ledger is as it was left. In every turn it looks, or asks the
/// kernel, whether the ledger is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a process can't take its turn.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The file with the locks.
    #[error(
        "`{path}` can't be locked: {cause}; make its folder writable, or name another with AGENT_SENTINEL_HOME"
    )]
    Turns {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Somebody else had the turn for as long as was waited for it.
    #[error("another process has its turn at `{0}`, and doesn't give it back; end it, or let it go on")]
    Busy(PathBuf),
    /// A visitor finds nobody's ledger.
    #[error("there is no `{0}`: no program has shared a ledger in that folder")]
    Missing(PathBuf),
    /// The ledger's.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What is to be recorded at its beginning could not be.
    #[error(transparent)]
    Append(#[from] AppendError<LedgerError>),
}

/// One process's share in a ledger.
#[derive(Debug)]
pub struct SharedAuthority {
    authority: Authority<FileLedger>,
    turns: Turns,
    locks: PathBuf,
    ledger: PathBuf,
    limits: Limits,
    /// What it has folded is not what the file says: it is read anew.
    is_stale: bool,
    /// Somebody else had a turn since it last looked at the file.
    is_behind: bool,
    /// When it last looked after the locks, since the boot.
    looked_at: Duration,
    /// How long a turn is waited for; none: for as long as it takes.
    patience: Option<Duration>,
    /// A turn that was taken ahead, and when.
    reserved: Option<(Reserved, Now)>,
}

/// A process's turn: what it decides now, it decides alone.
#[derive(Debug)]
pub struct SharedTurn<'share> {
    /// The authority, up to date.
    pub authority: &'share mut Authority<FileLedger>,
    turns: &'share Turns,
    /// A new part waits for the disk: not in a turn that was to wait for nothing.
    may_wait: bool,
    now: Now,
    _turn: Turn<'share>,
}

impl SharedAuthority {
    /// Joins those that write this ledger, as that member; the first makes it.
    ///
    /// # Errors
    /// A host agent writes it, its chain is broken, or the system says no.
    pub fn join(ledger: &Path, limits: Limits, member: Member, now: Now) -> Result<Self, SharedError> {
        Self::open(ledger, limits, member, None, now)
    }

    /// The same, waiting for a turn at most so long, now and later: see [`SharedAuthority::set_patience`].
    ///
    /// # Errors
    /// As [`SharedAuthority::join`], or [`SharedError::Busy`].
    pub fn join_within(
        ledger: &Path,
        limits: Limits,
        member: Member,
        patience: Option<Duration>,
        now: Now,
    ) -> Result<Self, SharedError> {
        Self::open(ledger, limits, member, patience, now)
    }

    /// From now on a turn is waited for at most so long; none: for as long as it takes.
    pub const fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// Opens a ledger that processes share without being one of them: for none of them it counts as alive, so no run goes on because of it. What it
    /// has in flight is nobody's; so it should begin nothing.
    ///
    /// # Errors
    /// There is none, or as [`SharedAuthority::join`]. Nothing is made.
    pub fn visit(ledger: &Path, limits: Limits, now: Now) -> Result<Self, SharedError> {
        for file in [locks_of(ledger), ledger.to_owned()] {
            match std::fs::symlink_metadata(&file) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(SharedError::Missing(file));
                }
                Err(cause) => return Err(SharedError::Turns { path: file, cause }),
            }
        }
        Self::open(ledger, limits, Member::visitor(u64::from(std::process::id())), None, now)
    }

    fn open(
        ledger: &Path,
        limits: Limits,
        member: Member,
        patience: Option<Duration>,
        now: Now,
    ) -> Result<Self, SharedError> {
        let locks = locks_of(ledger);
        let failed = |cause| SharedError::Turns { path: locks.clone(), cause };
        let turns = Turns::join(&locks, member).map_err(failed)?;
        let turn = wait(&turns, patience).map_err(failed)?.ok_or_else(|| SharedError::Busy(locks.clone()))?;
        let OpenedLedger { ledger: log, state, gap, .. } = FileLedger::open_shared(ledger, limits, now)?;
        let mut authority = Authority::going_on(log, state);
        tell_gap(&mut authority, gap, now)?;
        drop(turn);
        Ok(Self {
            authority,
            turns,
            locks,
            ledger: ledger.to_owned(),
            limits,
            is_stale: false,
            is_behind: false,
            looked_at: now.elapsed,
            patience,
            reserved: None,
        })
    }

    /// Takes this process's turn ahead, so that [`SharedAuthority::take_turn`] waits for nothing: neither for others, nor to read what they have
    /// written, nor for the disk. False where one of these would be needed; then there is no turn.
    pub fn reserve_turn(&mut self, now: Now) -> bool {
        let would_wait = self.is_stale
            || self.is_time_to_look(now)
            || self.is_behind
            || self.authority.log().chain().is_poisoned()
            || self.authority.log().chain().wants_rotation();
        if would_wait {
            return false;
        }
        // Why there is no turn is told to who waits for it.
        let Ok(Some(turn)) = self.turns.try_take() else { return false };
        self.is_behind = !turn.is_next();
        if !self.is_behind {
            self.reserved = Some((turn.reserve(), now));
        }
        !self.is_behind
    }

    /// Gives a turn back that was taken ahead and not used.
    pub fn give_back(&mut self) {
        if let Some((reserved, _)) = self.reserved.take() {
            drop(self.turns.resume(reserved));
        }
    }

    /// When a turn was taken ahead; none where none is.
    #[must_use]
    pub fn reserved_at(&self) -> Option<Now> {
        self.reserved.as_ref().map(|(_, at)| *at)
    }

    fn is_time_to_look(&self, now: Now) -> bool {
        now.elapsed >= self.looked_at.saturating_add(LOOK_EVERY)
    }

    /// Waits for this process's turn, and catches up with the others.
    ///
    /// # Errors
    /// As [`SharedAuthority::join`]: nothing may be decided.
    pub fn take_turn(&mut self, now: Now) -> Result<SharedTurn<'_>, SharedError> {
        self.turn(false, now)
    }

    /// The same, for a turn in which nothing begins. Where it was taken ahead, it isn't asked whether somebody has moved the ledger away: that may as well
    /// be done right after the turn.
    ///
    /// # Errors
    /// As [`SharedAuthority::join`].
    pub fn take_turn_to_end(&mut self, now: Now) -> Result<SharedTurn<'_>, SharedError> {
        self.turn(true, now)
    }

    fn turn(&mut self, begins_nothing: bool, now: Now) -> Result<SharedTurn<'_>, SharedError> {
        let is_time = self.is_time_to_look(now);
        if self.reserved.is_none() && is_time {
            let failed = |cause| SharedError::Turns { path: self.locks.clone(), cause };
            if !self.turns.is_at(&self.locks).map_err(failed)? {
                // Somebody has removed the folder, or the locks in it: those who share it anew do so by other ones.
                *self = Self::open(&self.ledger, self.limits, self.turns.member(), self.patience, now)?;
            }
            self.looked_at = now.elapsed;
        }
        let failed = |cause| SharedError::Turns { path: self.locks.clone(), cause };
        let (turn, may_wait) = match self.reserved.take() {
            Some((reserved, _)) => (self.turns.resume(reserved), false),
            None => {
                let turn = wait(&self.turns, self.patience).map_err(failed)?;
                (turn.ok_or_else(|| SharedError::Busy(self.locks.clone()))?, true)
            }
        };
        self.is_behind |= !turn.is_next();
        // Also where nobody else had a turn: somebody who takes none may have moved it away.
        let is_left_alone = begins_nothing && !may_wait && !self.is_behind;
        if !self.is_stale && !is_left_alone {
            // Whatever goes wrong half way, the next turn begins anew.
            self.is_stale = true;
            match self.authority.catch_up(!self.is_behind && !is_time, now)? {
                CaughtUp::Here => self.is_stale = false,
                CaughtUp::Moved => {
                    self.authority.rotate_if(true, now)?;
                    self.is_stale = false;
                }
                CaughtUp::Replaced => {}
            }
        }
        if self.is_stale {
            let OpenedLedger { ledger, state, gap, .. } =
                FileLedger::open_shared(&self.ledger, self.limits, now)?;
            self.authority.restart(ledger, state);
            tell_gap(&mut self.authority, gap, now)?;
            self.is_stale = false;
        }
        self.is_behind = false;
        Ok(SharedTurn { authority: &mut self.authority, turns: &self.turns, may_wait, now, _turn: turn })
    }
}

impl SharedTurn<'_> {
    /// Whether no other process shares it now.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alone(&self) -> io::Result<bool> {
        self.turns.is_alone()
    }

    /// Whether that member lives.
    ///
    /// # Errors
    /// The system's.
    pub fn is_alive(&self, member: Member) -> io::Result<bool> {
        self.turns.is_alive(member)
    }
}

impl Drop for SharedTurn<'_> {
    fn drop(&mut self) {
        if self.may_wait {
            // The part goes on where a new one can't be begun; it is tried again.
            let _later = self.authority.rotate_if(false, self.now);
        }
    }
}

fn wait(turns: &Turns, patience: Option<Duration>) -> io::Result<Option<Turn<'_>>> {
    patience.map_or_else(|| turns.take().map(Some), |patience| turns.take_within(patience))
}

/// The file with the locks of those that share a ledger.
fn locks_of(ledger: &Path) -> PathBuf {
    ledger.with_extension("lock")
}

/// What is missing of the ledger is recorded before anything else.
fn tell_gap(
    authority: &mut Authority<FileLedger>,
    gap: Option<u64>,
    now: Now,
) -> Result<(), AppendError<LedgerError>> {
    match gap {
        Some(after) => authority.advise(Event::Gap { after }, now).map(drop),
        None => Ok(()),
    }
}
