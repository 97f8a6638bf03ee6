//! The ledger as the authority writes it: facts as chained lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sentinel_engine::{Fact, Now, State};
use sentinel_ledger::{CaughtUp, FileLog, LedgerError, Limits, Opened, TornTail};
use sentinel_proto::{ActionId, Payload, SessionId};
use uuid::Uuid;

use crate::{Fold, Log, line};

/// What an action was called with stands on the line of its end too, up to so many bytes: what is longer stands on its first line alone.
const MOST_INPUTS_TWICE: usize = 4 * 1024;

/// Facts as lines of a log.
#[derive(Debug)]
pub struct Ledger<L> {
    log: L,
    /// Names of the sessions that have one: lines have them too.
    names: BTreeMap<SessionId, String>,
    /// Bytes that were written about sessions.
    bytes: BTreeMap<SessionId, u64>,
    /// What the actions in flight that were begun here were called with: the line of their end says so too.
    inputs: HashMap<ActionId, Payload>,
    /// Nobody keeps those from writing it whom it is about.
    advisory: bool,
}

/// A ledger in a file.
pub type FileLedger = Ledger<FileLog>;

/// A ledger that was opened, and what was in it.
#[derive(Debug)]
pub struct OpenedLedger {
    /// The ledger.
    pub ledger: FileLedger,
    /// The fold of its facts.
    pub state: State,
    /// A torn last line, which was set aside.
    pub torn: Option<TornTail>,
    /// The number of the last line that is known to have been written, where it is gone: what was spent by then is unknown.
    pub gap: Option<u64>,
}

/// Why facts could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<E> {
    /// One of them makes no line.
    #[error("a fact makes no ledger line: {0}")]
    NoLine(#[from] serde_json::Error),
    /// The log's.
    #[error("{0}")]
    Log(#[source] E),
}

impl FileLedger {
    /// Opens a ledger, or makes it, and folds what is in it.
    ///
    /// # Errors
    /// Another process writes it, its chain is broken, a line can't be read, or the system says no.
    pub fn open(path: &Path, now: Now) -> Result<OpenedLedger, LedgerError> {
        Self::open_with(path, Limits::default(), now)
    }

    /// [`FileLedger::open`] with other limits of size.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(path: &Path, limits: Limits, now: Now) -> Result<OpenedLedger, LedgerError> {
        let mut fold = Fold::new(now);
        let Opened { log, torn, gap } = FileLog::open_with(path, limits, |line| fold.line(line))?;
        let (state, names) = fold.into_parts();
        Ok(OpenedLedger {
            ledger: Self { log, names, bytes: BTreeMap::new(), inputs: HashMap::new(), advisory: false },
            state,
            torn,
            gap: gap.map(|head| head.seq),
        })
    }

    /// [`FileLedger::open_with`] for one of many processes, whose turn it is: see [`crate::SharedAuthority`]. Its lines say that they are advisory:
    /// whoever writes them could as well write others.
    ///
    /// # Errors
    /// As there.
    pub fn open_shared(path: &Path, limits: Limits, now: Now) -> Result<OpenedLedger, LedgerError> {
        let mut fold = Fold::new(now);
        let Opened { log, torn, gap } = FileLog::open_shared(path, limits, |line| fold.line(line))?;
        let (state, names) = fold.into_parts();
        Ok(OpenedLedger {
            ledger: Self { log, names, bytes: BTreeMap::new(), inputs: HashMap::new(), advisory: true },
            state,
            torn,
            gap: gap.map(|head| head.seq),
        })
    }

    /// Folds what other processes have written.
    pub(crate) fn catch_up(
        &mut self,
        state: &mut State,
        has_next_turn: bool,
        now: Now,
    ) -> Result<CaughtUp, LedgerError> {
        if self.log.is_caught_up(has_next_turn)? {
            return Ok(CaughtUp::Here);
        }
        let mut fold = Fold::going_on(std::mem::take(state), std::mem::take(&mut self.names), now);
        let caught_up = self.log.catch_up(|line| fold.line(line));
        (*state, self.names) = fold.into_parts();
        // Another may have ended what had run too long.
        self.inputs.retain(|action_id, _| state.in_flight(*action_id).is_some());
        caught_up
    }

    /// What brings all that was written to the disk; for another thread.
    pub fn to_disk(&self) -> impl Fn() -> std::io::Result<()> + Send + Sync + use<> {
        self.log.to_disk()
    }
}

impl<L> Ledger<L> {
    /// A ledger in a log that has no lines yet.
    #[must_use]
    pub fn beginning(log: L) -> Self {
        Self { log, names: BTreeMap::new(), bytes: BTreeMap::new(), inputs: HashMap::new(), advisory: false }
    }

    /// The chain of its lines.
    #[must_use]
    pub fn chain(&self) -> &L {
        &self.log
    }

    fn session_key<'key>(&'key self, fact: &'key Fact) -> Option<Cow<'key, str>> {
        let session = line::session_of(fact)?;
        if let Fact::SessionStarted { name: Some(name), .. } = fact {
            return Some(Cow::Borrowed(name.as_str()));
        }
        let known = self.names.get(&SessionId(session));
        Some(known.map_or_else(|| Cow::Owned(format!("s{session}")), |name| Cow::Borrowed(name.as_str())))
    }
}

impl<L: sentinel_ledger::Log> Log for Ledger<L> {
    type Error = AppendError<L::Error>;

    fn append(&mut self, facts: &[Fact], at: Now) -> Result<Vec<Uuid>, Self::Error> {
        let mut ids = Vec::with_capacity(facts.len());
        let mut bodies = Vec::with_capacity(facts.len());
        for fact in facts {
            let inputs = line::ended(fact).and_then(|ended| self.inputs.get(&ended));
            let (id, body) = line::body(fact, at, self.session_key(fact).as_deref(), inputs, self.advisory)?;
            ids.push(id);
            bodies.push(body);
        }
        let sizes: Vec<u64> =
            bodies.iter().map(|body| u64::try_from(body.len()).unwrap_or(u64::MAX)).collect();
        self.log.append(&bodies).map_err(AppendError::Log)?;
        for (fact, bytes) in facts.iter().zip(&sizes) {
            if let Fact::ActionStarted { action_id, inputs, .. } = fact
                && inputs.as_json().len() <= MOST_INPUTS_TWICE
            {
                self.inputs.insert(*action_id, inputs.clone());
            } else if let Some(ended) = line::ended(fact) {
                self.inputs.remove(&ended);
            }
            if let Some(session) = line::session_of(fact) {
                let sum = self.bytes.entry(SessionId(session)).or_default();
                *sum = sum.saturating_add(*bytes);
            }
            if let Fact::SessionEnded { session, .. } = fact
                && !self.names.contains_key(session)
            {
                self.bytes.remove(session);
            }
            if let Fact::SessionStarted { session, name: Some(name), .. } = fact {
                self.names.insert(*session, name.to_string());
            }
        }
        Ok(ids)
    }

    fn rotate_if(&mut self, is_due: bool, state: &State, at: Now) -> Result<bool, Self::Error> {
        if !is_due && !self.log.wants_rotation() {
            return Ok(false);
        }
        let body = line::state(state, at, self.advisory)?;
        self.log.rotate(&body).map_err(AppendError::Log)?;
        Ok(true)
    }

    fn bytes_of(&self, session: SessionId) -> u64 {
        self.bytes.get(&session).copied().unwrap_or(0)
    }

    fn was_moved(&self) -> bool {
        self.log.was_moved()
    }

    fn is_nearly_full(&self) -> bool {
        self.log.is_nearly_full()
    }

    fn last_seq(&self) -> u64 {
        self.log.head().seq
    }
}
