//! Replay: a program runs again, and its actions are answered with what was recorded of them. No body runs, nothing is charged.
//!
//! Only functions whose attribute says `replay = true` can be answered: what they return must be made of its JSON again. Any other action
//! fails while a replay goes on, as it would do what the recording says was done already.
//!
//! ```no_run
//! use sentinel_sdk::guarded_action;
//! use sentinel_sdk::replay::Replay;
//!
//! #[guarded_action(replay = true)]
//! fn search(query: &str) -> Result<Vec<String>, sentinel_sdk::Error> {
//!     Ok(vec![query.to_owned()])
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let replaying = Replay::read(".agent-sentinel/ledger.jsonl".as_ref(), None)?.start();
//! let found = search("ferris")?; // what was found then
//! assert_eq!(replaying.progress(), (1, 1));
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sentinel_proto::{ActionName, Denial, Money, Outcome, Payload};

pub use sentinel_authority::{Divergence, Recording, ReplayError, Take, TakeOutcome};

use crate::client::Client;
use crate::embedded::Record;
use crate::error::Error;

/// The replays that go on in this process, the innermost last.
static GOING_ON: Mutex<Vec<Arc<Replay>>> = Mutex::new(Vec::new());

/// A recording, and how strictly it is followed.
#[derive(Debug)]
pub struct Replay {
    recording: Mutex<Recording>,
    strict: bool,
}

/// A replay that goes on in this process, in all its threads, until this is dropped.
#[derive(Debug)]
#[must_use = "the replay ends when this is dropped"]
pub struct Replaying(Arc<Replay>);

impl Replay {
    /// What a ledger holds, with its older parts beside it; of one run, as it was recorded, or of all.
    ///
    /// # Errors
    /// It can't be read, was changed after it was written, or has nothing to replay.
    pub fn read(ledger: &Path, run: Option<&str>) -> Result<Self, ReplayError> {
        Ok(Self::of(Recording::read(ledger, run)?))
    }

    /// A recording that somebody else has read.
    #[must_use]
    pub const fn of(recording: Recording) -> Self {
        Self { recording: Mutex::new(recording), strict: true }
    }

    /// Answers a call that differs from what was recorded with what comes next, and notes the difference.
    #[must_use]
    pub fn lenient(self) -> Self {
        Self { strict: false, ..self }
    }

    /// From now on the actions of this process are answered by it. One that is started meanwhile takes its place until that ends.
    pub fn start(self) -> Replaying {
        let replay = Arc::new(self);
        lock(&GOING_ON).push(Arc::clone(&replay));
        Replaying(replay)
    }
}

impl Replaying {
    /// How many calls were answered, and how many are recorded.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        lock(&self.0.recording).progress()
    }

    /// How the program differed so far.
    #[must_use]
    pub fn divergences(&self) -> Vec<Divergence> {
        lock(&self.0.recording).divergences().to_vec()
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        lock(&GOING_ON).retain(|replay| !Arc::ptr_eq(replay, &self.0));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The replay that answers now.
fn current() -> Option<Arc<Replay>> {
    lock(&GOING_ON).last().cloned()
}

/// Keeps an action from running that a replay goes on around, and can't answer.
pub(crate) fn refuse(action: &str) -> Result<(), Error> {
    if current().is_none() {
        return Ok(());
    }
    let cause = "a replay goes on, and this action can't be answered from a recording; write `replay = true` in its attribute";
    Err(Error::diverged(action, cause))
}

/// What was recorded of this call, as JSON; none where no replay goes on.
pub(crate) fn answer(action: &str, inputs: &Payload) -> Option<Result<Payload, Error>> {
    let replay = current()?;
    let client = Client::of_process();
    let take = match lock(&replay.recording).replay(action, inputs, replay.strict) {
        Ok(take) => take.clone(),
        Err(divergence) => return Some(Err(Error::diverged(action, divergence.to_string()))),
    };
    if let Err(error) = note(&client, action, inputs) {
        return Some(Err(error));
    }
    let recorded = |outputs: &Payload| {
        let text =
            serde_json::from_str(outputs.as_json()).unwrap_or_else(|_no_text| outputs.as_json().to_owned());
        Error::recorded(action, text)
    };
    Some(match take.outcome {
        TakeOutcome::Success => Ok(take.outputs),
        TakeOutcome::Blocked(Some(reason)) => {
            Err(Error::denied(action, Denial { reason: *reason, rule: None }, client))
        }
        TakeOutcome::Error | TakeOutcome::Blocked(None) => Err(recorded(&take.outputs)),
        TakeOutcome::NoValue(outcome) => {
            Err(Error::diverged(action, format!("it was recorded as `{outcome}`")))
        }
    })
}

/// Writes that it was replayed, where this process has a ledger of its own.
fn note(client: &Client, action: &str, inputs: &Payload) -> Result<(), Error> {
    let Some(embedded) = client.as_embedded() else { return Ok(()) };
    let Ok(name) = ActionName::new(action) else { return Ok(()) };
    let record = Record {
        action: name,
        cost: Money::ZERO,
        outcome: Outcome::Replayed,
        tags: Vec::new(),
        duration: Duration::ZERO,
        inputs: inputs.clone(),
        outputs: Payload::null(),
        annotations: None,
    };
    embedded.record(record).map(drop).map_err(|denial| Error::denied(action, denial, client.clone()))
}
