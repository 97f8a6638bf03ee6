//! Replay: a program runs again, and its actions are answered with what was recorded of them.
//!
//! A call is matched by its action and inputs among the takes that may come next. In a program that does one thing after the other that is
//! one take. Where takes overlapped, they may come in any order. One that lies wholly within another may have been begun by that one's
//! body, which doesn't run in a replay: once the outer one was replayed, it may be left out.
//!
//! Invariant: a call gets what was recorded of the same action, or a divergence that says what is different; under `strict` nothing else.

mod divergence;
mod reading;
#[cfg(test)]
mod tests;

use sentinel_engine::{inputs_digest, say_the_same};
use sentinel_proto::{ActionId, Payload, Reason};
use serde_json::Value;

pub use divergence::Divergence;
pub use reading::ReplayError;

/// What was recorded of one action.
#[derive(Clone, Debug)]
pub struct Take {
    /// Its id then.
    pub action_id: ActionId,
    /// Its name.
    pub action: String,
    /// How it ended.
    pub outcome: TakeOutcome,
    /// What came out: a value, or what was said about an error or a block.
    pub outputs: Payload,
    inputs: Payload,
    inputs_sha256: Option<String>,
    /// Its first line, and its last.
    began: usize,
    ended: usize,
}

/// How a recorded action ended.
#[derive(Clone, Debug)]
pub enum TakeOutcome {
    /// It returned a value.
    Success,
    /// It returned or raised an error, whose text is its outputs.
    Error,
    /// It was not let start. Never a value.
    Blocked(Option<Box<Reason>>),
    /// It has no value.
    NoValue(String),
}

/// What was recorded of a program, and how far its replay is.
#[derive(Clone, Debug)]
pub struct Recording {
    /// In the order in which they began.
    takes: Vec<Take>,
    used: Vec<Use>,
    divergences: Vec<Divergence>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Not,
    /// It may be left out: an action that it lies within was replayed.
    Optional,
    Replayed,
}

impl Recording {
    fn of(takes: Vec<Take>) -> Self {
        let used = vec![Use::Not; takes.len()];
        Self { takes, used, divergences: Vec::new() }
    }

    /// How many takes were replayed, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.used.iter().filter(|used| **used == Use::Replayed).count(), self.takes.len())
    }

    /// How the program differed so far.
    #[must_use]
    pub fn divergences(&self) -> &[Divergence] {
        &self.divergences
    }

    /// What was recorded of this call. Under `strict` that is the same action with the same inputs, and a call that is neither uses nothing up.
    /// Otherwise it is what comes next, and the difference is noted.
    ///
    /// # Errors
    /// It is another call than was recorded, nothing is left, or what was recorded has no value.
    pub fn replay(&mut self, action: &str, inputs: &Payload, strict: bool) -> Result<&Take, Divergence> {
        let candidates = self.candidates();
        let same = |index: &&usize| {
            self.takes.get(**index).is_some_and(|take| take.action == action && take.was_called_with(inputs))
        };
        let (index, divergence) = match candidates.iter().find(same) {
            Some(index) => (*index, None),
            None => match self.nearest(&candidates, action, inputs) {
                Ok((index, divergence)) => (index, Some(divergence)),
                Err(exhausted) => {
                    self.divergences.push(exhausted.clone());
                    return Err(exhausted);
                }
            },
        };
        if let Some(divergence) = divergence {
            self.divergences.push(divergence.clone());
            if strict {
                return Err(divergence);
            }
        }
        self.take(index);
        let Some(take) = self.takes.get(index) else {
            return Err(Divergence::Exhausted { index, actual: action.to_owned() });
        };
        match &take.outcome {
            TakeOutcome::NoValue(outcome) => {
                let divergence =
                    Divergence::NoValue { index, action: action.to_owned(), outcome: outcome.clone() };
                self.divergences.push(divergence.clone());
                Err(divergence)
            }
            TakeOutcome::Success | TakeOutcome::Error | TakeOutcome::Blocked(_) => Ok(take),
        }
    }

    /// What may come next, in its order: what is left, up to the first end among what must come.
    fn candidates(&self) -> Vec<usize> {
        let left =
            || self.takes.iter().zip(&self.used).enumerate().filter(|(_, (_, used))| **used != Use::Replayed);
        let must = left().filter(|(_, (_, used))| **used == Use::Not);
        let first_end = must.map(|(_, (take, _))| take.ended).min().unwrap_or(usize::MAX);
        left().filter(|(_, (take, _))| take.began <= first_end).map(|(index, _)| index).collect()
    }

    /// What the call would have to be, where it is nothing that may come next.
    fn nearest(
        &self,
        candidates: &[usize],
        action: &str,
        inputs: &Payload,
    ) -> Result<(usize, Divergence), Divergence> {
        let take = |index: &usize| self.takes.get(*index).map(|take| (*index, take));
        if let Some((index, take)) =
            candidates.iter().filter_map(take).find(|(_, take)| take.action == action)
        {
            let value = |payload: &Payload| serde_json::from_str(payload.as_json()).unwrap_or(Value::Null);
            return Ok((index, Divergence::of_inputs(index, action, value(&take.inputs), value(inputs))));
        }
        let must = |index: &&usize| self.used.get(**index) == Some(&Use::Not);
        match candidates.iter().find(must).and_then(take) {
            Some((index, take)) => {
                let (expected, actual) = (take.action.clone(), action.to_owned());
                Ok((index, Divergence::ActionMismatch { index, expected, actual }))
            }
            None => Err(Divergence::Exhausted { index: self.takes.len(), actual: action.to_owned() }),
        }
    }

    fn take(&mut self, index: usize) {
        let Some((began, ended)) = self.takes.get(index).map(|take| (take.began, take.ended)) else { return };
        for (take, used) in self.takes.iter().zip(&mut self.used) {
            if *used == Use::Not && take.began > began && take.ended < ended {
                *used = Use::Optional;
            }
        }
        if let Some(used) = self.used.get_mut(index) {
            *used = Use::Replayed;
        }
    }
}

impl Take {
    fn was_called_with(&self, inputs: &Payload) -> bool {
        match &self.inputs_sha256 {
            Some(sha256) => *sha256 == inputs_digest(self.action_id, inputs),
            None => say_the_same(&self.inputs, inputs),
        }
    }
}
