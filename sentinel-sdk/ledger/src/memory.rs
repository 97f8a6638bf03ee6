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
    room: usize,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { lines: Vec::new(), head: Head::genesis(), appends: 0, fails_at: None, room: usize::MAX }
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

    /// An empty log that has room for so many bytes: what doesn't fit fails.
    #[must_use]
    pub fn with_room_for(bytes: usize) -> Self {
        Self { room: bytes, ..Self::default() }
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
        if self.fails_at == Some(self.appends) {
            return Err(MemoryError);
        }
        let (before, mut head) = (self.lines.len(), self.head.clone());
        for body in bodies {
            head = head.seal(body, &mut self.lines);
        }
        if self.lines.len() > self.room {
            self.lines.truncate(before);
            return Err(MemoryError);
        }
        self.head = head;
        Ok(())
    }

    fn rotate(&mut self, body: &[u8]) -> Result<(), MemoryError> {
        self.append(&[body.to_vec()])
    }

    fn wants_rotation(&self) -> bool {
        false
    }

    fn was_moved(&self) -> bool {
        false
    }

    fn is_nearly_full(&self) -> bool {
        false
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_that_fails_leaves_what_was_there() {
        let bodies = [b"{\"x\":1".to_vec(), b"{\"x\":2".to_vec()];
        let mut roomy = MemoryLog::new();
        roomy.append(&bodies).unwrap();
        let both = roomy.lines.len();
        for room in 0..both {
            let mut log = MemoryLog::with_room_for(room);
            assert_eq!(log.append(&bodies), Err(MemoryError));
            assert_eq!((log.lines.len(), log.head().clone()), (0, Head::genesis()));
        }
        assert_eq!(MemoryLog::with_room_for(both).append(&bodies), Ok(()));
        let mut second_fails = MemoryLog::failing_at(2);
        assert_eq!(second_fails.append(&bodies), Ok(()));
        assert_eq!(second_fails.append(&bodies), Err(MemoryError));
        assert_eq!(second_fails.append(&bodies), Ok(()));
        assert_eq!(second_fails.head().seq, 4);
    }
}
