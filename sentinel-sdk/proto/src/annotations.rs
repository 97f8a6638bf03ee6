//! What an application says about an action for the record.
//!
//! Invariant: nothing here is decided on. Whoever asks could have written anything.

use serde::{Deserialize, Serialize};

use crate::{ActionId, Label, Payload};

/// What an application says about an action for the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations {
    /// Which agent the application takes itself for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Label>,
    /// Which of its runs; what is recorded under one can be replayed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Label>,
    /// Which task it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Label>,
    /// Which mission the task belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mission_id: Option<Label>,
    /// The action in whose body this one began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ActionId>,
    /// Why it was done, with which data and by which model, as an object of the application's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliance_metadata: Option<Payload>,
}

impl Annotations {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As it stands in messages and facts: none where nothing is said. `null` says nothing.
    #[must_use]
    pub fn boxed(mut self) -> Option<Box<Self>> {
        self.compliance_metadata = self.compliance_metadata.filter(|metadata| *metadata != Payload::null());
        (!self.is_empty()).then(|| Box::new(self))
    }
}
