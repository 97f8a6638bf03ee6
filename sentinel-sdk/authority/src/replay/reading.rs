//! From ledger lines to what was recorded of actions. Reads lines of this ledger and, as far as they go, those of AgentSentinel's.
//!
//! Invariant: a line that can't be read is an error with its number, never left out: every later call would get another's answer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use sentinel_ledger::{segments, verify_parts};
use sentinel_proto::{ActionId, Payload, Reason};
use serde::Deserialize;
use uuid::Uuid;

use super::{Recording, Take, TakeOutcome};

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such file.
    #[error("the ledger `{path}` can't be read: {cause}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Its chain is broken: what it says is not what was recorded.
    #[error(
        "the ledger `{path}` was changed after it was written: {cause}; `sentinel ledger verify` tells more"
    )]
    Changed {
        /// Which.
        path: PathBuf,
        /// Where.
        cause: String,
    },
    /// A line is none.
    #[error("line {line} of the recording is no ledger line: {cause}")]
    Line {
        /// Its number, from 1, over all parts.
        line: usize,
        /// What is wrong.
        cause: String,
    },
    /// An action's first line is not there.
    #[error(
        "line {line} ends the action {action_id}, whose beginning is not in the recording; keep older parts of the ledger beside it"
    )]
    NoBeginning {
        /// The line, from 1.
        line: usize,
        /// Which action.
        action_id: Uuid,
    },
    /// Nothing was recorded.
    #[error("{}", .run.as_ref().map_or_else(|| "nothing was recorded that could be replayed".to_owned(), |run| format!("nothing was recorded under the run `{run}`")))]
    Empty {
        /// The run that was asked for.
        run: Option<String>,
    },
}

/// What is needed of a line. AgentSentinel's have no `kind`.
#[derive(Deserialize)]
struct Line {
    id: Option<Uuid>,
    action: String,
    outcome: String,
    payload: Inner,
    kind: Option<String>,
    run_id: Option<String>,
    ended: Option<String>,
    inputs_sha256: Option<String>,
    reason: Option<Reason>,
    hash: Option<String>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    inputs: Payload,
    #[serde(default)]
    outputs: Payload,
}

impl Recording {
    /// What was recorded in a ledger, with its older parts beside it; of one run, or of all.
    ///
    /// # Errors
    /// It can't be read, was changed after it was written, or has nothing to replay.
    pub fn read(path: &Path, run: Option<&str>) -> Result<Self, ReplayError> {
        let unreadable = |cause| ReplayError::Unreadable { path: path.to_owned(), cause };
        let mut parts = segments(path).map_err(unreadable)?;
        if parts.is_empty() {
            // To say what is missing in the system's own words.
            File::open(path).map_err(unreadable)?;
            parts.push(path.to_owned());
        }
        let mut reader = Reader::new(run);
        for part in &parts {
            let file = File::open(part).map_err(unreadable)?;
            let mut lines = BufReader::new(file).split(b'\n').peekable();
            while let Some(line) = lines.next() {
                let line = line.map_err(unreadable)?;
                match reader.line(&line) {
                    // A process may be writing it just now.
                    Err(ReplayError::Line { .. }) if lines.peek().is_none() && part == path => {}
                    read => read?,
                }
            }
        }
        if reader.is_chained {
            let changed = |cause: String| ReplayError::Changed { path: path.to_owned(), cause };
            verify_parts(&parts, None).map_err(|error| changed(error.to_string()))?;
        }
        reader.finish()
    }

    /// What lines say that somebody else kept.
    ///
    /// # Errors
    /// One is no line, or there is nothing to replay.
    pub fn of_lines(
        lines: impl IntoIterator<Item = impl AsRef<[u8]>>,
        run: Option<&str>,
    ) -> Result<Self, ReplayError> {
        let mut reader = Reader::new(run);
        for line in lines {
            reader.line(line.as_ref())?;
        }
        reader.finish()
    }
}

/// An action whose end has not been read.
struct Beginning {
    inputs: Payload,
    inputs_sha256: Option<String>,
    run_id: Option<String>,
    line: usize,
}

struct Reader<'run> {
    run: Option<&'run str>,
    line: usize,
    is_chained: bool,
    begun: HashMap<Uuid, Beginning>,
    takes: Vec<Take>,
}

impl<'run> Reader<'run> {
    fn new(run: Option<&'run str>) -> Self {
        Self { run, line: 0, is_chained: false, begun: HashMap::new(), takes: Vec::new() }
    }

    fn line(&mut self, text: &[u8]) -> Result<(), ReplayError> {
        self.line = self.line.saturating_add(1);
        let number = self.line;
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        let mut line: Line = serde_json::from_slice(text)
            .map_err(|error| ReplayError::Line { line: number, cause: error.to_string() })?;
        self.is_chained |= line.hash.is_some();
        if !matches!(line.kind.as_deref(), None | Some("action" | "record")) {
            return Ok(());
        }
        if line.outcome == "started" {
            let Some(id) = line.id else {
                return Err(ReplayError::Line { line: number, cause: "it has no `id`".to_owned() });
            };
            let beginning = Beginning {
                inputs: line.payload.inputs,
                inputs_sha256: line.inputs_sha256,
                run_id: line.run_id,
                line: number,
            };
            self.begun.insert(id, beginning);
            return Ok(());
        }
        let Some(outcome) = outcome(line.ended.as_deref().unwrap_or(&line.outcome), line.reason.take())
        else {
            return Ok(());
        };
        if line.outcome == "corrected" {
            let is_it = |take: &&mut Take| Some(take.action_id.0) == line.id;
            if let Some(take) = self.takes.iter_mut().find(is_it) {
                (take.outcome, take.outputs, take.ended) = (outcome, line.payload.outputs, number);
            }
            return Ok(());
        }
        let is_own_line = line.kind.as_deref() != Some("action") || line.outcome == "blocked";
        let beginning = if is_own_line {
            let Line { payload: Inner { inputs, .. }, inputs_sha256, run_id, .. } = &line;
            Beginning {
                inputs: inputs.clone(),
                inputs_sha256: inputs_sha256.clone(),
                run_id: run_id.clone(),
                line: number,
            }
        } else {
            let action_id = line.id.unwrap_or_default();
            self.begun.remove(&action_id).ok_or(ReplayError::NoBeginning { line: number, action_id })?
        };
        if self.run.is_some_and(|run| beginning.run_id.as_deref() != Some(run)) {
            return Ok(());
        }
        self.takes.push(Take {
            action_id: ActionId(line.id.unwrap_or_default()),
            action: line.action,
            inputs: beginning.inputs,
            inputs_sha256: beginning.inputs_sha256,
            outcome,
            outputs: line.payload.outputs,
            began: beginning.line,
            ended: number,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Recording, ReplayError> {
        if self.takes.is_empty() {
            return Err(ReplayError::Empty { run: self.run.map(ToOwned::to_owned) });
        }
        self.takes.sort_by_key(|take| take.began);
        Ok(Recording::of(self.takes))
    }
}

/// How it ended; none: that is no end, or it was a replay itself.
fn outcome(word: &str, reason: Option<Reason>) -> Option<TakeOutcome> {
    Some(match word {
        "success" => TakeOutcome::Success,
        "error" => TakeOutcome::Error,
        "blocked" | "rejected" => TakeOutcome::Blocked(reason.map(Box::new)),
        "panicked" | "cancelled" | "expired" | "abandoned" | "interrupted" | "aborted" => {
            TakeOutcome::NoValue(word.to_owned())
        }
        _ => return None,
    })
}
