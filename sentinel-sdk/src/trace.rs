//! What the program's own log hears of its actions, by `tracing`: a span for each, and events in it.
//!
//! Invariant: what an action is called with, and what it comes to, isn't told here: that is the ledger's, where it is
//! kept within bounds and cleared of secrets. Where nobody listens, a span costs a few instructions.

use sentinel_proto::Outcome;
use tracing::field::{Empty, display};
use tracing::instrument::Instrumented;
use tracing::{Instrument as _, Span, debug, info_span, warn};

use crate::error::Error;
use crate::guard::{InFlight, Settlement};

/// Of the span and of its events.
const TARGET: &str = "sentinel_sdk";

/// The span of one action.
#[derive(Clone, Debug)]
pub(crate) struct ActionSpan(Span);

impl ActionSpan {
    pub(crate) fn of(action: &str) -> Self {
        Self(info_span!(target: TARGET, "guarded_action", action, id = Empty, outcome = Empty))
    }

    /// Tells whether the action may run; the span is its own from now on.
    pub(crate) fn told(self, begun: Result<InFlight, Error>) -> Result<InFlight, Error> {
        match begun {
            Ok(in_flight) => {
                self.0.record("id", display(in_flight.id()));
                debug!(target: TARGET, parent: &self.0, "allowed");
                Ok(in_flight.in_span(self))
            }
            Err(error) => {
                self.0.record("outcome", Outcome::Blocked.as_str());
                warn!(target: TARGET, parent: &self.0, reason = error.reason_code(), "{error}");
                Err(error)
            }
        }
    }

    /// Tells how the action ended.
    pub(crate) fn ended(&self, outcome: Outcome, settlement: Settlement) {
        self.0.record("outcome", outcome.as_str());
        if settlement == Settlement::Unknown {
            warn!(
                target: TARGET,
                parent: &self.0,
                outcome = outcome.as_str(),
                "ended, but the agent has not confirmed it: it takes the action for abandoned, and charges it in full"
            );
        } else {
            debug!(target: TARGET, parent: &self.0, outcome = outcome.as_str(), ?settlement, "ended");
        }
    }

    /// Tells that the real cost is none.
    pub(crate) fn kept_estimate(&self, error: &Error) {
        warn!(target: TARGET, parent: &self.0, "the estimated cost stays: {error}");
    }

    /// Runs a body in the span.
    pub(crate) fn in_scope<R>(&self, body: impl FnOnce() -> R) -> R {
        self.0.in_scope(body)
    }

    /// The same body, in the span whenever it runs.
    pub(crate) fn around<F>(&self, body: F) -> Instrumented<F> {
        body.instrument(self.0.clone())
    }
}

impl Default for ActionSpan {
    /// None: nothing is told.
    fn default() -> Self {
        Self(Span::none())
    }
}
