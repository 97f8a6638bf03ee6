//! An action in flight, as Python ends it.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use sentinel_proto::ActionId;
use sentinel_sdk::{Ending, Settlement};

use crate::json::json;
use crate::refusal::{invalid, refused};

/// An action that was let start. Forgotten without a word, it counts as cancelled.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Guard {
    id: ActionId,
    /// Until it is ended.
    guard: Mutex<Option<sentinel_sdk::Guard>>,
}

impl Guard {
    pub(crate) fn new(guard: sentinel_sdk::Guard) -> Self {
        Self { id: guard.id(), guard: Mutex::new(Some(guard)) }
    }

    fn take(&self) -> Option<sentinel_sdk::Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).take()
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
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// It never ran, and why not. Refunded where the process decides for itself.
    fn abort(&self, py: Python<'_>, cause: &str) {
        if let Some(guard) = self.take() {
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
        let ending = ending(outcome)?;
        let Some(mut guard) = self.take() else { return Ok(false) };
        let annotations = crate::client::annotations(annotations);
        if let Ok(Some(annotations)) = &annotations {
            guard.annotate(annotations.clone());
        }
        let cost = actual_cost_usd.map_or(Ok(()), |cost| guard.actual_cost_usd(cost));
        let settlement = match guard.end_at_once(ending, outputs) {
            Ok(settlement) => settlement,
            Err(guard) => py.detach(|| guard.end_with_json(ending, outputs)),
        };
        cost.map_err(|error| refused(&error))?;
        annotations?;
        Ok(matches!(settlement, Settlement::Acknowledged | Settlement::Sent))
    }

    /// It did what it should, and this is what came of it. False: that isn't plain, so the action goes on, and its JSON is the package's to make.
    fn succeed(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> bool {
        let Some(outputs) = json(result) else { return false };
        let Some(guard) = self.take() else { return true };
        if let Err(guard) = guard.end_at_once(Ending::Success, &outputs) {
            py.detach(|| guard.end_with_json(Ending::Success, &outputs));
        }
        true
    }

    /// The same, if nothing has to be waited for. False: something has to, or what is said of it can't be read; the action goes on.
    #[pyo3(signature = (outcome, outputs, annotations=None))]
    fn end_at_once(&self, outcome: &str, outputs: &str, annotations: Option<&str>) -> PyResult<bool> {
        let ending = ending(outcome)?;
        let Ok(annotations) = crate::client::annotations(annotations) else { return Ok(false) };
        let Some(mut guard) = self.take() else { return Ok(true) };
        if let Some(annotations) = annotations {
            guard.annotate(annotations);
        }
        match guard.end_at_once(ending, outputs) {
            Ok(_settled) => Ok(true),
            Err(guard) => {
                *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
                Ok(false)
            }
        }
    }
}

fn ending(outcome: &str) -> PyResult<Ending> {
    match outcome {
        "success" => Ok(Ending::Success),
        "error" => Ok(Ending::Error),
        "cancelled" => Ok(Ending::Cancelled),
        other => Err(invalid(&format!("`{other}` is no way for an action to end"))),
    }
}
