//! A hash chain of JSON Lines on disk: append, recover, verify, read. It knows bytes, not decisions.
//!
//! A line is a JSON object whose last two keys are `seq`, one more than the line before's, and `hash`: the SHA-256, in lower-case hex, over the
//! line before's hash as it is written there (64 zeros for the first line) and this line's bytes before `,"hash":"`. A ledger is kept in parts: the
//! first line of each but the first has a key `previous` before `seq`, the hash of the line before it.
//!
//! Invariant: a file that was only ever appended to here holds whole, chained lines, up to a torn one at its end after a crash, which the next
//! open cuts off and keeps beside.

#![deny(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg_attr(
    test,
    expect(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        reason = "a test fails by panicking"
    )
)]

mod chain;
mod file;
mod head_file;
mod memory;
mod segments;
mod tail;
mod turns;
mod verify;

pub use chain::{Broken, Head};
pub use file::{CaughtUp, FileLog, LedgerError, Limits, Opened, TornTail};
pub use head_file::head_file;
pub use memory::{MemoryError, MemoryLog};
pub use segments::{rotated, segments};
pub use tail::{Follow, last_lines};
pub use turns::{Member, Reserved, Turn, Turns};
pub use verify::{Summary, VerifyError, verify, verify_parts};

/// Where lines are appended to.
pub trait Log {
    /// Why lines could not be appended.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Appends these lines, all or none. Each is a JSON object's bytes without the closing brace, and has at least one key; `seq` and `hash`
    /// are added here.
    ///
    /// # Errors
    /// None of them is in the log.
    fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), Self::Error>;

    /// Begins a new part with this line, another body. Whoever reads the part needs no other.
    ///
    /// # Errors
    /// The log goes on as it was.
    fn rotate(&mut self, body: &[u8]) -> Result<(), Self::Error>;

    /// Whether it is time for a new part.
    fn wants_rotation(&self) -> bool;

    /// Whether somebody has moved the part away that is written.
    fn was_moved(&self) -> bool;

    /// Whether what room there is should be left for what has to be written: ends, not beginnings.
    fn is_nearly_full(&self) -> bool;

    /// The last line's number and hash.
    fn head(&self) -> &Head;
}
