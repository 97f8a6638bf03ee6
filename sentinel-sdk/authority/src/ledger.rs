//! The ledger as the agent keeps it: facts as chained lines in a file.

use std::collections::BTreeMap;
use std::path::Path;

use sentinel_engine::{Fact, Now, State};
use sentinel_ledger::{FileLog, LedgerError, Log as _, TornTail};
use sentinel_proto::SessionId;
use uuid::Uuid;

use crate::{Fold, Log, line};

/// A ledger's file.
#[derive(Debug)]
pub struct FileLedger {
    log: FileLog,
    /// Names of the sessions that have one: lines have them too.
    names: BTreeMap<SessionId, String>,
}

/// A ledger that was opened, and what was in it.
#[derive(Debug)]
pub struct OpenedLedger {
    /// The ledger.
    pub ledger: FileLedger,
    /// The fold of its facts.
    pub state: State,
    /// A torn last line, which was set aside.
    pub torn: Option<TornTail>,
}

impl FileLedger {
    /// Opens a ledger, or makes it, and folds what is in it.
    ///
    /// # Errors
    /// Another process writes it, its chain is broken, a line can't be read, or the system says no.
    pub fn open(path: &Path, now: Now) -> Result<OpenedLedger, LedgerError> {
        let mut fold = Fold::new(now);
        let (log, torn) = FileLog::open(path, |line| fold.line(line))?;
        let (state, names) = fold.into_parts();
        Ok(OpenedLedger { ledger: Self { log, names }, state, torn })
    }

    /// What brings all that was written to the disk; for another thread.
    ///
    /// # Errors
    /// The file's handle can't be copied.
    pub fn to_disk(&self) -> Result<impl Fn() -> std::io::Result<()> + Send + Sync + use<>, LedgerError> {
        self.log.to_disk()
    }

    fn session_key(&self, fact: &Fact) -> Option<String> {
        let session = line::session_of(fact)?;
        if let Fact::SessionStarted { name: Some(name), .. } = fact {
            return Some(name.to_string());
        }
        Some(self.names.get(&SessionId(session)).cloned().unwrap_or_else(|| format!("s{session}")))
    }
}

impl Log for FileLedger {
    type Error = LedgerError;

    fn append(&mut self, facts: &[Fact], at: Now) -> Result<Vec<Uuid>, LedgerError> {
        let mut ids = Vec::with_capacity(facts.len());
        let mut bodies = Vec::with_capacity(facts.len());
        for fact in facts {
            let (id, body) =
                line::body(fact, at, self.session_key(fact).as_deref()).map_err(|cause| LedgerError::Io {
                    path: self.log.path().to_owned(),
                    what: "written: a fact is no JSON",
                    cause: cause.into(),
                })?;
            ids.push(id);
            bodies.push(body);
        }
        self.log.append(&bodies)?;
        for fact in facts {
            if let Fact::SessionStarted { session, name: Some(name), .. } = fact {
                self.names.insert(*session, name.to_string());
            }
        }
        Ok(ids)
    }

    fn last_seq(&self) -> u64 {
        self.log.head().seq
    }
}
