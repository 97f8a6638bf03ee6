//! An action in flight, as Python ends it.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use crate::refusal::{invalid, refused};

/// An action that was let start. Forgotten without a word, it counts as cancelled.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Guard {
    id: String,
    /// Until it is ended.
    guard: Mutex<Option<sentinel_sdk::Guard>>,
}

impl Guard {
    pub(crate) fn new(guard: sentinel_sdk::Guard) -> Self {
        Self { id: guard.id().to_string(), guard: Mutex::new(Some(guard)) }
    }
}

impl Drop for Guard {
    /// Says that it was cancelled, where nobody has said how it ended.
    fn drop(&mut self) {
        if let Some(guard) = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // Waits for the agent or the ledger. Where the interpreter is no longer there, nobody waits for its lock either.
            let _interpreter = Python::try_attach(|py| py.detach(|| drop(guard)));
        }
    }
}

#[pymethods]
impl Guard {
    /// The action's id, as in the ledger.
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// It never ran, and why not. Refunded where the process decides for itself.
    fn abort(&self, py: Python<'_>, cause: &str) {
        if let Some(guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            py.detach(|| guard.withdraw(cause));
        }
    }

    /// Says how it ended: `success`, `error` or `cancelled`; `outputs` is JSON text. Answers whether whoever decides has settled it. A second end is none.
    #[pyo3(signature = (outcome, outputs, actual_cost_usd=None, annotations=None))]
    fn end(
        &self,
        py: Python<'_>,
        outcome: &str,
        outputs: &str,
        actual_cost_usd: Option<f64>,
        annotations: Option<&str>,
    ) -> PyResult<bool> {
        let outcome = match outcome {
            "success" => sentinel_sdk::Ending::Success,
            "error" => sentinel_sdk::Ending::Error,
            "cancelled" => sentinel_sdk::Ending::Cancelled,
            other => return Err(invalid(&format!("`{other}` is no way for an action to end"))),
        };
        let Some(mut guard) = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(false);
        };
        let annotations = crate::client::annotations(annotations);
        if let Ok(Some(annotations)) = &annotations {
            guard.annotate(annotations.clone());
        }
        let cost = actual_cost_usd.map_or(Ok(()), |cost| guard.actual_cost_usd(cost));
        let settlement = py.detach(|| guard.end_with_json(outcome, outputs));
        cost.map_err(|error| refused(&error))?;
        annotations?;
        Ok(matches!(settlement, sentinel_sdk::Settlement::Acknowledged | sentinel_sdk::Settlement::Sent))
    }
}
