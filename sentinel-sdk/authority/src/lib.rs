//! Policy, state and ledger, and the one function that steps them: [`Authority::step`].
//!
//! Invariant (ledger first): a fact is in the ledger before it is in the state, and before anybody acts on it. An append that fails changes
//! nothing.

#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg_attr(test, expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking"))]

mod fold;
mod intervention;
mod ledger;
mod line;
mod outputs;
mod rebuild;
pub mod redact;
mod replay;
mod shared;
#[cfg(test)]
mod tests;
mod timestamp;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use sentinel_engine::{ActionRequest, Effect, Event, Fact, Now, Policy, State, baseline, decide, effects};
use sentinel_ledger::CaughtUp;
use sentinel_proto::{ApprovalId, SessionId};
use uuid::Uuid;

pub use fold::Fold;
pub use intervention::{Intervention, intervention};
pub use ledger::{AppendError, FileLedger, Ledger, OpenedLedger};
pub use rebuild::LineError;
pub use replay::{Divergence, Recording, ReplayError, Take, TakeOutcome};
pub use sentinel_ledger::{LedgerError, Limits, Member, TornTail};
pub use shared::{SharedAuthority, SharedError, SharedTurn};
pub use view::particulars;

/// Where facts are written.
pub trait Log {
    /// Why facts could not be written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Writes these facts, all or none, and answers the ids of their lines.
    ///
    /// # Errors
    /// None of them is written.
    fn append(&mut self, facts: &[Fact], at: Now) -> Result<Vec<Uuid>, Self::Error>;

    /// Begins a new part with a line that holds the whole state, if it is due or the part is large enough. Whether it did.
    ///
    /// # Errors
    /// The log goes on as it was.
    fn rotate_if(&mut self, is_due: bool, state: &State, at: Now) -> Result<bool, Self::Error> {
        let _no_parts = (is_due, state, at);
        Ok(false)
    }

    /// The bytes that were written about a session since the log was opened.
    fn bytes_of(&self, session: SessionId) -> u64 {
        let _nobody_counts = session;
        0
    }

    /// Whether somebody has moved away where it is written.
    fn was_moved(&self) -> bool {
        false
    }

    /// Whether what room there is should be left for ends.
    fn is_nearly_full(&self) -> bool {
        false
    }

    /// The number of the last line.
    fn last_seq(&self) -> u64;
}

/// What came of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What has happened; written, and folded into the state.
    pub facts: Vec<Fact>,
    /// The ids of their ledger lines, in the same order.
    pub ids: Vec<Uuid>,
    /// What the outside world has to do now, in this order.
    pub effects: Vec<Effect>,
}

/// Another version of a session's policy.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// Which session.
    pub session: SessionId,
    /// The policy's name.
    pub name: String,
    /// The SHA-256 of its text.
    pub sha256: String,
    /// The policy.
    pub policy: Arc<Policy>,
}

/// Policy, state and ledger. The agent and the embedded mode are two shells around it.
#[derive(Debug)]
pub struct Authority<L: Log> {
    policies: BTreeMap<SessionId, Arc<Policy>>,
    state: State,
    log: L,
}

impl<L: Log> Authority<L> {
    /// An authority that begins with nothing.
    #[must_use]
    pub fn with(log: L) -> Self {
        Self::going_on(log, State::new())
    }

    /// An authority that goes on where a log ended: with the fold of its facts.
    #[must_use]
    pub fn going_on(log: L, state: State) -> Self {
        Self { policies: BTreeMap::new(), state, log }
    }

    /// Decides on an event, writes what happens, folds it into the state, and says what follows from it.
    ///
    /// # Errors
    /// The log's: nothing has happened.
    pub fn step(&mut self, event: Event, now: Now) -> Result<Step, L::Error> {
        let mut step = self.advise(event, now)?;
        if !step.facts.is_empty() {
            step.effects = effects(&self.state, &self.policies, &step.facts, now);
        }
        Ok(step)
    }

    /// The same where nothing is enforced, so that nothing follows from it.
    ///
    /// # Errors
    /// As [`Authority::step`].
    pub fn advise(&mut self, event: Event, now: Now) -> Result<Step, L::Error> {
        let policy = event.session(&self.state).and_then(|session| self.policies.get(&session));
        let mut facts = decide(policy.map(Arc::as_ref), &self.state, &event, now);
        facts.iter_mut().for_each(redact::fact);
        if facts.is_empty() {
            return Ok(Step { facts, ids: Vec::new(), effects: Vec::new() });
        }
        let ids = self.log.append(&facts, now)?;
        for fact in &facts {
            self.state.apply(fact, now);
        }
        Ok(Step { facts, ids, effects: Vec::new() })
    }

    /// Which approval an action waits for already, that a human has to say about. Then a [`Event::Begin`] has no facts.
    #[must_use]
    pub fn waits_for(&self, request: &ActionRequest, now: Now) -> Option<ApprovalId> {
        let policy = self.policies.get(&request.session)?;
        if policy.approvals.is_none() && !request.needs_approval {
            return None;
        }
        self.state.waits_for(policy, request, now)
    }

    /// Gives sessions other versions of their policies, all or none, and says what follows from it.
    ///
    /// # Errors
    /// The log's: nothing has happened, and the old policies hold.
    pub fn reload(
        &mut self,
        operator: Option<u32>,
        changed: Vec<String>,
        policies: Vec<NewPolicy>,
        now: Now,
    ) -> Result<Step, L::Error> {
        let mut facts = decide(None, &self.state, &Event::PoliciesReloaded { operator, changed }, now);
        for new in &policies {
            let event = Event::PolicyChange {
                session: new.session,
                policy: new.name.clone(),
                policy_sha256: new.sha256.clone(),
            };
            facts.extend(decide(Some(&new.policy), &self.state, &event, now));
        }
        let ids = self.log.append(&facts, now)?;
        for new in policies {
            self.policies.insert(new.session, new.policy);
        }
        for fact in &facts {
            self.state.apply(fact, now);
        }
        let effects = effects(&self.state, &self.policies, &facts, now);
        Ok(Step { facts, ids, effects })
    }

    /// What the baseline network of each session has to be now: a day's budget is renewed without any event.
    pub fn baselines(&self, now: Now) -> impl Iterator<Item = Effect> {
        let with_days = self.policies.iter().filter(|(_, policy)| policy.budgets.day.is_some());
        with_days.filter_map(move |(session, policy)| baseline(&self.state, policy, *session, now))
    }

    /// Begins a new part of the log, if that is due or the part is large enough. Whether it did.
    ///
    /// # Errors
    /// The log's, which goes on as it was.
    pub fn rotate_if(&mut self, is_due: bool, now: Now) -> Result<bool, L::Error> {
        self.log.rotate_if(is_due, &self.state, now)
    }

    /// Whether the log has room for ends alone: then nothing should begin.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.log.is_nearly_full()
    }

    /// Says which policy decides in a session. Without one, nothing may start in it.
    pub fn bind(&mut self, session: SessionId, policy: Arc<Policy>) {
        self.policies.insert(session, policy);
    }

    /// Forgets a session's policy.
    pub fn release(&mut self, session: SessionId) {
        self.policies.remove(&session);
    }

    /// Goes on with another log, and the fold of its facts, under the same policies.
    pub(crate) fn restart(&mut self, log: L, state: State) {
        (self.log, self.state) = (log, state);
    }

    /// The state: the fold of all facts.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The log that it writes.
    #[must_use]
    pub fn log(&self) -> &L {
        &self.log
    }

    /// The number of the ledger's last line.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.log.last_seq()
    }
}

impl Authority<FileLedger> {
    /// Folds what other processes have written to a shared ledger.
    ///
    /// # Errors
    /// The ledger's: then the state may lack something, and nothing should be decided by it.
    pub(crate) fn catch_up(&mut self, has_next_turn: bool, now: Now) -> Result<CaughtUp, LedgerError> {
        self.log.catch_up(&mut self.state, has_next_turn, now)
    }
}
