//! An action in flight: from the agent's *allow* to the word how it ended.
//!
//! Invariant: each action is ended exactly once, and only by the process that began it, whatever becomes of its guard:
//! ended with a word, dropped, unwound by a panic, or dropped with the future that held it.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use sentinel_proto::app::{End, Ended, Reply, Request, RequestId};
use sentinel_proto::{ActionId, Annotations, Money, Outcome, Payload, Reason, encode_frame};
use serde::Serialize;

use crate::client::{Client, Link, answered};
use crate::error::Error;
use crate::pool::{Connection, Deadline, Progress, Waiting, finish, own_pid};
use crate::record;
use crate::trace::ActionSpan;

/// An async guard that is dropped waits at most so long for its doors to shut: it blocks the runtime's thread.
const DROP_PATIENCE: Duration = Duration::from_millis(100);
/// A question about what was refused during an action takes some time to reach the agent, which counts back from then.
/// What was refused just before the action may be told too; nothing that was refused in it is left out.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// How far the word of an action's end got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The agent has settled it, and its doors are shut. Or its next agent, where that died meanwhile, has corrected what it had charged.
    Acknowledged,
    /// It had no doors, so nobody waited for the agent.
    Sent,
    /// It had ended before: it ran longer than the policy lets it, or the agent took it for abandoned. Its doors shut
    /// then.
    TooLate,
    /// The agent didn't confirm it. The action is over all the same: its connection is shut, the agent takes it for
    /// abandoned, and without an agent doors shut by themselves within five seconds.
    Unknown,
}

/// How an action ended, as its application tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did what it should.
    Success,
    /// It failed.
    Error,
    /// It was given up.
    Cancelled,
}

impl Ending {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Success => Outcome::Success,
            Self::Error => Outcome::Error,
            Self::Cancelled => Outcome::Cancelled,
        }
    }
}

/// An action that was begun by blocking code.
///
/// Dropped without a word it counts as `cancelled`, or as `panicked` while its thread panics. A guard that came into a
/// forked child says nothing there: the action is its parent's.
#[derive(Debug)]
#[must_use = "an action ends when its guard is dropped"]
pub struct Guard(InFlight);

/// An action that was begun by async code.
///
/// Dropped without a word, as when its future is cancelled, it counts as `cancelled`, or as `panicked` while its
/// thread panics. That drop can't wait in its task. So where the action had doors it blocks its thread until they are
/// shut, mostly for less than 0.1 ms and never for more than 100 ms; where it had none it just sends the word. The word
/// is with the kernel when the drop returns, or the connection is shut, which ends the action too.
#[derive(Debug)]
#[must_use = "an action ends when its guard is dropped"]
pub struct AsyncGuard(InFlight);

impl Guard {
    pub(crate) const fn new(in_flight: InFlight) -> Self {
        Self(in_flight)
    }

    /// The action's id, as in the ledger.
    #[must_use]
    pub const fn id(&self) -> ActionId {
        self.0.id
    }

    /// How long it has run.
    #[must_use]
    pub fn running_for(&self) -> Duration {
        self.0.began_at.elapsed()
    }

    /// What it really costs, in US dollars. Below the estimate the rest is given back, down to the policy's floor;
    /// above it everything is charged.
    ///
    /// # Errors
    /// That is no amount of money; the estimate stays.
    pub fn actual_cost_usd(&mut self, dollars: f64) -> Result<(), Error> {
        self.0.actual_cost_usd(dollars)
    }

    /// What else is to be recorded at its end, such as why it was done and with which data.
    pub fn annotate(&mut self, annotations: Annotations) {
        self.0.annotations = annotations;
    }

    /// It did what it should. `outputs` go to the ledger. Where it had doors they are shut when this returns.
    pub fn success<T: Serialize + ?Sized>(self, outputs: &T) -> Settlement {
        self.end(Outcome::Success, record::payload(outputs))
    }

    /// It failed. The error's text goes to the ledger.
    pub fn error<E: fmt::Display + ?Sized>(self, error: &E) -> Settlement {
        self.end(Outcome::Error, record::payload(&error.to_string()))
    }

    /// It was given up.
    pub fn cancel(self) -> Settlement {
        self.end(Outcome::Cancelled, Payload::null())
    }

    /// It never ran, whatever let it start. In embedded mode it is refunded; a host agent, which may have opened doors for it, takes it for given up.
    pub fn withdraw(self, cause: &str) -> Settlement {
        #[cfg(feature = "embedded")]
        if let Some(embedded) = self.0.client.clone().as_embedded() {
            let mut guard = self;
            guard.0.is_over = true;
            let settlement = match embedded.abort(guard.0.id, cause) {
                Ok(()) => Settlement::Acknowledged,
                Err(_unwritten) => Settlement::Unknown,
            };
            guard.0.span.ended(Outcome::Aborted, settlement);
            return settlement;
        }
        self.end(Outcome::Cancelled, record::payload(cause))
    }

    /// Ends it with outputs that somebody else has made JSON text of. What is no JSON is kept as a text.
    pub fn end_with_json(self, ending: Ending, outputs: &str) -> Settlement {
        self.end(ending.outcome(), record::bounded(outputs))
    }

    /// [`Guard::end_with_json`], without waiting for anybody.
    ///
    /// # Errors
    /// Something has to be waited for, and the action goes on. So it always is where a host agent has opened doors.
    #[cfg(feature = "embedded")]
    #[expect(clippy::result_large_err, reason = "it is the guard itself, which goes on")]
    pub fn end_at_once(mut self, ending: Ending, outputs: &str) -> Result<Settlement, Self> {
        self.0.ending = Some((ending.outcome(), record::bounded(outputs)));
        self.0.deliver_without_waiting().ok_or(self)
    }

    pub(crate) fn end(mut self, outcome: Outcome, outputs: Payload) -> Settlement {
        self.0.ending = Some((outcome, outputs));
        finish(self.0.deliver(Waiting::InThread))
    }

    pub(crate) const fn in_flight(&self) -> &InFlight {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0.is_over {
            finish(self.0.deliver(Waiting::InThread));
        }
    }
}

impl AsyncGuard {
    pub(crate) const fn new(in_flight: InFlight) -> Self {
        Self(in_flight)
    }

    /// The action's id, as in the ledger.
    #[must_use]
    pub const fn id(&self) -> ActionId {
        self.0.id
    }

    /// As [`Guard::actual_cost_usd`].
    ///
    /// # Errors
    /// That is no amount of money; the estimate stays.
    pub fn actual_cost_usd(&mut self, dollars: f64) -> Result<(), Error> {
        self.0.actual_cost_usd(dollars)
    }

    /// As [`Guard::annotate`].
    pub fn annotate(&mut self, annotations: Annotations) {
        self.0.annotations = annotations;
    }

    /// It did what it should. `outputs` go to the ledger. Where it had doors they are shut when this is done.
    pub async fn success<T: Serialize + ?Sized>(self, outputs: &T) -> Settlement {
        let outputs = record::payload(outputs);
        self.end(Outcome::Success, outputs).await
    }

    /// It failed. The error's text goes to the ledger.
    pub async fn error<E: fmt::Display + ?Sized>(self, error: &E) -> Settlement {
        let outputs = record::payload(&error.to_string());
        self.end(Outcome::Error, outputs).await
    }

    /// It was given up.
    pub async fn cancel(self) -> Settlement {
        self.end(Outcome::Cancelled, Payload::null()).await
    }

    /// Also when this future is dropped half way, that is how the action ends.
    pub(crate) async fn end(mut self, outcome: Outcome, outputs: Payload) -> Settlement {
        self.0.ending = Some((outcome, outputs));
        self.0.deliver(Waiting::of_caller()).await
    }

    pub(crate) const fn in_flight(&self) -> &InFlight {
        &self.0
    }
}

impl Drop for AsyncGuard {
    fn drop(&mut self) {
        if !self.0.is_over {
            self.0.deliver_at_once();
        }
    }
}

/// What both guards hold.
#[derive(Debug)]
pub(crate) struct InFlight {
    client: Client,
    /// The one that it was begun on: the agent takes it for abandoned when that closes.
    connection: Link,
    id: ActionId,
    /// Whether it has doors, so that its end is waited for.
    has_doors: bool,
    pid: u32,
    began_at: Instant,
    /// A guard that begins and is dropped while its thread panics has not panicked itself.
    began_panicking: bool,
    actual_cost: Option<Money>,
    annotations: Annotations,
    /// How it ended, once that is known.
    ending: Option<(Outcome, Payload)>,
    /// Whether the agent was told, as far as it can be.
    is_over: bool,
    span: ActionSpan,
}

impl InFlight {
    pub(crate) fn new(client: Client, connection: Link, id: ActionId, has_doors: bool) -> Self {
        Self {
            client,
            connection,
            id,
            has_doors,
            pid: own_pid(),
            began_at: Instant::now(),
            began_panicking: std::thread::panicking(),
            actual_cost: None,
            annotations: Annotations::default(),
            ending: None,
            is_over: false,
            span: ActionSpan::default(),
        }
    }

    /// The same action, whose end is told in this span.
    pub(crate) fn in_span(self, span: ActionSpan) -> Self {
        Self { span, ..self }
    }

    pub(crate) const fn span(&self) -> &ActionSpan {
        &self.span
    }

    pub(crate) const fn id(&self) -> ActionId {
        self.id
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// How far back it began, seen from when a question reaches the agent.
    pub(crate) fn reach(&self) -> Duration {
        self.began_at.elapsed().saturating_add(ON_ITS_WAY)
    }

    fn actual_cost_usd(&mut self, dollars: f64) -> Result<(), Error> {
        let cost = Money::from_dollars(dollars).map_err(|error| {
            Error::invalid(
                "actual cost",
                Reason::InvalidRequest { cause: error.to_string() },
                self.client.clone(),
            )
        })?;
        self.actual_cost = Some(cost);
        Ok(())
    }

    /// How it ended; one that nobody says a word about was given up.
    fn outcome(&self) -> Outcome {
        match &self.ending {
            Some((outcome, _)) => *outcome,
            None if std::thread::panicking() && !self.began_panicking => Outcome::Panicked,
            None => Outcome::Cancelled,
        }
    }

    fn message(&self, request: Option<RequestId>) -> Request {
        let outcome = self.outcome();
        let outputs = self.ending.as_ref().map_or_else(Payload::null, |(_, outputs)| outputs.clone());
        let annotations = self.annotations.clone().boxed();
        Request::End(End {
            request,
            action_id: self.id,
            outcome,
            cost_usd: self.actual_cost,
            outputs,
            annotations,
        })
    }

    /// Tells the agent, and waits for it where there were doors. To say it twice is harmless: the first counts.
    async fn deliver(&mut self, waiting: Waiting) -> Settlement {
        let settlement = match &self.connection {
            _ if self.pid != own_pid() => Settlement::Unknown,
            Some(connection) if !self.has_doors => self.send(connection, waiting).await,
            Some(_) | None => self.ask_to_settle(waiting, Deadline::after(self.client.patience())).await,
        };
        self.is_over = true;
        self.make_sure(settlement);
        self.tell(settlement);
        settlement
    }

    async fn send(&self, connection: &Connection, waiting: Waiting) -> Settlement {
        let deadline = Deadline::after(self.client.patience());
        let sent = match encode_frame(&self.message(None)) {
            Ok(frame) => connection.send_whole(&frame, waiting, deadline).await,
            Err(unwritable) => Err(io::Error::other(unwritable)),
        };
        match sent {
            Ok(()) => Settlement::Sent,
            // The agent that let it start is gone; the next one has it as interrupted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.ask_to_settle(waiting, deadline).await
            }
            Err(_) => Settlement::Unknown,
        }
    }

    /// Tells whoever decides, if nothing has to be waited for. None: something has to, and nobody was told.
    #[cfg(feature = "embedded")]
    fn deliver_without_waiting(&mut self) -> Option<Settlement> {
        let settlement = match &self.connection {
            _ if self.pid != own_pid() => Settlement::Unknown,
            None => settled(self.client.as_embedded()?.answer_at_once(self.message(Some(0)))?),
            Some(_) if self.has_doors => return None,
            Some(connection) => {
                let frame = encode_frame(&self.message(None)).ok()?;
                connection.send_at_once(&frame).then_some(Settlement::Sent)?
            }
        };
        self.is_over = true;
        self.tell(settlement);
        Some(settlement)
    }

    async fn ask_to_settle(&self, waiting: Waiting, deadline: Deadline) -> Settlement {
        let request = |number| self.message(Some(number));
        let reply = self.client.ask_until(request, self.connection.as_ref(), waiting, deadline).await;
        answered(reply).map_or(Settlement::Unknown, settled)
    }

    /// Tells the agent without waiting in a task.
    fn deliver_at_once(&mut self) {
        self.is_over = true;
        if self.pid == own_pid() {
            let settlement = self.settle_at_once();
            self.tell(settlement);
        }
    }

    fn settle_at_once(&self) -> Settlement {
        let ask = || finish(self.ask_to_settle(Waiting::InThread, Deadline::after(DROP_PATIENCE)));
        let Some(connection) = &self.connection else { return ask() };
        if self.has_doors {
            let settlement = ask();
            if settlement != Settlement::Unknown {
                return settlement;
            }
        }
        let sent = match encode_frame(&self.message(None)) {
            Ok(frame) => matches!(connection.send(&frame), Ok(Progress::Sent)),
            Err(_unwritable) => false,
        };
        if sent {
            return Settlement::Sent;
        }
        connection.shut();
        Settlement::Unknown
    }

    /// Tells the program's own log. A forked child has nothing to tell of its parent's actions.
    fn tell(&self, settlement: Settlement) {
        if self.pid == own_pid() {
            self.span.ended(self.outcome(), settlement);
        }
    }

    /// An end that the agent didn't get is told by the connection's end.
    fn make_sure(&self, settlement: Settlement) {
        if settlement == Settlement::Unknown
            && self.pid == own_pid()
            && let Some(connection) = &self.connection
        {
            connection.shut();
        }
    }
}

/// What an answer to the word of an action's end says.
fn settled(reply: Reply) -> Settlement {
    match reply {
        Reply::Ended(Ended { settled: true, .. }) => Settlement::Acknowledged,
        Reply::Ended(Ended { settled: false, .. }) => Settlement::TooLate,
        _ => Settlement::Unknown,
    }
}
