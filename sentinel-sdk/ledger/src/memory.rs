//! A log in memory, for tests of what is built on one: it can be told to fail.

use crate::{Head, Log};

/// The append that was told to fail did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("told to fail")]
pub struct MemoryError;

/// Lines in memory.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    lines: Vec<u8>,
    head: Head,
    appends: u64,
    fails_at: Option<u64>,
    fails_from: Option<u64>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { lines: Vec::new(), head: Head::genesis(), appends: 0, fails_at: None, fails_from: None }
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty log whose `nth` append fails, counted from 1.
    #[must_use]
    pub fn failing_at(nth: u64) -> Self {
        Self { fails_at: Some(nth), ..Self::default() }
    }

    /// An empty log whose appends fail from the `nth` on, counted from 1.
    #[must_use]
    pub fn failing_from(nth: u64) -> Self {
        Self { fails_from: Some(nth), ..Self::default() }
    }

    /// The lines so far.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

impl Log for MemoryLog {
    type Error = MemoryError;

    fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), MemoryError> {
        self.appends = self.appends.saturating_add(1);
        if self.fails_at == Some(self.appends) || self.fails_from.is_some_and(|first| self.appends >= first) {
            return Err(MemoryError);
        }
        for body in bodies {
            self.head = self.head.seal(body, &mut self.lines);
        }
        Ok(())
    }

    fn head(&self) -> &Head {
        &self.head
    }
}
