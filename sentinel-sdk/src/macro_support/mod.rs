//! What the code that `#[guarded_action]` writes calls. Not for anybody else: it changes with the macro.

mod capture;

use sentinel_proto::{Money, Outcome, Payload};
use serde::Serialize;
use tracing::instrument::Instrumented;

use crate::action::Action;
use crate::client::Client;
use crate::error::Error;
use crate::guard::{AsyncGuard, Guard};
use crate::record;

pub use capture::{
    Captured, Described, ErrorProbe, Probe, ViaDebug, ViaDisplay, ViaError, ViaErrorDebug, ViaErrorTypeName,
    ViaSerialize, ViaTypeName,
};

/// What the attribute declares.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// `name`.
    pub name: &'static str,
    /// `cost_usd`.
    pub cost: Cost,
    /// `tags`.
    pub tags: &'static [&'static str],
    /// `risk_level`.
    pub risk_level: Option<&'static str>,
}

/// What a call is expected to cost.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    /// So many nano-dollars, as the attribute says.
    Nanos(u64),
    /// So many dollars, as the arguments make it.
    Dollars(f64),
}

impl Declared {
    /// Begins the action, or denies it.
    ///
    /// # Errors
    /// It must not run.
    pub fn begin_blocking(self, inputs: Inputs) -> Result<Guard, Error> {
        self.action(inputs).begin_blocking()
    }

    /// Begins the action, or denies it.
    ///
    /// # Errors
    /// It must not run.
    pub async fn begin(self, inputs: Inputs) -> Result<AsyncGuard, Error> {
        self.action(inputs).begin().await
    }

    /// An amount that is none denies the action.
    fn action(self, inputs: Inputs) -> Action {
        let action = Client::of_process().action(self.name).recorded_inputs(inputs.payload());
        let action = match self.cost {
            Cost::Nanos(nanos) => match Money::from_nanos(nanos) {
                Ok(cost) => action.cost(cost),
                Err(error) => action.mistaken(error.to_string()),
            },
            Cost::Dollars(dollars) => action.cost_usd(dollars),
        };
        let action = self.tags.iter().fold(action, |action, tag| action.tag(*tag));
        match self.risk_level {
            Some(level) => action.risk_level(level),
            None => action,
        }
    }
}

/// What a replay answers to this call; none where no replay goes on.
#[must_use]
pub fn replayed<T: serde::de::DeserializeOwned>(
    declared: &Declared,
    inputs: &Inputs,
) -> Option<Result<T, Error>> {
    #[cfg(feature = "embedded")]
    {
        let name = declared.name;
        let made = |outputs: Payload| {
            serde_json::from_str(outputs.as_json()).map_err(|error| {
                Error::diverged(name, format!("what was recorded is no such value: {error}"))
            })
        };
        Some(crate::replay::answer(name, &inputs.payload())?.and_then(made))
    }
    #[cfg(not(feature = "embedded"))]
    {
        let _nobody_replays = (declared, inputs);
        None
    }
}

/// Computes an expected cost.
pub fn expected_cost(dollars: impl FnOnce() -> f64) -> f64 {
    dollars()
}

/// Computes the real cost from what an `Ok` holds.
pub fn actual_cost<T: ?Sized>(value: &T, dollars: impl FnOnce(&T) -> f64) -> f64 {
    dollars(value)
}

/// What the function was called with.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    kwargs: Option<String>,
}

impl Inputs {
    /// Nothing is recorded.
    #[must_use]
    pub fn unrecorded() -> Self {
        Self::default()
    }

    /// No arguments yet.
    #[must_use]
    pub fn recorded() -> Self {
        Self { kwargs: Some(String::new()) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, name: &str, value: &Captured) -> Self {
        if let Some(kwargs) = &mut self.kwargs {
            if !kwargs.is_empty() {
                kwargs.push(',');
            }
            kwargs.push_str(&record::text(name));
            kwargs.push(':');
            kwargs.push_str(value.as_json());
        }
        self
    }

    fn payload(&self) -> Payload {
        match &self.kwargs {
            Some(kwargs) => record::bounded(&format!(r#"{{"args":[],"kwargs":{{{kwargs}}}}}"#)),
            None => Payload::null(),
        }
    }
}

/// Calls a body once, in its action's span, so that it may return what it has of its arguments.
pub fn call<R>(guard: &Guard, body: impl FnOnce() -> R) -> R {
    guard.in_flight().span().in_scope(body)
}

/// A body, in its action's span whenever it runs.
pub fn in_span<F: Future>(guard: &AsyncGuard, body: F) -> Instrumented<F> {
    guard.in_flight().span().around(body)
}

/// Ends an action whose body returned a value.
pub fn succeeded(mut guard: Guard, outputs: Option<Captured>, actual_cost: Option<f64>) {
    // The body has run, whatever that says of its cost: the estimate is charged then, and the log says why.
    if let Some(Err(error)) = actual_cost.map(|dollars| guard.actual_cost_usd(dollars)) {
        guard.in_flight().span().kept_estimate(&error);
    }
    guard.end(Outcome::Success, payload_of(outputs));
}

/// Ends an action whose body returned an error.
pub fn failed(guard: Guard, error: Described) {
    let denials = if error.tells_of_refusal {
        let reach = guard.in_flight().reach();
        guard.in_flight().client().kernel_denials_blocking(reach).unwrap_or_default()
    } else {
        Vec::new()
    };
    guard.end(Outcome::Error, explained(&error, &denials));
}

/// Ends an action whose body returned a value.
pub async fn succeeded_async(mut guard: AsyncGuard, outputs: Option<Captured>, actual_cost: Option<f64>) {
    if let Some(Err(error)) = actual_cost.map(|dollars| guard.actual_cost_usd(dollars)) {
        guard.in_flight().span().kept_estimate(&error);
    }
    guard.end(Outcome::Success, payload_of(outputs)).await;
}

/// Ends an action whose body returned an error.
pub async fn failed_async(guard: AsyncGuard, error: Described) {
    let denials = if error.tells_of_refusal {
        let reach = guard.in_flight().reach();
        guard.in_flight().client().kernel_denials(reach).await.unwrap_or_default()
    } else {
        Vec::new()
    };
    guard.end(Outcome::Error, explained(&error, &denials)).await;
}

fn payload_of(outputs: Option<Captured>) -> Payload {
    outputs.map_or_else(Payload::null, |outputs| record::bounded(outputs.as_json()))
}

/// An error's text; with what the kernel refused meanwhile, where that may be its cause.
fn explained(error: &Described, denials: &[sentinel_proto::app::KernelDenial]) -> Payload {
    #[derive(Serialize)]
    struct Explained<'error> {
        error: &'error str,
        kernel_denials: &'error [sentinel_proto::app::KernelDenial],
    }

    if denials.is_empty() {
        return record::payload(&error.text);
    }
    record::payload(&Explained { error: &error.text, kernel_denials: denials })
}
