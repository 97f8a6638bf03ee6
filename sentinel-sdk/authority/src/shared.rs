//! An authority that processes share: each has its own, and all write one ledger.
//!
//! Invariant: whoever has the turn has folded every line that anybody has written, and nobody else writes before it gives the turn back. So what one
//! process was let start counts for all of them.

use std::io;
use std::path::{Path, PathBuf};

use sentinel_engine::{Event, Now};
use sentinel_ledger::{CaughtUp, LedgerError, Limits, Member, Turn, Turns};

use crate::{AppendError, Authority, FileLedger, OpenedLedger};

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
}

/// A process's turn: what it decides now, it decides alone.
#[derive(Debug)]
pub struct SharedTurn<'share> {
    /// The authority, up to date.
    pub authority: &'share mut Authority<FileLedger>,
    turns: &'share Turns,
    now: Now,
    _turn: Turn<'share>,
}

impl SharedAuthority {
    /// Joins those that write this ledger, as that member; the first makes it.
    ///
    /// # Errors
    /// A host agent writes it, its chain is broken, or the system says no.
    pub fn join(ledger: &Path, limits: Limits, member: Member, now: Now) -> Result<Self, SharedError> {
        Self::open(ledger, limits, Some(member), now)
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
        Self::open(ledger, limits, None, now)
    }

    fn open(ledger: &Path, limits: Limits, member: Option<Member>, now: Now) -> Result<Self, SharedError> {
        let locks = locks_of(ledger);
        let failed = |cause| SharedError::Turns { path: locks.clone(), cause };
        let turns = Turns::open(&locks).map_err(failed)?;
        if let Some(member) = member {
            turns.join(member).map_err(failed)?;
        }
        let turn = turns.take().map_err(failed)?;
        let OpenedLedger { ledger: log, state, gap, .. } = FileLedger::open_shared(ledger, limits, now)?;
        let mut authority = Authority::going_on(log, state);
        tell_gap(&mut authority, gap, now)?;
        drop(turn);
        Ok(Self { authority, turns, locks, ledger: ledger.to_owned(), limits, is_stale: false })
    }

    /// Waits for this process's turn, and catches up with the others.
    ///
    /// # Errors
    /// As [`SharedAuthority::join`]: nothing may be decided.
    pub fn take_turn(&mut self, now: Now) -> Result<SharedTurn<'_>, SharedError> {
        let failed = |cause| SharedError::Turns { path: self.locks.clone(), cause };
        let turn = self.turns.take().map_err(failed)?;
        if !self.is_stale {
            // Whatever goes wrong half way, the next turn begins anew.
            self.is_stale = true;
            match self.authority.catch_up(now)? {
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
        Ok(SharedTurn { authority: &mut self.authority, turns: &self.turns, now, _turn: turn })
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
        // The part goes on where a new one can't be begun; it is tried again.
        let _later = self.authority.rotate_if(false, self.now);
    }
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
        Some(after) => authority.step(Event::Gap { after }, now).map(drop),
        None => Ok(()),
    }
}
