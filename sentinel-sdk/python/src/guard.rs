//! An action in flight, as Python ends it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use sentinel_proto::{ActionId, Annotations};
use sentinel_sdk::{Ending, Settlement};

use crate::json::json;
use crate::refusal::{invalid, refused};

/// An action that was let start. Forgotten without a word, it counts as cancelled.
#[pyclass(frozen, module = "agent_sentinel._native")]
#[derive(Debug)]
pub(crate) struct Guard {
    id: ActionId,
    /// Until it is ended.
    in_flight: Mutex<Option<InFlight>>,
}

/// With whoever let it start. The agent is told first how it ended: its doors are shut before this process's own account says so.
#[derive(Debug)]
struct InFlight {
    agents: Option<sentinel_sdk::Guard>,
    own: Option<sentinel_sdk::Guard>,
}

impl InFlight {
    /// Whether nothing is left to say.
    fn end_at_once(&mut self, ending: Ending, outputs: &str, annotations: Option<&Annotations>) -> bool {
        for held in [&mut self.agents, &mut self.own] {
            let Some(mut guard) = held.take() else { continue };
            if let Some(annotations) = annotations {
                guard.annotate(annotations.clone());
            }
            if let Err(guard) = guard.end_at_once(ending, outputs) {
                *held = Some(guard);
                return false;
            }
        }
        true
    }

    fn guards(self) -> impl Iterator<Item = sentinel_sdk::Guard> {
        self.agents.into_iter().chain(self.own)
    }
}

impl Guard {
    /// Of an action that this process let start, or an agent.
    pub(crate) fn new(guard: sentinel_sdk::Guard) -> Self {
        Self { id: guard.id(), in_flight: Mutex::new(Some(InFlight { agents: None, own: Some(guard) })) }
    }

    /// Of an action that both let start.
    pub(crate) fn of_both(own: sentinel_sdk::Guard, agents: sentinel_sdk::Guard) -> Self {
        Self {
            id: agents.id(),
            in_flight: Mutex::new(Some(InFlight { agents: Some(agents), own: Some(own) })),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<InFlight> {
        self.held().take()
    }

    pub(crate) fn take_own(&self) -> Option<sentinel_sdk::Guard> {
        self.take().and_then(|in_flight| in_flight.own)
    }
}

impl Drop for Guard {
    /// Says that it was cancelled, where nobody has said how it ended.
    fn drop(&mut self) {
        if let Some(in_flight) = self.take() {
            // Waits for the agent or the ledger. Where the interpreter is no longer there, nobody waits for its lock either.
            let _interpreter = Python::try_attach(|py| py.detach(|| drop(in_flight)));
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

    /// How long ago it began; of one that has ended nothing is known.
    fn seconds(&self) -> f64 {
        let held = self.held();
        let own = held.as_ref().and_then(|in_flight| in_flight.own.as_ref());
        own.map_or(0.0, |guard| guard.running_for().as_secs_f64())
    }

    /// It never ran, and why not. Refunded where the process decides for itself.
    fn abort(&self, py: Python<'_>, cause: &str) {
        if let Some(in_flight) = self.take() {
            py.detach(|| {
                for guard in in_flight.guards() {
                    guard.withdraw(cause);
                }
            });
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
        let Some(in_flight) = self.take() else { return Ok(false) };
        let annotations = crate::client::annotations(annotations);
        let mut cost = Ok(());
        let mut is_settled = true;
        for mut guard in in_flight.guards() {
            if let Ok(Some(annotations)) = &annotations {
                guard.annotate(annotations.clone());
            }
            if let Some(dollars) = actual_cost_usd {
                cost = guard.actual_cost_usd(dollars).and(cost);
            }
            let settlement = match guard.end_at_once(ending, outputs) {
                Ok(settlement) => settlement,
                Err(guard) => py.detach(|| guard.end_with_json(ending, outputs)),
            };
            is_settled &= matches!(settlement, Settlement::Acknowledged | Settlement::Sent);
        }
        cost.map_err(|error| refused(&error))?;
        annotations?;
        Ok(is_settled)
    }

    /// It did what it should, and this is what came of it. False: that isn't plain, so the action goes on, and its JSON is the package's to make.
    fn succeed(&self, py: Python<'_>, result: &Bound<'_, PyAny>) -> bool {
        let Some(outputs) = json(result) else { return false };
        let Some(in_flight) = self.take() else { return true };
        for guard in in_flight.guards() {
            if let Err(guard) = guard.end_at_once(Ending::Success, &outputs) {
                py.detach(|| guard.end_with_json(Ending::Success, &outputs));
            }
        }
        true
    }

    /// The same, if nothing has to be waited for. False: something has to, or what is said of it can't be read; the action goes on, and what is left to
    /// say `end` says.
    #[pyo3(signature = (outcome, outputs, annotations=None))]
    fn end_at_once(&self, outcome: &str, outputs: &str, annotations: Option<&str>) -> PyResult<bool> {
        let ending = ending(outcome)?;
        let Ok(annotations) = crate::client::annotations(annotations) else { return Ok(false) };
        let Some(mut in_flight) = self.take() else { return Ok(true) };
        let is_over = in_flight.end_at_once(ending, outputs, annotations.as_ref());
        if !is_over {
            *self.held() = Some(in_flight);
        }
        Ok(is_over)
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
