//! An action that was let start. Whatever becomes of it, the agent is told.

use std::sync::Arc;

use sentinel_proto::app::{End, Request};
use sentinel_proto::{ActionId, Money, Outcome, Payload};
use serde::Serialize;

use crate::{Error, asynchronous, blocking, record};

/// What both guards know of their action.
#[derive(Debug)]
struct Started {
    action_id: ActionId,
    /// It has doors open: the end is waited for, and the doors are shut when it returns.
    acknowledge_end: bool,
    actual_cost: Option<Money>,
    ended: bool,
}

impl Started {
    fn end(&mut self, request: Option<u64>, outcome: Outcome, outputs: Payload) -> End {
        self.ended = true;
        End { request, action_id: self.action_id, outcome, cost_usd: self.actual_cost, outputs }
    }

    /// How it ends if nobody says so.
    fn unsaid() -> Outcome {
        if std::thread::panicking() { Outcome::Panicked } else { Outcome::Cancelled }
    }

    fn set_cost(&mut self, dollars: f64) -> Result<(), Error> {
        self.actual_cost = Some(Money::from_dollars(dollars).map_err(Error::invalid)?);
        Ok(())
    }
}

/// A started action of a thread that waits. Dropped without a word it counts as cancelled, or as panicked during a panic.
#[derive(Debug)]
#[must_use = "the action ends when its guard is dropped"]
pub struct Guard {
    connection: Arc<blocking::Connection>,
    started: Started,
}

impl Guard {
    pub(crate) fn new(
        connection: Arc<blocking::Connection>,
        action_id: ActionId,
        acknowledge_end: bool,
    ) -> Self {
        Self { connection, started: Started { action_id, acknowledge_end, actual_cost: None, ended: false } }
    }

    /// The action's id in the ledger.
    #[must_use]
    pub fn action_id(&self) -> ActionId {
        self.started.action_id
    }

    /// What it really cost, in dollars. Never charged below the policy's floor.
    ///
    /// # Errors
    /// No amount of money.
    pub fn actual_cost_usd(&mut self, dollars: f64) -> Result<(), Error> {
        self.started.set_cost(dollars)
    }

    /// It has succeeded. Its doors are shut when this returns.
    pub fn success<T: Serialize + ?Sized>(mut self, outputs: &T) {
        self.end(Outcome::Success, record::payload(outputs));
    }

    /// It has failed. Its doors are shut when this returns.
    pub fn error<T: Serialize + ?Sized>(mut self, outputs: &T) {
        self.end(Outcome::Error, record::payload(outputs));
    }

    /// It was given up. Its doors are shut when this returns.
    pub fn cancel(mut self) {
        self.end(Outcome::Cancelled, Payload::null());
    }

    fn end(&mut self, outcome: Outcome, outputs: Payload) {
        if self.started.acknowledge_end {
            let end = self.started.end(None, outcome, outputs);
            let answer =
                self.connection.request(|number| Request::End(End { request: Some(number), ..end.clone() }));
            // Without an answer the doors close with the connection, which is broken now, or with the agent's heartbeat.
            drop(answer);
        } else {
            let end = self.started.end(None, outcome, outputs);
            self.connection.tell(&Request::End(end));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.started.ended {
            self.end(Started::unsaid(), Payload::null());
        }
    }
}

/// A started action of an asynchronous caller. Dropped without a word, as when its future is cancelled, it counts as cancelled (or as
/// panicked): the end is queued at once, but nobody waits until the doors are shut.
#[derive(Debug)]
#[must_use = "the action ends when its guard is dropped"]
pub struct AsyncGuard {
    connection: Arc<asynchronous::Connection>,
    started: Started,
}

impl AsyncGuard {
    pub(crate) fn new(
        connection: Arc<asynchronous::Connection>,
        action_id: ActionId,
        acknowledge_end: bool,
    ) -> Self {
        Self { connection, started: Started { action_id, acknowledge_end, actual_cost: None, ended: false } }
    }

    /// The action's id in the ledger.
    #[must_use]
    pub fn action_id(&self) -> ActionId {
        self.started.action_id
    }

    /// What it really cost, in dollars. Never charged below the policy's floor.
    ///
    /// # Errors
    /// No amount of money.
    pub fn actual_cost_usd(&mut self, dollars: f64) -> Result<(), Error> {
        self.started.set_cost(dollars)
    }

    /// It has succeeded. Its doors are shut when this returns.
    pub async fn success<T: Serialize + ?Sized>(mut self, outputs: &T) {
        let outputs = record::payload(outputs);
        self.end(Outcome::Success, outputs).await;
    }

    /// It has failed. Its doors are shut when this returns.
    pub async fn error<T: Serialize + ?Sized>(mut self, outputs: &T) {
        let outputs = record::payload(outputs);
        self.end(Outcome::Error, outputs).await;
    }

    async fn end(&mut self, outcome: Outcome, outputs: Payload) {
        let end = self.started.end(None, outcome, outputs);
        if self.started.acknowledge_end {
            // The order is queued before the first wait, so that a cancellation here loses nothing.
            drop(
                self.connection
                    .request(|number| Request::End(End { request: Some(number), ..end.clone() }))
                    .await,
            );
        } else {
            self.connection.tell(&Request::End(end));
        }
    }
}

impl Drop for AsyncGuard {
    fn drop(&mut self) {
        if !self.started.ended {
            let end = self.started.end(None, Started::unsaid(), Payload::null());
            self.connection.tell(&Request::End(end));
        }
    }
}
