//! The state from a ledger's lines. Never decides anything again.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel_engine::{Fact, Now, State};
use sentinel_proto::SessionId;

use crate::rebuild::{self, LineError};

/// A fold of lines, oldest first.
#[derive(Debug)]
pub struct Fold {
    state: State,
    /// The names of sessions, for the lines to come.
    names: BTreeMap<SessionId, String>,
    now: Now,
    /// A whole state can only be the first line: what it holds, no line before it may add to.
    is_first: bool,
}

impl Fold {
    /// Begins a fold at this moment.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { state: State::new(), names: BTreeMap::new(), now, is_first: true }
    }

    /// Goes on with a fold.
    pub(crate) fn going_on(state: State, names: BTreeMap<SessionId, String>, now: Now) -> Self {
        Self { state, names, now, is_first: false }
    }

    /// Folds one line.
    ///
    /// # Errors
    /// It is none that this version can read.
    pub fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        if std::mem::take(&mut self.is_first)
            && let Some((mut state, written)) = rebuild::state(line)?
        {
            state.rebase(written, self.now);
            self.names = state.names().map(|(session, name)| (session, name.to_string())).collect();
            self.state = state;
            return Ok(());
        }
        let (fact, wall_micros) = rebuild::fact(line)?;
        if let Fact::SessionStarted { session, name, .. } = &fact {
            match name {
                Some(name) => self.names.insert(*session, name.to_string()),
                None => self.names.remove(session),
            };
        }
        self.state.apply(&fact, self.then(wall_micros));
        Ok(())
    }

    /// When that was, on the clock since boot. The wall clock may have jumped, and the host may have been started since: what seems to lie in
    /// the future was now, and what lies before the boot was at it. Both only ever make a rate limit stricter.
    fn then(&self, wall_micros: u64) -> Now {
        let ago = Duration::from_micros(self.now.wall_micros.saturating_sub(wall_micros));
        Now { wall_micros, elapsed: self.now.elapsed.saturating_sub(ago) }
    }

    /// The state after the lines so far.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }

    pub(crate) fn into_parts(self) -> (State, BTreeMap<SessionId, String>) {
        (self.state, self.names)
    }
}
