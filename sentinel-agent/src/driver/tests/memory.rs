//! A ledger in memory, that fails when it is asked to.

use std::cell::RefCell;
use std::rc::Rc;

use sentinel_authority::{Authority, Log};
use sentinel_engine::{Fact, Now};
use uuid::Uuid;

/// Clones share their lines: keep one, hand the other to the authority.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryLedger(Rc<RefCell<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    facts: Vec<Fact>,
    appends: usize,
    fail_at: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("no space left, as the test asked")]
pub(super) struct Full;

impl MemoryLedger {
    pub(super) fn facts(&self) -> Vec<Fact> {
        self.0.borrow().facts.clone()
    }

    /// The append after the next `appends` ones fails, once.
    pub(super) fn fail_after(&self, appends: usize) {
        let mut lines = self.0.borrow_mut();
        lines.fail_at = Some(lines.appends + appends);
    }
}

impl Log for MemoryLedger {
    type Error = Full;

    fn append(&mut self, facts: &[Fact], _at: Now) -> Result<Vec<Uuid>, Full> {
        let mut lines = self.0.borrow_mut();
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        lines.appends += 1;
        if lines.fail_at == Some(lines.appends - 1) {
            lines.fail_at = None;
            return Err(Full);
        }
        lines.facts.extend_from_slice(facts);
        Ok(facts.iter().map(|_| Uuid::new_v4()).collect())
    }

    fn last_seq(&self) -> u64 {
        u64::try_from(self.0.borrow().facts.len()).unwrap()
    }
}

pub(super) fn authority(ledger: &MemoryLedger) -> Authority<MemoryLedger> {
    Authority::with(ledger.clone())
}
