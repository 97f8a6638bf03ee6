//! What the code that `#[guarded_action]` writes calls. Not for anybody else: it changes with the macro.

mod capture;

use sentinel_proto::{Money, Outcome, Payload};
use serde::Serialize;

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
    /// `cost_usd`, in nano-dollars.
    pub cost_nanos: u64,
    /// `tags`.
    pub tags: &'static [&'static str],
}

impl Declared {
    /// Begins the action, or denies it.
    ///
    /// # Errors
    /// It must not run.
    pub fn begin_blocking(self, inputs: Inputs) -> Result<Guard, Error> {
        self.action(inputs)?.begin_blocking()
    }

    /// Begins the action, or denies it.
    ///
    /// # Errors
    /// It must not run.
    pub async fn begin(self, inputs: Inputs) -> Result<AsyncGuard, Error> {
        self.action(inputs)?.begin().await
    }

    fn action(self, inputs: Inputs) -> Result<Action, Error> {
        let client = Client::of_process();
        // The macro has checked the amount; if it is wrong all the same, the action is denied.
        let cost = Money::from_nanos(self.cost_nanos).map_err(|error| {
            let reason = sentinel_proto::Reason::InvalidRequest { cause: error.to_string() };
            Error::denied(self.name, sentinel_proto::Denial { reason, rule: None }, client.clone())
        })?;
        let action = client.action(self.name).cost(cost).recorded_inputs(inputs.payload());
        Ok(self.tags.iter().fold(action, |action, tag| action.tag(*tag)))
    }
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

/// Calls a body once, so that it may return what it has of its arguments.
pub fn call<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// Ends an action whose body returned a value.
pub fn succeeded(guard: Guard, outputs: Option<Captured>) {
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
pub async fn succeeded_async(guard: AsyncGuard, outputs: Option<Captured>) {
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
