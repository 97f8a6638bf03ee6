//! An action about to be asked for.

use sentinel_proto::app::{Answer, Begin, Reply, Request, RequestId};
use sentinel_proto::{ActionName, Decision, Denial, Money, Payload, Reason, Tag};
use serde::Serialize;

use crate::{AsyncGuard, Error, Guard, asynchronous, blocking, record};

/// Names an action, without starting it. `#[guarded_action]` does this for a whole function.
pub fn action(name: &str) -> Action<'_> {
    Action { name, cost_usd: 0.0, tags: Vec::new(), inputs: Payload::null() }
}

/// An action about to be asked for.
#[derive(Clone, Debug)]
#[must_use = "an action is asked for by `begin` or `begin_blocking`"]
pub struct Action<'name> {
    name: &'name str,
    cost_usd: f64,
    tags: Vec<&'name str>,
    inputs: Payload,
}

impl<'name> Action<'name> {
    /// What it is expected to cost, in dollars. The policy may charge more, never less.
    pub fn cost_usd(mut self, dollars: f64) -> Self {
        self.cost_usd = dollars;
        self
    }

    /// One more tag.
    pub fn tag(mut self, tag: &'name str) -> Self {
        self.tags.push(tag);
        self
    }

    /// More tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = &'name str>) -> Self {
        self.tags.extend(tags);
        self
    }

    /// What it is called with, for the ledger.
    pub fn inputs<T: Serialize + ?Sized>(mut self, inputs: &T) -> Self {
        self.inputs = record::payload(inputs);
        self
    }

    /// Asks whether it may start, and waits for the answer.
    ///
    /// # Errors
    /// It may not, or there is no answer: the body must not run.
    pub fn begin_blocking(self) -> Result<Guard, Error> {
        let name = self.name;
        let begin = self.message().map_err(|error| error.of_action(name))?;
        let asked = blocking::ask(|request| Request::Begin(Begin { request, ..begin.clone() }));
        let (connection, reply) = asked.map_err(|error| error.of_action(name))?;
        let answer = allowed(name, reply)?;
        Ok(Guard::new(connection, answer.0, answer.1))
    }

    /// Asks whether it may start.
    ///
    /// # Errors
    /// It may not, or there is no answer: the body must not run.
    pub async fn begin(self) -> Result<AsyncGuard, Error> {
        let name = self.name;
        let begin = self.message().map_err(|error| error.of_action(name))?;
        let connection = asynchronous::connection().await.map_err(|error| error.of_action(name))?;
        let asked = connection.request(|request| Request::Begin(Begin { request, ..begin.clone() })).await;
        let answer = allowed(name, asked.map_err(|error| error.of_action(name))?)?;
        Ok(AsyncGuard::new(connection, answer.0, answer.1))
    }

    fn message(&self) -> Result<Begin, Error> {
        const FILLED_IN_LATER: RequestId = 0;
        let tags: Result<Vec<Tag>, _> = self.tags.iter().map(|tag| Tag::new(*tag)).collect();
        Ok(Begin {
            request: FILLED_IN_LATER,
            action: ActionName::new(self.name).map_err(Error::invalid)?,
            cost_usd: Money::from_dollars(self.cost_usd).map_err(Error::invalid)?,
            tags: tags.map_err(Error::invalid)?,
            inputs: self.inputs.clone(),
        })
    }
}

/// The id of an action that may run, and whether its end is acknowledged. Anything else than a clear yes is a no.
fn allowed(name: &str, reply: Reply) -> Result<(sentinel_proto::ActionId, bool), Error> {
    let Reply::Decision(answer) = reply else {
        return Err(Error::unavailable(format_args!("it answered a begin with {reply:?}")).of_action(name));
    };
    match *answer {
        Answer { decision: Decision::Allow, action_id: Some(action_id), acknowledge_end, .. } => {
            Ok((action_id, acknowledge_end))
        }
        Answer { denial: Some(denial), .. } => Err(Error::denied(name, denial)),
        Answer { decision, .. } => {
            let reason =
                Reason::InvalidRequest { cause: format!("the agent answered {decision:?} without a reason") };
            Err(Error::denied(name, Denial { reason, rule: None }))
        }
    }
}
