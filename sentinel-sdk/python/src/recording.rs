//! What was recorded of a program, to be replayed.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyFileNotFoundError, PyOSError, PyValueError};
use pyo3::prelude::*;
use sentinel_sdk::replay::{ReplayError, TakeOutcome};
use serde_json::json;

create_exception!(
    agent_sentinel._native,
    Diverged,
    PyException,
    "A call is not the one that was recorded: `(message, divergence)`, the divergence as JSON."
);

/// What was recorded of a program, and how far its replay is.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Recording(Mutex<sentinel_sdk::replay::Recording>);

/// How it ended, what came out as JSON, and of a block the reason as JSON.
type Replayed = (&'static str, String, Option<String>);

#[pymethods]
impl Recording {
    /// Of a ledger's file and its older parts beside it; of one run, or of all.
    #[staticmethod]
    #[pyo3(signature = (path, run=None))]
    fn read(py: Python<'_>, path: &str, run: Option<&str>) -> PyResult<Self> {
        let read = py.detach(|| sentinel_sdk::replay::Recording::read(Path::new(path), run));
        read.map(Self::of).map_err(|error| told(&error))
    }

    /// Of lines that somebody else kept.
    #[staticmethod]
    #[pyo3(signature = (lines, run=None))]
    fn of_lines(lines: Vec<String>, run: Option<&str>) -> PyResult<Self> {
        sentinel_sdk::replay::Recording::of_lines(lines, run).map(Self::of).map_err(|error| told(&error))
    }

    /// What was recorded of this call. `inputs` is JSON text.
    fn replay(&self, action: &str, inputs: &str, strict: bool) -> PyResult<Replayed> {
        let inputs = sentinel_sdk::payload_of_json(inputs);
        let mut recording = self.lock();
        let take = recording
            .replay(action, &inputs, strict)
            .map_err(|diverged| Diverged::new_err((diverged.to_string(), json!(diverged).to_string())))?;
        let (outcome, reason) = match &take.outcome {
            TakeOutcome::Success => ("success", None),
            TakeOutcome::Error => ("error", None),
            TakeOutcome::Blocked(reason) => ("blocked", reason.as_ref()),
            TakeOutcome::NoValue(_) => ("none", None),
        };
        Ok((outcome, take.outputs.as_json().to_owned(), reason.map(|reason| json!(reason).to_string())))
    }

    /// How many calls were replayed, and how many there are.
    #[getter]
    fn progress(&self) -> (usize, usize) {
        self.lock().progress()
    }

    /// How the program differed so far, as JSON.
    #[getter]
    fn divergences(&self) -> String {
        json!(self.lock().divergences()).to_string()
    }
}

impl Recording {
    fn of(recording: sentinel_sdk::replay::Recording) -> Self {
        Self(Mutex::new(recording))
    }

    fn lock(&self) -> MutexGuard<'_, sentinel_sdk::replay::Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(error: &ReplayError) -> PyErr {
    let message = error.to_string();
    match error {
        ReplayError::Unreadable { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => {
            PyFileNotFoundError::new_err(message)
        }
        ReplayError::Unreadable { .. } => PyOSError::new_err(message),
        ReplayError::Changed { .. }
        | ReplayError::Line { .. }
        | ReplayError::NoBeginning { .. }
        | ReplayError::Empty { .. } => PyValueError::new_err(message),
    }
}
